"""Layers: parameters and a graph over them, in a name scope. A layer applied twice shares its weights."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

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

ELSEWHERE = {  # what other libraries' layers have, and what those here have for it
    "weight": "w", "weights": "w", "kernel": "w", "bias": "b", "gamma": "scale", "beta": "shift",
    "running_mean": "mean", "running_var": "variance", "moving_mean": "mean", "moving_variance": "variance",
    "state_dict": "parameters", "trainable_variables": "parameters", "trainable_weights": "parameters",
}  # fmt: skip


class Layer:
    """What all layers with parameters are: they are named first, and are not themselves their parameters."""

    def __new__(cls, *given: Any, **settings: Any) -> Self:
        """Refuses a call without the name before Python says that some other argument is missing."""
        wanted = list(inspect.signature(cls.__init__).parameters.values())[1:]
        if given and not isinstance(given[0], str | None) and wanted and wanted[0].name == "name":
            needed = ", ".join(p.name for p in wanted if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD)
            raise GraphError(
                f"{cls.__name__}: a name is text, got {shown(given[0])}",
                where=origins.here(),
                hint=f"a layer's name comes first: {cls.__name__}({needed})",
            )
        return super().__new__(cls)

    if not TYPE_CHECKING:  # a checker shall find what is not there by itself

        def __iter__(self):
            """Python asks here where a layer is given for its parameters."""
            raise GraphError(
                f"{_called(self)} is a layer, no list",
                where=origins.here(),
                hint="layer.parameters are its parameters, layer(x) is its value for x",
            )

        def __getattr__(self, name: str) -> Any:
            """Python asks here for what a layer has not: what was meant, if it is another library's, and what it has.

            A dunder is asked for by copying and by displays, for all sorts of objects.
            """
            if hasattr(type(self), name):  # a property that failed by an error of its own
                return object.__getattribute__(self, name)
            has = sorted(n for n in {*vars(self), *dir(type(self))} if not n.startswith("_"))
            meant = ELSEWHERE.get(name)
            said = f"; use .{meant}" if meant in has else "" if name.startswith("_") else f"; it has {', '.join(has)}"
            raise AttributeError(f"{_called(self)} has no attribute {name!r}{said}", name=name, obj=self)


def _called(layer: Layer) -> str:
    return f"{type(layer).__name__} {vars(layer).get('name', '')!r}"


def one_tensor(layer: Layer, x: Any) -> Tensor:
    """What a layer is called with; GraphError for several tensors, as a recurrent layer returns them."""
    if isinstance(x, tuple):
        problem = f"{_called(layer)} takes one tensor, got a tuple of {len(x)}"
        raise GraphError(problem, where=origins.here(), hint=_unpacked(x))
    return as_tensor(x, what=_called(layer))


def _unpacked(given: tuple[Any, ...]) -> str:
    """How to take one tensor of what a layer returned, all of it or its state."""
    state = given[-1] if given and isinstance(given[-1], tuple) else given
    if any(isinstance(part, tuple) for part in state):
        return "outputs, (ahead, back) = bilstm(x): the last states of both directions, each a tuple"
    if len(state) == 1:
        return "outputs, (h,) = gru(x): the state of a GRU or an RNN is a tuple of one"
    if len({t.shape for t in state if isinstance(t, Tensor)}) == 1:
        return "outputs, (h, c) = lstm(x): a recurrent layer returns its outputs and its last state, a tuple"
    return "give it one of them"


class Dense(Layer):
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
        x = one_tensor(self, x)
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


class Embedding(Layer):
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
