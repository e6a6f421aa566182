"""Readable, unique names for the tensors of a graph: for text, pictures and generated source.

A tensor is called by its label; else by the variable the user assigned it to, where the source line says so; else by
a short name made from its op. Names are identifiers: whatever the user wrote, nothing but [A-Za-z0-9_] comes out.
"""

from __future__ import annotations

import re

from flowgraph.graph.graph import Graph
from flowgraph.graph.tensor import Node, Tensor

_ASSIGNMENT = re.compile(r"^([A-Za-z_]\w*)\s*(?::[^=]+)?=(?!=)")


def names(graph: Graph) -> dict[Tensor, str]:
    """A unique identifier for every tensor of the graph (and for every updated parameter)."""
    nodes = graph.nodes()
    last_on_line: dict[object, Node] = {}
    for node in nodes:
        if node.origin.lines and not node.origin.passes:
            last_on_line[node.origin.lines[0]] = node
    taken: dict[str, int] = {}
    found: dict[Tensor, str] = {}

    def claim(tensor: Tensor, wanted: str) -> None:
        base = identifier(wanted)
        count = taken.get(base, -1) + 1
        taken[base] = count
        name = base if count == 0 else f"{base}_{count}"
        while count and name in taken:
            count += 1
            name = f"{base}_{count}"
        taken[base] = count
        taken.setdefault(name, 0)
        found[tensor] = name

    tensors = [t for node in nodes for t in node.outputs]
    tensors += [p for p, _ in graph.updates if p.node not in set(nodes)]
    for tensor in tensors:  # what the user named comes first and keeps its name
        if tensor.label:
            claim(tensor, tensor.label)
    for tensor in tensors:
        if tensor in found:
            continue
        node = tensor.node
        assigned = None
        if node.origin.lines and last_on_line.get(node.origin.lines[0]) is node and len(node.outputs) == 1:
            match = _ASSIGNMENT.match(node.origin.lines[0].code)
            assigned = match.group(1) if match else None
        claim(tensor, assigned or node.op.name)
    return found


def identifier(text: str) -> str:
    """The nearest Python identifier to any text."""
    cleaned = re.sub(r"\W", "_", text, flags=re.ASCII).strip("_") or "value"
    return f"_{cleaned}" if cleaned[0].isdigit() else cleaned[:60]
