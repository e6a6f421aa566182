"""Ops that read or write where integers say: row lookup, its gradient, one-hot vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from flowgraph.errors import DTypeError, InputError, ShapeError
from flowgraph.graph import origin as origins
from flowgraph.graph.size import Size, as_size, show_shape
from flowgraph.graph.tensor import Tensor
from flowgraph.graph.types import DType, TensorType, as_dtype, int64
from flowgraph.index_notation import Axis, Body, Const, Expr, Index, call, cast
from flowgraph.ops.base import Cotangents, Op, Sample, axes_for, checks_settings, indices, load, values
from flowgraph.ops.leaf import Constant, as_operands, as_tensor, constant, known_dtype
from flowgraph.ops.shape import broadcast_to, normalise_axes


def require_integers(op: Op, t: TensorType, what: str) -> None:
    if t.dtype.kind != "int":
        raise DTypeError(
            f"{op.display} needs integer {what}, got {t}", hint="declare them with dtype='int32'"
        )


@dataclass(frozen=True)
class Scatter:
    """Index notation of a scatter: at every point of `parallel`, one after the other in the order of `sequential`,
    `value` is added to element `index` of the base; `axis` is the axis of the base that is not parallel.
    """

    parallel: tuple[Axis, ...]
    sequential: tuple[Axis, ...]
    axis: int
    index: tuple[Expr, ...]
    value: Expr


def _require_axis(op: Op, t: TensorType, axis: int) -> None:
    if not 0 <= axis < t.rank:
        raise ShapeError(f"{op.display} along axis {axis} of a tensor of shape {show_shape(t.shape)}")


def _require_lines(op: Op, x: TensorType, ids: TensorType, axis: int) -> None:
    if ids.rank != x.rank or any(n != m for k, (n, m) in enumerate(zip(x.shape, ids.shape, strict=True)) if k != axis):
        raise ShapeError(
            f"{op.display}: shapes {show_shape(x.shape)} and {show_shape(ids.shape)} differ beside axis {axis}"
        )


def _zeros_like(x: Tensor) -> Tensor:
    return broadcast_to(constant(0.0, x.dtype), x.shape)


@dataclass(frozen=True)
class Gather(Op):
    """Rows of a table: out[i, ...] = table[ids[i], ...]. A one-hot row times W is this lookup.

    With another `axis`, the elements at ids along that axis: the axes of ids stand where it was. One that reads every
    row sooner or later, as an epoch's minibatches do, is `exhaustive`: what its table holds may be checked at once.
    """

    name: ClassVar[str] = "gather"
    family: ClassVar[str] = "indexing"
    axis: int = 0
    exhaustive: bool = field(repr=False, default=False)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        table, ids = types
        require_integers(self, ids, "row numbers")
        if table.rank < 1:
            raise ShapeError("gather reads rows of a table, got a scalar")
        _require_axis(self, table, self.axis)
        shape = (*table.shape[: self.axis], *ids.shape, *table.shape[self.axis + 1 :])
        return (TensorType(shape, table.dtype),)

    def body(self, *types: TensorType) -> Body:
        table, ids = types
        axes = axes_for(self.infer(*types)[0].shape)
        before, own, after = axes[: self.axis], axes[self.axis : self.axis + ids.rank], axes[self.axis + ids.rank :]
        row = cast(load(1, ids, indices(own)), int64)
        return Body(axes, load(0, table, (*indices(before), row, *indices(after))))

    def index_bounds(self, *types: TensorType) -> dict[int, Size]:
        """Operand -> exclusive upper bound of its integers, checked where data are fed."""
        return {1: types[0].shape[self.axis]}

    def over_turns(self, inputs: Sequence[Tensor], stacked: Sequence[bool], turns: Size) -> Tensor | None:
        """Of one table, all rows of all turns."""
        return self(*inputs) if stacked == (False, True) and self.axis == 0 else None

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,) = cotangents
        assert g is not None
        table, ids = inputs
        return ScatterAdd(self.axis)(_zeros_like(table), ids, g), None

    def reference(self, table: np.ndarray, ids: np.ndarray) -> np.ndarray:
        return np.take(table, ids, self.axis)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(cls(), (values(11, 18), values(29, low=0, high=11, dtype="int32"))),
            Sample(cls(), (values(11), values(40, low=0, high=11, dtype="int64"))),
            Sample(cls(), (values(7, 3, 5), values(4, 6, low=0, high=7, dtype="int32"))),
            Sample(cls(), (values(7, 20), values(low=0, high=7, dtype="int32"))),
            Sample(cls(1), (values(5, 9, 17), values(3, low=0, high=9, dtype="int32"))),
            Sample(cls(1), (values(5, 30), values(20, low=0, high=30, dtype="int32"))),
        ]


@dataclass(frozen=True)
class ScatterAdd(Op):
    """base with values[i, ...] added to row ids[i], in the order of i: the gradient of `gather`."""

    name: ClassVar[str] = "scatter_add"
    family: ClassVar[str] = "indexing"
    axis: int = 0

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        base, ids, added = types
        require_integers(self, ids, "row numbers")
        if base.rank:
            _require_axis(self, base, self.axis)
        expected = (*base.shape[: self.axis], *ids.shape, *base.shape[self.axis + 1 :])
        if base.rank < 1 or added.shape != expected or added.dtype != base.dtype:
            raise ShapeError(
                f"scatter_add of {added} into {base} by {ids}: "
                f"the values must be {base.dtype}{show_shape(expected)}"
            )
        return (base,)

    def scatter(self, *types: TensorType) -> Scatter:
        base, ids, added = types
        sequential = axes_for(ids.shape, "s")
        parallel = axes_for((*base.shape[: self.axis], *base.shape[self.axis + 1 :]), "i")
        before, after = indices(parallel[: self.axis]), indices(parallel[self.axis :])
        row = cast(load(1, ids, indices(sequential)), int64)
        value = load(2, added, (*before, *indices(sequential), *after))
        return Scatter(parallel, sequential, self.axis, (*before, row, *after), value)

    def index_bounds(self, *types: TensorType) -> dict[int, Size]:
        return {1: types[0].shape[self.axis]}

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,) = cotangents
        assert g is not None
        return g, None, Gather(self.axis)(g, inputs[1])

    def reference(self, base: np.ndarray, ids: np.ndarray, added: np.ndarray) -> np.ndarray:
        result = base.copy()
        place: Any = (slice(None),) * self.axis + (ids,)
        np.add.at(result, place, added)
        return result

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(
                cls(), (values(11, 18), values(29, low=0, high=11, dtype="int32"), values(29, 18, seed=1))
            ),
            Sample(cls(), (values(11), values(40, low=0, high=11, dtype="int64"), values(40, seed=1))),
            Sample(
                cls(),
                (values(7, 3, 5), values(4, 6, low=0, high=7, dtype="int32"), values(4, 6, 3, 5, seed=1)),
            ),
            Sample(cls(1), (values(5, 9, 17), values(3, low=0, high=9, dtype="int32"), values(5, 3, 17, seed=1))),
        ]


@dataclass(frozen=True)
class TakeAlongAxis(Op):
    """out[..., i, ...] = x[..., ids[..., i, ...], ...]: along an axis, each line by integers of its own."""

    name: ClassVar[str] = "take_along_axis"
    family: ClassVar[str] = "indexing"
    axis: int

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        x, ids = types
        require_integers(self, ids, "positions")
        _require_axis(self, x, self.axis)
        _require_lines(self, x, ids, self.axis)
        return (TensorType(ids.shape, x.dtype),)

    def body(self, *types: TensorType) -> Body:
        x, ids = types
        axes = axes_for(ids.shape)
        place = cast(load(1, ids, indices(axes)), int64)
        return Body(axes, load(0, x, (*indices(axes[: self.axis]), place, *indices(axes[self.axis + 1 :]))))

    def index_bounds(self, *types: TensorType) -> dict[int, Size]:
        return {1: types[0].shape[self.axis]}

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,) = cotangents
        return AddAlongAxis(self.axis)(_zeros_like(inputs[0]), inputs[1], g), None

    def reference(self, x: np.ndarray, ids: np.ndarray) -> np.ndarray:
        return np.take_along_axis(x, ids.astype(np.int64), self.axis)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(cls(1), (values(5, 18), values(5, 20, low=0, high=18, dtype="int32"))),
            Sample(cls(0), (values(9, 17, dtype="float64"), values(3, 17, low=0, high=9, dtype="int64"))),
            Sample(cls(1), (values(2, 5, 3), values(2, 4, 3, low=0, high=5, dtype="int32"))),
            Sample(cls(0), (values(33), values(3, low=0, high=33, dtype="int32"))),
            Sample(cls(0), (values(5, 16), values(3, 16, low=0, high=5, dtype="int32"))),
        ]


@dataclass(frozen=True)
class AddAlongAxis(Op):
    """base with added[..., i, ...] added at ids[..., i, ...] of its line, in the order of i."""

    name: ClassVar[str] = "add_along_axis"
    family: ClassVar[str] = "indexing"
    axis: int

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        base, ids, added = types
        require_integers(self, ids, "positions")
        _require_axis(self, base, self.axis)
        _require_lines(self, base, ids, self.axis)
        if added != TensorType(ids.shape, base.dtype):
            raise ShapeError(
                f"add_along_axis of {added} into {base} by {ids}: the values need the shape of the positions"
            )
        return (base,)

    def scatter(self, *types: TensorType) -> Scatter:
        base, ids, added = types
        parallel = axes_for((*base.shape[: self.axis], *base.shape[self.axis + 1 :]), "i")
        before, after = indices(parallel[: self.axis]), indices(parallel[self.axis :])
        (step,) = axes_for((ids.shape[self.axis],), "s")
        point = (*before, Index(step), *after)
        place = cast(load(1, ids, point), int64)
        return Scatter(parallel, (step,), self.axis, (*before, place, *after), load(2, added, point))

    def index_bounds(self, *types: TensorType) -> dict[int, Size]:
        return {1: types[0].shape[self.axis]}

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,) = cotangents
        return g, None, TakeAlongAxis(self.axis)(g, inputs[1])

    def reference(self, base: np.ndarray, ids: np.ndarray, added: np.ndarray) -> np.ndarray:
        result = base.copy()
        grid: list[np.ndarray] = list(np.indices(ids.shape, sparse=True))
        grid[self.axis] = ids
        np.add.at(result, tuple(grid), added)
        return result

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(cls(1), (values(5, 18), values(5, 7, low=0, high=18, dtype="int32"), values(5, 7, seed=1))),
            Sample(cls(0), (values(4, 17), values(9, 17, low=0, high=4, dtype="int64"), values(9, 17, seed=1))),
            Sample(cls(0), (values(5), values(40, low=0, high=5, dtype="int32"), values(40, seed=1))),
        ]


@dataclass(frozen=True)
class OneHot(Op):
    """1 at the class number, 0 elsewhere, along a new last axis."""

    name: ClassVar[str] = "one_hot"
    family: ClassVar[str] = "indexing"
    depth: Size
    dtype: DType

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        (ids,) = types
        require_integers(self, ids, "class numbers")
        return (TensorType((*ids.shape, self.depth), self.dtype),)

    def body(self, *types: TensorType) -> Body:
        (ids,) = types
        axes = axes_for((*ids.shape, self.depth))
        hit = call("eq", cast(load(0, ids, indices(axes[:-1])), int64), Index(axes[-1]))
        return Body(axes, call("select", hit, Const(1.0, self.dtype), Const(0.0, self.dtype)))

    def index_bounds(self, *types: TensorType) -> dict[int, Size]:
        return {0: self.depth}

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        return (None,)

    def reference(self, ids: np.ndarray) -> np.ndarray:
        return (ids[..., None] == np.arange(self.depth)).astype(self.dtype.numpy)  # type: ignore[arg-type]

    @classmethod
    def samples(cls) -> list[Sample]:
        kind = as_dtype("float32")
        return [
            Sample(cls(10, kind), (values(29, low=0, high=10, dtype="int32"),)),
            Sample(cls(40, as_dtype("float64")), (values(3, 4, low=0, high=40, dtype="int64"),)),
        ]


def _check_constant(what: str, ids: Tensor, limit: Size) -> None:
    """Constant ids are checked here if the limit is known; others when data are fed (see `index_bounds`)."""
    if isinstance(ids.op, Constant) and isinstance(limit, int):
        bad = (ids.op.array < 0) | (ids.op.array >= limit)
        if bad.any():
            wrong = ids.op.array[bad][0]
            raise InputError(
                f"{what}: {wrong} is out of range: ids run from 0 to {limit - 1}", where=origins.here()
            )


@checks_settings
def gather(table: Tensor, ids: Any, axis: int = 0) -> Tensor:
    """Rows of a table (rows, ...) at integer ids (...): shape ids.shape + table.shape[1:]. Alias `take`.

    With another `axis`, elements along it, as NumPy's take. Ids out of range raise InputError when data are fed; ids
    that the graph computes, after the step that computed them (it reads the nearest row instead). The gradient adds
    into the rows that were read.
    """
    table, ids = as_operands("gather", (table, ids))
    place = _place("gather", axis, table, ids)
    return Gather(place)(table, ids)


@checks_settings
def scatter_add(base: Tensor, ids: Any, added: Any, axis: int = 0) -> Tensor:
    """base (rows, ...) with added[i] added to row ids[i], in the order of i; or along another axis."""
    base, ids, added = as_operands("scatter_add", (base, ids, added))
    return ScatterAdd(_place("scatter_add", axis, base, ids))(base, ids, added)


@checks_settings
def take_along_axis(x: Tensor, ids: Any, axis: int = -1) -> Tensor:
    """out[..., i, ...] = x[..., ids[..., i, ...], ...] along an axis; the other axes agree. As NumPy's."""
    x, ids = as_operands("take_along_axis", (x, ids))
    return TakeAlongAxis(_place("take_along_axis", axis, x, ids))(x, ids)


def _place(what: str, axis: int, table: Tensor, ids: Tensor) -> int:
    if not table.rank:
        return 0  # refused by the op, with its types
    (place,) = normalise_axes(what, axis, table.shape)
    _check_constant(what, ids, table.shape[place])
    return place


def one_hot(ids: Tensor, depth: Any, dtype: Any = "float32") -> Tensor:
    """1 at the class number, 0 elsewhere, along a new last axis of size `depth`."""
    ids = as_tensor(ids, what="one_hot")
    _check_constant("one_hot", ids, as_size(depth))
    return OneHot(as_size(depth), known_dtype(dtype))(ids)
