"""Elementwise ops: one scalar function at every element. Operands have equal types; `fg.*` functions
broadcast first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from flowgraph.errors import DTypeError, GraphError, shown
from flowgraph.graph import origin as origins
from flowgraph.graph.size import Size
from flowgraph.graph.tensor import Tensor, apply
from flowgraph.graph.types import DType, TensorType, as_dtype, boolean
from flowgraph.index_notation import Body, call
from flowgraph.index_notation import cast as cast_expr
from flowgraph.ops.base import (
    Cotangents,
    Op,
    Sample,
    axes_for,
    indices,
    load,
    require_float,
    require_numbers,
    require_same,
    values,
)
from flowgraph.ops.leaf import as_tensor, known_dtype
from flowgraph.ops.shape import broadcast_operands, repeated


@dataclass(frozen=True)
class Elementwise(Op):
    """One scalar function applied at every element; `function` is its name in index notation."""

    family: ClassVar[str] = "elementwise"
    function: ClassVar[str] = ""
    integers: ClassVar[bool] = False  # defined on integers too?

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        if self.integers:
            require_numbers(self, *types)
        else:
            require_float(self, *types)
        require_same(self, *types)
        return (types[0],)

    def body(self, *types: TensorType) -> Body:
        axes = axes_for(types[0].shape)
        loads = [load(k, t, indices(axes)) for k, t in enumerate(types)]
        return Body(axes, call(self.function, *loads))

    def over_turns(self, inputs: Sequence[Tensor], stacked: Sequence[bool], turns: Size) -> Tensor | None:
        same = zip(inputs, stacked, strict=True)
        return apply(self, *(repeated(x, is_stacked, turns) for x, is_stacked in same))[0]

    @classmethod
    def _samples(cls, arity: int, low: float = -2.0, high: float = 2.0) -> list[Sample]:
        made = [
            Sample(cls(), tuple(values(*shape, low=low, high=high, seed=k) for k in range(arity)))
            for shape in ((29, 17), (3,), (), (1, 1), (2, 3, 5), (70,))
        ]
        made.append(
            Sample(
                cls(), tuple(values(5, 33, low=low, high=high, dtype="float64", seed=k) for k in range(arity))
            )
        )
        return made


    @classmethod
    def _few(cls, arity: int, low: float = -2.0, high: float = 2.0) -> list[Sample]:
        """Fewer samples: for ops whose scalar function is all that is their own."""
        cases: list[tuple[tuple[int, ...], str]] = [((3, 17), "float32"), ((), "float32"), ((33,), "float64")]
        return [
            Sample(cls(), tuple(values(*shape, low=low, high=high, dtype=t, seed=k) for k in range(arity)))
            for shape, t in cases
        ]

    @classmethod
    def _edges(cls, *operands: Sequence[float]) -> Sample:
        """One sample of special values, which have no derivative."""
        return Sample(cls(), tuple(np.array(o, np.float32) for o in operands), smooth=())


# Arithmetic


@dataclass(frozen=True)
class Add(Elementwise):
    """x + y, elementwise."""

    name: ClassVar[str] = "add"
    display: ClassVar[str] = "+"
    function: ClassVar[str] = "add"
    integers: ClassVar[bool] = True

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,) = cotangents
        return g, g

    def reference(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.add(x, y)

    @classmethod
    def samples(cls) -> list[Sample]:
        ints = (
            values(7, 5, low=-9, high=9, dtype="int32"),
            values(7, 5, low=-9, high=9, dtype="int32", seed=1),
        )
        return [*cls._samples(2), Sample(cls(), ints)]


@dataclass(frozen=True)
class Accumulate(Elementwise):
    """total + sum, where the sum may be made by adding its terms to the total one after the other: then it has the same
    bits however its terms are divided among several such sums."""

    name: ClassVar[str] = "accumulate"
    function: ClassVar[str] = "accumulate"

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,) = cotangents
        return g, g

    def reference(self, total: np.ndarray, terms: np.ndarray) -> np.ndarray:
        return np.add(total, terms)

    @classmethod
    def samples(cls) -> list[Sample]:
        return cls._few(2)


@dataclass(frozen=True)
class Subtract(Elementwise):
    """x - y, elementwise."""

    name: ClassVar[str] = "subtract"
    display: ClassVar[str] = "-"
    function: ClassVar[str] = "sub"
    integers: ClassVar[bool] = True

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,) = cotangents
        assert g is not None
        return g, negative(g)

    def reference(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.subtract(x, y)

    @classmethod
    def samples(cls) -> list[Sample]:
        return cls._samples(2)


@dataclass(frozen=True)
class Multiply(Elementwise):
    """x * y, elementwise (the lecture's matrix product is `mul`)."""

    name: ClassVar[str] = "multiply"
    display: ClassVar[str] = "*"
    function: ClassVar[str] = "mul"
    integers: ClassVar[bool] = True

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,) = cotangents
        x, y = inputs
        return multiply(g, y), multiply(g, x)

    def reference(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.multiply(x, y)

    @classmethod
    def samples(cls) -> list[Sample]:
        return cls._samples(2)


@dataclass(frozen=True)
class Divide(Elementwise):
    """x / y, elementwise, with IEEE results for a zero divisor."""

    name: ClassVar[str] = "divide"
    display: ClassVar[str] = "/"
    function: ClassVar[str] = "div"

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,) = cotangents
        _, y = inputs
        quotient = divide(g, y)
        return quotient, negative(multiply(quotient, outputs[0]))

    def reference(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.divide(x, y)

    @classmethod
    def samples(cls) -> list[Sample]:
        edge = np.array([1.0, -1.0, 0.0, np.inf], np.float32), np.array([0.0, 0.0, 2.0, 2.0], np.float32)
        return [*cls._samples(2, 0.5, 3.0), Sample(cls(), edge, smooth=())]


@dataclass(frozen=True)
class Negative(Elementwise):
    """-x."""

    name: ClassVar[str] = "negative"
    display: ClassVar[str] = "neg"
    function: ClassVar[str] = "neg"
    integers: ClassVar[bool] = True

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,) = cotangents
        assert g is not None
        return (negative(g),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.negative(x)

    @classmethod
    def samples(cls) -> list[Sample]:
        return cls._samples(1)


# Comparison, choice, conversion


@dataclass(frozen=True)
class Comparison(Elementwise):
    """x compared with y: bool."""

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_same(self, *types)
        return (TensorType(types[0].shape, boolean),)

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        return None, None

    @classmethod
    def samples(cls) -> list[Sample]:
        a, b = (
            values(9, 21, low=-3, high=3, dtype="int32"),
            values(9, 21, low=-3, high=3, dtype="int32", seed=1),
        )
        floats = tuple(v.astype(np.float32) for v in (a, b))
        edge = np.array([np.nan, 0.0, np.inf], np.float32), np.array([np.nan, -0.0, np.inf], np.float32)
        return [Sample(cls(), (a, b)), Sample(cls(), floats, smooth=()), Sample(cls(), edge, smooth=())]


@dataclass(frozen=True)
class Greater(Comparison):
    """x > y."""

    name: ClassVar[str] = "greater"
    display: ClassVar[str] = ">"
    function: ClassVar[str] = "gt"

    def reference(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.greater(x, y)


@dataclass(frozen=True)
class Less(Comparison):
    """x < y."""

    name: ClassVar[str] = "less"
    display: ClassVar[str] = "<"
    function: ClassVar[str] = "lt"

    def reference(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.less(x, y)


@dataclass(frozen=True)
class Equal(Comparison):
    """x == y."""

    name: ClassVar[str] = "equal"
    display: ClassVar[str] = "=="
    function: ClassVar[str] = "eq"

    def reference(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.equal(x, y)


@dataclass(frozen=True)
class NotEqual(Comparison):
    """x != y; NaN differs from everything."""

    name: ClassVar[str] = "not_equal"
    display: ClassVar[str] = "!="
    function: ClassVar[str] = "ne"

    def reference(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.not_equal(x, y)


@dataclass(frozen=True)
class GreaterEqual(Comparison):
    """x >= y."""

    name: ClassVar[str] = "greater_equal"
    display: ClassVar[str] = ">="
    function: ClassVar[str] = "ge"

    def reference(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.greater_equal(x, y)


@dataclass(frozen=True)
class LessEqual(Comparison):
    """x <= y."""

    name: ClassVar[str] = "less_equal"
    display: ClassVar[str] = "<="
    function: ClassVar[str] = "le"

    def reference(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.less_equal(x, y)


@dataclass(frozen=True)
class Where(Elementwise):
    """x where the condition holds, y elsewhere; the side not chosen gets cotangent 0.

    What a side's own derivative makes of that 0 is not decided here: behind log at 0 it is 0 · inf, NaN. Keep
    the operand from the pole as well: where(c, log(where(c, x, 1.0)), 0.0).
    """

    name: ClassVar[str] = "where"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        condition, x, y = types
        if condition.dtype is not boolean:
            raise DTypeError(f"where needs a bool condition, got {condition}", hint="compare first: x > 0")
        require_same(self, x, y)
        require_same(self, TensorType(condition.shape, x.dtype), x)
        return (x,)

    def body(self, *types: TensorType) -> Body:
        axes = axes_for(types[0].shape)
        return Body(axes, call("select", *(load(k, t, indices(axes)) for k, t in enumerate(types))))

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,) = cotangents
        return None, where(inputs[0], g, 0.0), where(inputs[0], 0.0, g)

    def reference(self, condition: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.where(condition, x, y)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(cls(), (values(*s, dtype="bool"), values(*s, seed=1), values(*s, seed=2)))
            for s in ((29, 17), (), (40,))
        ]


@dataclass(frozen=True)
class Cast(Op):
    """x in another dtype; floats are truncated towards zero on the way to integers."""

    name: ClassVar[str] = "cast"
    family: ClassVar[str] = "elementwise"
    dtype: DType

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        return (TensorType(types[0].shape, self.dtype),)

    def over_turns(self, inputs: Sequence[Tensor], stacked: Sequence[bool], turns: Size) -> Tensor | None:
        return apply(self, *inputs)[0]

    def body(self, *types: TensorType) -> Body:
        axes = axes_for(types[0].shape)
        return Body(axes, cast_expr(load(0, types[0], indices(axes)), self.dtype))

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,) = cotangents
        assert g is not None
        x = inputs[0]
        return (cast(g, x.dtype) if x.dtype.is_float and self.dtype.is_float else None,)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return x.astype(self.dtype.numpy)

    @classmethod
    def samples(cls) -> list[Sample]:
        floats, ints, flags = (
            values(7, 19, low=-50, high=50),
            values(7, 19, low=-9, high=9, dtype="int32"),
            values(20, dtype="bool"),
        )
        return [
            Sample(cls(as_dtype(to)), (x,), smooth=())
            for x in (floats, ints, ints.astype(np.int64), flags)
            for to in ("float32", "float64", "int32", "int64", "bool")
        ]


@dataclass(frozen=True)
class StopGradient(Op):
    """x, through which no gradient flows: a constant to whoever differentiates. Costs nothing."""

    name: ClassVar[str] = "stop_gradient"
    display: ClassVar[str] = "stopGradient"
    family: ClassVar[str] = "elementwise"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        return (types[0],)

    def body(self, *types: TensorType) -> Body:
        axes = axes_for(types[0].shape)
        return Body(axes, load(0, types[0], indices(axes)))

    def over_turns(self, inputs: Sequence[Tensor], stacked: Sequence[bool], turns: Size) -> Tensor | None:
        return apply(self, *inputs)[0]

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        return (None,)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return x.copy()

    @classmethod
    def samples(cls) -> list[Sample]:
        return [Sample(cls(), (values(3, 17),), smooth=()), Sample(cls(), (values(40, dtype="bool"),))]


@dataclass(frozen=True)
class Copy(Op):
    """The same values in memory of their own: what an output or an update that is somebody else's value
    becomes.
    """

    name: ClassVar[str] = "copy"
    family: ClassVar[str] = "elementwise"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        return (types[0],)

    def over_turns(self, inputs: Sequence[Tensor], stacked: Sequence[bool], turns: Size) -> Tensor | None:
        return apply(self, *inputs)[0]

    def body(self, *types: TensorType) -> Body:
        axes = axes_for(types[0].shape)
        return Body(axes, load(0, types[0], indices(axes)))

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        return cotangents

    def reference(self, x: np.ndarray) -> np.ndarray:
        return x.copy()

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(cls(), (values(29, 17),)),
            Sample(cls(), (values(40, dtype="bool"),)),
            Sample(cls(), (values(),)),
        ]


# The user's functions: broadcast, then apply.


def add(x: Any, y: Any) -> Tensor:
    """x + y, elementwise, with broadcasting over static 1s and missing leading axes."""
    return Add()(*broadcast_operands("add", x, y))


def subtract(x: Any, y: Any) -> Tensor:
    """x - y, elementwise, with broadcasting."""
    return Subtract()(*broadcast_operands("subtract", x, y))


def multiply(x: Any, y: Any) -> Tensor:
    """x * y, elementwise, with broadcasting; the lecture's `mul` is the matrix product."""
    return Multiply()(*broadcast_operands("multiply", x, y))


def divide(x: Any, y: Any) -> Tensor:
    """x / y, elementwise, with broadcasting."""
    return Divide()(*broadcast_operands("divide", x, y))


def negative(x: Tensor) -> Tensor:
    """-x."""
    return Negative()(x)


def greater(x: Any, y: Any) -> Tensor:
    """x > y, elementwise: bool."""
    return Greater()(*broadcast_operands("greater", x, y))


def less(x: Any, y: Any) -> Tensor:
    """x < y, elementwise: bool."""
    return Less()(*broadcast_operands("less", x, y))


def greater_equal(x: Any, y: Any) -> Tensor:
    """x >= y, elementwise: bool."""
    return GreaterEqual()(*broadcast_operands("greater_equal", x, y))


def less_equal(x: Any, y: Any) -> Tensor:
    """x <= y, elementwise: bool."""
    return LessEqual()(*broadcast_operands("less_equal", x, y))


def not_equal(x: Any, y: Any) -> Tensor:
    """x != y, elementwise: bool."""
    return NotEqual()(*broadcast_operands("not_equal", x, y))


def equal(x: Any, y: Any) -> Tensor:
    """x == y, elementwise: bool (a method would break comparing tensors themselves)."""
    return Equal()(*broadcast_operands("equal", x, y))


def where(condition: Any, x: Any, y: Any) -> Tensor:
    """x where the condition holds, else y, with broadcasting. See `Where` on gradients near a pole."""
    if not isinstance(condition, Tensor) and np.ndim(condition) == 0:
        raise GraphError(
            f"where needs a condition for every element, got {shown(condition)}",
            where=origins.here(),
            hint="== and != compare tensors by identity: write fg.equal(x, y)",
        )
    condition = as_tensor(condition, what="where")
    x, y = broadcast_operands("where", x, y, like=condition)
    return Where()(broadcast_operands("where", condition, like=x)[0], x, y)


def cast(x: Tensor, dtype: Any) -> Tensor:
    """x in another dtype."""
    x, kind = as_tensor(x, what="cast"), known_dtype(dtype)
    return x if x.dtype == kind else Cast(kind)(x)


def stop_gradient(x: Tensor) -> Tensor:
    """x, as a constant to whoever differentiates."""
    return StopGradient()(as_tensor(x, what="stop_gradient"))
