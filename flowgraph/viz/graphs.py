"""Graph -> Picture, drawn as the lecture draws it: values in ovals under their names, ops in boxes between
them.

Knows the graph, and of an op only its name, spelling, family and attributes.
"""

from __future__ import annotations

from collections.abc import Iterator

from flowgraph.graph.graph import Graph, topological
from flowgraph.graph.names import given_names
from flowgraph.graph.size import show_shape
from flowgraph.graph.tensor import Node, Tensor
from flowgraph.graph.text import show_op
from flowgraph.ops.scan import Scan
from flowgraph.viz.fold import Aside, Folded, folded, recorded
from flowgraph.viz.formula import Formulas
from flowgraph.viz.naming import Names, as_in_text, spelling
from flowgraph.viz.picture import Edge, Frame, Picture, Vertex, unique

_LEAVES = {"input": "input", "parameter": "parameter", "constant": "constant", "slot": "slot"}
_LONGEST_NOTE = 16  # characters of attributes shown in a box


def from_graph(graph: Graph, *, detail: bool = False, title: str = "flowgraph") -> Picture:
    """The picture of a graph, its forward, backward and update parts told apart.

    Arithmetic is gathered into formulas, a value without a name is an arrow between two boxes, and what a trainer and
    its optimiser add to a model is folded away; with `detail` every node is a box and every value an oval. A loop is a
    frame around its body.
    """
    return _Drawing(graph if detail else folded(graph), detail).picture(title)


def to_formulas(graph: Graph) -> str:
    """The graph as a person would write it, a line a box: `dA2 = (softMax - one_hot)/batch`."""
    return "\n".join(_Drawing(folded(graph), detail=False).lines()) + "\n"


def phases(graph: Graph) -> dict[Node, str]:
    """ "backward" for what autodiff made, "update" for what only a parameter's next value needs, else
    "forward".
    """
    needed = set(topological((*graph.outputs, *recorded(graph))))
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


def type_note(tensor: Tensor) -> str:
    """Shape and dtype as small text; what goes without saying (a scalar, float32) is left out."""
    shape = show_shape(tensor.shape) if tensor.shape else ""
    return shape if tensor.dtype.name == "float32" else f"{tensor.dtype} {shape}".rstrip()


class _Drawing:
    """The vertices and edges of a graph, or of a loop's body, which are all of the loop's phase, in its frame."""

    def __init__(self, graph: Graph, detail: bool, frame: str = "", phase: str = "") -> None:
        self.graph, self.detail, self.frame = graph, detail, frame
        self.names, self.phase = as_in_text(graph) if detail else Names(graph), phases(graph)
        unread = [p.node for p, _ in graph.updates if p.node not in self.phase]
        self.phase |= dict.fromkeys(unread, "forward")
        if phase:
            self.phase = dict.fromkeys(self.phase, phase)
        self.nodes = [*unread, *graph.nodes()]
        self.updated: dict[Node, set[Tensor]] = {}  # node -> the parameters whose next value it computes
        for parameter, new in graph.updates:
            self.updated.setdefault(new.node, set()).add(parameter)
        ovals = self._ovals()
        roots = set(graph.roots) if frame else {new for _, new in graph.updates}
        self.formulas = Formulas(graph, self.names, ovals | roots, self.phase)
        self.drawn = self.nodes if detail else [*unread, *self.formulas.boxes()]
        self.box: dict[Node, str] = {}
        self.oval: dict[Tensor, str] = {}
        self.made: dict[Tensor, str] = {}  # what a loop makes: where its body does
        for k, node in enumerate(self.drawn):
            if node.op.name not in _LEAVES:
                self.box[node] = f"{frame}op{k}"
            self.oval |= {t: f"{frame}v{k}_{t.index}" for t in node.outputs if t in ovals}
        written = [n for n in self.box if not detail and not isinstance(n.op, Scan)]
        named = {t for n in written for t in self.formulas.named_in(n)} - set(self.oval)
        self.loops_named = {t for t in named if isinstance(t.op, Scan)}
        self.mentioned = {self.names.bases[t] for t in named}

    def lines(self, indent: str = "") -> Iterator[str]:
        """The formulas, a line a box; of a loop its body, too."""
        read = {t for n in self.box for t in self.formulas.sources(n)} | set(self.oval)
        if self.frame:  # what a loop carries or stacks is said after its body
            read.update(*(self._stand_for(root) for root in self.graph.roots))
        left = {n: ", ".join(self.names[t] for t in n.outputs if t in read) for n in self.box}
        for node in self.box:
            updated = sorted(self.names[p] for p in self.updated.get(node, ()))
            if isinstance(node.op, Scan):
                yield from self._loop_lines(node, left[node] or spelling(node), indent)
            elif updated and not left[node]:
                yield from (f"{indent}{name} <- {self.formulas.line(node)}" for name in updated)
            else:
                yield f"{indent}{left[node] or spelling(node)} = {self.formulas.line(node)}"
        for parameter, new in self.graph.updates:
            if new in read or new.node not in self.box or isinstance(new.op, Scan):
                yield f"{indent}{self.names[parameter]} <- {self.formulas.operand(new)}"

    def _loop_lines(self, node: Node, left: str, indent: str) -> Iterator[str]:
        """What a loop's slots begin with or stand for, what a turn does, what goes to the next turn and is stacked."""
        op, body = node.op, node.op.inner
        inside = _Drawing(body.graph, self.detail, f"{self.box[node]}_", self.phase[node])
        given = (f"{inside.names[s]}={self.formulas.operand(t)}" for s, t in zip(body.slots, node.inputs, strict=True))
        yield f"{indent}{left} = loop of {op.length} turns{', backwards' if op.reverse else ''} ({', '.join(given)}):"
        yield from inside.lines(indent + "  ")
        told = [f"{inside.names[carry]} next: {inside.formulas.operand(new)}"
                for carry, new in zip(body.carries, body.nexts, strict=True)]  # fmt: skip
        told += [f"stacked: {', '.join(map(inside.formulas.operand, body.emits))}"] if body.emits else []
        yield f"{indent}  {'; '.join(told)}"

    def _ovals(self) -> set[Tensor]:
        """The values that are drawn themselves: what has a name, and what is given, but for plain numbers."""
        everything = {t for n in self.nodes for t in n.outputs}
        if self.detail:
            return everything
        fixed: set[Tensor] = set()  # numbers and sizes, and what is computed from nothing else
        for node in self.nodes:
            if node.op.name not in ("input", "parameter", "slot") and fixed.issuperset(node.inputs):
                fixed.update(t for t in node.outputs if node.inputs or t.shape == ())
        named = set(given_names(self.nodes)) | {t for t in everything if t.op.name in _LEAVES}
        fixed |= {t for t in everything if isinstance(t.op, Aside)}
        return (named - fixed) | (set() if self.frame else set(self.graph.outputs))

    def picture(self, title: str) -> Picture:
        vertices: list[Vertex] = []
        edges: list[Edge] = []
        frames: list[Frame] = []
        self.draw(vertices, edges, frames)
        edges += [Edge(self.end(new), self.oval[p], "update") for p, new in self.graph.updates]
        return Picture(title, tuple(vertices), unique(edges), tuple(frames))

    def draw(self, vertices: list[Vertex], edges: list[Edge], frames: list[Frame]) -> None:
        for node in self.drawn:
            if isinstance(node.op, Scan):
                self._loop(node, vertices, edges, frames)
            elif node in self.box:
                label, reads = self._content(node)
                vertices.append(self._box(node, label))
                edges += [Edge(self.end(t), self.box[node]) for t in reads]
            for tensor in node.outputs:
                if tensor in self.oval:
                    vertices.append(self._oval(tensor))
                    edges += [Edge(self._maker(tensor), self.oval[tensor])] if node in self.box else []

    def _loop(self, node: Node, vertices: list[Vertex], edges: list[Edge], frames: list[Frame]) -> None:
        """A loop's body in a frame. What it is given comes to its slots; what it carries goes back to them, dashed."""
        op, frame = node.op, f"{self.box[node]}_"
        back = ", backwards" if op.reverse else ""
        named = "".join(f"{self.names[t]} = " for t in node.outputs if t in self.loops_named)
        frames.append(Frame(frame, f"{named}loop, {op.length} turns{back}", self.phase[node], self.frame))
        body = op.inner
        inside = _Drawing(body.graph, self.detail, frame, self.phase[node])
        inside.draw(vertices, edges, frames)
        for slot, operand in zip(body.slots, node.inputs, strict=True):
            if slot in inside.oval:
                edges += [Edge(self.end(t), inside.oval[slot]) for t in self._stand_for(operand)]
        for carry, new in zip(body.carries, body.nexts, strict=True):
            if carry in inside.oval and new is not carry:
                edges += [Edge(end, inside.oval[carry], "turn") for end in map(inside.end, inside._stand_for(new))]
        for made, root in zip(node.outputs, (*body.nexts, *body.emits), strict=True):
            source = next(iter(inside._stand_for(root)), None)
            self.made[made] = inside.end(source) if source is not None else self.box[node]

    def _stand_for(self, tensor: Tensor) -> tuple[Tensor, ...]:
        return (tensor,) if self.detail else self.formulas.sources_of(tensor)

    def _maker(self, tensor: Tensor) -> str:
        return self.made.get(tensor) or self.box[tensor.node]

    def _content(self, node: Node) -> tuple[str, tuple[Tensor, ...]]:
        """A box's text, and what arrows lead to it.

        An update whose text names the parameter it reads needs no second arrow between the two.
        """
        if self.detail:
            return spelling(node), node.inputs
        updated = self.updated.get(node, set())
        if isinstance(node.op, Folded) and updated:
            label = f"{spelling(node)} of {', '.join(sorted(self.names[p] for p in updated))}"
        else:
            label = self.formulas.label(node, full=bool(updated))
        named = updated if label != spelling(node) else set()
        return self._called(node, label), tuple(t for t in self.formulas.sources(node) if t not in named)

    def _called(self, node: Node, label: str) -> str:
        """A box's text with the name of its value, where the text of another box calls it by that."""
        unnamed = [t for t in node.outputs if t not in self.oval]
        if not any(self.names.bases.get(t) in self.mentioned for t in unnamed):
            return label
        called = ", ".join(self.names[t] for t in unnamed)
        return called if label == spelling(node) else f"{called} = {label}"

    def end(self, tensor: Tensor) -> str:
        """Where arrows that carry a tensor start."""
        return self.oval.get(tensor) or self._maker(tensor)

    def _box(self, node: Node, label: str) -> Vertex:
        family = str(getattr(node.op, "family", "other"))
        attributes = node.op.attributes() if hasattr(node.op, "attributes") else ""
        note = attributes if len(attributes) <= _LONGEST_NOTE or isinstance(node.op, Folded) else ""
        return Vertex(self.box[node], label, "op", self.phase[node], family, note, self._tooltip(node), self.frame)

    def _oval(self, tensor: Tensor) -> Vertex:
        node = tensor.node
        is_output = tensor in self.graph.outputs and not self.frame
        kind = _LEAVES.get(node.op.name) or ("output" if is_output else "value")
        is_anonymous = kind == "constant" and not tensor.label
        label = node.op.attributes() if is_anonymous else self.names[tensor]
        note, tooltip = type_note(tensor), self._tooltip(node)
        return Vertex(self.oval[tensor], label, kind, self.phase[node], "", note, tooltip, self.frame)

    def _tooltip(self, node: Node) -> str:
        """The node's line in the text form, then the user's lines."""
        left = ", ".join(self.names[t] for t in node.outputs)
        call = show_op(node) + (f"({', '.join(self.names[t] for t in node.inputs)})" if node.inputs else "")
        types = ", ".join(str(t.type) for t in node.outputs)
        places = [f"{line.short}: {line.code}" for line in node.origin.lines]
        return "\n".join([f"{left} = {call}", types, *places])
