"""Every output and every update gets memory of its own: a leaf, or a value that already updates another
parameter, is copied.
"""

from __future__ import annotations

from flowgraph.graph import origin as origins
from flowgraph.graph.graph import Graph
from flowgraph.graph.tensor import Tensor
from flowgraph.ops.elementwise import Copy
from flowgraph.ops.leaf import Leaf


def materialise_roots(graph: Graph) -> Graph:
    """Wrap roots in copies where two roots, or a root and a leaf, would otherwise be the same memory."""
    updated: set[Tensor] = set()
    roots: list[Tensor] = []
    for position, root in enumerate(graph.roots):
        is_update = position >= len(graph.outputs)
        if isinstance(root.op, Leaf) or (is_update and root in updated):
            with origins.at(root.origin.by("materialise")):
                root = Copy()(root)
        if is_update:
            updated.add(root)
        roots.append(root)
    return graph if tuple(roots) == graph.roots else graph.with_roots(roots)
