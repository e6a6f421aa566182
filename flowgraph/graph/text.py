"""A graph as text: one line a node, in the lecture's spelling, with types and the user's lines."""

from __future__ import annotations

from flowgraph.graph.graph import Graph
from flowgraph.graph.names import names
from flowgraph.graph.printable import printable
from flowgraph.graph.tensor import Node


def show_op(node: Node) -> str:
    """The op as the lecture writes it, attributes in brackets; one line, whatever the user called things."""
    attributes = node.op.attributes() if hasattr(node.op, "attributes") else ""
    display = getattr(node.op, "display", node.op.name)
    return printable(f"{display}[{attributes}]" if attributes else display, 100)


def to_text(graph: Graph, *, lines: bool = True) -> str:
    """The whole graph, one line a node: `A1 = tanh(Z1b)   float32(batch, 32)   # model.py:7`."""
    called = names(graph)
    rows: list[tuple[str, str, str]] = []
    for node in graph.nodes():
        left = ", ".join(called[t] for t in node.outputs)
        call = show_op(node) + ("(" + ", ".join(called[t] for t in node.inputs) + ")" if node.inputs else "")
        comment = ", ".join(line.short for line in node.origin.lines[:3])
        rows.append((f"{left} = {call}", ", ".join(str(t.type) for t in node.outputs), comment))
    width = [min(60, max((len(r[k]) for r in rows), default=0)) for k in (0, 1)]
    text = [f"{a:<{width[0]}}  {b:<{width[1]}}" + (f"  # {c}" if c and lines else "") for a, b, c in rows]
    text += [f"return {', '.join(called[t] for t in graph.outputs)}"] if graph.outputs else []
    text += [f"update {called[p]} <- {called[new]}" for p, new in graph.updates]
    return "\n".join(line.rstrip() for line in text) + "\n"
