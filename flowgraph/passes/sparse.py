"""A lookup's gradient straight into the update: w - r*scatter_add(0, ids, g) becomes scatter_add(w, ids,
-r*g).

There is no sparse type; what looked up a few rows touches a few rows. Holds for any finite factor that is the
same for all rows: numbers, scalar inputs and parameters, and what is computed of such scalars alone (a learning rate
and its schedule). Were such a scalar infinite or NaN, the dense form would spoil every row of the table, this one only
those that were looked up.
"""

from __future__ import annotations

import math

from flowgraph.graph.graph import Graph, rewrite, topological
from flowgraph.graph.tensor import Node, Tensor
from flowgraph.ops.elementwise import Add, Multiply, Negative, Subtract, multiply, negative
from flowgraph.ops.indexing import ScatterAdd
from flowgraph.ops.shape import Broadcast, ExpandDims
from flowgraph.passes.fold import scalar_value


def sparse_updates(graph: Graph) -> Graph:
    """Fold `x ± factor * scatter_add(0, ids, added)` into one scatter into x."""

    def rule(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if not isinstance(node.op, (Add, Subtract)):
            return None
        x, y = inputs
        found = _scaled_scatter(y)
        if found is None:
            return None
        scatter, ids, added, number, scalars = found
        if number not in (1, -1) and not (added.dtype.is_float and math.isfinite(number)):
            return None
        for scalar in scalars:
            added = multiply(scalar, added)
        if isinstance(node.op, Subtract):
            number = -number
        scaled = added if number == 1 else negative(added) if number == -1 else multiply(number, added)
        return (scatter(x, ids, scaled),)

    return rewrite(graph, rule, "sparse")


def _scaled_scatter(tensor: Tensor) -> tuple[ScatterAdd, Tensor, Tensor, float, list[Tensor]] | None:
    """(op, ids, values, number, scalars) if the tensor is number * scalars * scatter_add(0, ids, values)."""
    number, scalars = 1.0, list[Tensor]()
    while True:
        if isinstance(tensor.op, Negative):
            number, tensor = -number, tensor.node.inputs[0]
        elif isinstance(tensor.op, Multiply):
            for factor, rest in (tensor.node.inputs, tensor.node.inputs[::-1]):  # noqa: B007
                value, scalar = scalar_value(factor), _given_scalar(factor)
                if value is not None or scalar is not None:
                    break
            else:
                return None
            if value is not None:
                number *= value
            elif scalar is not None:
                scalars.append(scalar)
            tensor = rest
        elif isinstance(tensor.op, ScatterAdd) and scalar_value(tensor.node.inputs[0]) == 0:
            return tensor.op, tensor.node.inputs[1], tensor.node.inputs[2], number, scalars
        else:
            return None


def _given_scalar(tensor: Tensor) -> Tensor | None:
    """The scalar, if the tensor is a broadcast one that depends on scalars alone: not on what was looked up, whose
    norm would need the rows summed first (see `rows`)."""
    while isinstance(tensor.op, (Broadcast, ExpandDims)):
        tensor = tensor.node.inputs[0]
    if tensor.shape != ():
        return None
    sources = topological([tensor])
    return tensor if all(t.shape == () for node in sources for t in node.outputs) else None
