"""Convolution (cross-correlation, as networks have it), along one axis, two, or more.

One op, whose derivatives are convolutions again: like `einsum`, it names the axes of its operands, and the last ones
are windows. The gradient of the weights slides the gradient of the result over the image, strides and dilations
exchanged; that of the image slides the flipped weights over the gradient of the result.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from flowgraph.errors import DTypeError, ShapeError
from flowgraph.graph import origin as origins
from flowgraph.graph.size import Shape, Size, evaluate, exact_quotient, floor_divide, show_shape
from flowgraph.graph.tensor import Tensor
from flowgraph.graph.types import TensorType
from flowgraph.index_notation import Axis, Body, Index, call
from flowgraph.ops.base import Cotangents, Op, Sample, load, require_float, values
from flowgraph.ops.elementwise import Copy
from flowgraph.ops.leaf import as_operands
from flowgraph.ops.shape import reshape, transpose
from flowgraph.ops.slicing import Flip, Slice
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


@dataclass(frozen=True)
class Convolution(Op):
    """The sum of products of an image and weights, whose labelled axes come first and whose last axes are windows:

    out[result, p] = the sum over the other labels, and over k, of x[first, stride p + dilation k] * w[second, k]

    for p below `counts`. `convolution[nc,oc->no]` is a layer's; no label occurs twice in one operand.
    """

    name: ClassVar[str] = "convolution"
    family: ClassVar[str] = "contraction"
    remedy: ClassVar[str] = f"feed larger images or longer sequences, {SMALLER}"
    first: str
    second: str
    result: str
    counts: Shape
    strides: tuple[int, ...]
    dilations: tuple[int, ...]

    def attributes(self) -> str:
        shown = [f"{self.first},{self.second}->{self.result}", f"counts={show_shape(self.counts)}"]
        for name in ("strides", "dilations"):
            if any(n != 1 for n in getattr(self, name)):
                shown.append(f"{name}={show_shape(getattr(self, name))}")
        return ", ".join(shown)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        x, w = types
        require_float(self, x, w)
        if x.dtype != w.dtype:
            raise DTypeError(f"convolution needs equal dtypes, got {x} and {w}", hint="convert one with fg.cast")
        rank = len(self.counts)
        if x.rank != len(self.first) + rank or w.rank != len(self.second) + rank:
            raise ShapeError(
                f"convolution {self.first},{self.second}->{self.result} along {rank} axes: "
                f"shapes {show_shape(x.shape)} and {show_shape(w.shape)}",
                hint="an image (batch, channels, *sizes), weights (out, channels / groups, *sizes)",
            )
        sizes = self._sizes(x, w)
        require_fitting("convolution", self._image(x), self._extents(w), self.strides, self.counts)
        return (TensorType((*(sizes[c] for c in self.result), *self.counts), x.dtype),)

    def nonnegative(self, *types: TensorType) -> Mapping[Size, str]:
        x, w = types
        return fitting("convolution", self._image(x), self._extents(w), self.strides, self.counts)

    def _sizes(self, x: TensorType, w: TensorType) -> dict[str, Size]:
        found: dict[str, Size] = {}
        for label, size in (*zip(self.first, x.shape, strict=False), *zip(self.second, w.shape, strict=False)):
            if found.setdefault(label, size) != size:
                raise ShapeError(
                    f"convolution {self.first},{self.second}->{self.result}: {label!r} is {found[label]} and {size} "
                    f"in shapes {show_shape(x.shape)} and {show_shape(w.shape)}"
                )
        return found

    def _image(self, x: TensorType) -> Shape:
        return x.shape[len(self.first) :]

    def _kernel(self, w: TensorType) -> Shape:
        return w.shape[len(self.second) :]

    def _extents(self, w: TensorType) -> Shape:
        """How many elements of the image a window reaches over."""
        return tuple((n - 1) * d + 1 for n, d in zip(self._kernel(w), self.dilations, strict=True))

    def body(self, *types: TensorType) -> Body:
        x, w = types
        axes = {c: Axis(c, n) for c, n in self._sizes(x, w).items()}
        place = tuple(Axis(f"p{k}", n) for k, n in enumerate(self.counts))
        window = tuple(Axis(f"k{k}", n) for k, n in enumerate(self._kernel(w)))
        inside = [None if a.extent == 1 else Index(a) for a in window]  # a window of one element has no loop
        seen = [
            moved(Index(p), s, k, d) for p, s, k, d in zip(place, self.strides, inside, self.dilations, strict=True)
        ]
        value = call(
            "mul",
            load(0, x, [*(Index(axes[c]) for c in self.first), *seen]),
            load(1, w, [*(Index(axes[c]) for c in self.second), *(moved(k, 1, None, 1) for k in inside)]),
        )
        summed = (*(a for c, a in axes.items() if c not in self.result), *(a for a in window if a.extent != 1))
        return Body((*(axes[c] for c in self.result), *place), value, summed, "sum" if summed else "")

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,), (x, w) = cotangents, inputs
        assert g is not None
        kernel = self._kernel(w.type)
        by_w = Convolution(self.first, self.result, self.second, kernel, self.dilations, self.strides)(x, g)
        residues = any(s != 1 for s in self.strides) and all(d == 1 for d in self.dilations)
        residues = residues and all(isinstance(n, int) for n in kernel)
        return (self._by_residues(x, w, g) if residues else self._by_image(x, w, g)), by_w

    def _by_image(self, x: Tensor, w: Tensor, g: Tensor) -> Tensor:
        """The gradient of the image: flipped weights slide over g, zeros between its elements."""
        image, extents = self._image(x.type), self._extents(w.type)
        margin = tuple(n - 1 for n in extents)  # every window that an element of the image is in
        whole = tuple(n + m for n, m in zip(image, margin, strict=True))
        around = spread_out(g, margin, self.strides, whole, 0.0)
        ones = (1,) * len(image)
        flipped = _flipped(w, len(image))
        return Convolution(self.result, self.second, self.first, image, ones, self.dilations)(around, flipped)

    def _by_residues(self, x: Tensor, w: Tensor, g: Tensor) -> Tensor:
        """The same where windows are a stride apart, without multiplying zeros between them: element s t + r of the
        image meets the weights r, r + s, ... only. So those with the same remainder slide over g by themselves, the
        remainders are labels more, and their results lie interleaved."""
        rank, lead = len(self.counts), len(self.second)
        image, strides = self._image(x.type), self.strides
        labels = "".join([c for c in string.ascii_lowercase if c not in self.first + self.second][:rank])
        every = tuple(-(-int(n) // s) for n, s in zip(self._kernel(w.type), strides, strict=True))  # type: ignore[arg-type]
        filled = tuple(n * s for n, s in zip(every, strides, strict=True))
        w = spread_out(w, (0,) * rank, (1,) * rank, filled, 0.0)
        w = reshape(w, (*w.shape[:lead], *itertools.chain(*zip(every, strides, strict=True))))
        places = range(lead, lead + 2 * rank)
        w = transpose(w, (*range(lead), *places[1::2], *places[::2]))
        count = tuple(floor_divide(n + (s - 1), s) for n, s in zip(image, strides, strict=True))
        whole = tuple(n + m - 1 for n, m in zip(count, every, strict=True))
        around = spread_out(g, tuple(n - 1 for n in every), (1,) * rank, whole, 0.0)
        ones = (1,) * rank
        convolved = Convolution(self.result, self.second + labels, self.first + labels, count, ones, ones)
        found = convolved(around, _flipped(w, rank))
        front = len(self.first)
        order = itertools.chain(*zip(range(front + rank, front + 2 * rank), range(front, front + rank), strict=True))
        found = Copy()(transpose(found, (*range(front), *order)))  # in memory, so that what is read of it is affine
        joined = tuple(n * s for n, s in zip(count, strides, strict=True))
        found = reshape(found, (*found.shape[:front], *joined))
        return found if joined == image else Slice((0,) * found.rank, x.shape, (1,) * found.rank)(found)

    def reference(self, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        rank = len(self.counts)
        extents = [(n - 1) * d + 1 for n, d in zip(w.shape[w.ndim - rank :], self.dilations, strict=True)]
        seen = views(x, extents, self.strides, [evaluate(n, {}) for n in self.counts])
        spread: Any = (..., *(slice(None, None, d) for d in self.dilations))
        spare = [c for c in string.ascii_uppercase if c not in self.first + self.second]
        place, window = "".join(spare[:rank]), "".join(spare[rank : 2 * rank])
        labels = f"{self.first}{place}{window},{self.second}{window}->{self.result}{place}"
        return np.einsum(labels, seen[spread], w, optimize=True).astype(x.dtype, copy=False)

    @classmethod
    def samples(cls) -> list[Sample]:
        layer = ("nc", "oc", "no")
        cases: list[tuple[tuple[str, str, str], tuple[int, ...], tuple[int, ...], int, int]] = [
            (layer, (2, 3, 20), (4, 3, 5), 1, 1),
            (layer, (2, 1, 9), (1, 1, 1), 1, 1),
            (layer, (1, 2, 1), (3, 2, 1), 1, 1),
            (layer, (3, 2, 24), (17, 2, 3), 2, 3),
            (layer, (2, 3, 9, 21), (5, 3, 3, 3), 1, 1),
            (layer, (2, 2, 11, 8), (3, 2, 3, 2), 2, 1),
            (layer, (1, 2, 10, 12), (2, 2, 2, 5), 3, 1),
            (layer, (1, 2, 9, 19), (18, 2, 2, 3), 1, 2),
            (layer, (1, 1, 5, 5), (1, 1, 5, 5), 1, 1),
            (layer, (2, 5, 6, 7), (3, 5, 1, 1), 1, 1),
            (layer, (2, 5, 6, 7), (3, 5, 1, 1), 3, 1),
            (layer, (1, 2, 4, 5, 6), (2, 2, 2, 1, 3), 1, 1),
            (("ngc", "goc", "ngo"), (2, 3, 2, 7, 18), (3, 4, 2, 3, 3), 1, 1),
            (("ngc", "goc", "ngo"), (2, 4, 1, 13), (4, 1, 1, 3), 2, 1),  # one channel a group
            (("nc", "no", "oc"), (3, 2, 8, 19), (3, 4, 6, 17), 1, 1),  # the gradient of weights (4, 2, 3, 3)
        ]
        made = []
        for labels, image, kernel, stride, dilation in cases:
            rank = len(image) - len(labels[0])
            sizes = zip(image[-rank:], kernel[-rank:], strict=True)
            counts = tuple((n - (k - 1) * dilation - 1) // stride + 1 for n, k in sizes)
            op = cls(*labels, counts, (stride,) * rank, (dilation,) * rank)
            made.append(Sample(op, (values(*image), values(*kernel, seed=1))))
        wide = cls(*layer, (3,), (2,), (1,))  # fewer windows than there are
        return [*made, Sample(wide, (values(2, 2, 12, dtype="float64"), values(3, 2, 4, dtype="float64", seed=1)))]


def _flipped(w: Tensor, rank: int) -> Tensor:
    """w with its last axes in reverse order."""
    longer = tuple(k for k in range(w.rank - rank, w.rank) if w.shape[k] != 1)
    return Flip(longer)(w) if longer else w


def conv1d(
    x: Any, w: Any, stride: Any = 1, padding: Any = "valid", dilation: Any = 1, groups: int = 1
) -> Tensor:
    """The convolution of x (batch, channels, size) with weights w (out, channels / groups, kernel):
    (batch, out, size').

    A cross-correlation, as in other libraries: out[n, o, p] is the sum over c and k of
    x[n, c, stride p + dilation k] * w[o, c, k].
    `padding` is "valid" (none), "same" (as many positions as x has elements, divided by the stride, rounded up), a
    number of zeros at each end, or a pair (before, after). With `groups`, the channels and the maps of the result are
    divided into so many parts, each of which sees the channels of its own only.

    Raises ShapeError where the channels of w are not those of a group, or a window is larger than the image.

    >>> import flowgraph as fg
    >>> x = fg.input("x", ("batch", 3, 100))
    >>> w = fg.parameter("w", (8, 3, 5))
    >>> fg.conv1d(x, w, padding="same").shape
    (batch, 8, 100)
    """
    return _convolve("conv1d", 1, x, w, stride, padding, dilation, groups)


def conv2d(
    x: Any, w: Any, stride: Any = 1, padding: Any = "valid", dilation: Any = 1, groups: int = 1
) -> Tensor:
    """The convolution of x (batch, channels, height, width) with weights w (out, channels / groups, *kernel):
    (batch, out, height', width').

    A cross-correlation, as in other libraries. `stride` and `dilation` are an int or one for each axis; `padding` is
    "valid" (none), "same" (as many positions as x has elements, divided by the stride, rounded up), a number of zeros
    on all sides, or for each axis a number or a pair (before, after). With `groups`, the channels and the maps of the
    result are divided into so many parts, each of which sees the channels of its own only.

    Raises ShapeError where the channels of w are not those of a group, or a window is larger than the image.

    >>> import flowgraph as fg
    >>> x = fg.input("x", ("batch", 1, 28, 28))
    >>> w = fg.parameter("w", (20, 1, 5, 5))
    >>> fg.conv2d(x, w).shape
    (batch, 20, 24, 24)
    >>> fg.conv2d(x, w, stride=2, padding=2).shape
    (batch, 20, 14, 14)
    """
    return _convolve("conv2d", 2, x, w, stride, padding, dilation, groups)


def _convolve(
    what: str, rank: int, x: Any, w: Any, stride: Any, padding: Any, dilation: Any, groups: Any
) -> Tensor:
    x, w = as_operands(what, (x, w))
    shapes = f"image {show_shape(x.shape)}, weights {show_shape(w.shape)}"
    if x.rank != rank + 2 or w.rank != rank + 2:
        sizes = ", ".join(("height", "width")[-rank:]) if rank == 2 else "size"
        raise ShapeError(
            f"{what}: {shapes}",
            where=origins.here(),
            hint=f"an image (batch, channels, {sizes}) and weights (out, channels / groups, *kernel)",
        )
    (groups,) = per_axis(what, "groups", groups, 1)
    strides, dilations = per_axis(what, "stride", stride, rank), per_axis(what, "dilation", dilation, rank)
    (channels, own), out = (x.shape[1], w.shape[1]), w.shape[0]
    if own * groups != channels:
        raise ShapeError(
            f"{what}: {shapes}, groups {groups}: the image has {channels} channels, "
            f"the weights are for {own} channels a group, that is {own * groups}",
            where=origins.here(),
            hint="weights are (out, channels / groups, *kernel)",
        )
    each = exact_quotient(out, groups)
    if each is None:
        raise ShapeError(
            f"{what}: {shapes}: {out} maps do not divide into {groups} groups",
            where=origins.here(),
            hint="the number of maps, the first size of the weights, must be a multiple of groups",
        )
    extents = tuple((n - 1) * d + 1 for n, d in zip(w.shape[2:], dilations, strict=True))
    x = padded(x, padding_of(what, padding, x.shape[2:], extents, strides), 0.0)
    image = x.shape[2:]
    counts = tuple(positions(*axis) for axis in zip(image, extents, strides, strict=True))
    if groups == 1:
        return Convolution("nc", "oc", "no", counts, strides, dilations)(x, w)
    x = reshape(x, (x.shape[0], groups, own, *image))
    w = reshape(w, (groups, each, own, *w.shape[2:]))
    found = Convolution("ngc", "goc", "ngo", counts, strides, dilations)(x, w)
    return reshape(found, (x.shape[0], out, *counts))
