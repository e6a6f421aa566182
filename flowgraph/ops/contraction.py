"""The matrix product and the bias of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from flowgraph.errors import DTypeError, ShapeError
from flowgraph.graph.size import Size, show_shape
from flowgraph.graph.tensor import Tensor
from flowgraph.graph.types import TensorType
from flowgraph.index_notation import Axis, Body, Index, call
from flowgraph.ops.base import Cotangents, Op, Sample, axes_for, indices, load, require_float, values
from flowgraph.ops.reduce import sum as sum_
from flowgraph.ops.shape import Reshape, reshape, transpose


@dataclass(frozen=True)
class Mul(Op):
    """The lecture's `mul`: the product of matrices x (m, k) and y (k, n)."""

    name: ClassVar[str] = "mul"
    family: ClassVar[str] = "contraction"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        x, y = types
        require_float(self, x, y)
        shapes = f"{show_shape(x.shape)} and {show_shape(y.shape)}"
        if x.dtype != y.dtype:
            raise DTypeError(f"mul needs equal dtypes, got {x} and {y}", hint="convert one with fg.cast")
        if x.rank != 2 or y.rank != 2:
            raise ShapeError(
                f"mul multiplies matrices, got shapes {shapes}", hint="fg.multiply, or *, is elementwise"
            )
        if x.shape[1] != y.shape[0]:
            raise ShapeError(
                f"mul: shapes {shapes} do not fit: {x.shape[1]} columns meet {y.shape[0]} rows",
                hint="the columns of the first factor must equal the rows of the second, see fg.transpose",
            )
        return (TensorType((x.shape[0], y.shape[1]), x.dtype),)

    def body(self, *types: TensorType) -> Body:
        x, y = types
        i, j, k = Axis("i", x.shape[0]), Axis("j", y.shape[1]), Axis("k", x.shape[1])
        return Body(
            (i, j), call("mul", load(0, x, indices((i, k))), load(1, y, indices((k, j)))), (k,), "sum"
        )

    def over_turns(self, inputs: Sequence[Tensor], stacked: Sequence[bool], turns: Size) -> Tensor | None:
        """All rows of all turns in one product, if the other factor is the same in all."""
        from flowgraph.ops.einsum import Einsum

        x, y = inputs
        if all(stacked):
            return Einsum("tij", "tjk", "tik")(x, y)
        if stacked[1]:
            return Einsum("ij", "tjk", "tik")(x, y)
        rows = reshape(x, (turns * x.shape[1], x.shape[2]))
        return reshape(mul(rows, y), (turns, x.shape[1], y.shape[1]))

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,) = cotangents
        assert g is not None
        x, y = inputs
        return mul(g, transpose(y)), mul(transpose(x), g)

    def reference(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return x @ y

    @classmethod
    def samples(cls) -> list[Sample]:
        sizes = [(29, 17, 10), (1, 1, 1), (32, 40, 33), (8, 5, 64), (65, 3, 70), (3, 200, 1)]
        made = [Sample(cls(), (values(m, k), values(k, n, seed=1))) for m, k, n in sizes]
        return [
            *made,
            Sample(cls(), (values(9, 21, dtype="float64"), values(21, 19, dtype="float64", seed=1))),
        ]


@dataclass(frozen=True)
class AddBias(Op):
    """The lecture's `add*`: a vector b (n) added to every row of x (..., n)."""

    name: ClassVar[str] = "add_bias"
    display: ClassVar[str] = "add*"
    family: ClassVar[str] = "elementwise"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        x, b = types
        shapes = f"{show_shape(x.shape)} and {show_shape(b.shape)}"
        if b.rank != 1:
            raise ShapeError(
                f"add* adds a vector to every row, got shapes {shapes}: the bias has rank {b.rank}, not 1",
                hint="declare the bias with one axis, as in fg.parameter('b', (n,)), or add equal shapes",
            )
        if x.rank < 1 or x.shape[-1] != b.shape[0]:
            raise ShapeError(
                f"add*: shapes {shapes} do not fit: the rows have {x.shape[-1] if x.rank else 'no'} values, "
                f"the bias {b.shape[0]}",
                hint="the bias needs one element a column",
            )
        if x.dtype != b.dtype:
            raise DTypeError(f"add* needs equal dtypes, got {x} and {b}", hint="convert one with fg.cast")
        return (x,)

    def body(self, *types: TensorType) -> Body:
        axes = axes_for(types[0].shape)
        row = load(0, types[0], indices(axes))
        return Body(axes, call("add", row, load(1, types[1], (Index(axes[-1]),))))

    def over_turns(self, inputs: Sequence[Tensor], stacked: Sequence[bool], turns: Size) -> Tensor | None:
        x, b = inputs
        if stacked[1]:
            return None
        if isinstance(x.op, Reshape) and (rows := x.node.inputs[0]).shape[-1] == b.shape[0]:
            return reshape(add_bias(rows, b), x.shape)  # beside the product that made the rows
        return add_bias(x, b)

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,) = cotangents
        assert g is not None
        return g, sum_(g, axis=tuple(range(g.rank - 1)))

    def reference(self, x: np.ndarray, b: np.ndarray) -> np.ndarray:
        return x + b

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(cls(), (values(*shape), values(shape[-1], seed=1)))
            for shape in ((29, 17), (1, 1), (2, 3, 40), (5,))
        ]


def mul(x: Tensor, y: Tensor) -> Tensor:
    """The matrix product of x (m, k) and y (k, n): (m, n). Also `x @ y`, and `fg.matmul`.

    Raises ShapeError where the inner sizes differ, DTypeError where the dtypes do.
    """
    return Mul()(x, y)


def add_bias(x: Tensor, b: Tensor) -> Tensor:
    """The vector b (n) added to every row of x (..., n): the lecture's `add*`."""
    return AddBias()(x, b)
