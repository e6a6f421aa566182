"""What a picture leaves out, and how the rest is written: arithmetic becomes one formula in one box.

Comes in: a graph and its names. Goes out: for every value the text and the boxes that stand for it. Numbers,
sizes, repetitions (broadcast, expand_dims, squeeze) and transposes are no boxes of their own, they are
written into the formula that reads them: `W1 - 0.1*dW1`, `(P - one_hot)/batch`, `mul(Xᵀ, dZ1b)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

from flowgraph.graph.graph import Graph
from flowgraph.graph.printable import printable
from flowgraph.graph.tensor import Node, Tensor
from flowgraph.viz.fold import Aside
from flowgraph.viz.naming import Names, spelling

_SIGNS = {  # op name -> (sign, precedence)
    "greater": (" > ", 1), "less": (" < ", 1), "equal": (" == ", 1),
    "add": (" + ", 2), "subtract": (" - ", 2), "multiply": ("*", 3), "divide": ("/", 3), "power": ("**", 4),
}  # fmt: skip
_ARITHMETIC = {*_SIGNS, "negative"}
_LOOSE, _SUM, _ATOM = 0, 2, 9
_REPEATS = {"broadcast", "expand_dims", "squeeze"}
_PLAIN = {"one_hot"}  # whose attributes say what the values beside it say
_LONGEST = 40  # characters of a formula in one box
_MOST = 12  # operands of a call that is written out


@dataclass(frozen=True)
class Operand:
    """A value as text; `sources` are the tensors that must be drawn for it; `binds` is its outermost
    precedence.
    """

    text: str
    sources: tuple[Tensor, ...]
    binds: int = _ATOM

    def within(self, precedence: int) -> str:
        return self.text if self.binds > precedence else f"({self.text})"


class Formulas:
    """Decides, for one graph, which nodes are written into others; the tensors `kept` stay visible."""

    def __init__(
        self, graph: Graph, names: Names, kept: set[Tensor], phases: dict[Node, str]
    ) -> None:
        self.names, self.kept, self.phases = names, kept, phases
        self.nodes = graph.nodes()
        self.readers: dict[Tensor, list[Node]] = graph.consumers()
        self._known: dict[Tensor, Operand] = {}
        for node in self.nodes:  # producers first, so nothing here recurses
            for tensor in node.outputs:
                if tensor in kept or self.readers[tensor]:
                    self._known[tensor] = self._operand(tensor)

    def boxes(self) -> list[Node]:
        """The nodes that are drawn as boxes, producers first: those whose values something drawn reads."""
        wanted: set[Tensor] = set(self.kept)
        drawn = []
        for node in reversed(self.nodes):
            if wanted.intersection(node.outputs):
                drawn.append(node)
                wanted.update(self.sources(node))
        return drawn[::-1]

    def sources(self, node: Node) -> tuple[Tensor, ...]:
        """The drawn tensors that a box reads, each once."""
        return tuple(dict.fromkeys(chain.from_iterable(self._known[t].sources for t in node.inputs)))

    def sources_of(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """The drawn tensors that stand for a value."""
        return self._known[tensor].sources

    def label(self, node: Node, full: bool = False) -> str:
        """A box's text: the op's name; a formula or a call where that says more, or if `full`."""
        display = spelling(node)
        if not node.inputs or not (full or self._says_more(node)):
            return display
        text = self._written(node).text if node.op.name in _ARITHMETIC else self._call(node, display)
        return text if len(text) <= _LONGEST else display

    def line(self, node: Node) -> str:
        """What makes a node's values, written in full: with its attributes, and all operands but for very many."""
        if node.op.name in _ARITHMETIC and len(node.inputs) <= 2:
            return self._written(node).text
        told = hasattr(node.op, "attributes") and node.op.name not in _PLAIN
        attributes = printable(node.op.attributes(), 100) if told else ""
        return self._call(node, f"{spelling(node)}[{attributes}]" if attributes else spelling(node))

    def operand(self, tensor: Tensor) -> str:
        """A value as it is written where it is read."""
        return self._known[tensor].text

    def named_in(self, node: Node) -> tuple[Tensor, ...]:
        """What a box's text calls by a name."""
        return self.sources(node) if self.label(node) != spelling(node) else ()

    def _says_more(self, node: Node) -> bool:
        """Is anything written into its operands, or read twice?"""
        operands = [self._known[t] for t in node.inputs]
        if len(set(node.inputs)) < len(operands):
            return True
        return any(o.text not in [self.names[t] for t in o.sources] for o in operands)

    def _call(self, node: Node, called: str) -> str:
        operands = [self._known[t].text for t in node.inputs]
        if len(operands) > _MOST:
            operands = [*operands[:3], f"… {len(operands) - 4} more …", operands[-1]]
        return f"{called}({', '.join(operands)})" if operands else called

    def _atom(self, tensor: Tensor) -> Operand:
        """A tensor that is drawn itself, or whose box is."""
        name = self.names[tensor]
        return Operand(name, (tensor,), _SUM if "/" in name else _ATOM)  # hidden/w is no division

    def _operand(self, tensor: Tensor) -> Operand:
        node, op = tensor.node, tensor.op
        if tensor in self.kept:
            return self._atom(tensor)
        if op.name == "constant" and op.type.shape == ():
            return Operand(op.attributes(), ())
        if isinstance(op, Aside):
            return Operand(op.label, ())
        if op.name == "size":
            return Operand(str(op.size), (), _ATOM if str(op.size).isidentifier() else _LOOSE)
        if op.name in _REPEATS:
            return self._known[node.inputs[0]]
        if op.name == "transpose" and op.axes == (1, 0):
            inner = self._known[node.inputs[0]]
            return Operand(f"{inner.within(_ATOM - 1)}ᵀ", inner.sources)
        if op.name in _ARITHMETIC and len(node.inputs) <= 2:
            written = self._written(node)
            if len(written.text) <= _LONGEST and (not written.sources or self._belongs_to_reader(tensor)):
                return written
        return self._atom(tensor)

    def _belongs_to_reader(self, tensor: Tensor) -> bool:
        """Is it read once, by arithmetic of the same phase?"""
        readers = self.readers[tensor]
        while len(readers) == 1 and readers[0].op.name in _REPEATS and readers[0].outputs[0] not in self.kept:
            readers = self.readers[readers[0].outputs[0]]
        if len(readers) != 1 or readers[0].op.name not in _ARITHMETIC:
            return False
        return self.phases[readers[0]] == self.phases[tensor.node]

    def _written(self, node: Node) -> Operand:
        operands = [self._known[t] for t in node.inputs]
        sources = tuple(dict.fromkeys(chain.from_iterable(o.sources for o in operands)))
        if node.op.name == "negative":
            return Operand(f"-{operands[0].within(3)}", sources, 2)
        left, right = operands
        sign, precedence = _SIGNS[node.op.name]
        if node.op.name == "multiply" and left == right:
            return Operand(f"{left.within(_ATOM - 1)}²", sources, _ATOM - 1)
        if node.op.name == "multiply" and right.text.startswith("1/") and not right.sources:
            sign, right = "/", Operand(right.text[2:], ())  # x*(1/n) is x/n
        if sign == "**":  # of the right: x**y**z is x**(y**z)
            return Operand(f"{left.within(precedence)}**{right.within(precedence - 1)}", sources, precedence)
        strict = precedence if sign in (" - ", "/") else precedence - 1
        return Operand(f"{left.within(precedence - 1)}{sign}{right.within(strict)}", sources, precedence)
