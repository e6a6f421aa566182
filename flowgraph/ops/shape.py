"""Ops that move elements and compute nothing: each output element is one input element (they are never
materialised when the consumer can read through them).
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from flowgraph.errors import DTypeError, ShapeError
from flowgraph.graph import origin as origins
from flowgraph.graph.size import Shape, Size, exact_quotient, product, show_shape
from flowgraph.graph.tensor import Tensor
from flowgraph.graph.types import TensorType, int64
from flowgraph.index_notation import Body, Const, Expr, Extent, Index, call
from flowgraph.ops.base import Cotangents, Op, Sample, axes_for, checks_settings, load, values
from flowgraph.ops.leaf import as_tensor, known_shape


@dataclass(frozen=True)
class Injective(Op):
    """Each output element is one input element; `source` maps an output point to an input point."""

    family: ClassVar[str] = "shape"


@dataclass(frozen=True)
class Broadcast(Injective):
    """The input repeated along missing leading axes and along static 1s, as NumPy does."""

    name: ClassVar[str] = "broadcast"
    shape: Shape

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        (x,) = types
        missing = len(self.shape) - x.rank
        if missing < 0 or any(s != t and s != 1 for s, t in zip(x.shape, self.shape[missing:], strict=True)):
            raise ShapeError(f"{show_shape(x.shape)} does not broadcast to {show_shape(self.shape)}")
        return (TensorType(self.shape, x.dtype),)

    def _repeated(self, x: Shape) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Output axes that are missing in the input, and input axes that are stretched."""
        missing = len(self.shape) - len(x)
        stretched = tuple(k for k, s in enumerate(x) if s == 1 and self.shape[k + missing] != 1)
        return tuple(range(missing)), stretched

    def body(self, *types: TensorType) -> Body:
        axes = axes_for(self.shape)
        missing, stretched = self._repeated(types[0].shape)
        index = [
            Const(0, int64) if k in stretched else Index(axis) for k, axis in enumerate(axes[len(missing) :])
        ]
        return Body(axes, load(0, types[0], index))

    def over_turns(self, inputs: Sequence[Tensor], stacked: Sequence[bool], turns: Size) -> Tensor | None:
        (x,) = inputs
        missing = tuple(range(1, 1 + len(self.shape) - (x.rank - 1)))
        return Broadcast((turns, *self.shape))(ExpandDims(missing)(x) if missing else x)

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        from flowgraph.ops.reduce import sum as sum_

        (g,) = cotangents
        assert g is not None
        missing, stretched = self._repeated(inputs[0].shape)
        axes = missing + tuple(k + len(missing) for k in stretched)
        reduced = sum_(g, axis=axes) if axes else g
        return (expand_dims(reduced, stretched),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.broadcast_to(x, self.shape)  # type: ignore[arg-type]

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(cls((29, 17)), (values(17),)),
            Sample(cls((29, 17)), (values(29, 1),)),
            Sample(cls((4, 3, 20)), (values(3, 1),)),
            Sample(cls((4, 3)), (values(),)),
            Sample(cls((7,)), (values(1, dtype="int32"),)),
        ]


@dataclass(frozen=True)
class Transpose(Injective):
    """Axes permuted: output axis k is input axis `axes[k]`."""

    name: ClassVar[str] = "transpose"
    axes: tuple[int, ...]

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        (x,) = types
        if sorted(self.axes) != list(range(x.rank)):
            raise ShapeError(
                f"transpose axes {self.axes} are no permutation of the axes of {show_shape(x.shape)}"
            )
        return (TensorType(tuple(x.shape[k] for k in self.axes), x.dtype),)

    def body(self, *types: TensorType) -> Body:
        (x,) = types
        axes = axes_for(tuple(x.shape[k] for k in self.axes))
        index = [Index(axes[self.axes.index(k)]) for k in range(x.rank)]
        return Body(axes, load(0, x, index))

    def over_turns(self, inputs: Sequence[Tensor], stacked: Sequence[bool], turns: Size) -> Tensor | None:
        return Transpose((0, *(a + 1 for a in self.axes)))(inputs[0])

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,) = cotangents
        return (Transpose(tuple(int(k) for k in np.argsort(self.axes)))(g),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.transpose(x, self.axes)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(cls((1, 0)), (values(29, 17),)),
            Sample(cls((1, 0)), (values(3, 40, dtype="float64"),)),
            Sample(cls((2, 0, 1)), (values(5, 3, 18),)),
        ]


@dataclass(frozen=True)
class ExpandDims(Injective):
    """Axes of size 1 inserted at these places of the output."""

    name: ClassVar[str] = "expand_dims"
    axes: tuple[int, ...]

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        (x,) = types
        rank = x.rank + len(self.axes)
        if len(set(self.axes)) != len(self.axes) or any(not 0 <= a < rank for a in self.axes):
            raise ShapeError(f"cannot insert axes {self.axes} into {show_shape(x.shape)}")
        old = iter(x.shape)
        return (TensorType(tuple(1 if k in self.axes else next(old) for k in range(rank)), x.dtype),)

    def body(self, *types: TensorType) -> Body:
        axes = axes_for(self.infer(*types)[0].shape)
        return Body(axes, load(0, types[0], [Index(a) for k, a in enumerate(axes) if k not in self.axes]))

    def over_turns(self, inputs: Sequence[Tensor], stacked: Sequence[bool], turns: Size) -> Tensor | None:
        return ExpandDims(tuple(a + 1 for a in self.axes))(inputs[0])

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,) = cotangents
        return (Squeeze(self.axes)(g),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.expand_dims(x, self.axes)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(cls((1,)), (values(29),)),
            Sample(cls((0, 2)), (values(5, 18),)),
            Sample(cls((0,)), (values(),)),
        ]


@dataclass(frozen=True)
class Squeeze(Injective):
    """Axes of size 1 removed."""

    name: ClassVar[str] = "squeeze"
    axes: tuple[int, ...]

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        (x,) = types
        if any(not 0 <= a < x.rank or x.shape[a] != 1 for a in self.axes):
            raise ShapeError(f"cannot squeeze axes {self.axes} of {show_shape(x.shape)}: only axes of size 1")
        return (TensorType(tuple(s for k, s in enumerate(x.shape) if k not in self.axes), x.dtype),)

    def body(self, *types: TensorType) -> Body:
        axes = axes_for(self.infer(*types)[0].shape)
        kept = iter(axes)
        index = [Const(0, int64) if k in self.axes else Index(next(kept)) for k in range(types[0].rank)]
        return Body(axes, load(0, types[0], index))

    def over_turns(self, inputs: Sequence[Tensor], stacked: Sequence[bool], turns: Size) -> Tensor | None:
        return Squeeze(tuple(a + 1 for a in self.axes))(inputs[0])

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,) = cotangents
        return (ExpandDims(self.axes)(g),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.squeeze(x, self.axes)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [Sample(cls((1,)), (values(29, 1),)), Sample(cls((0, 2)), (values(1, 18, 1),))]


@dataclass(frozen=True)
class Reshape(Injective):
    """The same elements, in the same (row-major) order, under another shape.

    Memory is row-major, so a stored tensor is read under its new shape as it lies: see `kernels.build`.
    """

    name: ClassVar[str] = "reshape"
    shape: Shape

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        (x,) = types
        if product(x.shape) != product(self.shape):
            raise ShapeError(
                f"reshape of {show_shape(x.shape)} to {show_shape(self.shape)}: "
                f"{product(x.shape)} elements are not {product(self.shape)}"
            )
        return (TensorType(self.shape, x.dtype),)

    def body(self, *types: TensorType) -> Body:
        """By the place in row-major order, taken apart by the input's sizes."""
        (x,) = types
        axes = axes_for(self.shape)
        flat: Expr = Const(0, int64)
        for axis in axes:
            flat = call("add", call("mul", flat, _extent(axis.extent)), Index(axis))
        index: list[Expr] = []
        for place, size in enumerate(x.shape):
            rest = call("floordiv", flat, _extent(product(x.shape[place + 1 :])))
            index.append(call("mod", rest, _extent(size)) if place else rest)
        return Body(axes, load(0, x, index))

    def over_turns(self, inputs: Sequence[Tensor], stacked: Sequence[bool], turns: Size) -> Tensor | None:
        return Reshape((turns, *self.shape))(inputs[0])

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,) = cotangents
        return (Reshape(inputs[0].shape)(g),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return x.reshape(self.shape).copy()  # type: ignore[arg-type]

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(cls((10, 17)), (values(2, 5, 17),)),
            Sample(cls((4, 6, 5)), (values(24, 5, dtype="float64"),)),
            Sample(cls((33, 2)), (values(66),)),
            Sample(cls((40,)), (values(5, 8),)),
            Sample(cls((6, 4)), (values(4, 6),)),
            Sample(cls(()), (values(1, 1),)),
            Sample(cls((1,)), (values(),)),
        ]


@dataclass(frozen=True)
class ColumnBlocks(Injective):
    """A matrix as blocks of so many columns: (rows, columns) to (columns / width, rows, width).

    Stored, a block's rows lie one after the other: a product that reads the matrix by blocks reads memory in order.
    """

    name: ClassVar[str] = "column_blocks"
    width: int

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        (x,) = types
        rows, columns = x.shape
        blocks = exact_quotient(columns, self.width)
        if blocks is None:
            raise ShapeError(f"{columns} columns are not blocks of {self.width}")
        return (TensorType((blocks, rows, self.width), x.dtype),)

    def body(self, *types: TensorType) -> Body:
        axes = axes_for(self.infer(*types)[0].shape)
        block, row, column = map(Index, axes)
        return Body(axes, load(0, types[0], (row, block * self.width + column)))

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,) = cotangents
        return (JoinedColumns()(g),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        rows, columns = x.shape
        return x.reshape(rows, columns // self.width, self.width).transpose(1, 0, 2).copy()

    @classmethod
    def samples(cls) -> list[Sample]:
        return [Sample(cls(4), (values(3, 20),)), Sample(cls(32), (values(17, 64, dtype="float64"),))]


@dataclass(frozen=True)
class JoinedColumns(Injective):
    """The matrix whose `ColumnBlocks` these are: (blocks, rows, width) to (rows, blocks * width)."""

    name: ClassVar[str] = "joined_columns"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        (x,) = types
        blocks, rows, width = x.shape
        if not isinstance(width, int):
            raise ShapeError(f"blocks of columns have a known width, not {width}")
        return (TensorType((rows, blocks * width), x.dtype),)

    def body(self, *types: TensorType) -> Body:
        axes = axes_for(self.infer(*types)[0].shape)
        row, column = map(Index, axes)
        width = types[0].shape[2]
        index = (call("floordiv", column, width), row, call("mod", column, width))
        return Body(axes, load(0, types[0], index))

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,), width = cotangents, inputs[0].shape[2]
        assert isinstance(width, int)  # see infer
        return (ColumnBlocks(width)(g),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        blocks, rows, width = x.shape
        return x.transpose(1, 0, 2).reshape(rows, blocks * width).copy()

    @classmethod
    def samples(cls) -> list[Sample]:
        return [Sample(cls(), (values(5, 3, 4),)), Sample(cls(), (values(2, 17, 32, dtype="float64"),))]


def _extent(size: Size) -> Expr:
    return Const(size, int64) if isinstance(size, int) else Extent(size)


def reshape(x: Tensor, shape: Any) -> Tensor:
    """The elements of x in row-major order under another shape of as many elements; one size may be -1.

    Sizes may be named: x (batch, time, 8) reshaped to (x.shape[0] * x.shape[1], 8), or to (-1, 8).
    """
    x = as_tensor(x, what="reshape")
    given = list(shape) if isinstance(shape, (tuple, list)) else [shape]
    if sum(s == -1 for s in given if not isinstance(s, str)) > 1:
        raise ShapeError("reshape: only one size can be -1", where=origins.here())
    known = known_shape([s for s in given if isinstance(s, str) or s != -1])
    if len(known) < len(given):
        ours, theirs = list(x.shape), []
        for size in known:  # equal sizes cancel, whatever they are sums of
            if size in ours:
                ours.remove(size)
            else:
                theirs.append(size)
        rest = exact_quotient(product(ours), product(theirs))
        if rest is None:
            raise ShapeError(
                f"reshape of {show_shape(x.shape)}: {product(x.shape)} elements are no multiple of {product(known)}",
                where=origins.here(),
            )
        sizes = iter(known)
        known = tuple(rest if not isinstance(s, str) and s == -1 else next(sizes) for s in given)
    return x if x.shape == known else Reshape(known)(x)


def ravel(x: Tensor) -> Tensor:
    """The elements of x in row-major order, as a vector."""
    return reshape(x, (-1,)) if as_tensor(x, what="ravel").rank != 1 else x


def repeated(x: Tensor, stacked: bool, turns: Size) -> Tensor:
    """What is stacked already; or what is the same in every turn of a loop, as often as there are turns."""
    return x if stacked else Broadcast((turns, *x.shape))(ExpandDims((0,))(x))


def broadcast_to(x: Tensor, shape: Any) -> Tensor:
    """x repeated to `shape` along missing leading axes and static 1s."""
    x, target = as_tensor(x, what="broadcast_to"), known_shape(shape)
    return x if x.shape == target else Broadcast(target)(x)


def transpose(x: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    """x with its axes permuted; reversed by default."""
    x = as_tensor(x, what="transpose")
    order = tuple(reversed(range(x.rank))) if axes is None else normalise_axes("transpose", axes, x.shape)
    return x if order == tuple(range(x.rank)) else Transpose(order)(x)


def swapaxes(x: Tensor, first: int, second: int) -> Tensor:
    """x with two axes exchanged."""
    x = as_tensor(x, what="swapaxes")
    a, b = (normalise_axes("swapaxes", k, x.shape)[0] for k in (first, second))
    order = list(range(x.rank))
    order[a], order[b] = order[b], order[a]
    return transpose(x, order)


def moveaxis(x: Tensor, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """x with axes moved to new places; the others keep their order."""
    x = as_tensor(x, what="moveaxis")
    old, new = (normalise_axes("moveaxis", k, x.shape) for k in (source, destination))
    if len(old) != len(new):
        raise ShapeError(f"moveaxis: {len(old)} axes to {len(new)} places", where=origins.here())
    order = [k for k in range(x.rank) if k not in old]
    for place, axis in sorted(zip(new, old, strict=True)):
        order.insert(place, axis)
    return transpose(x, order)


@checks_settings
def expand_dims(x: Tensor, axis: int | Sequence[int]) -> Tensor:
    """x with axes of size 1 inserted at these places of the result."""
    x = as_tensor(x, what="expand_dims")
    axes = normalise_axes("expand_dims", axis, x.shape, inserted=True)
    return ExpandDims(tuple(sorted(axes)))(x) if axes else x


@checks_settings
def squeeze(x: Tensor, axis: int | Sequence[int]) -> Tensor:
    """x without these axes of size 1."""
    x = as_tensor(x, what="squeeze")
    axes = normalise_axes("squeeze", axis, x.shape)
    return Squeeze(tuple(sorted(axes)))(x) if axes else x


def normalise_axes(what: str, axis: Any, shape: Shape, inserted: bool = False) -> tuple[int, ...]:
    """One axis or several as numbers from 0, each at most once, in the order given; negative ones count from
    the end. Axes that are to be inserted count in the result's shape.
    """
    try:
        several = tuple(axis) if hasattr(axis, "__len__") else (axis,)
        if any(isinstance(a, (bool, np.bool_)) for a in several):
            raise TypeError("a bool is no axis, though Python counts with it")
        given = tuple(map(operator.index, several))
    except TypeError as error:
        raise ShapeError(
            f"{what}: {axis!r} are no axes", where=origins.here(), hint="axes are ints"
        ) from error
    rank = len(shape) + (len(given) if inserted else 0)
    axes = tuple(a + rank if a < 0 else a for a in given)
    if any(not 0 <= a < rank for a in axes) or len(set(axes)) != len(axes):
        raise ShapeError(
            f"{what}: axis {axis} of a tensor of shape {show_shape(shape)}",
            where=origins.here(),
            hint=f"axes run from {-rank} to {rank - 1}, each at most once"
            if rank
            else "a scalar has no axes",
        )
    return axes


def common_shape(what: str, *shapes: Shape) -> Shape:
    """The shape all of these broadcast to; an error naming the first two that do not fit."""
    rank = max(map(len, shapes))
    result: list[Size] = [1] * rank
    for shape in shapes:
        for k, size in enumerate(shape, start=rank - len(shape)):
            if result[k] != size and size != 1:
                if result[k] != 1:
                    shown = " and ".join(show_shape(s) for s in shapes)
                    raise ShapeError(
                        f"{what}: shapes {shown} do not broadcast: {result[k]} against {size} at axis {k}",
                        where=origins.here(),
                        hint="only a static 1 or a missing leading axis is stretched: see fg.expand_dims",
                    )
                result[k] = size
    return tuple(result)


def broadcast_operands(what: str, *operands: Any, like: Tensor | None = None) -> tuple[Tensor, ...]:
    """Tensors of one shape from tensors, numbers and arrays; Python numbers and lists take the dtype of the
    first tensor.
    """
    typed = next((o for o in operands if isinstance(o, Tensor)), None)
    made = [as_tensor(o, typed, what) for o in operands]
    for tensor in made:
        if tensor.dtype != made[0].dtype:
            raise DTypeError(
                f"{what} needs equal dtypes, got {made[0].type} and {tensor.type}",
                where=origins.here(),
                hint=f"an array keeps its dtype: convert it with .astype('{typed.dtype}')"
                if typed is not None and any(isinstance(o, np.ndarray) for o in operands)
                else "nothing is promoted silently: convert one with fg.cast",
            )
    shapes = [t.shape for t in made] + ([like.shape] if like is not None else [])
    shape = common_shape(what, *shapes)
    return tuple(broadcast_to(t, shape) for t in made)
