"""Smooth functions of one value, and power: transcendental, with the accuracy stated in codegen/vector_math.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from flowgraph.graph.tensor import Tensor
from flowgraph.graph.types import TensorType
from flowgraph.index_notation import Body, call
from flowgraph.ops.base import Cotangents, Sample, axes_for, indices, load
from flowgraph.ops.elementwise import (
    Elementwise,
    add,
    divide,
    equal,
    greater,
    multiply,
    negative,
    subtract,
    where,
)
from flowgraph.ops.shape import broadcast_operands

INFINITY, NAN = math.inf, math.nan
SPECIAL = (-INFINITY, -1e30, -1.0, -0.0, 0.0, 1e-40, 1.0, 1e30, INFINITY, NAN)

@dataclass(frozen=True)
class Tanh(Elementwise):
    """Hyperbolic tangent: the logistic function shifted to [-1, 1]."""

    name: ClassVar[str] = "tanh"
    function: ClassVar[str] = "tanh"

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,) = cotangents
        (y,) = outputs
        return (multiply(g, subtract(1.0, multiply(y, y))),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.tanh(x)

    @classmethod
    def samples(cls) -> list[Sample]:
        extreme = np.array([-np.inf, -90, -9, -0.0, 1e-30, 9, 90, np.inf, np.nan], np.float32)
        return [*cls._samples(1, -4, 4), Sample(cls(), (extreme,), smooth=())]


@dataclass(frozen=True)
class Logistic(Elementwise):
    """1 / (1 + exp(-x)), the sigmoid."""

    name: ClassVar[str] = "logistic"
    function: ClassVar[str] = "logistic"

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,) = cotangents
        (y,) = outputs
        return (multiply(g, multiply(y, subtract(1.0, y))),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            return np.where(
                x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x)))
            ).astype(x.dtype)

    @classmethod
    def samples(cls) -> list[Sample]:
        extreme = np.array([-np.inf, -90, -20, 0.0, 20, 90, np.inf, np.nan], np.float32)
        return [*cls._samples(1, -6, 6), Sample(cls(), (extreme,), smooth=())]


@dataclass(frozen=True)
class Exp(Elementwise):
    """e to the x."""

    name: ClassVar[str] = "exp"
    function: ClassVar[str] = "exp"

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,) = cotangents
        return (multiply(g, outputs[0]),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", under="ignore"):
            return np.exp(x)

    @classmethod
    def samples(cls) -> list[Sample]:
        extreme = np.array([-np.inf, -110, -87.4, 0.0, 88.7, 89, np.inf, np.nan], np.float32)
        return [*cls._samples(1), Sample(cls(), (extreme,), smooth=())]


@dataclass(frozen=True)
class Log(Elementwise):
    """Natural logarithm; -inf at 0, NaN below."""

    name: ClassVar[str] = "log"
    function: ClassVar[str] = "log"

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,) = cotangents
        return (divide(g, inputs[0]),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.log(x)

    @classmethod
    def samples(cls) -> list[Sample]:
        extreme = np.array([0.0, 1e-38, 1.0, 3e38, np.inf, -1.0, np.nan], np.float32)
        return [*cls._samples(1, 0.1, 4), Sample(cls(), (extreme,), smooth=())]


@dataclass(frozen=True)
class Sqrt(Elementwise):
    """Square root; NaN below 0. Its derivative at 0 is infinite."""

    name: ClassVar[str] = "sqrt"
    function: ClassVar[str] = "sqrt"

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,), (y,) = cotangents, outputs
        return (divide(g, multiply(2.0, y)),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.sqrt(x)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [*cls._few(1, 0.2, 4.0), cls._edges(SPECIAL)]


@dataclass(frozen=True)
class Log1p(Elementwise):
    """log(1 + x), exact near 0; -inf at -1, NaN below."""

    name: ClassVar[str] = "log1p"
    function: ClassVar[str] = "log1p"

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,), (x,) = cotangents, inputs
        return (divide(g, add(1.0, x)),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.log1p(x)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [*cls._few(1, -0.7, 3.0), cls._edges(SPECIAL)]


@dataclass(frozen=True)
class Expm1(Elementwise):
    """exp(x) - 1, exact near 0."""

    name: ClassVar[str] = "expm1"
    function: ClassVar[str] = "expm1"

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,), (y,) = cotangents, outputs
        return (multiply(g, add(y, 1.0)),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.expm1(x)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [*cls._few(1, -2.0, 2.0), cls._edges(SPECIAL)]


@dataclass(frozen=True)
class Sin(Elementwise):
    """Sine of radians; NaN at infinity."""

    name: ClassVar[str] = "sin"
    function: ClassVar[str] = "sin"

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,), (x,) = cotangents, inputs
        return (multiply(g, cos(x)),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.sin(x)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [*cls._few(1, -4.0, 4.0), cls._edges(SPECIAL)]


@dataclass(frozen=True)
class Cos(Elementwise):
    """Cosine of radians; NaN at infinity."""

    name: ClassVar[str] = "cos"
    function: ClassVar[str] = "cos"

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,), (x,) = cotangents, inputs
        return (negative(multiply(g, sin(x))),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.cos(x)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [*cls._few(1, -4.0, 4.0), cls._edges(SPECIAL)]


@dataclass(frozen=True)
class Erf(Elementwise):
    """The error function, 2/sqrt(pi) times the integral of exp(-t*t) from 0 to x."""

    name: ClassVar[str] = "erf"
    function: ClassVar[str] = "erf"

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,), (x,) = cotangents, inputs
        return (multiply(g, multiply(2.0 / math.sqrt(math.pi), exp(negative(multiply(x, x))))),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.vectorize(math.erf, otypes=[x.dtype])(x)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [*cls._few(1, -2.0, 2.0), cls._edges(SPECIAL)]


@dataclass(frozen=True)
class Softplus(Elementwise):
    """log(1 + exp(x)), without overflow: a smooth reLU, whose derivative is the logistic function."""

    name: ClassVar[str] = "softplus"
    display: ClassVar[str] = "softPlus"
    function: ClassVar[str] = "softplus"

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,), (x,) = cotangents, inputs
        return (multiply(g, logistic(x)),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.logaddexp(x, 0).astype(x.dtype)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [*cls._few(1, -4.0, 4.0), cls._edges(SPECIAL)]


@dataclass(frozen=True)
class Softsign(Elementwise):
    """x / (1 + |x|): like tanh, with slower tails."""

    name: ClassVar[str] = "softsign"
    display: ClassVar[str] = "softSign"

    def body(self, *types: TensorType) -> Body:
        axes = axes_for(types[0].shape)
        x = load(0, types[0], indices(axes))
        return Body(axes, x / (call("absolute", x) + 1.0))

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,), (x,) = cotangents, inputs
        root = divide(1.0, add(1.0, where(greater(x, 0.0), x, negative(x))))
        return (multiply(g, multiply(root, root)),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return x / (1 + np.abs(x))

    @classmethod
    def samples(cls) -> list[Sample]:
        return [*cls._few(1, 0.1, 3.0), *cls._few(1, -3.0, -0.1), cls._edges(SPECIAL)]


@dataclass(frozen=True)
class Gelu(Elementwise):
    """x times the normal distribution's probability of less than x (Hendrycks and Gimpel 2016), by erf.

    1 + erf cancels below 0: there the error is up to |x| / 2 units in the last place of 1, not of the result.
    """

    name: ClassVar[str] = "gelu"

    def body(self, *types: TensorType) -> Body:
        axes = axes_for(types[0].shape)
        x = load(0, types[0], indices(axes))
        return Body(axes, call("mul", x, 0.5) * (call("erf", call("mul", x, math.sqrt(0.5))) + 1.0))

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,), (x,) = cotangents, inputs
        below = multiply(0.5, add(1.0, erf(multiply(math.sqrt(0.5), x))))
        density = multiply(1.0 / math.sqrt(2.0 * math.pi), exp(multiply(-0.5, multiply(x, x))))
        return (multiply(g, add(below, multiply(x, density))),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return x / 2 * (1 + np.vectorize(math.erf, otypes=[x.dtype])(x * math.sqrt(0.5)))

    @classmethod
    def samples(cls) -> list[Sample]:
        return cls._few(1, -3.0, 3.0)


@dataclass(frozen=True)
class Silu(Elementwise):
    """x times logistic(x), also called swish (Ramachandran et al. 2017)."""

    name: ClassVar[str] = "silu"

    def body(self, *types: TensorType) -> Body:
        axes = axes_for(types[0].shape)
        x = load(0, types[0], indices(axes))
        return Body(axes, call("mul", x, call("logistic", x)))

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,), (x,) = cotangents, inputs
        p = logistic(x)
        return (multiply(g, multiply(p, add(1.0, multiply(x, subtract(1.0, p))))),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return x / (1 + np.exp(-x))

    @classmethod
    def samples(cls) -> list[Sample]:
        return cls._few(1, -4.0, 4.0)


@dataclass(frozen=True)
class Power(Elementwise):
    """x to the power y, as C's pow: NaN where x < 0 and y is not whole.

    The derivative by y is 0 where x is not positive; by x it is 0 where y is 0.
    """

    name: ClassVar[str] = "power"
    display: ClassVar[str] = "**"
    function: ClassVar[str] = "power"

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,), (x, y), (z,) = cotangents, inputs, outputs
        flat = equal(y, 0.0)
        by_x = where(flat, 0.0, multiply(y, power(x, subtract(where(flat, 1.0, y), 1.0))))
        positive = greater(x, 0.0)
        by_y = where(positive, multiply(z, log(where(positive, x, 1.0))), 0.0)
        return multiply(g, by_x), multiply(g, by_y)

    def reference(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.power(x, y)

    @classmethod
    def samples(cls) -> list[Sample]:
        exponents = (-2.0, -0.5, 0.0, 1.0, 3.0, INFINITY)
        edges = [(a, b) for a in (*SPECIAL[:3], -0.0, 0.0, 0.5, INFINITY) for b in exponents]
        return [*cls._few(2, 0.3, 2.5), cls._edges(*zip(*edges, strict=True))]


# The user's functions


def tanh(x: Tensor) -> Tensor:
    """Hyperbolic tangent, elementwise."""
    return Tanh()(x)


def logistic(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)), elementwise; alias `sigmoid`."""
    return Logistic()(x)


def exp(x: Tensor) -> Tensor:
    """e to the x, elementwise."""
    return Exp()(x)


def log(x: Tensor) -> Tensor:
    """Natural logarithm, elementwise."""
    return Log()(x)


def sqrt(x: Tensor) -> Tensor:
    """Square root, elementwise; its derivative at 0 is infinite."""
    return Sqrt()(x)


def log1p(x: Tensor) -> Tensor:
    """log(1 + x), elementwise, exact near 0."""
    return Log1p()(x)


def expm1(x: Tensor) -> Tensor:
    """exp(x) - 1, elementwise, exact near 0."""
    return Expm1()(x)


def sin(x: Tensor) -> Tensor:
    """Sine of radians, elementwise."""
    return Sin()(x)


def cos(x: Tensor) -> Tensor:
    """Cosine of radians, elementwise."""
    return Cos()(x)


def erf(x: Tensor) -> Tensor:
    """The error function, elementwise."""
    return Erf()(x)


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), elementwise, without overflow."""
    return Softplus()(x)


def softsign(x: Tensor) -> Tensor:
    """x / (1 + |x|), elementwise."""
    return Softsign()(x)


def gelu(x: Tensor) -> Tensor:
    """x times the normal distribution's probability of less than x, elementwise."""
    return Gelu()(x)


def silu(x: Tensor) -> Tensor:
    """x times logistic(x), elementwise."""
    return Silu()(x)


def square(x: Tensor) -> Tensor:
    """x * x, elementwise."""
    return multiply(x, x)


def reciprocal(x: Tensor) -> Tensor:
    """1 / x, elementwise."""
    return divide(1.0, x)


WRITTEN_OUT = 16  # the largest whole power that is multiplied out: six multiplications at most


def power(x: Any, y: Any) -> Tensor:
    """x to the power y, elementwise, with broadcasting; also `x ** y`.

    Whole numbers up to 16 are multiplied out, so that they are exact where the products are, and for integers; a
    negative one is the reciprocal of such a product, and 0.5 the square root. Anything else is for floats.
    """
    if isinstance(y, (int, float)) and isinstance(x, Tensor):
        if y == 0.5:
            return sqrt(x)
        if float(y).is_integer() and 0 < abs(y) <= WRITTEN_OUT and (y > 0 or x.dtype.is_float):
            product = _product(x, int(abs(y)))
            return product if y > 0 else reciprocal(product)
    return Power()(*broadcast_operands("power", x, y))


def _product(x: Tensor, count: int) -> Tensor:
    """x * x * ... by repeated squaring."""
    if count == 1:
        return x
    root = square(_product(x, count // 2))
    return multiply(root, x) if count % 2 else root
