"""Running combinations along an axis: the sum, or the maximum, of all elements so far.

Template: `running` gives the axis, the combiner and the value of every step; what is combined so far is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from flowgraph.errors import ShapeError
from flowgraph.graph.size import show_shape
from flowgraph.graph.tensor import Tensor
from flowgraph.graph.types import TensorType
from flowgraph.index_notation import Axis, Expr
from flowgraph.ops.base import Cotangents, Op, Sample, axes_for, checks_settings, indices, load, require_numbers, values
from flowgraph.ops.leaf import as_tensor
from flowgraph.ops.shape import normalise_axes
from flowgraph.ops.slicing import Flip


@dataclass(frozen=True)
class Running:
    """Index notation of a running combination: `value` at every point of `axes`, combined along one of them."""

    axes: tuple[Axis, ...]
    along: Axis
    combiner: str
    value: Expr


@dataclass(frozen=True)
class CumulativeSum(Op):
    """out[..., i, ...] = the sum of x[..., 0, ...] to x[..., i, ...] along an axis."""

    name: ClassVar[str] = "cumulative_sum"
    display: ClassVar[str] = "cumSum"
    family: ClassVar[str] = "reduce"
    axis: int

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        (x,) = types
        require_numbers(self, x)
        if not 0 <= self.axis < x.rank:
            raise ShapeError(f"cumulative_sum along axis {self.axis} of a tensor of shape {show_shape(x.shape)}")
        return (x,)

    def running(self, *types: TensorType) -> Running:
        (x,) = types
        axes = axes_for(x.shape)
        return Running(axes, axes[self.axis], "sum", load(0, x, indices(axes)))

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,) = cotangents
        back = Flip((self.axis,))
        return (back(self(back(g))),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.cumsum(x, self.axis, dtype=x.dtype)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(cls(1), (values(5, 40),)),
            Sample(cls(0), (values(7, 33),)),
            Sample(cls(1), (values(2, 6, 17, dtype="float64"),)),
            Sample(cls(0), (values(600),)),
            Sample(cls(1), (values(3, 20, low=-9, high=9, dtype="int32"),)),
        ]


@checks_settings
def cumulative_sum(x: Tensor, axis: int | None = None) -> Tensor:
    """The sum of all elements of x up to each, along an axis; of a vector, along its only one. Alias `cumsum`.

    Summed in blocks of 512, so that the rounding errors of long sums stay small.
    """
    x = as_tensor(x, what="cumulative_sum")
    if axis is None and x.rank != 1:
        raise ShapeError(f"cumulative_sum needs an axis of a tensor of shape {show_shape(x.shape)}")
    (place,) = normalise_axes("cumulative_sum", 0 if axis is None else axis, x.shape)
    return CumulativeSum(place)(x)
