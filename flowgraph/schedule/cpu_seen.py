"""Where each integer of a vector comes first, on the CPU: one walk in order, with a table of those seen so far."""

from __future__ import annotations

from flowgraph.graph.size import Size
from flowgraph.graph.types import int64
from flowgraph.schedule.cpu import First
from flowgraph.schedule.cpu_point import Scope
from flowgraph.schedule.loops import Call, For, Set, Statement, Write, number, times, variable

WORDS_A_SLOT, SLOTS = 2, 2  # of the table; slots for each element


def lower_seen(scope: Scope, found: First) -> tuple[list[Statement], Size, Size]:
    """The statements of the one task there is, 1, and the bytes of the table."""
    (own,) = scope.kernel.axes
    extent = scope.sizes(own.extent)
    key, _ = scope.value(found.key)
    asked = (variable("panel"), variable("slots"), Call("to_i64", (key,)), variable(own.name))
    body: list[Statement] = []
    for place, nest in enumerate(scope.kernel.nests):
        if place == found.nest:
            body.append(Set((found.result,), Call("seen_first", asked)))
        else:
            body += [*scope.lets(nest), *scope.stores(nest)]
    free = Write("panel", variable("word"), number(0), int64)
    steps: list[Statement] = [
        Set(("slots",), times(number(SLOTS), extent)),
        For("word", number(0), times(number(SLOTS * WORDS_A_SLOT), extent), number(1), (free,)),
        For(own.name, number(0), extent, number(1), tuple(body)),
    ]
    task = For("task", variable("lo"), variable("hi"), number(1), tuple(steps))
    return [task], 1, SLOTS * WORDS_A_SLOT * own.extent * int64.itemsize
