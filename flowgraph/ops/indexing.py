"""Ops that read or write where integers say: row lookup, its gradient, one-hot vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from flowgraph.errors import DTypeError, InputError, ShapeError
from flowgraph.graph import origin as origins
from flowgraph.graph.size import Size, as_size, show_shape
from flowgraph.graph.tensor import Tensor
from flowgraph.graph.types import DType, TensorType, as_dtype, int64
from flowgraph.index_notation import Axis, Body, Const, Expr, Extent, Index, call, cast
from flowgraph.ops.base import Cotangents, Op, Sample, axes_for, indices, load, values
from flowgraph.ops.leaf import Constant, as_operands, as_tensor, constant, known_dtype
from flowgraph.ops.shape import broadcast_to


def require_integers(op: Op, t: TensorType, what: str) -> None:
    if t.dtype.kind != "int":
        raise DTypeError(
            f"{op.display} needs integer {what}, got {t}", hint="declare them with dtype='int32'"
        )


@dataclass(frozen=True)
class Gather(Op):
    """Rows of a table: out[i, ...] = table[ids[i], ...]. A one-hot row times W is this lookup."""

    name: ClassVar[str] = "gather"
    family: ClassVar[str] = "indexing"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        table, ids = types
        require_integers(self, ids, "row numbers")
        if table.rank < 1:
            raise ShapeError("gather reads rows of a table, got a scalar")
        return (TensorType((*ids.shape, *table.shape[1:]), table.dtype),)

    def body(self, *types: TensorType) -> Body:
        table, ids = types
        axes = axes_for((*ids.shape, *table.shape[1:]))
        row = cast(load(1, ids, indices(axes[: ids.rank])), int64)
        return Body(axes, load(0, table, (row, *indices(axes[ids.rank :]))))

    def index_bounds(self, *types: TensorType) -> dict[int, Size]:
        """Operand -> exclusive upper bound of its integers, checked where data are fed."""
        return {1: types[0].shape[0]}

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,) = cotangents
        assert g is not None
        table, ids = inputs
        zeros = broadcast_to(constant(0.0, table.dtype), table.shape)
        return ScatterAdd()(zeros, ids, g), None

    def reference(self, table: np.ndarray, ids: np.ndarray) -> np.ndarray:
        return table[ids]

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(cls(), (values(11, 18), values(29, low=0, high=11, dtype="int32"))),
            Sample(cls(), (values(11), values(40, low=0, high=11, dtype="int64"))),
            Sample(cls(), (values(7, 3, 5), values(4, 6, low=0, high=7, dtype="int32"))),
            Sample(cls(), (values(7, 20), values(low=0, high=7, dtype="int32"))),
        ]


@dataclass(frozen=True)
class ScatterAdd(Op):
    """base with values[i, ...] added to row ids[i], in the order of i: the gradient of `gather`."""

    name: ClassVar[str] = "scatter_add"
    family: ClassVar[str] = "indexing"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        base, ids, added = types
        require_integers(self, ids, "row numbers")
        expected = (*ids.shape, *base.shape[1:])
        if base.rank < 1 or added.shape != expected or added.dtype != base.dtype:
            raise ShapeError(
                f"scatter_add of {added} into {base} by {ids}: "
                f"the values must be {base.dtype}{show_shape(expected)}"
            )
        return (base,)

    def scatter(
        self, *types: TensorType
    ) -> tuple[tuple[Axis, ...], tuple[Axis, ...], tuple[Expr, ...], Expr]:
        """(parallel axes, sequential axes, element of the output to add to, value): see `Store.add` in
        kernels.
        """
        base, ids, added = types
        sequential = axes_for(ids.shape, "s")
        parallel = axes_for(base.shape[1:], "i")
        row = cast(load(1, ids, indices(sequential)), int64)
        return (
            parallel,
            sequential,
            (row, *indices(parallel)),
            load(2, added, indices((*sequential, *parallel))),
        )

    def index_bounds(self, *types: TensorType) -> dict[int, Size]:
        return {1: types[0].shape[0]}

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,) = cotangents
        assert g is not None
        return g, None, gather(g, inputs[1])

    def reference(self, base: np.ndarray, ids: np.ndarray, added: np.ndarray) -> np.ndarray:
        result = base.copy()
        np.add.at(result, ids, added)
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


@dataclass(frozen=True)
class ClipIndex(Op):
    """Row numbers moved into 0 .. limit - 1: what the compiler puts before a lookup whose numbers no input
    check covers.
    """

    name: ClassVar[str] = "clip_index"
    family: ClassVar[str] = "indexing"
    limit: Size

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        (ids,) = types
        require_integers(self, ids, "row numbers")
        return (ids,)

    def body(self, *types: TensorType) -> Body:
        (ids,) = types
        axes = axes_for(ids.shape)
        row = cast(load(0, ids, indices(axes)), int64)
        last = call("sub", Extent(self.limit), 1)
        return Body(axes, cast(call("maximum", call("minimum", row, last), 0), ids.dtype))

    def nonempty(self, *types: TensorType) -> Mapping[Size, str]:
        return {self.limit: "the table has no rows"}

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        return (None,)

    def reference(self, ids: np.ndarray) -> np.ndarray:
        assert isinstance(self.limit, int)
        return np.clip(ids, 0, self.limit - 1).astype(ids.dtype)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(cls(10), (values(29, low=-20, high=30, dtype="int32"),)),
            Sample(cls(3), (values(4, 5, low=-9, high=9, dtype="int64"),)),
        ]


def gather(table: Tensor, ids: Tensor) -> Tensor:
    """Rows of a table (rows, ...) at integer ids (...): shape ids.shape + table.shape[1:].

    Ids out of range raise InputError when data are fed. Ids that the graph computes are moved to the nearest
    row, as nobody could be told in the middle of a native step. The gradient adds into the rows that were
    read.
    """
    table, ids = as_operands("gather", (table, ids))
    if table.rank:
        _check_constant("gather", ids, table.shape[0])
    return Gather()(table, ids)


def scatter_add(base: Tensor, ids: Tensor, added: Tensor) -> Tensor:
    """base (rows, ...) with added[i] added to row ids[i], in the order of i."""
    base, ids, added = as_operands("scatter_add", (base, ids, added))
    if base.rank:
        _check_constant("scatter_add", ids, base.shape[0])
    return ScatterAdd()(base, ids, added)


def one_hot(ids: Tensor, depth: Any, dtype: Any = "float32") -> Tensor:
    """1 at the class number, 0 elsewhere, along a new last axis of size `depth`."""
    ids = as_tensor(ids, what="one_hot")
    _check_constant("one_hot", ids, as_size(depth))
    return OneHot(as_size(depth), known_dtype(dtype))(ids)
