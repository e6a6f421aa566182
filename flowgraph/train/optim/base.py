"""What all optimisers share: the learning rate, clipping, weight decay, state, and when steps count.

An optimiser turns parameters and gradients into their new values, as graphs; its state is parameters like any other.
It knows nothing of data, batches or devices: what it returns goes into `updates` of `fg.compile`.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, Protocol, Self

import numpy as np

from flowgraph.errors import GraphError, ShapeError, shown
from flowgraph.graph import origin as origins
from flowgraph.graph.origin import scope
from flowgraph.graph.tensor import Tensor
from flowgraph.graph.types import DType, float32
from flowgraph.ops.base import require_known
from flowgraph.ops.elementwise import add, cast, divide, multiply
from flowgraph.ops.functions import sqrt
from flowgraph.ops.leaf import parameter
from flowgraph.ops.pieces import stack
from flowgraph.ops.piecewise import clip, minimum
from flowgraph.ops.reduce import sum as sum_
from flowgraph.train.optim.schedules import Schedule


class Optimizer(Protocol):
    """What the trainer needs of an optimiser."""

    @property
    def learning_rate(self) -> float: ...

    @learning_rate.setter
    def learning_rate(self, value: float) -> None: ...

    @property
    def number(self) -> float | None:
        """The learning rate if it is a number that may be set, else None."""
        ...

    def updates(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> dict[Tensor, Tensor]:
        """New values of the parameters, and of the optimiser's own state."""
        ...


OFTEN_CALLED = {  # elsewhere
    "lr": "learning_rate",
    "rate": "learning_rate",
    "eps": "epsilon",
    "rho": "alpha",
    "decay": "weight_decay",
    "clipnorm": "clip_norm",
    "max_norm": "clip_norm",
    "clipvalue": "clip_value",
    "initial_accumulator_value": "initial",
    "beta_1": "betas",
    "beta_2": "betas",
}


class GradientDescent:
    """Base of the optimisers here. Subclasses say in `step` what one parameter becomes.

    `learning_rate` is a number, a `Schedule` (a function of the step, computed in the program at every step), or a
    scalar tensor of your own. A number is a value in memory, not a constant of the kernels: setting it between steps
    compiles nothing anew. It is one for all that the optimiser updates: what shall have a rate of its own needs an
    optimiser of its own, one to a trainer.

    `clip_value` limits every element of the gradients to [-clip_value, clip_value]; `clip_norm` scales all gradients
    together so that their joint Euclidean norm is at most that (Pascanu et al. 2013). Where both are given, elements
    are limited first.
    """

    def __new__(cls, *_: Any, **settings: Any) -> Self:
        """Refuses a setting that neither the class nor its bases name, and says which one was meant."""
        require_known(cls.__name__, settings, cls._settings(), OFTEN_CALLED)
        return super().__new__(cls)

    def __init__(
        self,
        learning_rate: float | Tensor | Schedule,
        weight_decay: float = 0.0,
        clip_value: float | None = None,
        clip_norm: float | None = None,
    ) -> None:
        require("weight_decay", weight_decay, low=0.0)
        for name, limit in (("clip_value", clip_value), ("clip_norm", clip_norm)):
            if limit is not None:
                require(name, limit, above=0.0)
        self.weight_decay, self.clip_value, self.clip_norm = weight_decay, clip_value, clip_norm
        self._given = learning_rate if isinstance(learning_rate, (Tensor, Schedule)) else None
        self._rates: dict[DType, Tensor] = {}  # the number, as a parameter of each dtype that was asked for
        self._number = 0.0
        self._count: Tensor | None = None
        if self._given is None:
            self.learning_rate = learning_rate
        elif isinstance(self._given, Tensor) and (self._given.shape != () or not self._given.dtype.is_float):
            problem = f"a learning rate is a floating-point scalar, got {self._given.type}"
            raise ShapeError(problem, where=origins.here())

    @classmethod
    def _settings(cls) -> dict[str, inspect.Parameter]:
        """What the class and its bases are made with."""
        known: dict[str, inspect.Parameter] = {}
        for base in reversed(cls.__mro__):
            if base is not object and "__init__" in vars(base):
                known |= inspect.signature(vars(base)["__init__"]).parameters
        return {n: p for n, p in known.items() if n != "self" and p.kind is not inspect.Parameter.VAR_KEYWORD}

    def __repr__(self) -> str:
        """As it is made: its numbers and its schedule's, without what is so by default."""
        rate = written(self._number if self._given is None else self._given)
        parts = [rate or "..."]
        for name, setting in self._settings().items():
            text = written(vars(self).get(name, setting.default))
            if name != "learning_rate" and text not in (None, written(setting.default)):
                parts.append(f"{name}={text}")
        return f"{type(self).__name__}({', '.join(parts)})"

    # the learning rate

    @property
    def learning_rate(self) -> float:
        """The number; of a schedule, what it is at the coming step."""
        if isinstance(self._given, Schedule):
            return self._given.value(0 if self._count is None else int(self._count.value))
        self._require_number()
        return self._number

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self._require_number()
        if not isinstance(value, (int, float, np.number)) or not np.isfinite(value) or value < 0:
            problem = f"a learning rate is a finite number of at least 0, got {shown(value)}"
            raise GraphError(problem, where=origins.here())
        self._number = float(value)
        for rate in self._rates.values():
            rate.value = self._number

    @property
    def number(self) -> float | None:
        """The learning rate that can be set, None if the program computes it."""
        return None if self._given is not None else self._number

    def _require_number(self) -> None:
        if self._given is not None:
            where = self._given.origin if isinstance(self._given, Tensor) else origins.here()
            raise GraphError(
                "this learning rate is computed by the program, it has no value to read or set",
                where=where,
                hint=f"give {type(self).__name__} a number, or a parameter of your own",
            )

    def rate(self, dtype: DType) -> Tensor:
        """The learning rate of this step, as a scalar tensor."""
        if isinstance(self._given, Schedule):
            return cast(self._given(self.count()), dtype)
        if self._given is not None:
            return cast(self._given, dtype)
        if dtype not in self._rates:
            name = "learning_rate" if dtype is float32 else f"learning_rate_{dtype}"
            with scope("optimizer"):
                self._rates[dtype] = parameter(name, (), np.asarray(self._number), dtype)
        return self._rates[dtype]

    # the step

    def count(self) -> Tensor:
        """How many steps were made before this one: a scalar int64 that counts up."""
        if self._count is None:
            with scope("optimizer"):
                self._count = parameter("step", (), np.zeros((), np.int64), "int64")
        return self._count

    def updates(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> dict[Tensor, Tensor]:
        """New values of the parameters and of the optimiser's state, all from what was there before the step."""
        new: dict[Tensor, Tensor] = {}
        for w, g in zip(parameters, self._clipped(parameters, gradients), strict=True):
            with made_for(w):
                new |= self.step(w, g)
        if self._count is not None:
            with origins.at(self._count.origin.by("optimizer")):
                new[self._count] = add(self._count, 1)
        return new

    def step(self, w: Tensor, g: Tensor) -> dict[Tensor, Tensor]:
        """The new value of one parameter, and of the state that is kept for it."""
        raise NotImplementedError(type(self).__name__)

    def decayed(self, w: Tensor, g: Tensor) -> Tensor:
        """The gradient of cost + weight_decay/2 * |w|^2: decay coupled with the gradient."""
        return add(g, multiply(self.weight_decay, w)) if self.weight_decay else g

    def _clipped(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor]:
        found = list(gradients)
        if self.clip_value is not None:
            for k, w in enumerate(parameters):
                with made_for(w):
                    found[k] = clip(found[k], -self.clip_value, self.clip_value)
        if self.clip_norm is not None and found:
            squares = []
            for w, g in zip(parameters, found, strict=True):
                with made_for(w):
                    squares.append(cast(sum_(multiply(g, g)), found[0].dtype))
            with made_for(parameters[0]):
                total = sum_(stack(squares))  # not one added to the other: so none waits for another
                # as PyTorch: the small number keeps a gradient of 0 from being divided by 0
                factor = minimum(divide(self.clip_norm, add(sqrt(total), 1e-6)), 1.0)
            for k, w in enumerate(parameters):
                with made_for(w):
                    found[k] = multiply(cast(factor, found[k].dtype), found[k])
        return found


def written(value: Any) -> str | None:
    """A setting as it is written: numbers and text, tuples of them, a schedule by its own. None for anything else."""
    if isinstance(value, Schedule):
        parts = [written(getattr(value, f.name)) for f in fields(value)]
        return f"{type(value).__name__}({', '.join(part for part in parts if part is not None)})"
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (list, tuple)):
        parts = [written(v) for v in value]
        return None if None in parts else f"({', '.join(map(str, parts))})"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return repr(float(value)).removesuffix(".0")  # 0 and 0.0 are the same setting
    return repr(value) if value is None or isinstance(value, (bool, str)) else None


@contextmanager
def made_for(w: Tensor) -> Any:
    """What is made inside comes from a parameter's line, by the optimiser."""
    with origins.at(w.origin.by("optimizer")):
        yield


def state(name: str, w: Tensor) -> Tensor:
    """Zeros like a parameter, kept for it: optimizer/<its name>/<name>."""
    with scope(f"optimizer/{w.op.label}"):
        return parameter(name, w.shape, dtype=w.dtype)


def require(
    name: str, value: float, low: float | None = None, above: float | None = None, below: float | None = None
) -> None:
    """Raise GraphError for a number out of its range, or NaN."""
    if not isinstance(value, (int, float, np.number)) or isinstance(value, bool):
        raise GraphError(f"{name} is a number, got {shown(value)}", where=origins.here())
    fits = np.isfinite(value) and (low is None or value >= low) and (above is None or value > above)
    if not fits or (below is not None and value >= below):
        parts = [f"at least {low:g}"] if low is not None else [] if above is not None else ["finite"]
        parts += [f"above {above:g}"] if above is not None else []
        parts += [f"below {below:g}"] if below is not None else []
        raise GraphError(f"{name} is {' and '.join(parts)}, got {value}", where=origins.here())
