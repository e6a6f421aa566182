"""Random draws get their numbers in the order of the graph: two runs of one script, or of a notebook's cell, then have
the same bits, whatever was declared before.
"""

from __future__ import annotations

import dataclasses

from flowgraph.graph.graph import Graph, rewrite
from flowgraph.graph.tensor import Node, Tensor, apply
from flowgraph.ops.random import AUTOMATIC, Draw
from flowgraph.ops.scan import Scan


def number_streams(graph: Graph) -> Graph:
    """Replace what tells draws apart by numbers from AUTOMATIC on; streams the user has fixed stay."""
    return _numbered(graph, {})


def _numbered(graph: Graph, numbers: dict[int, int]) -> Graph:
    """A draw has one number wherever it is made: in a loop, and in the loop of its gradient."""

    def rule(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if isinstance(node.op, Scan):
            body = node.op.inner
            after = _numbered(body.graph, numbers)
            if after is body.graph:
                return None
            return apply(dataclasses.replace(node.op, inner=body.with_results(after.roots)), *inputs)
        if not isinstance(node.op, Draw) or node.op.stream >= 0:
            return None
        number = numbers.setdefault(node.op.stream, AUTOMATIC + len(numbers))
        return (dataclasses.replace(node.op, stream=number)(*inputs),)

    return rewrite(graph, rule, "streams")
