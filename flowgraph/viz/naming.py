"""What tensors are called in pictures and formulas: by their labels as written, scopes included, for these are the
names that `freeze` and `fg.load` take; else by the user's variable; else by the op. What repeats is numbered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from flowgraph.graph.graph import Graph
from flowgraph.graph.names import given_names, names
from flowgraph.graph.tensor import Node, Tensor


def spelling(node: Node) -> str:
    """The op as the lecture spells it."""
    return str(getattr(node.op, "display", node.op.name))


class Names:
    """The names of a graph's tensors. Those that the user did not name get theirs when they are first asked for: what
    is not drawn takes no number."""

    def __init__(self, graph: Graph) -> None:
        nodes = graph.nodes()
        present = set(nodes)
        unread = [p for p, _ in graph.updates if p.node not in present]
        tensors = [*(t for node in nodes for t in node.outputs), *unread]
        self.bases: dict[Tensor, str] = {}  # the names before they were numbered
        self._found: dict[Tensor, str] = {}
        self._taken: set[str] = set()
        self._last: dict[str, int] = {}  # the last number that a base was given
        given = given_names([*nodes, *(p.node for p in unread)])
        self.claim((t, t.label) for t in tensors if t.label)
        self.claim((t, given[t]) for t in tensors if t in given)
        self.claim((new, f"{self[p]}_next") for p, new in graph.updates)

    def claim(self, wanted: Iterable[tuple[Tensor, str]]) -> None:
        """Name tensors, unless they have a name."""
        for tensor, base in wanted:
            if tensor in self._found:
                continue
            name, number = base, self._last.get(base, 0)
            while name in self._taken:
                number += 1
                name = f"{base}_{number}"
            self._last[base] = number
            self._taken.add(name)
            self._found[tensor], self.bases[tensor] = name, base

    def __getitem__(self, tensor: Tensor) -> str:
        if tensor not in self._found:
            shown = spelling(tensor.node)
            self.claim([(tensor, shown if shown.isidentifier() else tensor.op.name)])
        return self._found[tensor]


def as_in_text(graph: Graph, called: Mapping[Tensor, str] | None = None) -> Names:
    """Names with the numbers of the text form, in which every tensor has one, but for what is `called` otherwise."""
    found = Names(graph)
    found.claim((called or {}).items())
    found.claim(names(graph).items())
    return found
