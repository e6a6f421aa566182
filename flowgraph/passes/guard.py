"""No kernel touches memory outside its buffers: row numbers that no check of the inputs covers are clipped.

Numbers that are fed are checked when they are fed (`Program.check`), with an error that names the user's line. Numbers
that the graph computes, or that a parameter holds, exist only in the middle of a native step; `watch` has what was
clipped reported after it.
"""

from __future__ import annotations

from flowgraph.graph.graph import Graph, rewrite
from flowgraph.graph.size import Size
from flowgraph.graph.tensor import Node, Tensor
from flowgraph.ops.bounds import ClipIndex
from flowgraph.ops.distinct import FirstEqual
from flowgraph.ops.elementwise import Cast
from flowgraph.ops.indexing import AddAlongAxis, Gather, ScatterAdd, TakeAlongAxis
from flowgraph.ops.leaf import Arange, Constant, Input
from flowgraph.ops.shape import Injective
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
    if isinstance(op, (Injective, Gather)) or (isinstance(op, Cast) and ids.node.inputs[0].dtype.kind == "int"):
        return is_checked(ids.node.inputs[0], limit)
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
    return isinstance(op, Input)
