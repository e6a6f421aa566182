"""Which integers of a vector are the same: where each of them comes first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from flowgraph.errors import ShapeError
from flowgraph.graph.size import show_shape
from flowgraph.graph.tensor import Tensor
from flowgraph.graph.types import TensorType, int64
from flowgraph.index_notation import Axis, Body, Extent, Index, call
from flowgraph.ops.base import Cotangents, Op, Sample, axes_for, load, values
from flowgraph.ops.indexing import require_integers
from flowgraph.ops.leaf import as_tensor


@dataclass(frozen=True)
class FirstEqual(Op):
    """out[i] = the smallest j with ids[j] = ids[i].

    As index notation that is n comparisons an element, which is how many threads of a GPU do it; a schedule of the CPU
    knows the form and keeps a table of what it has seen.
    """

    name: ClassVar[str] = "first_equal"
    display: ClassVar[str] = "firstEqual"
    family: ClassVar[str] = "indexing"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        (ids,) = types
        require_integers(self, ids, "values to compare")
        if ids.rank != 1:
            raise ShapeError(f"first_equal compares the elements of a vector, got shape {show_shape(ids.shape)}")
        return (TensorType(ids.shape, int64),)

    def body(self, *types: TensorType) -> Body:
        (ids,) = types
        (own,) = axes_for(ids.shape)
        other = Axis("r0", own.extent)
        same = call("eq", load(0, ids, (Index(other),)), load(0, ids, (Index(own),)))
        return Body((own,), call("select", same, Index(other), Extent(own.extent)), (other,), "min")

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        return (None,)

    def reference(self, ids: np.ndarray) -> np.ndarray:
        _, first, place = np.unique(ids, return_index=True, return_inverse=True)
        return first[place].astype(np.int64).reshape(ids.shape)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(cls(), (values(40, low=0, high=11, dtype="int32"),)),
            Sample(cls(), (values(33, low=-(2**40), high=2**40, dtype="int64").repeat(2)[::-1].copy(),)),
            Sample(cls(), (np.zeros(17, np.int64),)),
            Sample(cls(), (np.array([-(2**63), 2**63 - 1, 0, -1, -(2**63)]),)),
            Sample(cls(), (values(1, low=0, high=3, dtype="int32"),)),
        ]


def first_equal(ids: Tensor) -> Tensor:
    """Where each integer of a vector comes first: out[i] (int64) is the smallest j with ids[j] = ids[i].

    The elements with out[i] = i are the distinct ones, as NumPy's unique(ids, return_index=True) has them.
    """
    return FirstEqual()(as_tensor(ids, what="first_equal"))
