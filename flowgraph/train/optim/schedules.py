"""Learning rates as functions of the step, computed in the program: many native steps follow them exactly.

A schedule is called with the number of steps made so far, a scalar int64 tensor, and gives a scalar float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from flowgraph.backends.reference import evaluate_graph
from flowgraph.errors import GraphError
from flowgraph.graph import origin as origins
from flowgraph.graph.graph import Graph
from flowgraph.graph.tensor import Tensor
from flowgraph.ops.elementwise import add, cast, divide, less, multiply, subtract, where
from flowgraph.ops.functions import cos, power
from flowgraph.ops.leaf import constant
from flowgraph.ops.logic import floor_divide
from flowgraph.ops.piecewise import maximum, minimum


@dataclass(frozen=True)
class Schedule:
    """Base of learning rate schedules."""

    def __call__(self, step: Tensor) -> Tensor:
        """The rate at a step (a scalar int64, from 0), as a scalar float32."""
        raise NotImplementedError(type(self).__name__)

    def value(self, step: int) -> float:
        """The rate at a step, as a number.

        >>> round(Exponential(0.1, 0.5, every=10).value(20), 6)
        0.025
        """
        rate = self(constant(step, "int64"))
        return float(evaluate_graph(Graph((rate,)), {}, {})[rate])

    def _require(self, **least: float) -> None:
        for name, low in least.items():
            found = getattr(self, name)
            if not np.isfinite(found) or found < low:
                problem = f"{type(self).__name__}: {name} is at least {low:g}, got {found}"
                raise GraphError(problem, where=origins.here())


@dataclass(frozen=True)
class Constant(Schedule):
    """Always the same."""

    rate: float

    def __call__(self, step: Tensor) -> Tensor:
        return constant(self.rate, "float32")


@dataclass(frozen=True)
class StepDecay(Schedule):
    """rate, multiplied by `factor` after every `every` steps."""

    rate: float
    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        self._require(rate=0, every=1, factor=0)

    def __call__(self, step: Tensor) -> Tensor:
        return multiply(self.rate, power(constant(self.factor), cast(floor_divide(step, self.every), "float32")))


@dataclass(frozen=True)
class Exponential(Schedule):
    """rate * factor ** (step / every)."""

    rate: float
    factor: float
    every: int = 1

    def __post_init__(self) -> None:
        self._require(rate=0, every=1, factor=0)

    def __call__(self, step: Tensor) -> Tensor:
        return multiply(self.rate, power(constant(self.factor), divide(cast(step, "float32"), float(self.every))))


@dataclass(frozen=True)
class Polynomial(Schedule):
    """From `rate` to `end` in `steps` steps, as (1 - step / steps) ** exponent; then `end`. Linear by default."""

    rate: float
    steps: int
    end: float = 0.0
    exponent: float = 1.0

    def __post_init__(self) -> None:
        self._require(rate=0, steps=1, end=0, exponent=0)

    def __call__(self, step: Tensor) -> Tensor:
        left = maximum(subtract(1.0, divide(cast(step, "float32"), float(self.steps))), 0.0)
        return add(multiply(self.rate - self.end, power(left, self.exponent)), self.end)


@dataclass(frozen=True)
class Cosine(Schedule):
    """From `rate` to `end` along half a cosine in `steps` steps, then `end` (Loshchilov and Hutter 2017)."""

    rate: float
    steps: int
    end: float = 0.0

    def __post_init__(self) -> None:
        self._require(rate=0, steps=1, end=0)

    def __call__(self, step: Tensor) -> Tensor:
        done = minimum(divide(cast(step, "float32"), float(self.steps)), 1.0)
        return add(multiply((self.rate - self.end) / 2, add(cos(multiply(math.pi, done)), 1.0)), self.end)


@dataclass(frozen=True)
class Warmup(Schedule):
    """Up to what `then`, a schedule or a number, begins with in `steps` equal steps; then `then`, from its step 0."""

    steps: int
    then: Schedule | float

    def __post_init__(self) -> None:
        self._require(steps=1)

    def __call__(self, step: Tensor) -> Tensor:
        then = self.then if isinstance(self.then, Schedule) else Constant(self.then)
        part = divide(add(cast(step, "float32"), 1.0), float(self.steps))
        rising = multiply(part, then(constant(0, "int64")))
        later = then(maximum(subtract(step, self.steps), 0))
        return where(less(step, self.steps), rising, later)


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Up from peak / 25 to `peak` in the first three tenths of `steps`, then down to peak / 250,000, both along half a
    cosine (Smith and Topin 2018; the numbers are PyTorch's).
    """

    peak: float
    steps: int
    rising: float = 0.3

    def __post_init__(self) -> None:
        self._require(peak=0, steps=2, rising=0)

    def __call__(self, step: Tensor) -> Tensor:
        top = max(self.rising * self.steps - 1, 1.0)
        start, end = self.peak / 25, self.peak / 250_000
        now = cast(step, "float32")
        up = _between(start, self.peak, minimum(divide(now, top), 1.0))
        down = _between(self.peak, end, minimum(divide(subtract(now, top), max(self.steps - 1 - top, 1.0)), 1.0))
        return where(less(now, top), up, down)


def _between(a: float, b: float, part: Tensor) -> Tensor:
    """From a to b along half a cosine."""
    return add(multiply((a - b) / 2, add(cos(multiply(math.pi, part)), 1.0)), b)
