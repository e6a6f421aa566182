"""A lookup's gradient straight into the update: w - r*scatter_add(0, ids, g) becomes scatter_add(w, ids, -r*g).

There is no sparse type; what looked up a few rows touches a few rows. Holds for any factor that is the same for all rows.
"""

from __future__ import annotations

import math

from flowgraph.graph.graph import Graph, rewrite
from flowgraph.graph.tensor import Node, Tensor
from flowgraph.ops.elementwise import Add, Multiply, Negative, Subtract, multiply, negative
from flowgraph.ops.indexing import ScatterAdd
from flowgraph.passes.simplify import scalar_value


def sparse_updates(graph: Graph) -> Graph:
    """Fold `x ± factor * scatter_add(0, ids, added)` into one scatter into x."""

    def rule(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if not isinstance(node.op, (Add, Subtract)):
            return None
        x, y = inputs
        found = _scaled_scatter(y)
        if found is None:
            return None
        ids, added, factor = found
        if factor not in (1, -1) and not (added.dtype.is_float and math.isfinite(factor)):
            return None
        if isinstance(node.op, Subtract):
            factor = -factor
        scaled = added if factor == 1 else negative(added) if factor == -1 else multiply(factor, added)
        return (ScatterAdd()(x, ids, scaled),)

    return rewrite(graph, rule, "sparse")


def _scaled_scatter(tensor: Tensor) -> tuple[Tensor, Tensor, float] | None:
    """(ids, values, factor) if the tensor is factor * scatter_add(0, ids, values)."""
    factor = 1.0
    while True:
        if isinstance(tensor.op, Negative):
            factor, tensor = -factor, tensor.node.inputs[0]
        elif isinstance(tensor.op, Multiply):
            a, b = tensor.node.inputs
            if scalar_value(a) is not None:
                factor, tensor = factor * scalar_value(a), b  # type: ignore[operator]
            elif scalar_value(b) is not None:
                factor, tensor = factor * scalar_value(b), a  # type: ignore[operator]
            else:
                return None
        elif isinstance(tensor.op, ScatterAdd) and scalar_value(tensor.node.inputs[0]) == 0:
            return tensor.node.inputs[1], tensor.node.inputs[2], factor
        else:
            return None
