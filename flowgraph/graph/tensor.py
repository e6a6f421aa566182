"""Nodes and tensors: an op applied to values, and the values it has.

A graph is immutable: a node is an op, its inputs, the types of its outputs, and its origin. A tensor is one
output of a node; tensors compare by identity. The only thing that may change is a tensor's `label`, its name
in pictures. Knows no op: an op is anything with `infer`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from flowgraph.errors import FlowgraphError, GraphError
from flowgraph.graph import origin as origins
from flowgraph.graph.origin import Origin
from flowgraph.graph.size import Shape
from flowgraph.graph.types import DType, TensorType

_serial = itertools.count()


class Operation(Protocol):
    """What the graph needs of an op; `ops.base.Op` is the real thing."""

    @property
    def name(self) -> str: ...

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]: ...

    def subgraphs(self) -> tuple[Any, ...]: ...


class Node:
    """An op applied to tensors. `serial` orders nodes by creation."""

    __slots__ = ("inputs", "op", "origin", "outputs", "serial")

    def __init__(
        self, op: Any, inputs: Sequence[Tensor], types: Sequence[TensorType], origin: Origin
    ) -> None:
        self.op = op
        self.inputs = tuple(inputs)
        self.origin = origin
        self.serial = next(_serial)
        self.outputs = tuple(Tensor(self, index, type_) for index, type_ in enumerate(types))

    def __repr__(self) -> str:
        return f"<{self.op.name} {', '.join(str(t.type) for t in self.outputs)} at {self.origin}>"


FUNCTIONS = {  # what arrays and other libraries' tensors have as methods
    **{name: f"fg.{name}(x)" for name in (
        "abs", "all", "any", "argmax", "argmin", "argsort", "clip", "cos", "cumsum", "exp", "flip", "log", "max",
        "mean", "min", "power", "ravel", "relu", "reshape", "round", "sign", "sin", "softmax", "sort", "sqrt", "square",
        "squeeze", "std", "sum", "tanh", "transpose", "var",
    )},
    "astype": "fg.cast(x, dtype)", "detach": "fg.stop_gradient(x)", "dim": ".rank", "dot": "x @ y",
    "flatten": "fg.nn.flatten(x)", "matmul": "x @ y", "ndim": ".rank", "permute": "fg.transpose(x, axes)",
    "pow": "x ** y", "sigmoid": "fg.logistic(x)", "size": ".shape", "t": ".T", "to": "fg.cast(x, dtype)",
    "unsqueeze": "fg.expand_dims(x, axis)", "view": "fg.reshape(x, shape)",
    "name": ".label", "item": "fg.compile(outputs=x)(...)", "numpy": "fg.compile(outputs=x)(...)",
    "backward": "fg.grad(cost, parameters)", "grad": "fg.grad(cost, parameters)",
}  # fmt: skip


class Tensor:
    """A symbolic value: output `index` of `node`, with a shape and a dtype known before anything runs."""

    __slots__ = {  # noqa: RUF023 what users need comes first
        "label": "Its name in pictures, messages and generated source, a parameter's with its scope; or None.",
        "type": "The shape and the dtype.",
        "node": "What computes it: an op, its inputs and the line they were put together in.",
        "index": "Which of the node's outputs it is.",
        "__weakref__": "",
    }
    if TYPE_CHECKING:  # a checker shall refuse np.exp(tensor); for who tries, see flowgraph.ops.operators
        __array_ufunc__ = None

    def __init__(self, node: Node, index: int, type_: TensorType) -> None:
        self.node, self.index, self.type = node, index, type_
        self.label: str | None = None

    @property
    def shape(self) -> Shape:
        return self.type.shape

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def rank(self) -> int:
        return self.type.rank

    @property
    def op(self) -> Any:
        return self.node.op

    @property
    def origin(self) -> Origin:
        return self.node.origin

    @property
    def value(self) -> Any:
        """The present value of a parameter, a NumPy array that is read-only; assign another one to set the parameter.

        Raises GraphError for any other tensor: its values exist only when a program runs.
        """
        return self._state("read").value()

    @value.setter
    def value(self, new: Any) -> None:
        self._state("set").assign(new)

    def _state(self, verb: str) -> Any:
        storage = getattr(self.op, "storage", None)
        if storage is None:
            raise GraphError(
                f"only a parameter has a value to {verb}, this is {self!r}",
                where=self.origin,
                hint="list the tensor in outputs=[...] of fg.compile and run the program to see its value",
            )
        return storage

    if not TYPE_CHECKING:  # a checker shall find what is not there by itself

        def __getattr__(self, name: str) -> Any:
            """Python asks here for what a tensor has not: which function was meant, if it is one."""
            meant = FUNCTIONS.get(name)
            problem = f"a Tensor has no attribute {name!r}" + (f"; use {meant}" if meant else "")
            # Given the object, Python itself suggests what is spelt alike, be it meant or not.
            raise AttributeError(problem, name=name) if meant else AttributeError(problem, name=name, obj=self)

        def __setitem__(self, key, new):
            raise GraphError(
                f"{self!r} is symbolic: nothing is assigned to its elements",
                where=origins.here(),
                hint="fg.where(condition, new, x) chooses, fg.scatter_add adds to rows; w.value = a sets a parameter",
            )

    def named(self, label: str) -> Tensor:
        """This tensor, shown as `label` in pictures and generated source."""
        self.label = label
        return self

    def __repr__(self) -> str:
        return f"<Tensor {self.label or self.op.name}: {self.type}>"

    def __bool__(self) -> bool:
        raise FlowgraphError(
            "a symbolic tensor has no truth value while the graph is being declared",
            where=origins.here(),
            hint="use fg.where(condition, a, b) to choose between values inside the graph",
        )

    def _has_no_value(self, verb: str) -> FlowgraphError:
        return FlowgraphError(
            f"{self!r} has no value to {verb}: it says what a program will compute",
            where=origins.here(),
            hint="fg.compile(outputs=tensor)(...) computes it; a parameter's value is .value",
        )

    def __float__(self) -> float:
        raise self._has_no_value("make a number of")

    def __int__(self) -> int:
        raise self._has_no_value("make a number of")

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise self._has_no_value("make a NumPy array of")

    def __len__(self) -> int:
        """The first size, where it is known before there are data."""
        size = self.shape[0] if self.shape else None
        if not isinstance(size, int):
            raise FlowgraphError(
                f"{self!r} has no length" + (f" before there are data: it is {size}" if size is not None else ""),
                where=origins.here(),
                hint="x.shape[0] is a size to declare shapes with, fg.size_of(x.shape[0]) its value in the graph",
            )
        return size

    def __iter__(self) -> Any:
        raise FlowgraphError(
            "a symbolic tensor cannot be iterated over",
            where=origins.here(),
            hint="its values exist only when a program runs",
        )

    if TYPE_CHECKING:  # installed by flowgraph.ops.operators: the graph itself knows no op

        def __add__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __matmul__(self, other: Any) -> Tensor: ...
        def __rmatmul__(self, other: Any) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __pow__(self, other: Any) -> Tensor: ...
        def __rpow__(self, other: Any) -> Tensor: ...
        def __floordiv__(self, other: Any) -> Tensor: ...
        def __rfloordiv__(self, other: Any) -> Tensor: ...
        def __mod__(self, other: Any) -> Tensor: ...
        def __rmod__(self, other: Any) -> Tensor: ...
        def __and__(self, other: Any) -> Tensor: ...
        def __or__(self, other: Any) -> Tensor: ...
        def __xor__(self, other: Any) -> Tensor: ...
        def __invert__(self) -> Tensor: ...
        def __abs__(self) -> Tensor: ...
        def __gt__(self, other: Any) -> Tensor: ...
        def __ge__(self, other: Any) -> Tensor: ...
        def __lt__(self, other: Any) -> Tensor: ...
        def __le__(self, other: Any) -> Tensor: ...
        def __getitem__(self, key: Any) -> Tensor: ...
        @property
        def T(self) -> Tensor: ...


def apply(op: Any, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Apply an op: infer the output types here and now, so that an error names the user's line."""
    origin = origins.here()
    try:
        types = op.infer(*(t.type for t in inputs))
    except FlowgraphError as error:
        if error.where is None:
            error.where = origin
        raise
    return Node(op, inputs, types, origin).outputs
