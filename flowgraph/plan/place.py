"""Where a value lies. In loops a place moves: a kernel's argument is an address, and how far it goes on each turn."""

from __future__ import annotations

from dataclasses import dataclass, replace

from flowgraph.graph.graph import Graph
from flowgraph.graph.size import Size
from flowgraph.graph.tensor import Node, Tensor
from flowgraph.ops.leaf import Constant, Input, Parameter


@dataclass(frozen=True)
class Step:
    """How a place moves with the turns of a loop: by so many elements a turn, or there and back."""

    loop: int  # its number in the plan
    by: Size
    swings: bool = False


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: in memory of a kind, "input", "parameter", "constant" (given memory) or "arena", that `of`
    has or is named after, from element `start` on; inside of loops that is so at their first turns, and then it moves.
    """

    kind: str
    of: Tensor
    start: Size = 0
    steps: tuple[Step, ...] = ()

    def at(self, start: Size, *steps: Step) -> Place:
        """The place from an element on that is counted from its own first one."""
        return replace(self, start=self.start + start, steps=(*self.steps, *steps))


@dataclass(frozen=True)
class PlannedLoop:
    """Calls that are made turn by turn, those of loops inside of it among them."""

    first: int
    stop: int
    turns: Size
    node: Node
    body: Graph


def given_place(tensor: Tensor) -> Place | None:
    """The place of what is given: an input, a parameter or a constant."""
    for kind, op in (("input", Input), ("parameter", Parameter), ("constant", Constant)):
        if isinstance(tensor.op, op):
            return Place(kind, tensor)
    return None
