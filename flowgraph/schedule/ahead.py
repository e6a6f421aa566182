"""Rows of a table that integers choose come from anywhere in memory: they are asked for some steps ahead."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flowgraph.graph.size import Size
from flowgraph.graph.types import int64
from flowgraph.index_notation import Axis, Const, Expr, Index, Load, Var, axes_of, transform, walk
from flowgraph.kernels.kernel import Nest
from flowgraph.schedule.cpu_point import Scope
from flowgraph.schedule.loops import (
    Call,
    Do,
    For,
    If,
    Set,
    Statement,
    Value,
    binary,
    minus,
    number,
    plus,
    variable,
)

AHEAD = 8  # steps: about what memory takes to answer, at a few dozen nanoseconds a step
LINE = 64  # bytes


def ask_ahead(
    scope: Scope,
    nests: Sequence[Nest],
    axes: Sequence[Axis],
    counter: Value,
    stop: Value,
    point: Callable[[Value], list[Statement]],
    part: tuple[Value, Value] | None = None,
) -> list[Statement]:
    """Prefetch what the step AHEAD of this one looks up; `point` sets the axes of a step, given its number.

    `part` of a row is what the steps need of it, the whole if None. A row that several steps in a row need is asked for
    by the first of them.
    """
    values = {let.name: let.value for nest in scope.kernel.nests for let in nest.lets}

    def written_out(expr: Expr) -> Expr:
        return transform(
            expr, lambda e: written_out(values[e.name]) if isinstance(e, Var) and e.name in values else None
        )

    found: dict[tuple[str, tuple[Expr, ...]], Size] = {}
    for nest in nests:
        accesses = [(str(e.source), e.index) for x in nest.expressions() for e in walk(x) if isinstance(e, Load)]
        accesses += [(s.buffer, s.index) for s in nest.stores if s.add]
        for name, given in accesses:
            index = tuple(written_out(e) for e in given)
            looked_up = [e for e in index if not isinstance(e, Index) and any(isinstance(x, Load) for x in walk(e))]
            inner = [e.axis for e in index if isinstance(e, Index) and e.axis not in axes]
            plain = all(isinstance(e, Index) or e in looked_up for e in index)
            known = all(axes_of(e) <= set(axes) and not any(isinstance(v, Var) for v in walk(e)) for e in looked_up)
            if looked_up and plain and known and len(inner) == 1 and index[-1] == Index(inner[0]):
                found.setdefault((name, index[:-1]), inner[0].extent)
    if not found:
        return []
    made: list[Statement] = [Set(("ahead",), Call("min", (plus(counter, number(AHEAD)), minus(stop, number(1)))))]
    made += point(variable("ahead"))
    for (name, place), extent in found.items():
        buffer = scope.kernel.buffer(name)
        dtype = buffer.type.dtype
        row = scope.offset(buffer.type.shape, (*place, Const(0, int64)))
        address = Call(f"at_{dtype.code}", (variable(name), plus(variable("wanted"), variable("line"))))
        first, last = part or (number(0), scope.sizes(extent))
        each = For("line", first, last, number(LINE // dtype.itemsize), (Do(Call("prefetch", (address,))),))
        asked: list[Statement] = [Set(("wanted",), row), each]
        for axis in reversed(axes):
            if any(axis in axes_of(e) for e in place):
                break
            asked = [If(binary("eq", variable(axis.name), number(0)), tuple(asked))]
        made += asked
    return made
