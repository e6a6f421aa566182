"""Optimisers: parameters and gradients in, their new values out, as graphs. State is parameters like any
other.

An optimiser knows nothing of data, batches or devices; what it returns goes into `updates` of `fg.compile`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from flowgraph.errors import GraphError, ShapeError
from flowgraph.graph import origin as origins
from flowgraph.graph.origin import scope
from flowgraph.graph.tensor import Tensor
from flowgraph.ops.elementwise import add, cast, multiply, subtract
from flowgraph.ops.leaf import Parameter, Storage, parameter


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
        if isinstance(learning_rate, Tensor):
            if learning_rate.shape != () or not learning_rate.dtype.is_float:
                raise ShapeError(
                    f"a learning rate is a floating-point scalar, got {learning_rate.type}",
                    where=origins.here(),
                )
            self.rate = learning_rate
        else:
            with scope("optimizer"):  # float64 holds the number as written for parameters of either dtype
                self.rate = parameter("learning_rate", (), init=np.zeros(()), dtype="float64")
            self.learning_rate = learning_rate

    @property
    def learning_rate(self) -> float:
        return float(self._storage_of_rate().read())

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        if not np.isfinite(value) or value < 0:
            raise GraphError(
                f"a learning rate is a finite number of at least 0, got {value}", where=origins.here()
            )
        self._storage_of_rate().write(np.asarray(value, self.rate.dtype.numpy))

    def updates(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> dict[Tensor, Tensor]:
        """New values of the parameters and of their velocities."""
        new: dict[Tensor, Tensor] = {}
        rates = {dtype: cast(self.rate, dtype) for dtype in dict.fromkeys(w.dtype for w in parameters)}
        for w, g in zip(parameters, gradients, strict=True):
            with origins.at(w.origin.by("optimizer")):
                if self.momentum:
                    with scope(f"optimizer/{w.op.label}"):
                        velocity = parameter("velocity", w.shape, dtype=w.dtype)
                    new[velocity] = moved = add(multiply(self.momentum, velocity), g)
                    g = add(g, multiply(self.momentum, moved)) if self.nesterov else moved
                new[w] = subtract(w, multiply(rates[w.dtype], g))
        return new

    def _storage_of_rate(self) -> Storage:
        if not isinstance(self.rate.op, Parameter):
            raise GraphError(
                "this learning rate is computed by the program, it has no value to read or set",
                where=self.rate.origin,
                hint="give SGD a number, or a parameter of your own",
            )
        storage: Storage = self.rate.op.storage
        return storage
