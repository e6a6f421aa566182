"""Logic on booleans, tests for special values, and division of integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from flowgraph.errors import DTypeError
from flowgraph.graph.tensor import Tensor
from flowgraph.graph.types import TensorType, boolean
from flowgraph.ops.base import Cotangents, Sample, require_same, values
from flowgraph.ops.elementwise import Elementwise, equal, less, not_equal
from flowgraph.ops.leaf import as_tensor
from flowgraph.ops.piecewise import absolute
from flowgraph.ops.shape import broadcast_operands


class Logical(Elementwise):
    """A function of booleans."""

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        for t in types:
            if t.dtype is not boolean:
                raise DTypeError(f"{self.display} needs bool values, got {t}", hint="compare first: x > 0")
        require_same(self, *types)
        return (types[0],)

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        return (None,) * len(inputs)

    @classmethod
    def samples(cls) -> list[Sample]:
        arity = 1 if cls is LogicalNot else 2
        shapes: tuple[tuple[int, ...], ...] = ((3, 17), (33,), ())
        return [Sample(cls(), tuple(values(*s, dtype="bool", seed=k) for k in range(arity))) for s in shapes]


@dataclass(frozen=True)
class LogicalAnd(Logical):
    """x and y, of booleans."""

    name: ClassVar[str] = "logical_and"
    display: ClassVar[str] = "and"
    function: ClassVar[str] = "and"

    def reference(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.logical_and(x, y)


@dataclass(frozen=True)
class LogicalOr(Logical):
    """x or y, of booleans."""

    name: ClassVar[str] = "logical_or"
    display: ClassVar[str] = "or"
    function: ClassVar[str] = "or"

    def reference(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.logical_or(x, y)


@dataclass(frozen=True)
class LogicalXor(Logical):
    """Exactly one of x and y, of booleans."""

    name: ClassVar[str] = "logical_xor"
    display: ClassVar[str] = "xor"
    function: ClassVar[str] = "ne"

    def reference(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.logical_xor(x, y)


@dataclass(frozen=True)
class LogicalNot(Logical):
    """Not x, of booleans."""

    name: ClassVar[str] = "logical_not"
    display: ClassVar[str] = "not"
    function: ClassVar[str] = "not"

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.logical_not(x)


class IntegerDivision(Elementwise):
    """A part of the division of integers, rounded down; 0 where the divisor is 0, as NumPy has it."""

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        for t in types:
            if t.dtype.kind != "int":
                raise DTypeError(
                    f"{self.display} is for integers, got {t}",
                    hint="for floats write fg.floor(x / y), x - fg.floor(x / y) * y",
                )
        require_same(self, *types)
        return (types[0],)

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        return None, None

    @classmethod
    def samples(cls) -> list[Sample]:
        shapes: tuple[tuple[int, ...], ...] = ((3, 17), (40,), ())
        made = [
            Sample(cls(), (values(*s, low=-50, high=50, dtype=t), values(*s, low=-6, high=6, dtype=t, seed=1)))
            for s in shapes
            for t in ("int32", "int64")
        ]
        least = np.iinfo(np.int32).min
        edges = np.array([least, least, 7, -7, 0], np.int32), np.array([-1, 0, 0, 0, -5], np.int32)
        return [*made, Sample(cls(), edges)]


@dataclass(frozen=True)
class FloorDivide(IntegerDivision):
    """x // y of integers, rounded down; 0 where y is 0."""

    name: ClassVar[str] = "floor_divide"
    display: ClassVar[str] = "//"
    function: ClassVar[str] = "floordiv"

    def reference(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.floor_divide(x, y)


@dataclass(frozen=True)
class Remainder(IntegerDivision):
    """x - (x // y) * y of integers: the sign is y's; 0 where y is 0."""

    name: ClassVar[str] = "remainder"
    display: ClassVar[str] = "%"
    function: ClassVar[str] = "mod"

    def reference(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.remainder(x, y)


# The user's functions


def logical_and(x: Any, y: Any) -> Tensor:
    """x and y, elementwise, of booleans; also `x & y`."""
    return LogicalAnd()(*broadcast_operands("logical_and", x, y))


def logical_or(x: Any, y: Any) -> Tensor:
    """x or y, elementwise, of booleans; also `x | y`."""
    return LogicalOr()(*broadcast_operands("logical_or", x, y))


def logical_xor(x: Any, y: Any) -> Tensor:
    """Exactly one of x and y, elementwise, of booleans; also `x ^ y`."""
    return LogicalXor()(*broadcast_operands("logical_xor", x, y))


def logical_not(x: Tensor) -> Tensor:
    """Not x, elementwise, of booleans; also `~x`."""
    return LogicalNot()(x)


def floor_divide(x: Any, y: Any) -> Tensor:
    """x // y, elementwise, of integers; 0 where y is 0."""
    return FloorDivide()(*broadcast_operands("floor_divide", x, y))


def remainder(x: Any, y: Any) -> Tensor:
    """x % y, elementwise, of integers, with the sign of y; 0 where y is 0."""
    return Remainder()(*broadcast_operands("remainder", x, y))


def isnan(x: Tensor) -> Tensor:
    """Whether x is NaN, elementwise: bool."""
    return not_equal(as_tensor(x, what="isnan"), x)


def isinf(x: Tensor) -> Tensor:
    """Whether x is infinite, elementwise: bool."""
    return equal(absolute(x), float("inf"))


def isfinite(x: Tensor) -> Tensor:
    """Whether x is neither infinite nor NaN, elementwise: bool."""
    return less(absolute(x), float("inf"))
