"""Random draws get their numbers in the order of the graph: two runs of one script, or of a notebook's cell, then have
the same bits, whatever was declared before.
"""

from __future__ import annotations

import dataclasses

from flowgraph.graph.graph import Graph, rewrite
from flowgraph.graph.tensor import Node, Tensor
from flowgraph.ops.random import AUTOMATIC, Draw


def number_streams(graph: Graph) -> Graph:
    """Replace what tells draws apart by numbers from AUTOMATIC on; streams the user has fixed stay."""
    numbers: dict[int, int] = {}

    def rule(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if not isinstance(node.op, Draw) or node.op.stream >= 0:
            return None
        number = numbers.setdefault(node.op.stream, AUTOMATIC + len(numbers))
        return (dataclasses.replace(node.op, stream=number)(*inputs),)

    return rewrite(graph, rule, "streams")
