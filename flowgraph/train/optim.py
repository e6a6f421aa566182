"""Optimisers: parameters and gradients in, their new values out, as graphs. State is parameters like any
other.

An optimiser knows nothing of data, batches or devices; what it returns goes into `updates` of `fg.compile`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from flowgraph.errors import GraphError, ShapeError
from flowgraph.graph import origin as origins
from flowgraph.graph.origin import scope
from flowgraph.graph.tensor import Tensor
from flowgraph.graph.types import DType, float32
from flowgraph.ops.elementwise import add, cast, multiply, subtract
from flowgraph.ops.leaf import parameter


class Optimizer(Protocol):
    """What the trainer needs of an optimiser."""

    @property
    def learning_rate(self) -> float: ...

    @learning_rate.setter
    def learning_rate(self, value: float) -> None: ...

    def updates(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> dict[Tensor, Tensor]:
        """New values of the parameters, and of the optimiser's own state."""
        ...


class SGD:
    """Stochastic gradient descent: w <- w - rate·g; with momentum v <- momentum·v + g and w <- w - rate·v.

    As in PyTorch, without dampening; `nesterov` steps by g + momentum·v instead of v (Sutskever et al. 2013).
    The rate is a value in memory, not a constant of the kernels: setting `learning_rate` between steps
    compiles nothing anew. It may also be a scalar tensor, which the program then computes at every step.
    The number is one for all that the optimiser updates: what shall have a rate of its own needs an SGD of
    its own, one to a trainer.

    >>> import flowgraph as fg
    >>> w = fg.parameter("w", (3,))
    >>> fg.optim.SGD(0.1).updates([w], [2.0 * w])[w]
    <Tensor subtract: float32(3,)>
    """

    def __init__(self, learning_rate: float | Tensor, momentum: float = 0.0, nesterov: bool = False) -> None:
        if not 0.0 <= momentum < 1.0:
            raise GraphError(f"momentum is at least 0 and below 1, got {momentum}", where=origins.here())
        if nesterov and not momentum:
            raise GraphError("nesterov needs momentum", where=origins.here(), hint="for example momentum=0.9")
        self.momentum, self.nesterov = momentum, nesterov
        self._computed = learning_rate if isinstance(learning_rate, Tensor) else None
        self._rates: dict[DType, Tensor] = {}  # the number, as a parameter of each dtype that was asked for
        self._number = 0.0
        if self._computed is None:
            self.learning_rate = learning_rate
        elif self._computed.shape != () or not self._computed.dtype.is_float:
            problem = f"a learning rate is a floating-point scalar, got {self._computed.type}"
            raise ShapeError(problem, where=origins.here())

    @property
    def learning_rate(self) -> float:
        self._require_number()
        return self._number

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self._require_number()
        if not np.isfinite(value) or value < 0:
            problem = f"a learning rate is a finite number of at least 0, got {value}"
            raise GraphError(problem, where=origins.here())
        self._number = float(value)
        for rate in self._rates.values():
            rate.value = self._number

    def updates(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> dict[Tensor, Tensor]:
        """New values of the parameters and of their velocities."""
        new: dict[Tensor, Tensor] = {}
        for w, g in zip(parameters, gradients, strict=True):
            with origins.at(w.origin.by("optimizer")):
                if self.momentum:
                    with scope(f"optimizer/{w.op.label}"):
                        velocity = parameter("velocity", w.shape, dtype=w.dtype)
                    new[velocity] = moved = add(multiply(self.momentum, velocity), g)
                    g = add(g, multiply(self.momentum, moved)) if self.nesterov else moved
                new[w] = subtract(w, multiply(self._rate(w.dtype), g))
        return new

    def _rate(self, dtype: DType) -> Tensor:
        if self._computed is not None:
            return cast(self._computed, dtype)
        if dtype not in self._rates:
            name = "learning_rate" if dtype is float32 else f"learning_rate_{dtype}"
            with scope("optimizer"):
                self._rates[dtype] = parameter(name, (), np.asarray(self._number), dtype)
        return self._rates[dtype]

    def _require_number(self) -> None:
        if self._computed is not None:
            raise GraphError(
                "this learning rate is computed by the program, it has no value to read or set",
                where=self._computed.origin,
                hint="give SGD a number, or a parameter of your own",
            )
