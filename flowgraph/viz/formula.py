"""What a picture leaves out, and how the rest is written: arithmetic becomes one formula in one box.

Comes in: a graph and its names. Goes out: for every value the text and the boxes that stand for it. Numbers,
sizes, repetitions (broadcast, expand_dims, squeeze) and transposes are no boxes of their own, they are
written into the formula that reads them: `W1 - 0.1*dW1`, `(P - one_hot)/batch`, `mul(Xᵀ, dZ1b)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

from flowgraph.graph.graph import Graph
from flowgraph.graph.tensor import Node, Tensor

_SIGNS = {  # op name -> (sign, precedence)
    "greater": (" > ", 1), "less": (" < ", 1), "equal": (" == ", 1),
    "add": (" + ", 2), "subtract": (" - ", 2), "multiply": ("*", 3), "divide": ("/", 3),
}  # fmt: skip
_ARITHMETIC = {*_SIGNS, "negative"}
_LOOSE, _ATOM = 0, 9
_REPEATS = {"broadcast", "expand_dims", "squeeze"}
_LONGEST = 40  # characters of a formula in one box


def spelling(node: Node) -> str:
    """The op as the lecture spells it."""
    return str(getattr(node.op, "display", node.op.name))


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
        self, graph: Graph, names: dict[Tensor, str], kept: set[Tensor], phases: dict[Node, str]
    ) -> None:
        self.names, self.kept, self.phases = names, kept, phases
        self.nodes = graph.nodes()
        self.readers: dict[Tensor, list[Node]] = graph.consumers()
        self._known: dict[Tensor, Operand] = {}
        for node in self.nodes:  # producers first, so nothing here recurses
            for tensor in node.outputs:
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
        operands = [self._known[t] for t in node.inputs]
        written_out = len(set(node.inputs)) < len(operands)
        written_out |= any(o.text not in [self._atom(t).text for t in o.sources] for o in operands)
        if not operands or not (full or written_out):
            return display
        text = f"{display}({', '.join(o.text for o in operands)})"
        if node.op.name in _ARITHMETIC:
            text = self._written(node).text
        return text if len(text) <= _LONGEST else display

    def _atom(self, tensor: Tensor) -> Operand:
        """A tensor that is drawn itself: called by its name, or by its op where it has none."""
        if tensor in self.kept or not tensor.node.inputs:
            return Operand(self.names[tensor], (tensor,))
        display = spelling(tensor.node)
        return Operand(display if display[0].isalpha() else "…", (tensor,))

    def _operand(self, tensor: Tensor) -> Operand:
        node, op = tensor.node, tensor.op
        if tensor in self.kept:
            return self._atom(tensor)
        if op.name == "constant" and op.type.shape == ():
            return Operand(op.attributes(), ())
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
        strict = precedence if sign in (" - ", "/") else precedence - 1
        return Operand(f"{left.within(precedence - 1)}{sign}{right.within(strict)}", sources, precedence)
