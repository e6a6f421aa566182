"""Readable, unique names for the tensors of a graph: for text, pictures and generated source.

A tensor is called by its label; else by the variable the user assigned it to, where the source line says so;
else, as a parameter's next value, after the parameter; else after its op. Names are identifiers: whatever the
user wrote, nothing but [A-Za-z0-9_] comes out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby

from flowgraph.graph.graph import Graph
from flowgraph.graph.tensor import Node, Tensor

# `h = …` with one statement on the line; not where what is assigned is made of values, but is none itself
_ASSIGNMENT = re.compile(
    r"^([A-Za-z_]\w*)\s*(?::[^=]+)?=(?!=)(?!.*;)(?!\s*(?:\w+\.)*(?:compile|grad|show|Graph|Trainer)\()"
)


def given_names(nodes: Sequence[Node]) -> dict[Tensor, str]:
    """The tensors that the user named: by label, or by assigning them to a variable, `h = fg.tanh(z)`.

    A line of code makes nodes one after the other, so nodes of one line with neighbouring serials are one
    execution of it; the variable is the one value among them that none of them reads. Several such values (a
    comprehension, a tuple) have no name of their own, nor does what is left of a line that a pass rewrote.
    """
    found: dict[Tensor, str] = {}
    rewritten = {line for n in nodes if set(n.origin.passes) - {"backward"} for line in n.origin.lines}
    declared = sorted((n for n in nodes if n.origin.lines and not n.origin.passes), key=lambda n: n.serial)
    for line, run in groupby(declared, key=lambda n: n.origin.lines[0]):
        match = None if line in rewritten else _ASSIGNMENT.match(line.code)
        members = list(run)
        read = {t for n in members for t in n.inputs}
        results = [t for n in members for t in n.outputs if t not in read]
        if match and len(results) == 1:
            found[results[0]] = match.group(1)
    found |= {t: t.label for n in nodes for t in n.outputs if t.label}
    return found


def adopt_names(graph: Graph) -> None:
    """Make the variables' names labels, which outlive the passes; for a graph just declared."""
    called = names(graph)
    for tensor in given_names(graph.nodes()):
        tensor.label = tensor.label or called[tensor]


def names(graph: Graph) -> dict[Tensor, str]:
    """A unique identifier for every tensor of the graph (and for every updated parameter)."""
    nodes = graph.nodes()
    taken: dict[str, int] = {}
    found: dict[Tensor, str] = {}

    def claim(tensor: Tensor, wanted: str) -> None:
        base = identifier(wanted)
        count = taken.get(base, -1) + 1
        name = f"{base}_{count}" if count else base
        while count and name in taken:
            count += 1
            name = f"{base}_{count}"
        taken[base] = count
        taken.setdefault(name, 0)
        found[tensor] = name

    present = set(nodes)
    tensors = [t for node in nodes for t in node.outputs]
    tensors += [p for p, _ in graph.updates if p.node not in present]
    given = given_names([*nodes, *(p.node for p, _ in graph.updates if p.node not in present)])
    for tensor in tensors:  # labels first: they keep their names
        if tensor.label:
            claim(tensor, tensor.label)
    for parameter, new in graph.updates:
        if new not in found and new not in given:
            claim(new, f"{found[parameter]}_next")
    for tensor in tensors:
        if tensor not in found:
            claim(tensor, given.get(tensor, tensor.node.op.name))
    return found


def identifier(text: str) -> str:
    """The nearest Python identifier to any text."""
    cleaned = re.sub(r"\W", "_", text, flags=re.ASCII).strip("_") or "value"
    return f"_{cleaned}" if cleaned[0].isdigit() else cleaned[:60]
