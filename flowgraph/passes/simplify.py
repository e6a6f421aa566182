"""Passes that make a graph smaller without changing what it means: folding, algebra, common subexpressions.

Each takes and returns a Graph. Dead code needs no pass: a graph is what its roots depend on.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from flowgraph.graph.graph import Graph, clone, rewrite
from flowgraph.graph.tensor import Node, Tensor
from flowgraph.ops.base import Op
from flowgraph.ops.elementwise import Add, Cast, Divide, Elementwise, Multiply, Negative, StopGradient, Subtract
from flowgraph.ops.leaf import Constant, Input, Parameter, constant
from flowgraph.ops.shape import Broadcast, ExpandDims, Squeeze, Transpose

FOLD_LIMIT = 4096  # elements: a larger constant is cheaper to compute than to carry


def fold_constants(graph: Graph) -> Graph:
    """Compute what depends on constants alone, by the ops' references. A broadcast scalar stays a scalar, of
    any shape.
    """

    def rule(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if not inputs or len(node.outputs) != 1 or isinstance(node.op, Broadcast) or node.op.named_sizes():
            return None
        result = node.outputs[0].type
        if isinstance(node.op, (Elementwise, Cast)) and result.rank:
            scalars = [s for s in map(_scalar, inputs) if s is not None]
            if len(scalars) == len(inputs):
                return (Broadcast(result.shape)(constant(node.op.reference(*scalars), result.dtype)),)
        if not isinstance(result.count, int) or result.count > FOLD_LIMIT:
            return None
        arrays = [a for a in map(_small_constant, inputs) if a is not None]
        if len(arrays) < len(inputs):
            return None
        return (constant(np.asarray(node.op.reference(*arrays)), result.dtype),)

    return rewrite(graph, rule, "fold")


def _scalar(tensor: Tensor) -> np.ndarray | None:
    """The scalar constant that a tensor is a broadcast of."""
    source = tensor.node.inputs[0] if isinstance(tensor.op, Broadcast) else tensor
    return source.op.array if isinstance(source.op, Constant) and source.shape == () else None


def _small_constant(tensor: Tensor) -> np.ndarray | None:
    """The array that a tensor is known to be: a constant, or a broadcast of one."""
    if isinstance(tensor.op, Constant):
        return tensor.op.array
    if isinstance(tensor.op, Broadcast) and isinstance(tensor.node.inputs[0].op, Constant):
        count = tensor.type.count
        if isinstance(count, int) and count <= FOLD_LIMIT:
            return tensor.op.reference(tensor.node.inputs[0].op.array)
    return None


def scalar_value(tensor: Tensor) -> float | None:
    """The number a tensor is everywhere, if it is a (broadcast) scalar constant."""
    while isinstance(tensor.op, (Broadcast, ExpandDims, Squeeze)):
        tensor = tensor.node.inputs[0]
    if isinstance(tensor.op, Constant) and tensor.type.count == 1:
        return float(tensor.op.array.reshape(()).item())
    return None


def simplify_algebra(graph: Graph) -> Graph:
    """Identities that hold for every value, NaN and infinity included: x+0, x*1, x/1, -(-x), shapes undone.

    `x * (1/n)` becomes `x / n`: one rounding fewer, and the text reads (P - Y)/batch.
    `x + 0` turns -0 into 0 in IEEE arithmetic; that sign is not kept.
    """

    def rule(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        op = node.op
        if isinstance(op, (Add, Subtract, Multiply, Divide)):
            x, y = inputs
            a, b = scalar_value(x), scalar_value(y)
            if (isinstance(op, (Add, Subtract)) and b == 0) or (
                isinstance(op, (Multiply, Divide)) and b == 1
            ):
                return (x,)
            if (isinstance(op, Add) and a == 0) or (isinstance(op, Multiply) and a == 1):
                return (y,)
            if isinstance(op, Multiply) and b == -1:
                return (Negative()(x),)
            if isinstance(op, Add) and isinstance(y.op, Negative):
                return (Subtract()(x, y.node.inputs[0]),)
            if isinstance(op, Subtract) and isinstance(y.op, Negative):
                return (Add()(x, y.node.inputs[0]),)
            if isinstance(op, Multiply):
                for value, factor in ((x, y), (y, x)):
                    divisor = _reciprocal(factor)
                    if divisor is not None:
                        return (Divide()(value, divisor),)
        if isinstance(op, Negative) and isinstance(inputs[0].op, Negative):
            return inputs[0].node.inputs
        if isinstance(op, StopGradient) or (isinstance(op, Cast) and inputs[0].dtype == op.dtype):
            return inputs
        if isinstance(op, Transpose) and isinstance(inputs[0].op, Transpose):
            inner = inputs[0].op.axes
            combined = tuple(inner[k] for k in op.axes)
            source = inputs[0].node.inputs[0]
            return (source,) if combined == tuple(range(len(combined))) else (Transpose(combined)(source),)
        if isinstance(op, Squeeze) and isinstance(inputs[0].op, ExpandDims) and op.axes == inputs[0].op.axes:
            return inputs[0].node.inputs
        if isinstance(op, (Elementwise, Cast)):
            return _without_ones(op, inputs)
        if isinstance(op, Broadcast):
            if op.shape == inputs[0].shape:
                return inputs
            if isinstance(inputs[0].op, Broadcast):
                return (op(inputs[0].node.inputs[0]),)
        return None

    return rewrite(graph, rule, "algebra")


def _without_ones(op: Op, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    """f(expand_dims(a), expand_dims(b)) is expand_dims(f(a, b)): what `keepdims` leaves is one number a row,
    not a row.
    """
    expanded = next((t for t in inputs if isinstance(t.op, ExpandDims)), None)
    if expanded is None:
        return None
    inner = expanded.node.inputs[0].shape
    operands = []
    for tensor in inputs:
        source = tensor.node.inputs[0] if isinstance(tensor.op, (ExpandDims, Broadcast)) else None
        if source is None or (isinstance(tensor.op, ExpandDims) and tensor.op.axes != expanded.op.axes):
            return None
        if isinstance(tensor.op, Broadcast):
            if source.shape != ():
                return None
            source = Broadcast(inner)(source) if inner else source
        operands.append(source)
    return (ExpandDims(expanded.op.axes)(op(*operands)),)


def _reciprocal(tensor: Tensor) -> Tensor | None:
    """n, of the shape of `tensor`, if `tensor` is a broadcast scalar 1/n."""
    path: list[Tensor] = []
    while isinstance(tensor.op, (Broadcast, ExpandDims, Squeeze)):
        path.append(tensor)
        tensor = tensor.node.inputs[0]
    if not isinstance(tensor.op, Divide) or tensor.shape != () or scalar_value(tensor.node.inputs[0]) != 1:
        return None
    result = tensor.node.inputs[1]
    if isinstance(result.op, Constant):
        return None  # folded: a product is cheaper
    for step in reversed(path):
        result = step.op(result)
    return result


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
