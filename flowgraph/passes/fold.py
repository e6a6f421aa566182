"""What depends on constants alone, computed once; and what is known of a tensor's value.

Dead code needs no pass: a graph is what its roots depend on.
"""

from __future__ import annotations

import numpy as np

from flowgraph.graph.graph import Graph, rewrite
from flowgraph.graph.tensor import Node, Tensor
from flowgraph.graph.types import TensorType
from flowgraph.ops.elementwise import Cast, Elementwise
from flowgraph.ops.leaf import Constant, constant
from flowgraph.ops.shape import Broadcast, ExpandDims, Squeeze

FOLD_LIMIT = 4096  # elements: a larger constant is cheaper to compute than to carry


def fold_constants(graph: Graph) -> Graph:
    """Compute what depends on constants alone, by the ops' references. A broadcast scalar stays a scalar, of
    any shape.
    """

    def rule(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if not inputs or isinstance(node.op, Broadcast) or node.op.subgraphs() or node.op.named_sizes():
            return None
        result = node.outputs[0].type
        if isinstance(node.op, (Elementwise, Cast)) and result.rank:
            scalars = [s for s in map(_scalar, inputs) if s is not None]
            if len(scalars) == len(inputs):
                return (Broadcast(result.shape)(constant(node.op.reference(*scalars), result.dtype)),)
        if not _is_small(result):
            return None
        arrays = [a for a in map(_small_constant, inputs) if a is not None]
        if len(arrays) < len(inputs):
            return None
        return (constant(np.asarray(node.op.reference(*arrays)), result.dtype),)

    return rewrite(graph, rule, "fold")


def _is_small(type_: TensorType) -> bool:
    """(The number of elements may be known where a size is not: 0 rows of k.)"""
    known = all(isinstance(size, int) for size in type_.shape)
    return known and isinstance(type_.count, int) and type_.count <= FOLD_LIMIT


def _scalar(tensor: Tensor) -> np.ndarray | None:
    """The scalar constant that a tensor is a broadcast of."""
    source = tensor.node.inputs[0] if isinstance(tensor.op, Broadcast) else tensor
    return source.op.array if isinstance(source.op, Constant) and source.shape == () else None


def _small_constant(tensor: Tensor) -> np.ndarray | None:
    """The array that a tensor is known to be: a constant, or a broadcast of one."""
    if isinstance(tensor.op, Constant):
        return tensor.op.array
    if isinstance(tensor.op, Broadcast) and isinstance(tensor.node.inputs[0].op, Constant) and _is_small(tensor.type):
        return tensor.op.reference(tensor.node.inputs[0].op.array)
    return None


def scalar_value(tensor: Tensor) -> float | None:
    """The number a tensor is everywhere, if it is a (broadcast) scalar constant."""
    while isinstance(tensor.op, (Broadcast, ExpandDims, Squeeze)):
        tensor = tensor.node.inputs[0]
    if isinstance(tensor.op, Constant) and tensor.type.count == 1:
        return float(tensor.op.array.reshape(()).item())
    return None
