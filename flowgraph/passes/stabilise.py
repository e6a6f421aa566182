"""crossEnt(softMax(a), y) -> crossEntOfSoftMax(a, y), and log(softMax(a)) -> its stable form.

Runs before differentiation too, so that the gradient inherits P - Y instead of 0/0. There it must not lead
past a tensor that a gradient is asked for: `keep` are left on the way from the leaves to the cost.
"""

from __future__ import annotations

from collections.abc import Collection

from flowgraph.graph.graph import Graph, rewrite
from flowgraph.graph.tensor import Node, Tensor
from flowgraph.ops.classification import CrossEnt, CrossEntOfSoftmax, Softmax
from flowgraph.ops.elementwise import subtract
from flowgraph.ops.functions import Log, exp, log
from flowgraph.ops.reduce import max as max_
from flowgraph.ops.reduce import sum as sum_


def stabilise(graph: Graph, keep: Collection[Tensor] = ()) -> Graph:
    """Replace compositions that overflow by ones that do not."""

    def rule(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if node.inputs and node.inputs[0] in keep:
            return None
        if isinstance(node.op, CrossEnt) and isinstance(inputs[0].op, Softmax):
            return (CrossEntOfSoftmax()(inputs[0].node.inputs[0], inputs[1]),)
        if isinstance(node.op, Log) and isinstance(inputs[0].op, Softmax):
            logits = inputs[0].node.inputs[0]
            centred = subtract(logits, max_(logits, axis=-1, keepdims=True))
            return (subtract(centred, log(sum_(exp(centred), axis=-1, keepdims=True))),)
        return None

    return rewrite(graph, rule, "stabilise")
