"""Tensors put together from pieces: concatenation and padding.

Template: `pieces` says for every piece where in the output it goes and what its elements are; no two overlap, and
together they are the whole. A piece is a loop nest of its own, so nothing asks at every element which piece it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from flowgraph.errors import DTypeError, ShapeError, shown
from flowgraph.graph import origin as origins
from flowgraph.graph.size import Shape, Size, as_size, evaluate, show_shape
from flowgraph.graph.tensor import Tensor
from flowgraph.graph.types import TensorType
from flowgraph.index_notation import Axis, Const, Expr, Index, call
from flowgraph.ops.base import Cotangents, Op, Piece, Sample, axes_for, checks_settings, indices, load, values
from flowgraph.ops.leaf import as_operands, as_tensor
from flowgraph.ops.shape import expand_dims, normalise_axes, ravel, repeated, reshape
from flowgraph.ops.slicing import Slice, getitem, placed


@dataclass(frozen=True)
class Concatenate(Op):
    """Tensors one after the other along an axis; their other axes agree."""

    name: ClassVar[str] = "concatenate"
    display: ClassVar[str] = "concat"
    family: ClassVar[str] = "shape"
    axis: int

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        if not types:
            raise ShapeError("concatenate needs at least one tensor")
        first = types[0]
        if not 0 <= self.axis < first.rank:
            raise ShapeError(f"concatenate along axis {self.axis} of a tensor of shape {show_shape(first.shape)}")
        for t in types[1:]:
            if t.dtype != first.dtype:
                raise DTypeError(
                    f"concatenate needs equal dtypes, got {first} and {t}", hint="convert one with fg.cast"
                )
            if _others(t.shape, self.axis) != _others(first.shape, self.axis) or t.rank != first.rank:
                raise ShapeError(
                    f"concatenate along axis {self.axis}: shapes {show_shape(first.shape)} and {show_shape(t.shape)} "
                    "differ elsewhere"
                )
        total = sum((t.shape[self.axis] for t in types[1:]), start=first.shape[self.axis])
        return (TensorType((*first.shape[: self.axis], total, *first.shape[self.axis + 1 :]), first.dtype),)

    def pieces(self, *types: TensorType) -> tuple[tuple[Axis, ...], list[Piece]]:
        others = axes_for(_others(types[0].shape, self.axis))
        made, start = [], _zero()
        for k, t in enumerate(types):
            along = Axis("c", t.shape[self.axis])

            def point(e: Expr) -> tuple[Expr, ...]:
                return (*indices(others[: self.axis]), e, *indices(others[self.axis :]))

            made.append(Piece((along,), point(placed(Index(along), start, 1)), load(k, t, point(Index(along)))))
            start = start + t.shape[self.axis]
        return others, made

    def over_turns(self, inputs: Sequence[Tensor], stacked: Sequence[bool], turns: Size) -> Tensor | None:
        same = zip(inputs, stacked, strict=True)
        return Concatenate(self.axis + 1)(*(repeated(x, is_stacked, turns) for x, is_stacked in same))

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,) = cotangents
        assert g is not None
        found, start = [], _zero()
        for x in inputs:
            starts = tuple(start if k == self.axis else 0 for k in range(x.rank))
            found.append(Slice(starts, x.shape, (1,) * x.rank)(g))
            start = start + x.shape[self.axis]
        return tuple(found)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        return np.concatenate(arrays, self.axis)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(cls(1), (values(5, 17), values(5, 3, seed=1), values(5, 20, seed=2))),
            Sample(cls(0), (values(5, 17, dtype="float64"), values(2, 17, dtype="float64"))),
            Sample(cls(1), (values(2, 3, 18), values(2, 3, 18, seed=1))),
            Sample(cls(0), (values(3), values(33), values(0))),
            Sample(cls(0), (values(4, low=-5, high=5, dtype="int32"),)),
        ]


@dataclass(frozen=True)
class Pad(Op):
    """x with `before` and `after` elements of one value around it along every axis, and `steps` - 1 between."""

    name: ClassVar[str] = "pad"
    family: ClassVar[str] = "shape"
    before: Shape
    after: Shape
    steps: tuple[int, ...]
    value: float

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        (x,) = types
        if not x.rank == len(self.before) == len(self.after) == len(self.steps):
            raise ShapeError(f"padding of {len(self.before)} axes of a tensor of shape {show_shape(x.shape)}")
        for size in (*self.before, *self.after):
            if isinstance(size, int) and size < 0:
                raise ShapeError(f"padding of {size} elements")
        parts = zip(x.shape, self.before, self.after, self.steps, strict=True)
        return (TensorType(tuple(a + (n - 1) * s + 1 + b for n, a, b, s in parts), x.dtype),)

    def _plain(self) -> list[int]:
        """Axes along which nothing is added."""
        around = zip(self.before, self.after, self.steps, strict=True)
        return [k for k, found in enumerate(around) if found == (0, 0, 1)]

    def pieces(self, *types: TensorType) -> tuple[tuple[Axis, ...], list[Piece]]:
        """x itself, and for every axis what lies before, behind and between, at x's places on earlier axes."""
        (x,) = types
        whole = self.infer(x)[0].shape
        plain = self._plain()
        outer = {k: Axis(f"i{k}", x.shape[k]) for k in plain}
        own = [outer.get(k) or Axis(f"p{k}", n) for k, n in enumerate(x.shape)]
        at = [placed(Index(a), s, t) for a, s, t in zip(own, self.before, self.steps, strict=True)]
        number = bool(self.value) if x.dtype.kind == "bool" else self.value if x.dtype.is_float else int(self.value)
        made = []
        for k, (before, after, step) in enumerate(zip(self.before, self.after, self.steps, strict=True)):
            n = x.shape[k]
            later = [outer.get(j) or Axis(f"f{j}", whole[j]) for j in range(k + 1, x.rank)]
            head, tail, gap, between = Axis("b", before), Axis("a", after), Axis("g", n - 1), Axis("t", step - 1)
            spaced = placed(Index(gap), before + 1, step)
            boxes: list[tuple[tuple[Axis, ...], Expr]] = [
                ((head,), Index(head)),
                ((tail,), placed(Index(tail), whole[k] - after, 1)),
                ((gap, between), call("add", spaced, Index(between))),
            ]
            for axes, place in boxes:
                if all(a.extent != 0 for a in axes):
                    inner = (*own[:k], *axes, *later)
                    index = (*at[:k], place, *indices(later))
                    made.append(Piece(_without(inner, outer), index, Const(number, x.dtype)))
        made.append(Piece(_without(own, outer), tuple(at), load(0, x, indices(own))))
        return tuple(outer.values()), made

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,) = cotangents
        return (Slice(self.before, inputs[0].shape, self.steps)(g),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        shape = tuple(evaluate(n, {}) for n in self.infer(TensorType(x.shape))[0].shape)
        made = np.full(shape, self.value, x.dtype)
        parts = zip(self.before, x.shape, self.steps, strict=True)
        made[tuple(slice(evaluate(a, {}), evaluate(a, {}) + (n - 1) * s + 1, s) for a, n, s in parts)] = x
        return made

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(cls((0, 2), (0, 3), (1, 1), 0.0), (values(5, 17),)),
            Sample(cls((1, 0), (2, 0), (1, 1), 0.5), (values(5, 17, dtype="float64"),)),
            Sample(cls((0, 1), (0, 0), (1, 3), 0.0), (values(3, 20),)),
            Sample(cls((1, 1, 0), (0, 2, 1), (2, 1, 1), -1.0), (values(2, 3, 5),)),
            Sample(cls((3,), (4,), (1,), 7.0), (values(33, low=-9, high=9, dtype="int32"),)),
        ]


def _without(axes: Sequence[Axis], shared: dict[int, Axis]) -> tuple[Axis, ...]:
    return tuple(a for a in axes if a not in shared.values())


def _zero() -> Size:
    return 0


def _others(shape: Shape, axis: int) -> Shape:
    return (*shape[:axis], *shape[axis + 1 :])


def _parts(what: str, tensors: Any) -> tuple[Tensor, ...]:
    if not isinstance(tensors, (list, tuple)) or not tensors:
        raise ShapeError(
            f"{what} takes a list of tensors, got {shown(tensors)}",
            where=origins.here(),
            hint=f"fg.{what}([a, b], axis=0)",
        )
    return as_operands(what, tensors)


@checks_settings
def concatenate(tensors: Sequence[Any], axis: int = 0) -> Tensor:
    """Tensors one after the other along an axis; their other axes must agree. Alias `concat`."""
    parts = _parts("concatenate", tensors)
    (place,) = normalise_axes("concatenate", axis, parts[0].shape)
    return Concatenate(place)(*parts) if len(parts) > 1 else parts[0]


@checks_settings
def stack(tensors: Sequence[Any], axis: int = 0) -> Tensor:
    """Tensors of one shape along a new axis."""
    parts = _parts("stack", tensors)
    for t in parts[1:]:
        if t.shape != parts[0].shape:
            shapes = f"{show_shape(parts[0].shape)} and {show_shape(t.shape)}"
            raise ShapeError(f"stack needs equal shapes, got {shapes}", where=origins.here())
    return concatenate([expand_dims(t, axis) for t in parts], axis)


def pad(x: Tensor, width: Any, value: float = 0.0) -> Tensor:
    """x with elements of one value around it; `width` is NumPy's: a number, (before, after), or a pair an axis."""
    x = as_tensor(x, what="pad")
    pairs = _widths(width, x)
    before, after = (tuple(as_size(p[k]) for p in pairs) for k in (0, -1))
    return Pad(before, after, (1,) * x.rank, float(value))(x)


def _widths(width: Any, x: Tensor) -> list[tuple[Any, Any]]:
    """(before, after) of every axis."""
    given = list(width) if isinstance(width, (tuple, list)) else [width]
    nested = [w for w in given if isinstance(w, (tuple, list))]
    if not nested and 1 <= len(given) <= 2:
        return [(given[0], given[-1])] * x.rank
    if len(nested) == len(given) and len(nested) in (1, x.rank) and all(1 <= len(w) <= 2 for w in nested):
        pairs = [(w[0], w[-1]) for w in nested]
        return pairs * x.rank if len(pairs) == 1 else pairs
    raise ShapeError(
        f"pad: widths {width!r} for a tensor of shape {show_shape(x.shape)}",
        where=origins.here(),
        hint="a number, (before, after), or one such pair for every axis",
    )


def tile(x: Tensor, repeats: Sequence[int] | int) -> Tensor:
    """x repeated as a whole along its axes, as NumPy's tile."""
    x = as_tensor(x, what="tile")
    counts = (repeats,) if isinstance(repeats, int) else tuple(repeats)
    counts = (1,) * (x.rank - len(counts)) + counts
    for _ in range(len(counts) - x.rank):
        x = expand_dims(x, 0)
    for axis, count in enumerate(counts):
        if isinstance(count, bool) or count < 1:
            raise ShapeError(f"tile: {count} repeats", where=origins.here(), hint="repeat at least once")
        x = concatenate([x] * count, axis)
    return x


@checks_settings
def roll(x: Tensor, shift: int | Sequence[int], axis: int | Sequence[int] | None = None) -> Tensor:
    """x with its elements moved by `shift` places along an axis, or each axis by its own; what leaves at one end enters
    at the other. Without an axis, the flattened array is rolled, as in NumPy."""
    x = as_tensor(x, what="roll")
    if axis is None:
        return reshape(roll(ravel(x), shift, 0), x.shape)
    axes = axis if isinstance(axis, Sequence) else (axis,)
    shifts = shift if isinstance(shift, Sequence) else (shift,) * len(axes)
    if len(shifts) != len(axes):
        raise ShapeError(f"roll by {len(shifts)} shifts along {len(axes)} axes", where=origins.here())
    for by, along in zip(shifts, axes, strict=True):
        (place,) = normalise_axes("roll", along, x.shape)
        n = x.shape[place]
        cut = -by % n if isinstance(n, int) and n else -by
        before = (slice(None),) * place
        if cut != 0:
            x = concatenate([getitem(x, (*before, slice(cut, None))), getitem(x, (*before, slice(None, cut)))], place)
    return x
