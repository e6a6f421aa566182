"""Computed row numbers that had to be clipped are noted in the step itself, for an error after it.

Comes in: an optimised graph. Goes out: the same graph with three scalars more that it updates, ordinary parameters: how
many steps were made; and of the first step that clipped anything, which it was, the first lookup that did (in the
graph's order, so it is the same on every device), and the number that was furthest out. Checking
is a comparison a row number, in a small kernel of its own that nothing waits for; what reads the rows is as fast as
before. May not know who raises the error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flowgraph.graph import origin as origins
from flowgraph.graph.graph import Graph
from flowgraph.graph.origin import Origin, scope
from flowgraph.graph.size import Size
from flowgraph.graph.tensor import Node, Tensor
from flowgraph.ops.bounds import ClipIndex, Outside, decoded
from flowgraph.ops.elementwise import Add, Equal, Greater, Multiply, Where
from flowgraph.ops.leaf import constant, parameter


@dataclass(frozen=True)
class Lookup:
    """One lookup or scatter whose row numbers are computed: they must lie in [0, limit)."""

    reader: str
    limit: Size
    origin: Origin


@dataclass(frozen=True)
class Watch:
    """The lookups that are watched, and where a step notes what it clipped: scalars of int64. `first` is 0 as long as
    nothing was, then the number of the step and that of the lookup, counted from 1, as one."""

    lookups: tuple[Lookup, ...]
    made: Tensor
    first: Tensor
    code: Tensor

    def noted(self) -> tuple[Lookup, int, int] | None:
        """The first lookup that was given a number out of range, how many steps ago that was, and the number; then
        forgets it."""
        first = int(self.first.op.storage.read())
        if not first:
            return None
        step, number = divmod(first, len(self.lookups) + 1)
        made, code = (int(t.op.storage.read()) for t in (self.made, self.code))
        self.first.op.storage.write(np.zeros((), np.int64))
        return self.lookups[number - 1], made - step, decoded(code)


def watch_row_numbers(graph: Graph) -> tuple[Graph, Watch | None]:
    """The graph that also notes what it clips; itself if it clips nothing."""
    guards = [node for node in graph.nodes() if isinstance(node.op, ClipIndex) and not node.op.trusted]
    if not guards:
        return graph, None
    with scope("row numbers"), origins.at(Origin().merge(*(node.origin for node in guards))):
        made, first, code = (
            parameter(name, (), np.zeros((), np.int64), "int64") for name in ("made", "first", "code")
        )
        number, found = _first(guards)
        here = Add()(Multiply()(made, constant(len(guards) + 1, "int64")), number)
        noted = Where()(Greater()(number, constant(0, "int64")), here, number)
        is_free = Equal()(first, constant(0, "int64"))
        updates = (
            (made, Add()(made, constant(1, "int64"))),
            (first, Where()(is_free, noted, first)),
            (code, Where()(is_free, found, code)),
        )
    lookups = tuple(_lookup(node) for node in guards)
    return Graph(graph.outputs, (*graph.updates, *updates), graph.inputs), Watch(lookups, made, first, code)


def _first(guards: list[Node]) -> tuple[Tensor, Tensor]:
    """The number of the first guard that clips, and what it clips, encoded; 0 and anything if none does."""
    first = found = zero = constant(0, "int64")
    for number, node in reversed(list(enumerate(guards, 1))):
        with origins.at(node.origin):
            outside = Outside(_limit(node))(node.inputs[0])
            is_bad = Greater()(outside, zero)
            first = Where()(is_bad, constant(number, "int64"), first)
            found = Where()(is_bad, outside, found)
    return first, found


def _lookup(node: Node) -> Lookup:
    assert isinstance(node.op, ClipIndex)
    return Lookup(node.op.reader, node.op.limit, node.origin)


def _limit(node: Node) -> Size:
    assert isinstance(node.op, ClipIndex)
    return node.op.limit
