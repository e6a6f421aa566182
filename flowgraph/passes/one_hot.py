"""one_hot(ids) @ w is the rows of w at ids: a lookup, of which the gradient is a scatter into those rows.

Runs before differentiation, too, so that no gradient is a dense product; there, what a gradient is asked for (`keep`)
stays on the way to the cost. Left alone where ids may be out of range: a row of zeros is no lookup. Were another row of
w infinite or NaN, the product would spoil every row of the result; the lookup does not read it.
"""

from __future__ import annotations

from collections.abc import Collection

from flowgraph.graph.graph import Graph, rewrite
from flowgraph.graph.tensor import Node, Tensor
from flowgraph.ops.contraction import Mul
from flowgraph.ops.einsum import Einsum
from flowgraph.ops.indexing import Gather, OneHot
from flowgraph.passes.guard import is_checked


def look_up_one_hot(graph: Graph, keep: Collection[Tensor] = ()) -> Graph:
    """Replace products of one-hot rows and a table by lookups."""

    def rule(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if not isinstance(node.op, (Mul, Einsum)) or node.inputs[0] in keep:
            return None
        rows, table = inputs
        if not isinstance(rows.op, OneHot) or (isinstance(node.op, Einsum) and not _is_product(node.op)):
            return None
        ids = rows.node.inputs[0]
        return (Gather()(table, ids),) if is_checked(ids, rows.op.depth) else None

    return rewrite(graph, rule, "lookup")


def _is_product(op: Einsum) -> bool:
    """Whether it is (..., k), (k, n) -> (..., n)."""
    return len(op.second) == 2 and op.first[-1] == op.second[0] and op.result == op.first[:-1] + op.second[1]
