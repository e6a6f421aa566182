"""Logic on booleans, tests for special values, and whole quotients with their remainders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from flowgraph.errors import DTypeError
from flowgraph.graph.tensor import Tensor
from flowgraph.graph.types import TensorType, boolean
from flowgraph.ops.base import Cotangents, Sample, require_same, values
from flowgraph.ops.elementwise import Elementwise, equal, less, multiply, negative, not_equal
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
    function: ClassVar[str] = "xor"

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


@dataclass(frozen=True)
class FloorDivide(Elementwise):
    """The quotient rounded down, in the operands' dtype.

    x // 0 is 0 for integers, and for floats what x / 0 is; the smallest integer // -1 wraps. Its gradient is 0.
    """

    name: ClassVar[str] = "floor_divide"
    display: ClassVar[str] = "//"
    function: ClassVar[str] = "floor_divide"
    integers: ClassVar[bool] = True

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        return None, None

    def reference(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.floor_divide(x, y)

    @classmethod
    def samples(cls) -> list[Sample]:
        return _division_samples(cls)


@dataclass(frozen=True)
class Remainder(Elementwise):
    """x - y * (x // y), which has the sign of y; exact.

    x % 0 is 0 for integers and NaN for floats. The gradient of y is -(x // y); both ignore the jumps.
    """

    name: ClassVar[str] = "remainder"
    display: ClassVar[str] = "%"
    function: ClassVar[str] = "remainder"
    integers: ClassVar[bool] = True

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,) = cotangents
        return g, negative(multiply(g, floor_divide(*inputs)))

    def reference(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.remainder(x, y)

    @classmethod
    def samples(cls) -> list[Sample]:
        return _division_samples(cls)


def _division_samples(cls: type[Elementwise]) -> list[Sample]:
    y = values(5, 17, low=0.6, high=2.5, seed=1)
    whole, rest = np.round(values(5, 17, low=-4, high=4)), values(5, 17, low=0.1, high=0.9, seed=2)
    x = (y * (whole + rest)).astype(np.float32)  # away from the jumps
    divisors = _array(-2, 0, 0.3, np.inf, np.nan)
    numbers, divisors = np.meshgrid(_array(-7.5, -0.0, 2.0, 7.0, 1e9, np.inf, np.nan), divisors)
    smallest = np.iinfo(np.int32).min
    whole_numbers = np.meshgrid(np.array([-7, 0, 6, smallest], np.int32), np.array([-3, -1, 0, 2], np.int32))
    long = values(3, 19, low=-99, high=99, dtype="int64"), values(3, 19, low=-5, high=5, dtype="int64", seed=1)
    return [
        Sample(cls(), (x, y)),
        Sample(cls(), (x.astype(np.float64), y.astype(np.float64))),
        Sample(cls(), (numbers, divisors), smooth=()),
        Sample(cls(), tuple(whole_numbers)),
        Sample(cls(), long),
    ]


def _array(*numbers: float) -> np.ndarray:
    return np.array(numbers, np.float32)


# The user's functions


def logical_and(x: Any, y: Any) -> Tensor:
    """x and y, elementwise, of booleans; also `x & y`."""
    return LogicalAnd()(*_bools("logical_and", x, y))


def logical_or(x: Any, y: Any) -> Tensor:
    """x or y, elementwise, of booleans; also `x | y`."""
    return LogicalOr()(*_bools("logical_or", x, y))


def logical_xor(x: Any, y: Any) -> Tensor:
    """Exactly one of x and y, elementwise, of booleans; also `x ^ y`."""
    return LogicalXor()(*_bools("logical_xor", x, y))


def logical_not(x: Tensor) -> Tensor:
    """Not x, elementwise, of booleans; also `~x`."""
    return LogicalNot()(x)


def _bools(what: str, *operands: Any) -> tuple[Tensor, ...]:
    """Operands that are tensors or arrays: a bool of Python's is what is left of a comparison by ==."""
    return broadcast_operands(what, *(as_tensor(operand, what=what) for operand in operands))


def floor_divide(x: Any, y: Any) -> Tensor:
    """x // y, elementwise, rounded down. Where y is 0: 0 for integers, x / y for floats. Its gradient is 0."""
    return FloorDivide()(*broadcast_operands("floor_divide", x, y))


def remainder(x: Any, y: Any) -> Tensor:
    """x % y, elementwise, with the sign of y; exact. Where y is 0: 0 for integers, NaN for floats."""
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
