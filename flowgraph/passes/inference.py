"""A model as it is used, not as it is trained: every op that differs says what stands for it."""

from __future__ import annotations

from flowgraph.graph.graph import Graph, rewrite
from flowgraph.graph.tensor import Node, Tensor
from flowgraph.passes.loops import inside


def inference(tensor: Tensor) -> Tensor:
    """The tensor with dropout left out, and whatever else only helps training.

    >>> import flowgraph as fg
    >>> x = fg.input("x", (3,))
    >>> fg.inference(fg.dropout(fg.tanh(x)))
    <Tensor tanh: float32(3,)>
    """

    used = _used(Graph((tensor,)))
    return inside((_used,), "inference")(used).outputs[0]


def _used(graph: Graph) -> Graph:
    def rule(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        found = node.op.at_inference(*inputs)
        return None if found is None else (found,)

    return rewrite(graph, rule, "inference")
