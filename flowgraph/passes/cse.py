"""Common subexpressions: what is computed twice is computed once."""

from __future__ import annotations

from typing import Any

from flowgraph.graph.graph import Graph, clone, rewrite
from flowgraph.graph.tensor import Node, Tensor
from flowgraph.ops.leaf import Input, Parameter


def eliminate_common_subexpressions(graph: Graph) -> Graph:
    """Nodes with equal ops and equal inputs become one, which remembers the lines of all of them."""
    numbers: dict[Tensor, Tensor] = {}  # the first tensor of equal value
    first: dict[tuple[Any, tuple[Tensor, ...]], Node] = {}
    same: dict[Node, list[Node]] = {}
    for node in graph.nodes():
        key = (node.op, tuple(numbers[t] for t in node.inputs))
        leader = node if isinstance(node.op, (Input, Parameter)) else first.setdefault(key, node)
        numbers.update(zip(node.outputs, leader.outputs, strict=True))
        same.setdefault(leader, []).append(node)
    made: dict[Node, tuple[Tensor, ...]] = {}

    def rule(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        leader = numbers[node.outputs[0]].node
        if leader is not node:
            return made[leader]
        others = same[node][1:]
        if others:
            origin = node.origin.merge(*(o.origin for o in others))
            if any("backward" not in n.origin.passes for n in same[node]):
                origin = origin.without("backward")  # what the forward graph needs too is forward
            made[node] = clone(node, inputs, origin if origin != node.origin else None)
        return made.get(node)

    return rewrite(graph, rule, "cse")
