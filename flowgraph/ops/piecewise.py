"""Functions with kinks or jumps: absolute values, rounding, the larger and the smaller of two.

At a kink the derivative is the mean of both sides, unless the op says otherwise; at a jump it is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from flowgraph.graph.tensor import Tensor
from flowgraph.graph.types import TensorType
from flowgraph.index_notation import Body, call
from flowgraph.ops.base import Cotangents, Sample, axes_for, indices, load, values
from flowgraph.ops.elementwise import Elementwise, equal, greater, less, multiply, where
from flowgraph.ops.functions import SPECIAL, exp
from flowgraph.ops.shape import broadcast_operands


@dataclass(frozen=True)
class Relu(Elementwise):
    """max(x, 0): linear with a cutoff at zero; its derivative at zero is 0."""

    name: ClassVar[str] = "relu"
    display: ClassVar[str] = "reLU"
    function: ClassVar[str] = "maximum"

    def body(self, *types: TensorType) -> Body:
        axes = axes_for(types[0].shape)
        return Body(axes, call("maximum", load(0, types[0], indices(axes)), 0.0))

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,) = cotangents
        # positive where x is: so x itself need not be kept for the way back
        return (where(greater(outputs[0], 0.0), g, 0.0),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.maximum(x, 0)

    @classmethod
    def samples(cls) -> list[Sample]:
        away = [
            Sample(s.op, tuple(np.where(np.abs(a) < 0.01, a.dtype.type(0.5), a) for a in s.arrays))
            for s in cls._samples(1)
        ]
        return [
            *away,
            Sample(cls(), (np.array([0.0, -0.0, np.nan, np.inf, -np.inf], np.float32),), smooth=()),
        ]


@dataclass(frozen=True)
class LeakyRelu(Elementwise):
    """x above 0, slope * x below (Maas et al. 2013); the derivative at 0 is the slope."""

    name: ClassVar[str] = "leaky_relu"
    display: ClassVar[str] = "leakyReLU"
    slope: float = 0.01

    def body(self, *types: TensorType) -> Body:
        axes = axes_for(types[0].shape)
        x = load(0, types[0], indices(axes))
        return Body(axes, call("select", call("gt", x, 0.0), x, call("mul", x, self.slope)))

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,), (x,) = cotangents, inputs
        return (where(greater(x, 0.0), g, multiply(self.slope, g)),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.where(x > 0, x, x * x.dtype.type(self.slope))

    @classmethod
    def samples(cls) -> list[Sample]:
        return [*cls._few(1, 0.1, 2.0), *cls._few(1, -2.0, -0.1), cls._edges(SPECIAL)]


@dataclass(frozen=True)
class Elu(Elementwise):
    """x above 0, scale * (exp(x) - 1) below (Clevert et al. 2015)."""

    name: ClassVar[str] = "elu"
    display: ClassVar[str] = "ELU"
    scale: float = 1.0

    def body(self, *types: TensorType) -> Body:
        axes = axes_for(types[0].shape)
        x = load(0, types[0], indices(axes))
        below = call("mul", call("expm1", call("minimum", x, 0.0)), self.scale)
        return Body(axes, call("select", call("gt", x, 0.0), x, below))

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,), (x,) = cotangents, inputs
        return (where(greater(x, 0.0), g, multiply(g, multiply(self.scale, exp(minimum(x, 0.0))))),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.where(x > 0, x, np.expm1(np.minimum(x, 0)) * x.dtype.type(self.scale))

    @classmethod
    def samples(cls) -> list[Sample]:
        return [*cls._few(1, 0.1, 2.0), *cls._few(1, -3.0, -0.1), cls._edges(SPECIAL)]


@dataclass(frozen=True)
class Absolute(Elementwise):
    """|x|; its derivative at 0 is 0."""

    name: ClassVar[str] = "absolute"
    display: ClassVar[str] = "abs"
    function: ClassVar[str] = "absolute"
    integers: ClassVar[bool] = True

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,), (x,) = cotangents, inputs
        return (multiply(g, sign(x)),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.abs(x)

    @classmethod
    def samples(cls) -> list[Sample]:
        whole = Sample(cls(), (values(40, low=-9, high=9, dtype="int32"),))
        return [*cls._few(1, 0.1, 2.0), *cls._few(1, -2.0, -0.1), whole, cls._edges(SPECIAL)]


class Steps(Elementwise):
    """Constant between jumps: the derivative is 0 wherever there is one."""

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        return (None,)

    @classmethod
    def samples(cls) -> list[Sample]:
        """Values between the multiples of one half, and the special ones."""
        arrays = (values(3, 17), values(), values(33, dtype="float64"))
        between = [Sample(cls(), ((np.floor(2 * a) / 2 + 0.2).astype(a.dtype),)) for a in arrays]
        ties = (*SPECIAL, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 8388609.0)
        return [*between, cls._edges(ties)]


@dataclass(frozen=True)
class Sign(Steps):
    """-1, 0 or 1; NaN for NaN."""

    name: ClassVar[str] = "sign"
    function: ClassVar[str] = "sign"
    integers: ClassVar[bool] = True

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.sign(x)


@dataclass(frozen=True)
class Floor(Steps):
    """The largest whole number not above x."""

    name: ClassVar[str] = "floor"
    function: ClassVar[str] = "floor"

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.floor(x)


@dataclass(frozen=True)
class Ceil(Steps):
    """The smallest whole number not below x."""

    name: ClassVar[str] = "ceil"

    def body(self, *types: TensorType) -> Body:
        axes = axes_for(types[0].shape)
        return Body(axes, -call("floor", -load(0, types[0], indices(axes))))

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.ceil(x)


@dataclass(frozen=True)
class Trunc(Steps):
    """x without its fraction: rounded towards 0."""

    name: ClassVar[str] = "trunc"

    def body(self, *types: TensorType) -> Body:
        axes = axes_for(types[0].shape)
        x = load(0, types[0], indices(axes))
        return Body(axes, call("select", call("lt", x, 0.0), -call("floor", -x), call("floor", x)))

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.trunc(x)


@dataclass(frozen=True)
class Round(Steps):
    """The nearest whole number; of two equally near ones the even one."""

    name: ClassVar[str] = "round"
    function: ClassVar[str] = "round"

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.rint(x)


class Extremum(Elementwise):
    """One of two values; NaN if either is. Equal values share the gradient."""

    integers: ClassVar[bool] = True

    @classmethod
    def samples(cls) -> list[Sample]:
        x = values(5, 17)
        apart = x + np.where(values(5, 17, seed=1) > 0, 0.3, -0.3).astype(np.float32)
        whole = tuple(values(40, low=-9, high=9, dtype="int32", seed=k) for k in range(2))
        pairs = [(a, b) for a in SPECIAL for b in (-1.0, 0.0, float("inf"), float("nan"))]
        wide = (values(33, dtype="float64"), values(33, dtype="float64") + 1.0)
        edges = cls._edges(*zip(*pairs, strict=True))
        return [Sample(cls(), (x, apart)), Sample(cls(), wide), Sample(cls(), whole), edges]


@dataclass(frozen=True)
class Minimum(Extremum):
    """The smaller of x and y; NaN if either is. Equal values share the gradient."""

    name: ClassVar[str] = "minimum"
    function: ClassVar[str] = "minimum"

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,), (x, y) = cotangents, inputs
        return _chosen(g, less(x, y), equal(x, y)), _chosen(g, less(y, x), equal(x, y))

    def reference(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.minimum(x, y)


@dataclass(frozen=True)
class Maximum(Extremum):
    """The larger of x and y; NaN if either is. Equal values share the gradient."""

    name: ClassVar[str] = "maximum"
    function: ClassVar[str] = "maximum"

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,), (x, y) = cotangents, inputs
        return _chosen(g, greater(x, y), equal(x, y)), _chosen(g, greater(y, x), equal(x, y))

    def reference(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.maximum(x, y)


def _chosen(g: Tensor | None, mine: Tensor, tie: Tensor) -> Tensor:
    return where(mine, g, where(tie, multiply(0.5, g), 0.0))


# The user's functions


def relu(x: Tensor) -> Tensor:
    """max(x, 0), elementwise."""
    return Relu()(x)


def leaky_relu(x: Tensor, slope: float = 0.01) -> Tensor:
    """x above 0 and slope * x below, elementwise."""
    return LeakyRelu(float(slope))(x)


def elu(x: Tensor, scale: float = 1.0) -> Tensor:
    """x above 0 and scale * (exp(x) - 1) below, elementwise."""
    return Elu(float(scale))(x)


def absolute(x: Tensor) -> Tensor:
    """|x|, elementwise; also `abs(x)`."""
    return Absolute()(x)


def sign(x: Tensor) -> Tensor:
    """-1, 0 or 1, elementwise."""
    return Sign()(x)


def floor(x: Tensor) -> Tensor:
    """The largest whole number not above x, elementwise."""
    return Floor()(x)


def ceil(x: Tensor) -> Tensor:
    """The smallest whole number not below x, elementwise."""
    return Ceil()(x)


def trunc(x: Tensor) -> Tensor:
    """x rounded towards 0, elementwise."""
    return Trunc()(x)


def round(x: Tensor) -> Tensor:
    """The nearest whole number, elementwise; half way, the even one."""
    return Round()(x)


def minimum(x: Any, y: Any) -> Tensor:
    """The smaller of x and y, elementwise, with broadcasting; NaN if either is."""
    return Minimum()(*broadcast_operands("minimum", x, y))


def maximum(x: Any, y: Any) -> Tensor:
    """The larger of x and y, elementwise, with broadcasting; NaN if either is."""
    return Maximum()(*broadcast_operands("maximum", x, y))


def clip(x: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """x within [min, max], elementwise; a bound that is None does not bound. NaN stays."""
    if min is not None:
        x = maximum(x, min)
    return x if max is None else minimum(x, max)
