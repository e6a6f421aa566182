"""Layers: parameters and a graph over them, in a name scope. A layer applied twice shares its weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from flowgraph.errors import GraphError, ShapeError, shown
from flowgraph.graph import origin as origins
from flowgraph.graph.origin import scope
from flowgraph.graph.size import show_shape
from flowgraph.graph.tensor import Tensor
from flowgraph.nn.init import glorot_uniform, normal
from flowgraph.ops.contraction import add_bias, mul
from flowgraph.ops.indexing import gather
from flowgraph.ops.leaf import Initializer, as_tensor, parameter
from flowgraph.ops.shape import reshape


class Dense:
    """activation(x @ w + b) with w (inputs, outputs) and b (outputs,).

    The name is given because the first weights are drawn by it: two layers of one name and shape would begin
    equal.

    >>> import flowgraph as fg
    >>> hidden = fg.nn.Dense("hidden", 64, 32, fg.tanh)
    >>> hidden(fg.input("x", ("batch", 64)))
    <Tensor tanh: float32(batch, 32)>
    """

    def __init__(
        self,
        name: str,
        inputs: int,
        outputs: int,
        activation: Callable[[Tensor], Tensor] | None = None,
        *,
        init: Initializer | None = None,
        bias: bool = True,
        dtype: str = "float32",
    ) -> None:
        with scope(name):
            require_activation(activation)
            self.name, self.activation, self.inputs, self.outputs = name, activation, inputs, outputs
            self.w = parameter("w", (inputs, outputs), init or glorot_uniform(), dtype)
            self.b = parameter("b", (outputs,), dtype=dtype) if bias else None

    @property
    def parameters(self) -> list[Tensor]:
        return [self.w] if self.b is None else [self.w, self.b]

    def __repr__(self) -> str:
        return f"<Dense {self.name}: {self.inputs} to {self.outputs}>"

    def __call__(self, x: Any) -> Tensor:
        """x (..., inputs) to (..., outputs), as of a matrix (batch, inputs). ShapeError for another width."""
        if isinstance(x, tuple):
            problem = f"Dense {self.name!r} takes one tensor, got {len(x)}"
            hint = "outputs, state = lstm(x): a recurrent layer returns its outputs and its last state"
            raise GraphError(problem, where=origins.here(), hint=hint)
        x = as_tensor(x, what=f"Dense {self.name!r}")
        if not x.rank or x.shape[-1] != self.inputs:
            raise ShapeError(
                f"Dense {self.name!r} takes (..., {self.inputs}), got {show_shape(x.shape)}",
                where=origins.here(),
                hint="fg.nn.flatten makes one axis of all but the first" if x.rank > 2 else "",
            )
        with scope(self.name):
            z = mul(x if x.rank == 2 else reshape(x, (-1, self.inputs)), self.w)
            if self.b is not None:
                z = add_bias(z, self.b)
            z = z if x.rank == 2 else reshape(z, (*x.shape[:-1], self.outputs))
            return z if self.activation is None else self.activation(z)


class Embedding:
    """A vector (size,) for each of `count` numbers, a row of w (count, size): numbers (...) to (..., size).

    Rows begin with length 1 on average, N(0, 1/size), or as `init` says, which may be an array of vectors. The gradient
    touches the rows that were read, whatever the count. What is a number too large or negative, is said in `gather`.

    >>> import flowgraph as fg
    >>> words = fg.nn.Embedding("words", 20_000, 100)
    >>> words(fg.input("ids", ("batch", "time"), "int32"))
    <Tensor gather: float32(batch, time, 100)>
    """

    def __init__(
        self, name: str, count: int, size: int, *, init: Initializer | np.ndarray | None = None, dtype: str = "float32"
    ) -> None:
        with scope(name):
            self.name, self.count, self.size = name, count, size
            self.w = parameter("w", (count, size), normal(size**-0.5) if init is None else init, dtype)

    @property
    def parameters(self) -> list[Tensor]:
        return [self.w]

    def __repr__(self) -> str:
        return f"<Embedding {self.name}: {self.count} of {self.size}>"

    def __call__(self, ids: Any) -> Tensor:
        """Integers of any shape (...) to (..., size)."""
        with scope(self.name):
            return gather(self.w, ids)


def require_activation(activation: object) -> None:
    """Raise GraphError for what is neither a function nor None."""
    if activation is not None and not callable(activation):
        raise GraphError(
            f"an activation is a function of a tensor, such as fg.relu, got {shown(activation)}",
            where=origins.here(),
            hint=f"activation=fg.{activation}" if isinstance(activation, str) else "fg.tanh, fg.relu, fg.gelu, ...",
        )
