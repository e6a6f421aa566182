"""No kernel touches memory outside its buffers: row numbers that no check of the inputs covers are clipped.

Numbers that are fed are checked when they are fed (`Program.check`), with an error that names the user's line: those
that the user's ops look up, and those that lookups rely on once this pass has run (`view_of_input`). Numbers that the
graph computes, or that a parameter holds, exist only in the middle of a native step; `watch` has what was clipped
reported after it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from flowgraph.graph.graph import Graph, rewrite
from flowgraph.graph.size import Size
from flowgraph.graph.tensor import Node, Tensor
from flowgraph.ops.base import Op
from flowgraph.ops.bounds import ClipIndex
from flowgraph.ops.distinct import FirstEqual
from flowgraph.ops.elementwise import Cast
from flowgraph.ops.indexing import AddAlongAxis, Gather, ScatterAdd, TakeAlongAxis
from flowgraph.ops.leaf import Arange, Constant, Input
from flowgraph.ops.shape import Broadcast, ExpandDims, Injective, Squeeze
from flowgraph.ops.slicing import Slice
from flowgraph.ops.sorting import Argsort
from flowgraph.ops.statistics import Place

READERS = (Gather, ScatterAdd, TakeAlongAxis, AddAlongAxis)


def guard_indices(graph: Graph) -> Graph:
    """Put `clip_index` before every lookup and scatter whose row numbers are not checked otherwise.

    What clips the same numbers for a lookup and for its gradient is called after the lookup, the user's own op.
    """
    called: dict[tuple[Tensor, Size], str] = {}
    for node in sorted(graph.nodes(), key=lambda node: "backward" in node.origin.passes):
        if isinstance(node.op, READERS):
            called.setdefault((node.inputs[1], node.inputs[0].shape[node.op.axis]), node.op.display)

    def rule(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if not isinstance(node.op, READERS):
            return None
        limit, ids = inputs[0].shape[node.op.axis], inputs[1]
        if is_checked(ids, limit):
            return None
        return (node.op(inputs[0], ClipIndex(limit, called[node.inputs[1], limit])(ids), *inputs[2:]),)

    return rewrite(graph, rule, "guard")


def is_checked(ids: Tensor, limit: Size) -> bool:
    """Whether these integers are known to lie in [0, limit): fed, and so checked, or fixed."""
    op = ids.op
    if isinstance(op, Injective) or (isinstance(op, Cast) and ids.node.inputs[0].dtype.kind == "int"):
        return is_checked(ids.node.inputs[0], limit) or view_of_input(ids) is not None
    if isinstance(op, Constant):
        array = op.array
        return isinstance(limit, int) and bool(((array >= 0) & (array < limit)).all())
    if isinstance(op, Argsort):
        return op.infer(ids.node.inputs[0].type)[0].shape[op.axis] == limit
    if isinstance(op, Place) and len(op.axes) == 1:
        return ids.node.inputs[0].shape[op.axes[0]] == limit
    if isinstance(op, FirstEqual) and ids.shape[0] == limit:
        return True
    if isinstance(op, (Arange, ClipIndex)):
        return (op.size if isinstance(op, Arange) else op.limit) == limit
    return view_of_input(ids) is not None


@dataclass(frozen=True)
class View:
    """Integers that are elements of an input (or of a constant), found by these ops, the one nearest to it first."""

    source: Tensor
    ops: tuple[Op, ...]

    def of(self, array: np.ndarray, concrete: Callable[[Op], Op]) -> np.ndarray:
        """The elements, of an array fed for the input; `concrete` gives an op the values of its sizes."""
        gathered = False
        for op in self.ops:
            if isinstance(op, Gather):
                gathered = True  # the whole table: every row is read some time
            elif isinstance(op, Slice) and gathered:
                fixed = concrete(Slice((0, *op.starts[1:]), (len(array), *op.counts[1:]), op.steps))
                array = fixed.reference(array)
            elif not (gathered and isinstance(op, Broadcast)):
                array = concrete(op).reference(array)
        return array


def view_of_input(ids: Tensor) -> View | None:
    """Which elements of an input integers are; None if they are anything else, or the input's elements that they are
    depend on what is computed."""
    ops: list[Op] = []
    while not isinstance(ids.op, (Input, Constant)):
        if isinstance(ids.op, Gather) and not _reads_every_row(ids.node):
            return None
        if not isinstance(ids.op, (Injective, Gather, Cast)):
            return None
        ops.append(ids.op)
        ids = ids.node.inputs[0]
    ops.reverse()
    gathers = [k for k, op in enumerate(ops) if isinstance(op, Gather)]
    if gathers and (gathers[0] or len(gathers) > 1 or not all(map(_row_by_row, ops[1:]))):
        return None
    return View(ids, tuple(ops))


def _reads_every_row(node: Node) -> bool:
    """Whether a lookup leaves out no row of its table, sooner or later."""
    table, rows = node.inputs
    every = node.op.exhaustive or (isinstance(rows.op, Argsort) and is_checked(rows, table.shape[node.op.axis]))
    return every and node.op.axis == 0


def _row_by_row(op: Op) -> bool:
    """Whether an op does the same to every row, so that what it makes of all rows is known from all of them."""
    if isinstance(op, Slice):
        return op.starts[0] == 0 and op.steps[0] == 1
    if isinstance(op, (ExpandDims, Squeeze)):
        return 0 not in op.axes
    return isinstance(op, (Cast, Broadcast))
