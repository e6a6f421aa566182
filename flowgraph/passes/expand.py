"""Composite ops replaced by what they mean, until every op has a body of its own."""

from __future__ import annotations

from flowgraph.errors import VerificationError
from flowgraph.graph.graph import Graph, rewrite
from flowgraph.graph.tensor import Node, Tensor

DEEPEST = 8  # levels of composites made of composites


def expand_composites(graph: Graph) -> Graph:
    """softMax, crossEnt, mean, ... as graphs of ops with bodies."""

    def rule(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        return (node.op.expand(*inputs),) if node.op.meaning() == "expand" else None

    for _ in range(DEEPEST):
        expanded = rewrite(graph, rule, "expand")
        if expanded is graph:
            return graph
        graph = expanded
    left = sorted({node.op.name for node in graph.nodes() if node.op.meaning() == "expand"})
    raise VerificationError(
        f"{', '.join(left)} still expand after {DEEPEST} levels: an op that expands to itself?"
    )
