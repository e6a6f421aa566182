"""Row numbers that the graph computes, kept within bounds: moved there, and what was out of them reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from flowgraph.graph.size import Size
from flowgraph.graph.tensor import Tensor
from flowgraph.graph.types import TensorType, int64
from flowgraph.index_notation import Body, Extent, call, cast
from flowgraph.ops.base import Cotangents, Op, Sample, axes_for, indices, load, values
from flowgraph.ops.indexing import require_integers


@dataclass(frozen=True)
class Lengths(Op):
    """How long sequences are, each from 1 to `limit`, the length of the axis they are padded to: checked where they are
    fed."""

    name: ClassVar[str] = "lengths"
    family: ClassVar[str] = "indexing"
    lowest: ClassVar[int] = 1
    advice: ClassVar[str] = "sequences are padded to {last}: leave out empty ones; cut longer ones, or pad to more"
    limit: Size

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        (lengths,) = types
        require_integers(self, lengths, "numbers of elements")
        return (lengths,)

    def expand(self, *inputs: Tensor) -> Tensor:
        return inputs[0]

    def index_bounds(self, *types: TensorType) -> dict[int, Size]:
        return {0: self.limit + 1}

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        return (None,)

    def reference(self, lengths: np.ndarray) -> np.ndarray:
        return lengths

    @classmethod
    def samples(cls) -> list[Sample]:
        return [Sample(cls(9), (values(5, low=1, high=9, dtype=dtype),)) for dtype in ("int32", "int64")]


@dataclass(frozen=True)
class ClipIndex(Op):
    """Row numbers moved into 0 .. limit - 1: what the compiler puts before a lookup whose numbers no input check
    covers.

    It is watched: a number that is moved is reported after the step (`passes/watch.py`), as one of `reader`. What is
    `trusted` is not: the compiler's own counters.
    """

    name: ClassVar[str] = "clip_index"
    family: ClassVar[str] = "indexing"
    limit: Size
    reader: str = field(default="", compare=False, repr=False)
    trusted: bool = False

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
            Sample(cls(10, trusted=True), (values(29, low=-20, high=30, dtype="int32"),)),
            Sample(cls(3, trusted=True), (values(4, 5, low=-9, high=9, dtype="int64"),)),
        ]


LARGEST = 2**61  # of what is reported as it is


@dataclass(frozen=True)
class Outside(Op):
    """The number furthest out of 0 .. limit - 1, encoded; 0 or less if there is none.

    v below 0 is encoded as 2·-v, v of limit or more as 2·v + 1: a maximum of integers, in any order the same.
    """

    name: ClassVar[str] = "outside"
    family: ClassVar[str] = "indexing"
    limit: Size

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_integers(self, types[0], "row numbers")
        return (TensorType((), int64),)

    def body(self, *types: TensorType) -> Body:
        (ids,) = types
        axes = axes_for(ids.shape, "r")
        row = cast(load(0, ids, indices(axes)), int64)
        below = call("neg", call("maximum", row, -LARGEST))
        beyond = call("minimum", row, LARGEST)
        over = call("select", call("ge", row, Extent(self.limit)), call("add", call("add", beyond, beyond), 1), 0)
        value = call("select", call("lt", row, 0), call("add", below, below), over)
        return Body((), value, axes, "max") if axes else Body((), value)

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        return (None,)

    def reference(self, ids: np.ndarray) -> np.ndarray:
        rows = np.clip(ids.astype(np.int64), -LARGEST, LARGEST)
        outside = np.where(rows < 0, -2 * rows, np.where(ids >= self.limit, 2 * rows + 1, 0))
        return np.asarray(outside.max(initial=np.iinfo(np.int64).min) if ids.ndim else outside)

    @classmethod
    def samples(cls) -> list[Sample]:
        extremes = np.array([-(2**63), 2**63 - 1, 0, 2**31])
        return [
            Sample(cls(10), (values(29, low=-20, high=30, dtype="int32"),)),
            Sample(cls(10), (values(4, 600, low=0, high=10, dtype="int64"),)),
            Sample(cls(3), (values(3, 5, low=-9, high=3, dtype="int32"),)),
            *(Sample(cls(2**31), (extremes[k:],)) for k in range(3)),
            Sample(cls(3), (values(low=5, high=9, dtype="int32"),)),
        ]


def decoded(code: int) -> int:
    """The number that `Outside` encoded."""
    return code // 2 if code % 2 else -(code // 2)
