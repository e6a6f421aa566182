"""What is made of reductions: where the largest is, spread, sums of exponentials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from math import inf, prod
from typing import Any, ClassVar

import numpy as np

from flowgraph.errors import InputError, ShapeError
from flowgraph.graph import origin as origins
from flowgraph.graph.size import product, show_shape
from flowgraph.graph.tensor import Tensor
from flowgraph.graph.types import TensorType, int64
from flowgraph.ops.base import Cotangents, Op, Sample, checks_settings, require_float, require_numbers, values
from flowgraph.ops.elementwise import add, divide, equal, multiply, subtract, where
from flowgraph.ops.functions import exp, log, sqrt, square
from flowgraph.ops.leaf import arange, as_tensor, size_of
from flowgraph.ops.logic import isfinite, isnan, logical_or
from flowgraph.ops.piecewise import absolute, maximum
from flowgraph.ops.reduce import Max, Min, Selection, Sum, mean
from flowgraph.ops.reduce import max as max_
from flowgraph.ops.reduce import sum as sum_
from flowgraph.ops.shape import broadcast_operands, broadcast_to, expand_dims, normalise_axes


@dataclass(frozen=True)
class Place(Op):
    """The number of the first element that is extreme over axes, counted along them in row-major order; int64.

    NaN counts as extreme, as in NumPy.
    """

    family: ClassVar[str] = "reduce"
    extreme: ClassVar[type[Selection]]
    axes: tuple[int, ...]

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        (x,) = types
        require_numbers(self, x)
        if not self.axes or not set(self.axes) <= set(range(x.rank)):
            raise ShapeError(f"{self.name} over axes {self.axes} of a tensor of shape {show_shape(x.shape)}")
        if 0 in (x.shape[a] for a in self.axes):
            raise ShapeError(f"{self.name} over an axis of size 0: {show_shape(x.shape)}")
        return (TensorType(tuple(s for k, s in enumerate(x.shape) if k not in self.axes), int64),)

    def expand(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        is_extreme = equal(x, broadcast_to(expand_dims(self.extreme(self.axes)(x), self.axes), x.shape))
        if x.dtype.is_float:
            is_extreme = logical_or(is_extreme, isnan(x))
        parts = []
        for place, axis in enumerate(self.axes):
            others = tuple(k for k in range(x.rank) if k != axis)
            along = expand_dims(arange(x.shape[axis]), others) if others else arange(x.shape[axis])
            stride = product(x.shape[a] for a in self.axes[place + 1 :])
            parts.append(along if stride == 1 else multiply(along, size_of(stride, int64)))
        number = reduce(add, parts)
        beyond = size_of(product(x.shape[a] for a in self.axes), int64)
        return Min(self.axes)(where(is_extreme, broadcast_to(number, x.shape), beyond))

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        return (None,)

    def _rows(self, x: np.ndarray) -> np.ndarray:
        """The axes searched, last and as one."""
        kept = [s for k, s in enumerate(x.shape) if k not in self.axes]
        searched = prod(x.shape[a] for a in self.axes)
        return np.moveaxis(x, self.axes, range(-len(self.axes), 0)).reshape(*kept, searched)

    @classmethod
    def samples(cls) -> list[Sample]:
        ties = values(9, 40, low=-3, high=3, dtype="int32")
        special = np.array([[1, np.nan, 3, np.nan], [-np.inf, 2, np.inf, np.inf], [-0.0, 0.0, 0.0, -0.0]], np.float32)
        several = [(values(3, 5, 18), (0, 2)), (values(33), (0,))]
        cases = [(ties, (1,)), (ties.astype(np.float32), (0,)), (special, (1,)), *several]
        return [Sample(cls(axes), (x,), smooth=()) for x, axes in cases]


@dataclass(frozen=True)
class ArgMax(Place):
    """The number of the first largest element over axes; NaN counts as largest."""

    name: ClassVar[str] = "argmax"
    display: ClassVar[str] = "argMax"
    extreme: ClassVar[type[Selection]] = Max

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.argmax(self._rows(x), axis=-1).astype(np.int64)


@dataclass(frozen=True)
class ArgMin(Place):
    """The number of the first smallest element over axes; NaN counts as smallest."""

    name: ClassVar[str] = "argmin"
    display: ClassVar[str] = "argMin"
    extreme: ClassVar[type[Selection]] = Min

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.argmin(self._rows(x), axis=-1).astype(np.int64)


@dataclass(frozen=True)
class LogSumExp(Op):
    """log(sum(exp(x))) over axes, without overflow; -infinity where all are."""

    name: ClassVar[str] = "logsumexp"
    display: ClassVar[str] = "logSumExp"
    family: ClassVar[str] = "reduce"
    axes: tuple[int, ...]

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_float(self, *types)
        return Max(self.axes).infer(*types)

    def expand(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        largest = Max(self.axes)(x)
        shift = where(isfinite(largest), largest, 0.0)  # an infinite one would make infinity - infinity
        return add(log(Sum(self.axes)(exp(subtract(x, self._spread(shift, x))))), shift)

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,), (x,) = cotangents, inputs
        assert g is not None
        largest = Max(self.axes)(x)  # not the result: of large ones the digits that count are rounded away
        e = exp(subtract(x, self._spread(where(isfinite(largest), largest, 0.0), x)))
        total = Sum(self.axes)(e)
        share = divide(g, where(equal(total, 0.0), 1.0, total))
        return (multiply(self._spread(share, x), e),)

    def _spread(self, value: Tensor, x: Tensor) -> Tensor:
        return broadcast_to(expand_dims(value, self.axes), x.shape)

    def reference(self, x: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            largest = np.max(x, axis=self.axes, keepdims=True)
            shift = np.where(np.isinf(largest), 0, largest)
            return np.log(np.sum(np.exp(x - shift), axis=self.axes)) + np.squeeze(shift, self.axes)

    @classmethod
    def samples(cls) -> list[Sample]:
        special = np.array([[-np.inf, -np.inf], [1e4, -1e4], [np.inf, 0], [np.nan, 0]], np.float32)
        cases = ((values(9, 17), (1,)), (values(9, 17), (0,)), (values(40), (0,)))
        return [*(Sample(cls(axes), (x,)) for x, axes in cases), Sample(cls((1,)), (special,), smooth=())]


# The user's functions

Axes = int | Sequence[int] | None


def _over(what: str, x: Tensor, axis: Axes) -> tuple[int, ...]:
    axes = tuple(sorted(normalise_axes(what, range(x.rank) if axis is None else axis, x.shape)))
    if not axes:
        raise ShapeError(
            f"{what} of a tensor of shape {show_shape(x.shape)} over no axes",
            where=origins.here(),
            hint="a scalar has no axes",
        )
    return axes


@checks_settings
def argmax(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The number of the first largest element over `axis`, int64; over all axes by default, in row-major order.

    NaN counts as largest. `keepdims` leaves axes of size 1.
    """
    x = as_tensor(x, what="argmax")
    axes = _over("argmax", x, axis)
    return expand_dims(ArgMax(axes)(x), axes) if keepdims else ArgMax(axes)(x)


@checks_settings
def argmin(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The number of the first smallest element over `axis`, int64; over all axes by default, in row-major order.

    NaN counts as smallest. `keepdims` leaves axes of size 1.
    """
    x = as_tensor(x, what="argmin")
    axes = _over("argmin", x, axis)
    return expand_dims(ArgMin(axes)(x), axes) if keepdims else ArgMin(axes)(x)


@checks_settings
def logsumexp(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """log(sum(exp(x))) over `axis` (all axes by default), without overflow; `keepdims` leaves axes of size 1."""
    x = as_tensor(x, what="logsumexp")
    axes = _over("logsumexp", x, axis)
    return expand_dims(LogSumExp(axes)(x), axes) if keepdims else LogSumExp(axes)(x)


@checks_settings
def var(x: Tensor, axis: Axes = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """The variance over `axis` (all axes by default): the mean squared distance from the mean, which is taken first.

    The sum of squares is divided by the number of elements less `correction` (NumPy's `ddof`): 1 makes the estimate
    from a sample unbiased. `keepdims` leaves axes of size 1.
    """
    x = as_tensor(x, what="var")
    axes = _over("var", x, axis)
    squares = square(subtract(x, mean(x, axes, keepdims=True)))
    if correction == 0:
        return mean(squares, axes, keepdims)
    count = size_of(product(x.shape[a] for a in axes), x.dtype)
    return divide(sum_(squares, axes, keepdims), subtract(count, float(correction)))


@checks_settings
def std(x: Tensor, axis: Axes = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """The standard deviation over `axis`: the square root of `var`. Its gradient is NaN where it is 0."""
    return sqrt(var(x, axis, correction, keepdims))


@checks_settings
def norm(x: Tensor, ord: float = 2, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The vector norm over `axis`, over all elements by default, as NumPy's `linalg.vector_norm`.

    `ord` 2 is the root of the sum of squares, 1 the sum of magnitudes, infinity the largest magnitude. Squares are not
    scaled: they overflow beyond about 1e19 in float32. The gradient where norm 2 is 0 is 0, one of its subgradients.
    `keepdims` leaves axes of size 1.
    """
    x = as_tensor(x, what="norm")
    axes = _over("norm", x, axis)
    if ord == 1:
        return sum_(absolute(x), axes, keepdims)
    if ord == inf:
        return max_(absolute(x), axes, keepdims)
    if ord != 2:
        raise InputError(
            f"norm of order {ord!r}", where=origins.here(), hint="orders are 1, 2 and infinity; others by fg.power"
        )
    squares = sum_(square(x), axes, keepdims)
    is_zero = equal(squares, 0.0)
    return where(is_zero, 0.0, sqrt(where(is_zero, 1.0, squares)))


@checks_settings
def cosine_similarity(x: Any, y: Any, axis: int = -1, epsilon: float = 1e-8) -> Tensor:
    """x · y / (|x| |y|) along an axis: the cosine of the angle between vectors, from -1 to 1; x and y broadcast.

    Lengths below `epsilon` count as `epsilon`, as in PyTorch: the similarity to a vector of zeros is 0.

    >>> import flowgraph as fg
    >>> fg.cosine_similarity(fg.input("x", ("batch", 5, 64)), fg.input("y", ("batch", 1, 64)))
    <Tensor divide: float32(batch, 5)>
    """
    x, y = broadcast_operands("cosine_similarity", x, y)
    place = _over("cosine_similarity", x, axis)
    if not epsilon > 0:
        raise InputError(
            f"cosine_similarity with epsilon={epsilon!r}", where=origins.here(), hint="it is positive: 1e-8"
        )
    lengths = [maximum(norm(t, axis=place), epsilon) for t in (x, y)]
    return divide(sum_(multiply(x, y), place), multiply(*lengths))
