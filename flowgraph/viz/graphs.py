"""Graph -> Picture, drawn as the lecture draws it: values in ovals under their names, ops in boxes between
them.

Knows the graph, and of an op only its name, spelling, family and attributes.
"""

from __future__ import annotations

from flowgraph.graph.graph import Graph, topological
from flowgraph.graph.names import given_names, names
from flowgraph.graph.size import show_shape
from flowgraph.graph.tensor import Node, Tensor
from flowgraph.graph.text import show_op
from flowgraph.viz.formula import Formulas, spelling
from flowgraph.viz.picture import Edge, Picture, Vertex, unique

_LEAVES = {"input": "input", "parameter": "parameter", "constant": "constant"}


def from_graph(graph: Graph, *, detail: bool = False, title: str = "flowgraph") -> Picture:
    """The picture of a graph, its forward, backward and update parts told apart.

    Arithmetic is gathered into formulas, and a value without a name is an arrow between two boxes; with
    `detail` every node is a box and every value an oval.
    """
    return _Drawing(graph, detail).picture(title)


def phases(graph: Graph) -> dict[Node, str]:
    """ "backward" for what autodiff made, "update" for what only a parameter's next value needs, else
    "forward".
    """
    needed = set(topological(graph.outputs))
    readers = graph.consumers()
    found: dict[Node, str] = {}
    for node in reversed(graph.nodes()):
        read_in = {found[reader] for tensor in node.outputs for reader in readers[tensor]}
        if "backward" in node.origin.passes:
            found[node] = "backward"
        elif node in needed or node.op.name in ("input", "parameter") or read_in - {"update"}:
            found[node] = "forward"
        else:
            found[node] = "update"
    return found


class _Drawing:
    def __init__(self, graph: Graph, detail: bool) -> None:
        self.graph, self.detail = graph, detail
        self.names, self.phase = names(graph), phases(graph)
        self.next_values = {new: parameter for parameter, new in graph.updates}
        lost = [p.node for p, _ in graph.updates if p.node not in self.phase]  # updated, but never read
        self.nodes = [*lost, *graph.nodes()]
        self.phase |= dict.fromkeys(lost, "forward")
        self.kept = self._kept()
        self.formulas = Formulas(graph, self.names, self.kept, self.phase)
        self.drawn = self.nodes if detail else [*lost, *self.formulas.boxes()]
        self.id = {node: f"op{k}" for k, node in enumerate(self.drawn) if not self._is_leaf(node)}
        self.oval = {
            t: f"v{k}_{t.index}"
            for k, node in enumerate(self.drawn)
            for t in node.outputs
            if detail or t in self.ovals
        }

    def _kept(self) -> set[Tensor]:
        """Tensors that must stay visible; `ovals` those of them that have an oval."""
        everything = {t for n in self.nodes for t in n.outputs}
        fixed: set[Tensor] = set()  # numbers and sizes, and what is computed from nothing else
        for node in self.nodes:
            if node.op.name not in ("input", "parameter") and fixed.issuperset(node.inputs):
                fixed.update(t for t in node.outputs if node.inputs or t.shape == ())
        given = (set(given_names(self.nodes)) - fixed) | set(self.graph.outputs)
        leaves = {t for t in everything if self._is_leaf(t.node) and t not in fixed}
        self.ovals = (given | leaves) - (set(self.next_values) - set(self.graph.outputs) - leaves)
        return everything if self.detail else (self.ovals | set(self.next_values)) & everything

    def _is_leaf(self, node: Node) -> bool:
        return node.op.name in _LEAVES

    def picture(self, title: str) -> Picture:
        vertices: list[Vertex] = []
        edges: list[Edge] = []
        for node in self.drawn:
            if node in self.id:
                vertices.append(self._box(node))
                sources = node.inputs if self.detail else self.formulas.sources(node)
                written = {self.next_values[t] for t in node.outputs if t in self.next_values}
                edges += [
                    Edge(self._end(t), self.id[node]) for t in sources if self.detail or t not in written
                ]
            for tensor in node.outputs:
                if tensor in self.oval:
                    vertices.append(self._oval(tensor))
                    edges += [Edge(self.id[node], self.oval[tensor])] if node in self.id else []
        edges += [
            Edge(self._end(new), self.oval[parameter], "update") for parameter, new in self.graph.updates
        ]
        return Picture(title, tuple(vertices), unique(edges))

    def _end(self, tensor: Tensor) -> str:
        """Where arrows that carry a tensor start."""
        return self.oval[tensor] if tensor in self.oval else self.id[tensor.node]

    def _box(self, node: Node) -> Vertex:
        label = spelling(node) if self.detail else self.formulas.label(node)
        attributes = node.op.attributes() if hasattr(node.op, "attributes") else ""
        note = attributes if attributes and len(attributes) <= 16 else ""
        return Vertex(
            self.id[node],
            label,
            "op",
            self.phase[node],
            str(getattr(node.op, "family", "other")),
            note,
            self._tooltip(node),
        )

    def _oval(self, tensor: Tensor) -> Vertex:
        kind = _LEAVES.get(tensor.op.name) or ("output" if tensor in self.graph.outputs else "value")
        named = tensor.label or self.names[tensor]
        label = tensor.op.attributes() if kind == "constant" and not tensor.label else named
        note = "" if tensor.shape == () else show_shape(tensor.shape)
        if tensor.dtype.name != "float32":
            note = f"{tensor.dtype} {note}".strip()
        return Vertex(
            self.oval[tensor], label, kind, self.phase[tensor.node], "", note, self._tooltip(tensor.node)
        )

    def _tooltip(self, node: Node) -> str:
        """The node's line in the text form, then the user's lines."""
        left = ", ".join(self.names[t] for t in node.outputs)
        call = show_op(node) + (f"({', '.join(self.names[t] for t in node.inputs)})" if node.inputs else "")
        types = ", ".join(str(t.type) for t in node.outputs)
        return "\n".join(
            [f"{left} = {call}", types, *(f"{line.short}: {line.code}" for line in node.origin.lines)]
        )
