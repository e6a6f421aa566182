"""What surrounds the model in a training step, folded away: the graph that a person would draw.

Comes in: the graph of a step, as declared or optimised. Goes out: one in which the inputs are a minibatch's, what a
trainer records is an output, and all that the optimiser does for a parameter is one node, with the state it keeps as
its attributes. Who made a node is told by the marks of its origin; without these marks a graph comes out as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from flowgraph.graph.graph import Graph, topological
from flowgraph.graph.tensor import Node, Tensor
from flowgraph.ops.leaf import Input, Parameter
from flowgraph.ops.scan import Scan
from flowgraph.passes.cse import eliminate_common_subexpressions as once
from flowgraph.passes.loops import join_loops

_BOOKKEEPING = {"minibatch", "record", "diagnostics"}


@dataclass(frozen=True)
class Folded:
    """The op of a node that stands for several: a name, and what it keeps from step to step."""

    name: str
    keeps: str = ""
    family: str = "optimizer"

    @property
    def display(self) -> str:
        return self.name

    def attributes(self) -> str:
        return self.keeps

    def subgraphs(self) -> tuple[Graph, ...]:
        return ()


@dataclass(frozen=True)
class Aside:
    """The op of a leaf that formulas name and pictures have no oval for: the optimiser's learning rate."""

    label: str
    name: str = "aside"
    family: str = "leaf"

    def subgraphs(self) -> tuple[Graph, ...]:
        return ()


def made_by(node: Node, *marks: str) -> bool:
    return not set(marks).isdisjoint(node.origin.passes)


def is_bookkeeping(parameter: Tensor) -> bool:
    """Is it a trainer's own: a counter of steps, a record, diagnostics?"""
    return made_by(parameter.node, *_BOOKKEEPING)


def recorded(graph: Graph) -> dict[Tensor, str]:
    """The values that a trainer records, and what it calls them."""
    found: dict[Tensor, str] = {}
    for parameter, new in graph.updates:
        if made_by(parameter.node, "record"):
            for value in _read_by(_marked(new, "record"), "record"):
                if not made_by(value.node, "minibatch") and (value.node.inputs or isinstance(value.op, Parameter)):
                    found.setdefault(value, (parameter.label or "").rsplit("/", 1)[-1])
    return found


def model(graph: Graph) -> Graph:
    """What the user declared of a step: its outputs, or what a trainer records, without gradients and updates."""
    values = recorded(graph)
    asked = tuple(dict.fromkeys((*graph.outputs, *values)))
    outputs = tuple(t for t in asked if not made_by(t.node, "backward"))
    return _Folding(Graph(outputs or asked, (), graph.inputs), values).graph()


def folded(graph: Graph) -> Graph:
    """The graph without a trainer's bookkeeping, and with a node for each parameter that the optimiser updates."""
    if not any(node.origin.passes for node in graph.nodes()):
        return graph
    if any(isinstance(n.op, Scan) for n in graph.nodes()) and any(made_by(n, "backward") for n in graph.nodes()):
        # the gradient begins with forward loops of its own, which the passes join with the user's: so does the picture
        graph = once(join_loops(once(graph)))
    values = recorded(graph)
    updates = tuple((p, new) for p, new in graph.updates if not is_bookkeeping(p))
    outputs = tuple(dict.fromkeys((*graph.outputs, *values)))
    return _Folding(Graph(outputs, updates, graph.inputs), values).graph()


def _marked(tensor: Tensor, mark: str, until: Iterable[Node] = ()) -> list[Node]:
    """The nodes with a mark that a tensor is made by, up to others, producers first."""
    stop = set(until)
    found: dict[Node, None] = {}
    stack = [tensor.node]
    while stack:
        node = stack.pop()
        if node not in found and node not in stop and made_by(node, mark):
            found[node] = None
            stack += [t.node for t in node.inputs]
    return list(found)[::-1]


def _read_by(nodes: Iterable[Node], mark: str) -> list[Tensor]:
    """What nodes read that has not their mark, each once."""
    return list(dict.fromkeys(t for node in nodes for t in node.inputs if not made_by(t.node, mark)))


@dataclass
class _Folding:
    """Rebuilds a graph, producers first."""

    before: Graph
    values: dict[Tensor, str]
    new: dict[Tensor, Tensor] = field(default_factory=dict)

    def graph(self) -> Graph:
        before = self.before
        self.updated = dict(before.updates)
        self.targets = {new.node: p for p, new in before.updates if not made_by(p.node, "optimizer")}
        self._find_shared()
        for node in topological(self._roots()):
            if node.outputs[0] not in self.new:
                self.new.update(zip(node.outputs, self._made(node), strict=True))
        updates = tuple((self.new.get(p, p), self.new[new]) for p, new in before.updates
                        if not made_by(p.node, "optimizer"))  # fmt: skip
        return Graph(tuple(self.new[t] for t in before.outputs), updates, before.inputs)

    def _roots(self) -> list[Tensor]:
        kept = [new for p, new in self.before.updates if not made_by(p.node, "optimizer")]
        return [*self.before.outputs, *kept]

    def _find_shared(self) -> None:
        """What the optimiser computes of gradients for several parameters together: their norm. What depends on its
        state alone, as the number of steps, is not told apart: every parameter has its own."""
        cones = [_marked(node.outputs[0], "optimizer") for node in self.targets]
        times = Counter(node for cone in cones for node in cone)
        of: dict[Node, set[Tensor]] = {}  # node -> the gradients it depends on
        for node in self.before.nodes():
            if node in times:
                outside = [t for t in node.inputs if not made_by(t.node, "optimizer") and t.node.inputs]
                of[node] = set(outside).union(*(of.get(t.node, set()) for t in node.inputs))
        self.shared = {node for node, count in times.items() if count > 1 and of[node]}
        readers = self.before.consumers()
        self.joint: dict[Node, None] = {}
        for node in reversed([n for n in self.before.nodes() if n in self.shared]):
            read_in = {r for t in node.outputs for r in readers[t]}
            if len(of[node]) > 1 or read_in.issubset(self.joint):
                self.joint[node] = None
        reads = (t for node in reversed(self.joint) for t in node.inputs)
        self.joint_reads = tuple(dict.fromkeys(t for t in reads if t.node not in self.joint and t.node.inputs))
        made = (t for node in reversed(self.joint) for t in node.outputs)
        self.joint_made = [t for t in made if any(r not in self.joint for r in readers[t])]

    def _made(self, node: Node) -> tuple[Tensor, ...]:
        if made_by(node, "minibatch") and (whole := _whole(node)) is not None:
            return self._minibatch(node, whole)
        if isinstance(node.op, Parameter) and made_by(node, "optimizer"):
            label = (node.outputs[0].label or "").removeprefix("optimizer/")
            return Node(Aside(label), (), [t.type for t in node.outputs], node.origin).outputs
        if set(node.outputs) & set(self.joint_made) and all(t in self.new for t in self.joint_reads):
            self._make_joint()
            return tuple(self.new[t] for t in node.outputs)
        if node in self.targets and (one := self._optimizer(node)) is not None:
            return one.outputs
        inputs = tuple(self.new[t] for t in node.inputs)
        names = {t: self.values[t] for t in node.outputs if t in self.values and not t.label}
        if inputs == node.inputs and not names:
            return node.outputs
        made = Node(node.op, inputs, [t.type for t in node.outputs], node.origin)
        made.serial = node.serial  # by which a line's nodes are told to be of one execution
        for old, fresh in zip(node.outputs, made.outputs, strict=True):
            fresh.label = old.label or names.get(old)
        return made.outputs

    def _minibatch(self, node: Node, whole: Tensor) -> tuple[Tensor, ...]:
        """The user's input, of which the trainer takes some rows."""
        (rows,) = node.outputs
        label = whole.label or rows.label or "x"
        (leaf,) = Node(Input(label, rows.type, 0), (), [rows.type], node.origin).outputs
        return (leaf.named(label),)

    def _make_joint(self) -> None:
        op = Folded("joint", "of all gradients")
        types = [t.type for t in self.joint_made]
        node = Node(op, [self.new[t] for t in self.joint_reads], types, self.joint_made[0].origin)
        self.new.update(zip(self.joint_made, node.outputs, strict=True))

    def _optimizer(self, node: Node) -> Node | None:
        """One node for what becomes of a parameter; None for a formula that keeps nothing, which says more."""
        parameter, new = self.targets[node], node.outputs[0]
        cone = _marked(new, "optimizer", self.shared)
        state = [t for n in cone for t in n.outputs if t in self.updated and t is not parameter]
        if not state:
            return None
        own = [t for t in state if (t.label or "").startswith(f"optimizer/{parameter.label}/")]
        keeps = ", ".join(dict.fromkeys((t.label or "").rsplit("/", 1)[-1] for t in own or state))
        inside = set(cone)
        outside = [t for n in cone for t in n.inputs if t.node not in inside]
        reads = [t for t in outside if t.node.inputs or not made_by(t.node, "optimizer")]
        inputs = [self.new[t] for t in dict.fromkeys((parameter, *reads)) if t in self.new]
        return Node(Folded("optimizer", keeps), inputs, [new.type], node.origin)


def _whole(node: Node) -> Tensor | None:
    """All examples, of which a trainer's node takes some rows."""
    return next((t for t in node.inputs if isinstance(t.op, Input) and made_by(t.node, "minibatch")), None)
