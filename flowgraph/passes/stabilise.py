"""crossEnt(softMax(a), y) -> crossEntOfSoftMax(a, y), log(softMax(a)) -> logSoftMax(a), and the same of logistic.

Runs before differentiation too, so that the gradient inherits P - Y instead of 0/0. There it must not lead
past a tensor that a gradient is asked for: `keep` are left on the way from the leaves to the cost.
"""

from __future__ import annotations

from collections.abc import Collection

from flowgraph.graph.graph import Graph, rewrite
from flowgraph.graph.tensor import Node, Tensor
from flowgraph.ops.classification import (
    BinaryCrossEnt,
    CrossEnt,
    CrossEntOfLogistic,
    CrossEntOfSoftmax,
    LogSoftmax,
    Softmax,
)
from flowgraph.ops.functions import Log, Logistic


def stabilise(graph: Graph, keep: Collection[Tensor] = ()) -> Graph:
    """Replace compositions that overflow by ones that do not."""

    def rule(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if node.inputs and node.inputs[0] in keep:
            return None
        inner = inputs[0].op if inputs else None
        if isinstance(node.op, CrossEnt) and inner == Softmax():
            return (CrossEntOfSoftmax()(inputs[0].node.inputs[0], inputs[1]),)
        if isinstance(node.op, BinaryCrossEnt) and isinstance(inner, Logistic):
            return (CrossEntOfLogistic()(inputs[0].node.inputs[0], inputs[1]),)
        if isinstance(node.op, Log) and isinstance(inner, Softmax):
            return (LogSoftmax(inner.axis)(inputs[0].node.inputs[0]),)
        return None

    return rewrite(graph, rule, "stabilise")
