"""Composite ops replaced by what they mean, until every op has a body of its own."""

from __future__ import annotations

from flowgraph.graph.graph import Graph, rewrite
from flowgraph.graph.tensor import Node, Tensor


def expand_composites(graph: Graph) -> Graph:
    """softMax, crossEnt, mean, ... as graphs of ops with bodies."""
    while True:

        def rule(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            return (node.op.expand(*inputs),) if node.op.meaning() == "expand" else None

        expanded = rewrite(graph, rule, "expand")
        if expanded is graph:
            return graph
        graph = expanded
