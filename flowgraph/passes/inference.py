"""A model as it is used, not as it is trained: every op that differs says what stands for it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from flowgraph.graph.graph import Graph, rewrite
from flowgraph.graph.tensor import Node, Tensor
from flowgraph.ops.averages import Averaged
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


def with_averages(tensors: Sequence[Tensor], averages: Collection[Tensor]) -> tuple[Tensor, ...]:
    """Tensors in which these running averages stand for the statistics that they are averages of."""

    def rule(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        return (inputs[1],) if isinstance(node.op, Averaged) and node.inputs[1] in averages else None

    return rewrite(Graph(tuple(tensors)), rule, "frozen averages").outputs


def _used(graph: Graph) -> Graph:
    def rule(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        found = node.op.at_inference(*inputs)
        return None if found is None else (found,)

    return rewrite(graph, rule, "inference")
