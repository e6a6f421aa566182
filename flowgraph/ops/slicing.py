"""Parts of a tensor by position: slices, reversal, and what `x[...]` means.

A slice reads every step-th element from a start; nothing is copied where the reader can read through it.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from flowgraph.errors import GraphError, ShapeError, shown
from flowgraph.graph import origin as origins
from flowgraph.graph.size import Dim, Shape, Size, as_size, evaluate, floor_divide, product, show_shape
from flowgraph.graph.tensor import Tensor
from flowgraph.graph.types import TensorType, boolean, int64
from flowgraph.index_notation import Body, Const, Expr, Extent, Index, call
from flowgraph.ops.base import Cotangents, Sample, axes_for, checks_settings, load, values
from flowgraph.ops.leaf import as_tensor
from flowgraph.ops.shape import Injective, Reshape, expand_dims, normalise_axes, squeeze


def index_of(size: Size) -> Expr:
    """A size as an index expression."""
    return Const(size, int64) if isinstance(size, int) else Extent(size)


def placed(axis: Expr, start: Size, step: int) -> Expr:
    """start + step * axis, without what adds nothing."""
    moved = axis if step == 1 else call("mul", axis, step)
    return moved if start == 0 else call("add", moved, index_of(start))


@dataclass(frozen=True)
class Slice(Injective):
    """Element starts[k] + steps[k] * i of every axis k, for i in 0 .. counts[k] - 1; steps are at least 1."""

    name: ClassVar[str] = "slice"
    starts: Shape
    counts: Shape
    steps: tuple[int, ...]

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        (x,) = types
        if not x.rank == len(self.starts) == len(self.counts) == len(self.steps):
            raise ShapeError(f"a slice of {len(self.starts)} axes of a tensor of shape {show_shape(x.shape)}")
        for size, text in self.nonnegative(x).items():
            if isinstance(size, int) and size < 0:
                raise ShapeError(text)
        return (TensorType(self.counts, x.dtype),)

    def nonnegative(self, *types: TensorType) -> Mapping[Size, str]:
        """What is left behind the last element that is read, and every count."""
        (x,) = types
        found: dict[Size, str] = {}
        for n, start, count, step in zip(x.shape, self.starts, self.counts, self.steps, strict=True):
            text = f"a slice from {start} by {step}, {count} elements, of an axis of size {n}"
            found |= {count: text, start: text}
            if count != 0:  # (a count of 0 that only the data tell reads nothing, but must lie within all the same)
                found[n - start - (count - 1) * step - 1] = text
        return found

    def body(self, *types: TensorType) -> Body:
        axes = axes_for(self.counts)
        index = [placed(Index(a), start, step) for a, start, step in zip(axes, self.starts, self.steps, strict=True)]
        return Body(axes, load(0, types[0], index))

    def over_turns(self, inputs: Sequence[Tensor], stacked: Sequence[bool], turns: Size) -> Tensor | None:
        return Slice((0, *self.starts), (turns, *self.counts), (1, *self.steps))(inputs[0])

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        from flowgraph.ops.pieces import Pad

        (g,) = cotangents
        assert g is not None
        parts = zip(inputs[0].shape, self.starts, self.counts, self.steps, strict=True)
        after = tuple(n - start - (count - 1) * step - 1 for n, start, count, step in parts)
        return (Pad(self.starts, after, self.steps, 0.0)(g),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        parts = zip(self.starts, self.counts, self.steps, strict=True)
        cut = (slice(evaluate(a, {}), evaluate(a, {}) + evaluate(n, {}) * s, s) for a, n, s in parts)
        return x[tuple(cut)].copy()

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(cls((2, 0), (3, 17), (1, 1)), (values(7, 17),)),
            Sample(cls((0, 1), (7, 20), (1, 1)), (values(7, 33),)),
            Sample(cls((1, 2), (2, 18), (3, 2)), (values(7, 40, dtype="float64"),)),
            Sample(cls((0, 1, 0), (3, 1, 5), (1, 1, 1)), (values(3, 4, 5),)),
            Sample(cls((5,), (0,), (1,)), (values(9),)),
            Sample(cls((1,), (19,), (2,)), (values(40, dtype="bool"),)),
        ]


def memory_of(tensor: Tensor) -> tuple[Tensor, Size]:
    """The tensor whose memory this one is a part of, in one piece, and the element it begins at: itself and 0, unless
    it is a reshape, or elements one after the other along the first axis."""
    start: Size = 0
    while True:
        op = tensor.op
        if isinstance(op, Slice) and _is_one_piece(op, tensor.node.inputs[0].shape):
            start = start + op.starts[0] * product(op.counts[1:])
        elif not isinstance(op, Reshape):
            return tensor, start
        tensor = tensor.node.inputs[0]


def _is_one_piece(op: Slice, shape: Shape) -> bool:
    whole = op.starts[1:] == (0,) * (len(shape) - 1) and op.counts[1:] == shape[1:]
    return bool(shape) and whole and all(step == 1 for step in op.steps)


@dataclass(frozen=True)
class Flip(Injective):
    """The elements in reverse order along `axes`."""

    name: ClassVar[str] = "flip"
    axes: tuple[int, ...]

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        (x,) = types
        if any(not 0 <= a < x.rank for a in self.axes):
            raise ShapeError(f"flip of axes {self.axes} of a tensor of shape {show_shape(x.shape)}")
        return (x,)

    def body(self, *types: TensorType) -> Body:
        (x,) = types
        axes = axes_for(x.shape)
        index = [
            call("sub", index_of(a.extent - 1), Index(a)) if k in self.axes else Index(a) for k, a in enumerate(axes)
        ]
        return Body(axes, load(0, x, index))

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,) = cotangents
        return (self(g),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.flip(x, self.axes).copy()

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(cls((1,)), (values(3, 37),)),
            Sample(cls((0,)), (values(5, 17, dtype="float64"),)),
            Sample(cls((0, 2)), (values(2, 3, 18),)),
        ]


@checks_settings
def flip(x: Tensor, axis: int | Sequence[int] | None = None) -> Tensor:
    """x with its elements in reverse order along `axis` (all axes by default)."""
    x = as_tensor(x, what="flip")
    axes = normalise_axes("flip", range(x.rank) if axis is None else axis, x.shape)
    return Flip(tuple(sorted(axes)))(x) if axes else x


# x[...]


def getitem(x: Tensor, key: Any) -> Tensor:
    """NumPy's basic indexing: ints, slices, `...` and None; a tensor or array of integers looks up rows.

    Bounds of an axis with a named size may be ints and sizes; they are checked when data are fed.
    """
    keys = list(key) if isinstance(key, tuple) else [key]
    if len(keys) == 1 and isinstance(keys[0], (Tensor, np.ndarray, list)):
        return _rows(x, keys[0])
    if sum(k is Ellipsis for k in keys) > 1:
        raise ShapeError("an index can have one `...` only", where=origins.here())
    given = sum(k is not None and k is not Ellipsis for k in keys)
    if given > x.rank:
        raise ShapeError(f"{given} indices for a tensor of shape {show_shape(x.shape)}", where=origins.here())
    place = next((n for n, k in enumerate(keys) if k is Ellipsis), len(keys))
    keys[place : place + 1] = [slice(None)] * (x.rank - given)

    cuts: list[tuple[Size, Size, int]] = []
    dropped: list[int] = []  # axes of the sliced tensor
    new: list[int] = []  # axes of the result
    backwards: list[int] = []
    kept = 0
    for k in keys:
        if k is None:
            new.append(kept)
            kept += 1
            continue
        axis = len(cuts)
        if isinstance(k, slice):
            start, count, step, is_reversed = _range(k, x.shape[axis], axis)
            cuts.append((start, count, step))
            if is_reversed:
                backwards.append(axis)
            kept += 1
        else:
            cuts.append((_position(k, x, axis), 1, 1))
            dropped.append(axis)
    if cuts != [(0, n, 1) for n in x.shape]:
        starts, counts, steps = zip(*cuts, strict=True)
        x = Slice(starts, counts, steps)(x)
    if backwards:
        x = Flip(tuple(backwards))(x)
    if dropped:
        x = squeeze(x, dropped)
    return expand_dims(x, new) if new else x


def _rows(x: Tensor, key: Any) -> Tensor:
    from flowgraph.ops.indexing import gather

    ids = key if isinstance(key, Tensor) else as_tensor(np.asarray(key), what="an index")
    if ids.dtype is boolean:
        raise GraphError(
            "a bool index has a shape that only the data tell",
            where=origins.here(),
            hint="choose with fg.where(mask, x, 0.0), which keeps the shape",
        )
    return gather(x, ids)


def _bound(value: Any) -> Size:
    if isinstance(value, (Dim, str)):
        return as_size(value)
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError("a bool is an index of its own in NumPy, not 0 or 1")
        return operator.index(value)
    except TypeError as error:
        raise GraphError(
            f"an index is an int, a size, a slice, ... or None, got {shown(value)}",
            where=origins.here(),
            hint="integer tensors look up rows: x[ids] or fg.gather(x, ids)",
        ) from error


def _position(key: Any, x: Tensor, axis: int) -> Size:
    if isinstance(key, str):
        raise GraphError(
            f"a tensor has no part called {shown(key)}",
            where=origins.here(),
            hint=f"index it by position; a named size may bound a slice, as in x[:{key!r}]",
        )
    n, k = x.shape[axis], _bound(key)
    if isinstance(k, int) and isinstance(n, int) and not -n <= k < n:
        raise ShapeError(
            f"index {k} is out of range for axis {axis} of a tensor of shape {show_shape(x.shape)}",
            where=origins.here(),
        )
    return n + k if isinstance(k, int) and k < 0 else k


def _range(key: slice, n: Size, axis: int) -> tuple[Size, Size, int, bool]:
    """(start, count, step, whether reversed afterwards) of a slice of an axis of size n."""
    step = 1 if key.step is None else _bound(key.step)
    if not isinstance(step, int) or step == 0:
        raise ShapeError(f"the step of a slice is an int other than 0, got {step}", where=origins.here())
    first, last = (None if b is None else _bound(b) for b in (key.start, key.stop))
    if isinstance(n, int) and not isinstance(first, Dim) and not isinstance(last, Dim):
        chosen = range(n)[slice(first, last, step)]
        if step > 0:
            return chosen.start if chosen else 0, len(chosen), step, False
        return chosen[-1] if chosen else 0, len(chosen), -step, True
    if step < 0:
        if first is None and last is None and step == -1:
            return 0, n, 1, True
        raise ShapeError(
            f"a slice backwards of axis {axis}, whose size is {n}",
            where=origins.here(),
            hint="slice forwards, then reverse: fg.flip(x[a:b], axis)",
        )
    begin = _from_end(first, n, 0)
    end = _from_end(last, n, n)
    return begin, floor_divide(end - begin + (step - 1), step), step, False


def _from_end(bound: Size | None, n: Size, default: Size) -> Size:
    if bound is None:
        return default
    return n + bound if isinstance(bound, int) and bound < 0 else bound


@checks_settings
def split(x: Tensor, parts: int | Sequence[Any], axis: int = 0) -> list[Tensor]:
    """x cut along an axis: into so many equal parts, or before each of these positions, as NumPy's split."""
    x = as_tensor(x, what="split")
    (place,) = normalise_axes("split", axis, x.shape)
    n = x.shape[place]
    if isinstance(parts, (int, np.integer)):
        if isinstance(parts, bool) or parts < 1 or (isinstance(n, int) and n % parts):
            raise ShapeError(
                f"axis {place} of size {n} does not split into {parts} equal parts", where=origins.here()
            )
        each = floor_divide(n, int(parts))
        bounds = [each * k for k in range(int(parts))] + [n]
    else:
        bounds = [0, *(_from_end(_bound(p), n, 0) for p in parts), n]
    before = (slice(None),) * place
    return [getitem(x, (*before, slice(a, b))) for a, b in itertools.pairwise(bounds)]


@checks_settings
def unstack(x: Tensor, axis: int = 0) -> list[Tensor]:
    """The slices of x along an axis of static size, which disappears."""
    x = as_tensor(x, what="unstack")
    (place,) = normalise_axes("unstack", axis, x.shape)
    n = x.shape[place]
    if not isinstance(n, int):
        raise ShapeError(f"unstack of axis {place}, whose size {n} only the data tell", where=origins.here())
    before = (slice(None),) * place
    return [getitem(x, (*before, k)) for k in range(n)]

