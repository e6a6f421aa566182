"""Windows that slide over the last axes of an image: their steps, where they lie, and the padding they need.

What convolution and pooling share. A window covers `extent` elements of an axis; window p begins at element p * stride
of the padded image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flowgraph.errors import ShapeError
from flowgraph.graph import origin as origins
from flowgraph.graph.size import Shape, Size, floor_divide, show_shape
from flowgraph.graph.tensor import Tensor
from flowgraph.graph.types import int64
from flowgraph.index_notation import Const, Expr, call
from flowgraph.ops.pieces import Pad

Widths = tuple[tuple[Size, Size], ...]  # what is added before and after, an axis
SMALLER = "pad the image, as in padding='same', or use a smaller window or dilation"


def per_axis(what: str, name: str, given: Any, rank: int) -> tuple[int, ...]:
    """A number for every axis, or one for each: positive ints."""
    several = tuple(given) if isinstance(given, (tuple, list)) else (given,) * rank
    whole = all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) and n >= 1 for n in several)
    if len(several) != rank or not whole:
        raise ShapeError(
            f"{what}: {name} {given!r}", where=origins.here(), hint=f"a positive int, or {rank} of them, one an axis"
        )
    return tuple(map(int, several))


def padding_of(what: str, padding: Any, image: Shape, extents: Shape, strides: Sequence[int]) -> Widths:
    """The widths that a `padding` stands for: "valid", "same", a number, or for each axis a number or (before, after).

    "same" makes ceil(size / stride) positions of an axis; what does not divide evenly goes to its end.
    """
    rank = len(image)
    if padding == "valid":
        return ((0, 0),) * rank
    if padding == "same":
        return tuple(_same(what, *axis) for axis in zip(image, extents, strides, strict=True))
    given = tuple(padding) if isinstance(padding, (tuple, list)) else (padding,) * rank
    if rank == 1 and len(given) == 2:
        given = (given,)
    pairs = [tuple(p) if isinstance(p, (tuple, list)) else (p, p) for p in given]
    whole = all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) and n >= 0 for p in pairs for n in p)
    if len(pairs) != rank or any(len(p) != 2 for p in pairs) or not whole:
        raise ShapeError(
            f"{what}: padding {padding!r}",
            where=origins.here(),
            hint='"valid", "same", an int, or for each axis an int or a pair (before, after)',
        )
    return tuple((int(before), int(after)) for before, after in pairs)


def _same(what: str, size: Size, extent: Size, stride: int) -> tuple[Size, Size]:
    if stride == 1:
        total: Size = extent - 1
    elif isinstance(size, int) and isinstance(extent, int):
        total = max((-(-size // stride) - 1) * stride + extent - size, 0)
    else:
        raise ShapeError(
            f"{what}: padding 'same' of an axis of size {size} with stride {stride} depends on the data",
            where=origins.here(),
            hint="give the padding as numbers",
        )
    before = floor_divide(total, 2)
    return before, total - before


def padded(x: Tensor, widths: Widths, value: float) -> Tensor:
    """x with its last axes padded."""
    if all(pair == (0, 0) for pair in widths):
        return x
    leading = (0,) * (x.rank - len(widths))
    before, after = (leading + tuple(pair[k] for pair in widths) for k in (0, 1))
    return Pad(before, after, (1,) * x.rank, value)(x)


def spread_out(g: Tensor, before: Shape, strides: Sequence[int], whole: Shape, value: float) -> Tensor:
    """g with its last axes' elements `strides` apart, the first at `before`, in axes of sizes `whole`."""
    lead = g.rank - len(strides)
    parts = zip(g.shape[lead:], before, strides, whole, strict=True)
    after = tuple(size - start - (n - 1) * step - 1 for n, start, step, size in parts)
    if all(size == 0 for size in (*before, *after)) and all(step == 1 for step in strides):
        return g
    plain = (0,) * lead
    return Pad((*plain, *before), (*plain, *after), ((1,) * lead + tuple(strides)), value)(g)


def positions(size: Size, extent: Size, stride: int) -> Size:
    """How many windows an axis has."""
    return floor_divide(size - extent, stride) + 1


def reach(count: Size, extent: Size, stride: int) -> Size:
    """How many elements so many windows cover together."""
    return (count - 1) * stride + extent


def fitting(what: str, image: Shape, extents: Shape, strides: Sequence[int], counts: Shape) -> Mapping[Size, str]:
    """Sizes that may not be negative if there is a window, and all lie within the image; what is wrong if one is."""
    found: dict[Size, str] = {}
    for size, extent, stride, count in zip(image, extents, strides, counts, strict=True):
        text = f"{what}: a window of {extent} elements does not fit an axis of {size}, padding included"
        found[count - 1] = found[size - reach(count, extent, stride)] = text
    return found


def require_fitting(what: str, image: Shape, extents: Shape, strides: Sequence[int], counts: Shape) -> None:
    for size, text in fitting(what, image, extents, strides, counts).items():
        if isinstance(size, int) and size < 0:
            raise ShapeError(
                f"{text}: image {show_shape(image)}, window {show_shape(extents)}",
                hint=f"{SMALLER}; an image's sizes are its last axes, channels come before them",
            )


def moved(position: Expr | None, stride: int, offset: Expr | None, dilation: int) -> Expr:
    """stride * position + dilation * offset, where there are these."""
    terms = [t if n == 1 else call("mul", t, n) for t, n in ((position, stride), (offset, dilation)) if t is not None]
    if not terms:
        return Const(0, int64)
    return terms[0] if len(terms) == 1 else call("add", *terms)


def views(x: np.ndarray, extents: Sequence[int], strides: Sequence[int], counts: Sequence[int]) -> np.ndarray:
    """x (..., *image) as (..., *positions, *window), for references: nothing is copied."""
    axes = tuple(range(x.ndim - len(extents), x.ndim))
    every = np.lib.stride_tricks.sliding_window_view(x, tuple(extents), axis=axes)
    steps = tuple(slice(None, (n - 1) * s + 1, s) for n, s in zip(counts, strides, strict=True))
    index: Any = (..., *steps, *(slice(None),) * len(extents))
    return every[index]
