"""The order of elements along an axis, and what follows from it: sorting, the largest k.

Template: `sorting` gives the axis and the key of every element; the stable order is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from flowgraph.errors import ShapeError
from flowgraph.graph import origin as origins
from flowgraph.graph.size import show_shape
from flowgraph.graph.tensor import Tensor
from flowgraph.graph.types import TensorType, int64
from flowgraph.index_notation import Axis, Expr
from flowgraph.ops.base import Cotangents, Op, Sample, axes_for, checks_settings, indices, load, require_numbers, values
from flowgraph.ops.indexing import take_along_axis
from flowgraph.ops.leaf import as_tensor
from flowgraph.ops.shape import normalise_axes


@dataclass(frozen=True)
class Sorting:
    """Index notation of a stable order: `key` at every point of `axes`, sorted along one of them."""

    axes: tuple[Axis, ...]
    along: Axis
    key: Expr
    descending: bool


@dataclass(frozen=True)
class Argsort(Op):
    """The positions that sort x along an axis; equal elements keep their order. NaN counts as the largest."""

    name: ClassVar[str] = "argsort"
    display: ClassVar[str] = "argSort"
    family: ClassVar[str] = "indexing"
    axis: int
    descending: bool = False

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        (x,) = types
        require_numbers(self, x)
        if not 0 <= self.axis < x.rank:
            raise ShapeError(f"argsort along axis {self.axis} of a tensor of shape {show_shape(x.shape)}")
        return (TensorType(x.shape, int64),)

    def sorting(self, *types: TensorType) -> Sorting:
        (x,) = types
        axes = axes_for(x.shape)
        return Sorting(axes, axes[self.axis], load(0, x, indices(axes)), self.descending)

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        return (None,)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return stable_order(x, self.axis, self.descending)

    @classmethod
    def samples(cls) -> list[Sample]:
        nan = np.array([[np.nan, 1.0, np.inf, np.nan, -np.inf, -0.0, 0.0]], np.float32)
        ties = values(3, 50, low=-4, high=4, dtype="int32")
        return [
            Sample(cls(1), (values(5, 17),)),
            Sample(cls(0), (values(9, 20),)),
            Sample(cls(1, True), (values(2, 8, 3, dtype="float64"),)),
            Sample(cls(0), (values(100),)),
            *(Sample(cls(1, d), (a,)) for d in (False, True) for a in (nan, ties)),
            Sample(cls(1), (values(3, 1),)),
        ]


def stable_order(x: np.ndarray, axis: int, descending: bool) -> np.ndarray:
    """NumPy's stable argsort, forwards or backwards."""
    if not descending:
        return np.argsort(x, axis, kind="stable")
    backwards = np.argsort(np.flip(x, axis), axis, kind="stable")
    return np.flip(x.shape[axis] - 1 - backwards, axis)


@checks_settings
def argsort(x: Tensor, axis: int = -1, descending: bool = False) -> Tensor:
    """The positions (int64) that sort x along an axis; equal elements keep their order, NaN is the largest."""
    x = as_tensor(x, what="argsort")
    (place,) = normalise_axes("argsort", axis, x.shape)
    return Argsort(place, bool(descending))(x)


@checks_settings
def sort(x: Tensor, axis: int = -1, descending: bool = False) -> Tensor:
    """x sorted along an axis; the gradient goes back to where the elements were."""
    return take_along_axis(x, argsort(x, axis, descending), axis)


@checks_settings
def top_k(x: Tensor, k: int, axis: int = -1) -> tuple[Tensor, Tensor]:
    """The k largest elements along an axis, largest first, and their positions (int64)."""
    x = as_tensor(x, what="top_k")
    (place,) = normalise_axes("top_k", axis, x.shape)
    n = x.shape[place]
    if k < 1 or (isinstance(n, int) and k > n):
        raise ShapeError(f"top_k: the {k} largest of {n} elements", where=origins.here())
    order = argsort(x, place, descending=True)[(slice(None),) * place + (slice(0, k),)]
    return take_along_axis(x, order, place), order
