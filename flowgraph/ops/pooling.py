"""Pooling: the maximum, or the mean, of every window of the last axes.

The gradient of a maximum goes to the first of the largest elements, found by its number in the window. What is sent
back is gathered, never scattered: with zeros between the windows' gradients, every element looks at the windows that it
is in, and takes what is meant for its own place in them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from flowgraph.errors import ShapeError
from flowgraph.graph import origin as origins
from flowgraph.graph.size import Shape, Size, show_shape
from flowgraph.graph.tensor import Tensor
from flowgraph.graph.types import TensorType, int32
from flowgraph.index_notation import Axis, Body, Const, Expr, Index, Load, call, cast
from flowgraph.ops.base import Cotangents, Op, Sample, axes_for, indices, load, require_float, values
from flowgraph.ops.elementwise import divide
from flowgraph.ops.indexing import require_integers
from flowgraph.ops.leaf import as_tensor
from flowgraph.ops.windows import (
    SMALLER,
    fitting,
    moved,
    padded,
    padding_of,
    per_axis,
    positions,
    require_fitting,
    spread_out,
    views,
)

NONE = -1  # the number of no place in a window


@dataclass(frozen=True)
class Pool(Op):
    """An op on windows of the last axes of its first operand, whose other axes it leaves alone."""

    family: ClassVar[str] = "reduce"
    remedy: ClassVar[str] = f"feed larger images or longer sequences, {SMALLER}"
    window: tuple[int, ...]
    strides: tuple[int, ...]

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        x = types[0]
        require_float(self, x)
        if x.rank < len(self.window):
            raise ShapeError(f"{self.display} of windows {show_shape(self.window)} of a shape {show_shape(x.shape)}")
        require_fitting(self.display, self._image(x), self.window, self.strides, self._counts(x))
        return (TensorType((*self._lead(x), *self._counts(x)), x.dtype),)

    def nonnegative(self, *types: TensorType) -> Mapping[Size, str]:
        x = types[0]
        return fitting(self.display, self._image(x), self.window, self.strides, self._counts(x))

    def _lead(self, x: TensorType) -> Shape:
        return x.shape[: x.rank - len(self.window)]

    def _image(self, x: TensorType) -> Shape:
        return x.shape[x.rank - len(self.window) :]

    def _counts(self, x: TensorType) -> Shape:
        return tuple(positions(*axis) for axis in zip(self._image(x), self.window, self.strides, strict=True))

    def _axes(self, x: TensorType) -> tuple[tuple[Axis, ...], tuple[Axis, ...]]:
        """The axes of the result, and those of a window."""
        inside = tuple(Axis(f"k{k}", n) for k, n in enumerate(self.window))
        return axes_for((*self._lead(x), *self._counts(x))), inside

    def _seen(self, x: TensorType, axes: tuple[Axis, ...], inside: tuple[Axis, ...]) -> Load:
        """The element of the image at a place of a window."""
        lead = len(self._lead(x))
        parts = zip(axes[lead:], self.strides, inside, strict=True)
        return load(0, x, [*indices(axes[:lead]), *(moved(Index(p), s, Index(k), 1) for p, s, k in parts)])

    def _number(self, inside: tuple[Axis, ...]) -> Expr:
        """A place in a window, in row-major order."""
        total: Expr = Index(inside[0])
        for axis in inside[1:]:
            total = call("add", call("mul", total, int(axis.extent)), Index(axis))  # type: ignore[arg-type]
        return cast(total, int32)

    def _windows(self, x: np.ndarray) -> np.ndarray:
        """(..., *positions, elements of a window), for references."""
        sizes = x.shape[x.ndim - len(self.window) :]
        counts = [(n - k) // s + 1 for n, k, s in zip(sizes, self.window, self.strides, strict=True)]
        seen = views(x, self.window, self.strides, counts)
        return seen.reshape(*seen.shape[: x.ndim], -1)

    @classmethod
    def _cases(cls) -> list[tuple[Any, tuple[int, ...]]]:
        """Ops, and the shapes of their images."""
        return [
            (cls((2, 2), (2, 2)), (2, 3, 8, 18)),
            (cls((3, 3), (2, 2)), (2, 2, 9, 11)),
            (cls((3, 2), (1, 3)), (1, 2, 7, 20)),
            (cls((2,), (3,)), (3, 20)),
            (cls((5,), (1,)), (2, 3, 21)),
            (cls((1, 1), (1, 2)), (2, 5, 6)),
            (cls((4, 4), (4, 4)), (4, 4)),
        ]


def _sent_back(g: Tensor, choice: Tensor, image: Shape, window: tuple[int, ...], strides: tuple[int, ...]) -> Tensor:
    """For windows' gradients, each at the place in the window that `choice` numbers, their sums in the image."""
    margin = tuple(n - 1 for n in window)
    whole = tuple(n + m for n, m in zip(image, margin, strict=True))
    values_apart = spread_out(g, margin, strides, whole, 0.0)
    choices_apart = spread_out(choice, margin, strides, whole, NONE)
    return ToChosen(window, (1,) * len(window))(values_apart, choices_apart)


@dataclass(frozen=True)
class MaxPool(Pool):
    """The maximum of every window; NaN if there is one. The gradient goes to the first of the largest elements."""

    name: ClassVar[str] = "max_pool"
    display: ClassVar[str] = "maxPool"

    def body(self, *types: TensorType) -> Body:
        axes, inside = self._axes(types[0])
        return Body(axes, self._seen(types[0], axes, inside), inside, "max")

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,), (x,), (y,) = cotangents, inputs, outputs
        assert g is not None
        choice = FirstInWindow(self.window, self.strides)(x, y)
        return (_sent_back(g, choice, self._image(x.type), self.window, self.strides),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return self._windows(x).max(-1)

    @classmethod
    def samples(cls) -> list[Sample]:
        nan = np.array([[1.0, np.nan, 3.0, 1.0], [2.0, 2.0, 0.0, -np.inf]], np.float32)
        return [
            *(Sample(op, (_distinct(shape),)) for op, shape in cls._cases()),
            Sample(cls((2, 2), (1, 1)), (_distinct((5, 18)).astype(np.float64),)),
            Sample(cls((2,), (2,)), (nan,), smooth=()),
        ]


@dataclass(frozen=True)
class FirstInWindow(Pool):
    """The number of the place in every window of x where its maximum, which is given, or a NaN comes first."""

    name: ClassVar[str] = "first_in_window"
    display: ClassVar[str] = "firstInWindow"
    family: ClassVar[str] = "indexing"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        (found,) = super().infer(*types)
        if types[1] != found:
            raise ShapeError(f"{self.display}: maxima {types[1]} of windows whose maxima are {found}")
        return (TensorType(found.shape, int32),)

    def body(self, *types: TensorType) -> Body:
        axes, inside = self._axes(types[0])
        seen = self._seen(types[0], axes, inside)
        hit = call("or", call("eq", seen, load(1, types[1], indices(axes))), call("ne", seen, seen))
        none = Const(int(np.prod(self.window)), int32)
        return Body(axes, call("select", hit, self._number(inside), none), inside, "min")

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        return None, None

    def reference(self, x: np.ndarray, largest: np.ndarray) -> np.ndarray:
        return np.argmax(self._windows(x), -1).astype(np.int32)

    @classmethod
    def samples(cls) -> list[Sample]:
        tied = np.array([[1.0, 1.0, 1.0, 0.0, 2.0, 2.0], [0.0, np.nan, np.nan, 1.0, 1.0, 1.0]], np.float32)
        cases = [*((op, _distinct(shape)) for op, shape in cls._cases()), (cls((2,), (1,)), tied)]
        return [Sample(op, (x, MaxPool(op.window, op.strides).reference(x))) for op, x in cases]


@dataclass(frozen=True)
class FromChosen(Pool):
    """The element of every window of x whose place is numbered; 0 where that is the number of none."""

    name: ClassVar[str] = "from_chosen"
    display: ClassVar[str] = "fromChosen"
    family: ClassVar[str] = "indexing"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        x, choice = types
        require_integers(self, choice, "places in windows")
        (found,) = super().infer(x)
        if choice.shape != found.shape:
            raise ShapeError(
                f"{self.display}: places {show_shape(choice.shape)} in windows {show_shape(found.shape)}"
            )
        return (found,)

    def body(self, *types: TensorType) -> Body:
        x, choice = types
        axes, inside = self._axes(x)
        here = call("eq", cast(load(1, choice, indices(axes)), int32), self._number(inside))
        return Body(axes, call("select", here, self._seen(x, axes, inside), Const(0.0, x.dtype)), inside, "sum")

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,), (x, choice) = cotangents, inputs
        assert g is not None
        return _sent_back(g, choice, self._image(x.type), self.window, self.strides), None

    def reference(self, x: np.ndarray, choice: np.ndarray) -> np.ndarray:
        every = self._windows(x)
        valid = (choice >= 0) & (choice < every.shape[-1])
        found = np.take_along_axis(every, np.where(valid, choice, 0)[..., None].astype(np.int64), -1)[..., 0]
        return np.where(valid, found, 0).astype(x.dtype)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [Sample(op, (values(*shape), _choices(op, shape))) for op, shape in cls._cases()]


@dataclass(frozen=True)
class ToChosen(Pool):
    """The transpose of `from_chosen`: the sum of those elements of a window that are meant for the element there.

    out[q] is the sum of x[q + k] over the k with choice[q + k] = the number of the place that is as far from the
    window's end as k is from its beginning. The strides are 1: windows further apart have zeros between them.
    """

    name: ClassVar[str] = "to_chosen"
    display: ClassVar[str] = "toChosen"
    family: ClassVar[str] = "indexing"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        x, choice = types
        require_integers(self, choice, "places in windows")
        if choice.shape != x.shape or any(s != 1 for s in self.strides):
            raise ShapeError(
                f"{self.display}: values {show_shape(x.shape)} for places {show_shape(choice.shape)}, "
                f"strides {show_shape(self.strides)}"
            )
        return super().infer(x)

    def body(self, *types: TensorType) -> Body:
        x, choice = types
        axes, inside = self._axes(x)
        seen = self._seen(x, axes, inside)
        last = Const(int(np.prod(self.window)) - 1, int32)
        meant = cast(load(1, choice, seen.index), int32)
        here = call("eq", call("add", meant, self._number(inside)), last)
        return Body(axes, call("select", here, seen, Const(0.0, x.dtype)), inside, "sum")

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,), (_, choice) = cotangents, inputs
        assert g is not None
        around = padded(g, tuple((n - 1, n - 1) for n in self.window), 0.0)
        return FromChosen(self.window, self.strides)(around, choice), None

    def reference(self, x: np.ndarray, choice: np.ndarray) -> np.ndarray:
        every, meant = self._windows(x), self._windows(choice)
        here = meant == np.arange(every.shape[-1])[::-1]
        return np.where(here, every, 0).sum(-1, dtype=x.dtype)

    @classmethod
    def samples(cls) -> list[Sample]:
        cases = [(cls(op.window, (1,) * len(op.window)), shape) for op, shape in cls._cases()]
        return [
            Sample(op, (values(*shape), values(*shape, low=-1, high=int(np.prod(op.window)), dtype="int32", seed=1)))
            for op, shape in cases
        ]


@dataclass(frozen=True)
class SumPool(Pool):
    """The sum of every window."""

    name: ClassVar[str] = "sum_pool"
    display: ClassVar[str] = "sumPool"

    def body(self, *types: TensorType) -> Body:
        axes, inside = self._axes(types[0])
        return Body(axes, self._seen(types[0], axes, inside), inside, "sum")

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,), (x,) = cotangents, inputs
        assert g is not None
        margin = tuple(n - 1 for n in self.window)
        whole = tuple(n + m for n, m in zip(self._image(x.type), margin, strict=True))
        return (SumPool(self.window, (1,) * len(margin))(spread_out(g, margin, self.strides, whole, 0.0)),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return self._windows(x).sum(-1, dtype=x.dtype)

    @classmethod
    def samples(cls) -> list[Sample]:
        wide = Sample(cls((2, 2), (1, 1)), (values(5, 18, dtype="float64"),))
        return [*(Sample(op, (values(*shape),)) for op, shape in cls._cases()), wide]


def _distinct(shape: tuple[int, ...]) -> np.ndarray:
    """Values no two of which are near each other, so that a maximum has a derivative."""
    count = int(np.prod(shape))
    order = np.random.default_rng(count).permutation(count)
    return ((order - count / 2) / count * 4 + 0.01).astype(np.float32).reshape(shape)


def _choices(op: Pool, shape: tuple[int, ...]) -> np.ndarray:
    """Any place of each window, or none."""
    (found,) = Pool.infer(op, TensorType(shape))
    counts = [int(n) for n in found.shape]  # type: ignore[arg-type]
    return values(*counts, low=-1, high=int(np.prod(op.window)), dtype="int32", seed=1)


def max_pool1d(x: Any, window: int, stride: int | None = None, padding: Any = "valid") -> Tensor:
    """The maximum of every window of `window` elements of the last axis of x (..., size): (..., size').

    `stride` is the window's size unless given; `padding` as in `conv1d`, less than a window: what is added is never the
    maximum. NaN where a window has one. The gradient goes to the first of a window's largest elements.

    Raises ShapeError where a window is larger than the axis.

    >>> import flowgraph as fg
    >>> fg.max_pool1d(fg.input("x", ("batch", 8, 100)), 4).shape
    (batch, 8, 25)
    """
    return _max_pool("max_pool1d", 1, x, window, stride, padding)


def max_pool2d(x: Any, window: Any, stride: Any = None, padding: Any = "valid") -> Tensor:
    """The maximum of every window of the last two axes of x (..., height, width): (..., height', width').

    `window` and `stride` are an int or one for each axis; `stride` is the window's size unless given; `padding` as in
    `conv2d`, less than a window: what is added is never the maximum. NaN where a window has one. The gradient goes to
    the first of a window's largest elements, in row-major order.

    Raises ShapeError where a window is larger than the image.

    >>> import flowgraph as fg
    >>> x = fg.input("x", ("batch", 20, 24, 24))
    >>> fg.max_pool2d(x, 2).shape
    (batch, 20, 12, 12)
    >>> fg.max_pool2d(x, 3, stride=2, padding=1).shape
    (batch, 20, 12, 12)
    """
    return _max_pool("max_pool2d", 2, x, window, stride, padding)


def avg_pool1d(x: Any, window: int, stride: int | None = None, padding: Any = "valid") -> Tensor:
    """The mean of every window of `window` elements of the last axis of x (..., size): (..., size').

    `stride` is the window's size unless given; `padding` as in `conv1d`, less than a window: the zeros that are added
    count. Raises ShapeError where a window is larger than the axis.

    >>> import flowgraph as fg
    >>> fg.avg_pool1d(fg.input("x", ("batch", 8, 100)), 4).shape
    (batch, 8, 25)
    """
    return _avg_pool("avg_pool1d", 1, x, window, stride, padding)


def avg_pool2d(x: Any, window: Any, stride: Any = None, padding: Any = "valid") -> Tensor:
    """The mean of every window of the last two axes of x (..., height, width): (..., height', width').

    `window` and `stride` are an int or one for each axis; `stride` is the window's size unless given; `padding` as in
    `conv2d`, less than a window: the zeros that are added count. Raises ShapeError where a window is larger than the
    image.

    >>> import flowgraph as fg
    >>> fg.avg_pool2d(fg.input("x", ("batch", 20, 24, 24)), 2).shape
    (batch, 20, 12, 12)
    """
    return _avg_pool("avg_pool2d", 2, x, window, stride, padding)


def _max_pool(what: str, rank: int, x: Any, window: Any, stride: Any, padding: Any) -> Tensor:
    image, sizes, strides = _prepared(what, rank, x, window, stride, padding, float("-inf"))
    return MaxPool(sizes, strides)(image)


def _avg_pool(what: str, rank: int, x: Any, window: Any, stride: Any, padding: Any) -> Tensor:
    image, sizes, strides = _prepared(what, rank, x, window, stride, padding, 0.0)
    return divide(SumPool(sizes, strides)(image), float(np.prod(sizes)))


def _prepared(
    what: str, rank: int, x: Any, window: Any, stride: Any, padding: Any, value: float
) -> tuple[Tensor, tuple[int, ...], tuple[int, ...]]:
    """The padded image, the sizes of a window, and the strides."""
    x = as_tensor(x, what=what)
    sizes = per_axis(what, "window", window, rank)
    strides = sizes if stride is None else per_axis(what, "stride", stride, rank)
    if x.rank < rank:
        raise ShapeError(f"{what}: a tensor of shape {show_shape(x.shape)} has no {rank} axes", where=origins.here())
    widths = padding_of(what, padding, x.shape[x.rank - rank :], sizes, strides)
    for pair, size in zip(widths, sizes, strict=True):
        if any(isinstance(n, int) and n >= size for n in pair):
            raise ShapeError(
                f"{what}: padding {padding!r} of windows {show_shape(sizes)}",
                where=origins.here(),
                hint="pad by less than a window: each must have an element of the image",
            )
    return (padded(x, widths, value) if x.dtype.is_float else x), sizes, strides
