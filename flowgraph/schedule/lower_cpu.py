"""K + CpuSchedule -> L: loops, vectors, masks for the ends. Decides nothing that the schedule has not decided."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from flowgraph.graph.size import Size, floor_divide, product
from flowgraph.graph.types import DType
from flowgraph.index_notation import Axis, Const, Load, Var, walk
from flowgraph.kernels.kernel import Kernel, Let, Nest, Reduction
from flowgraph.schedule.access import as_walked, varying
from flowgraph.schedule.ahead import ask_ahead
from flowgraph.schedule.begun import begun_sums
from flowgraph.schedule.cpu import (
    LANES,
    AcrossLanes,
    CpuSchedule,
    Panels,
    Seen,
    Strips,
    Tile,
    as_first,
    as_product,
    choose,
    contraction_of,
)
from flowgraph.schedule.cpu_panels import MEMORY, lower_panels
from flowgraph.schedule.cpu_point import FULL, Scope, Step, by_lanes, is_large, never_whole, only_whole, point_of
from flowgraph.schedule.cpu_seen import lower_seen
from flowgraph.schedule.cpu_tile import lower_tile
from flowgraph.schedule.loops import (
    COMBINE,
    Call,
    For,
    If,
    Loops,
    Set,
    SizeTable,
    Statement,
    Value,
    binary,
    ceil_div,
    count_up,
    identity,
    minus,
    number,
    operation,
    plus,
    times,
    variable,
)
from flowgraph.schedule.share import share_places
from flowgraph.schedule.sorting import merge_sort
from flowgraph.schedule.verify import verify_statements

HORIZONTAL = {"sum": "hsum", "max": "hmax", "min": "hmin"}
BLOCK = 512  # terms in a row before a sum starts anew


def lower(kernel: Kernel, tile: tuple[int, int]) -> tuple[Loops, CpuSchedule]:
    """The loops of a kernel under the schedule chosen for it."""
    kernel = as_walked(kernel)
    schedule = choose(kernel, tile)
    return lower_with(kernel, schedule), schedule


def lower_with(kernel: Kernel, schedule: CpuSchedule) -> Loops:
    """The loops of a kernel under a given schedule."""
    scope = Scope(kernel, SizeTable(kernel.sizes()))
    scratch: Size = 0
    if isinstance(schedule, Tile):
        found = as_product(kernel)
        assert found is not None
        body, tasks, scratch = lower_tile(scope, schedule, found)
    elif isinstance(schedule, Panels):
        contraction = contraction_of(kernel, schedule)
        scope.sizes = SizeTable(dict.fromkeys((*kernel.sizes(), *contraction.after.sizes())))
        body, tasks = lower_panels(scope, schedule, contraction)
    elif isinstance(schedule, AcrossLanes):
        scope.kernel, scope.begun = begun_sums(kernel)
        body, tasks = _across(scope, schedule)
    elif isinstance(schedule, Strips):
        body, tasks = _strips(scope, schedule)
    elif isinstance(schedule, Seen):
        first = as_first(kernel)
        assert first is not None
        body, tasks, scratch = lower_seen(scope, first)
    else:
        scope.kernel, scope.begun = begun_sums(kernel)
        body, tasks = _along(scope)
    body = share_places(body)
    buffers = tuple(b.name for b in kernel.buffers) + (("panel",) if scratch != 0 else ())
    working = {Tile: ("tile",), Panels: MEMORY}.get(type(schedule), ())  # memory of its own, on the stack
    verify_statements(kernel.name, body, (*buffers, *working), ("lo", "hi", *scope.sizes.names))
    return Loops(kernel.name, buffers, scope.sizes.sizes, scope.sizes.names, tuple(body), tasks, scratch)


# Vectors along the inner axes: one task a point of the outer axes.


def _along(scope: Scope) -> tuple[list[Statement], Size]:
    kernel = scope.kernel
    body: list[Statement] = []
    for nest in kernel.nests:
        body += _row_nest(scope, nest)
    if not kernel.axes:
        return [For("task", variable("lo"), variable("hi"), number(1), tuple(body))], 1
    ahead = ask_ahead(
        scope,
        kernel.nests,
        kernel.axes,
        variable("task"),
        variable("hi"),
        lambda task: point_of(kernel.axes, scope.sizes, task),
    )
    body = [*ahead, *point_of(kernel.axes, scope.sizes, variable("task")), *body]
    return [For("task", variable("lo"), variable("hi"), number(1), tuple(body))], product(a.extent for a in kernel.axes)


def _row_nest(scope: Scope, nest: Nest) -> list[Statement]:
    if not nest.axes:
        return [*scope.lets(nest), *scope.stores(nest)]
    if nest.running:
        return _running_nest(scope, nest)
    if nest.sorts:
        extent = scope.sizes(nest.axes[0].extent)
        return [
            s
            for sort in nest.sorts
            for s in merge_sort(scope.kernel, nest.axes[0], sort, lambda e: scope.value(e)[0], scope.offset, extent)
        ]
    if any(s.add for s in nest.stores):
        return _scalar_nest(scope, nest)
    *outer, lane = nest.axes
    before: list[Statement] = []
    after: list[Statement] = []
    for r in nest.reductions:
        dtype = r.value.dtype
        before.append(Set((f"{r.name}v",), scope.vector(identity(r.combiner, dtype))))
        combined: Value = Call(HORIZONTAL[r.combiner], (Var(f"{r.name}v", dtype),), dtype)
        if r.name in scope.begun:
            combined = operation("add", (scope.value(scope.begun[r.name])[0], combined), dtype)
        after.append(Set((r.name,), combined))

    def step(lanes: Value | None) -> list[Statement]:
        scope.lane_axis, scope.lanes = lane, lanes
        made = [*scope.lets(nest)]
        for r in nest.reductions:
            value, dtype = scope.vector(r.value), r.value.dtype
            if lanes is not None:
                value = Call("head", (value, lanes, identity(r.combiner, dtype)), dtype)
            total = Var(f"{r.name}v", dtype)
            made.append(Set((total.name,), operation(COMBINE[r.combiner], (total, value), dtype)))
        made += scope.stores(nest)
        scope.lane_axis, scope.lanes = None, FULL
        scope.vectors -= {let.name for let in nest.lets}
        return made

    sums = _long_sums(nest, lane.extent)
    if sums:
        loops = _in_blocks(
            lane,
            scope.sizes(lane.extent),
            LANES * BLOCK,
            [(f"{r.name}t", f"{r.name}v", r.value.dtype) for r in sums],
            lambda start, stop: _lane_loops(lane, start, stop, step),
        )
        before += [Set((f"{r.name}t",), _zero(r.value.dtype)) for r in sums]
        after = [Set((f"{r.name}v",), Var(f"{r.name}t", r.value.dtype)) for r in sums] + after
    else:
        loops = _lane_loops(lane, number(0), scope.sizes(lane.extent), step)
    for axis in reversed(outer):
        loops = count_up(axis.name, number(0), scope.sizes(axis.extent), loops)
    return [*before, *loops, *after]


def _long_sums(nest: Nest, extent: Size) -> list[Reduction]:
    """The sums whose rounding errors would grow with the length of the innermost loop."""
    if isinstance(extent, int) and extent <= BLOCK:
        return []
    return [r for r in nest.reductions if r.combiner == "sum" and r.value.dtype.is_float]


def _sums_in_blocks(scope: Scope, nest: Nest) -> list[Reduction]:
    """The long sums of vectors, those over several axes, one of which may be long, and those that begin with a value,
    to which small terms must not be added one by one."""
    if not nest.axes:
        return []
    long = _long_sums(nest, nest.axes[-1].extent if len(nest.axes) == 1 else BLOCK + 1)
    return [*long, *(r for r in nest.reductions if r.name in scope.begun and r not in long)]


def _zero(dtype: DType) -> Value:
    return Call(f"splat_{dtype.code}", (Const(0.0, dtype),), dtype)


def _in_blocks(
    axis: Axis,
    extent: Value,
    length: int,
    sums: Sequence[tuple[str, str, DType]],
    inner: Callable[[Value, Value], list[Statement]],
    scalar: bool = False,
) -> list[Statement]:
    """The loop in blocks of fixed length, each with sums of its own that are added to the totals.

    Errors grow with the length of a block plus the number of blocks, not with their product.
    `sums` are (total, the block's own sum, dtype).
    """
    block, stop = f"{axis.name}_block", f"{axis.name}_stop"
    start = [Set((part,), Const(0.0, dtype) if scalar else _zero(dtype)) for _, part, dtype in sums]
    end = [
        Set((total,), operation("add", (Var(total, dtype), Var(part, dtype)), dtype)) for total, part, dtype in sums
    ]
    if isinstance(axis.extent, int) and axis.extent <= length:
        return [*start, *inner(number(0), extent), *end]
    last = Set((stop,), Call("min", (plus(variable(block), number(length)), extent)))
    body = (*start, last, *inner(variable(block), variable(stop)), *end)
    return [For(block, number(0), extent, number(length), body)]


def _lane_loops(lane: Axis, start: Value, stop: Value, step: Step) -> list[Statement]:
    """Whole vectors from start, which is a multiple of their length, to stop, then the rest under a mask."""
    if lane.extent == 0:
        return []
    if never_whole(lane.extent) and start == number(0):
        return [Set((lane.name,), start), *step(stop)]
    if only_whole(lane.extent):
        return [For(lane.name, start, stop, number(LANES), tuple(step(FULL)))]
    whole, rest = f"{lane.name}_whole", f"{lane.name}_rest"
    all_lanes = step(FULL)
    if is_large(all_lanes):
        body = (Set((rest,), minus(stop, variable(lane.name))), *step(variable(rest)))
        return [For(lane.name, start, stop, number(LANES), body)]
    length = minus(stop, start)
    made: list[Statement] = [
        Set((whole,), plus(start, times(binary("floordiv", length, number(LANES)), number(LANES)))),
        For(lane.name, start, variable(whole), number(LANES), tuple(all_lanes)),
    ]
    made.append(Set((rest,), minus(stop, variable(whole))))
    tail = [Set((lane.name,), variable(whole)), *step(variable(rest))]
    made.append(If(binary("gt", variable(rest), number(0)), tuple(tail)))
    return made


def _scalar_nest(scope: Scope, nest: Nest) -> list[Statement]:
    """Loops one element at a time: where the order matters (scatter without an outer axis)."""
    body: list[Statement] = [*scope.lets(nest), *scope.stores(nest)]
    for axis in reversed(nest.axes):
        body = count_up(axis.name, number(0), scope.sizes(axis.extent), body)
    return body


# Vectors across the last outer axis: reductions are ordinary loops.


def _across(scope: Scope, schedule: AcrossLanes) -> tuple[list[Statement], Size]:
    kernel = scope.kernel
    *rows, lane = kernel.axes
    extent = scope.sizes(lane.extent)

    early = _same_for_all_lanes(kernel, lane)
    before = [s for nest in kernel.nests for s in scope.lets(nest, frozenset(_names(nest) - early))]

    def step(lanes: Value | None) -> list[Statement]:
        scope.lane_axis, scope.lanes = lane, lanes
        scope.vectors.clear()
        made: list[Statement] = []
        for nest in kernel.nests:
            made += _across_nest(scope, nest, early)
        scope.lane_axis, scope.lanes = None, FULL
        return made

    if schedule.block == 0:  # a task is a whole row
        inner = [*before, *_lane_loops(lane, number(0), extent, step)]
        tasks = product(a.extent for a in rows)
        body = [*point_of(rows, scope.sizes, variable("task")), *inner]
        return [For("task", variable("lo"), variable("hi"), number(1), tuple(body))], tasks
    block = schedule.block
    blocks = floor_divide(lane.extent + (block - 1), block)
    start = f"{lane.name}_start"
    if rows:
        count = ceil_div(extent, block)
        point: list[Statement] = [
            Set(("row_task",), binary("floordiv", variable("task"), count)),
            Set((start,), times(binary("mod", variable("task"), count), number(block))),
            *point_of(rows, scope.sizes, variable("row_task")),
        ]
    else:
        point = [Set((start,), times(variable("task"), number(block)))]
    point += before
    if block == LANES:
        rest = minus(extent, variable(start))
        body = [*point, Set((lane.name,), variable(start)), *by_lanes(lane.extent, "rest", rest, step)]
    else:
        stop = Call("min", (plus(variable(start), number(block)), extent))
        body = [*point, Set(("stop",), stop), *_lane_loops(lane, variable(start), variable("stop"), step)]
    tasks = product([*(a.extent for a in rows), blocks])
    return [For("task", variable("lo"), variable("hi"), number(1), tuple(body))], tasks


# Scatters: strips of a row.


def _strips(scope: Scope, schedule: Strips) -> tuple[list[Statement], Size]:
    """Steps outside, inside all strips of the last outer axis that are this thread's, at once."""
    kernel = scope.kernel
    *rows, lane = kernel.axes
    extent, width = scope.sizes(lane.extent), schedule.width
    strips = variable("strips")
    start, stop = variable("start"), variable("stop")
    row = variable("row_task")
    body: list[Statement] = [
        Set(("start",), times(Call("max", (minus(variable("lo"), times(row, strips)), number(0))), number(width))),
        Set(("stop",), Call("min", (times(minus(variable("hi"), times(row, strips)), number(width)), extent))),
        *point_of(rows, scope.sizes, row),
    ]
    changing = varying(kernel, lane)
    known: list[Let] = []  # that differ along the lane: found again in every loop over it that needs them
    for nest in kernel.nests:
        if not nest.axes and not nest.stores:
            known += (let for let in nest.lets if let.name in changing)
            nest = replace(nest, lets=tuple(let for let in nest.lets if let.name not in changing))
        else:
            nest = replace(nest, lets=(*_needed(nest, known), *nest.lets))
        early = frozenset(let.name for let in nest.lets if let.name not in changing)
        late = frozenset(_names(nest) - early)

        def step(lanes: Value | None, nest: Nest = nest, early: frozenset[str] = early) -> list[Statement]:
            scope.lane_axis, scope.lanes = lane, lanes
            made = [*scope.lets(nest, early), *scope.stores(nest)]
            scope.lane_axis, scope.lanes = None, FULL
            return made

        rest = bool(late or nest.stores)
        loops = [*scope.lets(nest, late), *(_lane_loops(lane, start, stop, step) if rest else [])]

        def at(position: Value, nest: Nest = nest) -> list[Statement]:
            return point_of(nest.axes, scope.sizes, position)

        steps = scope.sizes.product([a.extent for a in nest.axes])
        ahead = (
            ask_ahead(scope, [nest], (*rows, *nest.axes), variable("step"), steps, at, (start, stop))
            if nest.axes
            else []
        )
        if ahead:
            loops = [For("step", number(0), steps, number(1), (*ahead, *at(variable("step")), *loops))]
        else:
            for axis in reversed(nest.axes):
                loops = count_up(axis.name, number(0), scope.sizes(axis.extent), loops)
        body += loops
    tasks = product([*(a.extent for a in rows), floor_divide(lane.extent + (width - 1), width)])
    head = Set(("strips",), ceil_div(extent, width))
    first, last = (binary("floordiv", v, strips) for v in (variable("lo"), minus(variable("hi"), number(1))))
    return [head, For("row_task", first, plus(last, number(1)), number(1), tuple(body))], tasks


def _needed(nest: Nest, known: Sequence[Let]) -> list[Let]:
    """Those of the named values, in order, that a nest reads, or that these are made of."""
    read = {e.name for x in nest.expressions() for e in walk(x) if isinstance(e, Var)}
    found: list[Let] = []
    for let in reversed(known):
        if let.name in read:
            found.insert(0, let)
            read |= {e.name for e in walk(let.value) if isinstance(e, Var)}
    return found


# Parts


def _across_nest(scope: Scope, nest: Nest, early: frozenset[str] = frozenset()) -> list[Statement]:
    if nest.running:
        return _running_nest(scope, nest)
    sums = _sums_in_blocks(scope, nest)
    before: list[Statement] = []
    inner: list[Statement] = [*scope.lets(nest, early)]
    for r in nest.reductions:
        value, dtype = scope.vector(r.value), r.value.dtype
        scope.vectors.add(r.name)
        before.append(Set((r.name,), scope.vector(scope.begun.get(r.name, identity(r.combiner, dtype)))))
        running = f"{r.name}v" if r in sums else r.name
        inner.append(Set((running,), operation(COMBINE[r.combiner], (Var(running, dtype), value), dtype)))
    inner += scope.stores(nest)
    for place, axis in reversed(list(enumerate(nest.axes))):
        extent, body = scope.sizes(axis.extent), inner
        if sums and place == len(nest.axes) - 1:
            parts = [(r.name, f"{r.name}v", r.value.dtype) for r in sums]

            def terms(
                start: Value, stop: Value, axis: Axis = axis, body: Sequence[Statement] = body
            ) -> list[Statement]:
                return count_up(axis.name, start, stop, body)

            inner = _in_blocks(axis, extent, BLOCK, parts, terms)
        else:
            inner = count_up(axis.name, number(0), extent, body)
    return [*before, *inner]


def _running_nest(scope: Scope, nest: Nest) -> list[Statement]:
    """One element, or one element of every lane, after the other; what is combined so far is stored at every step.

    Long sums run in blocks: what was there before the block, plus the block's own sum.
    """
    (axis,) = nest.axes
    extent = scope.sizes(axis.extent)
    sums = _long_sums(nest, axis.extent)
    before: list[Statement] = []
    inner: list[Statement] = [*scope.lets(nest)]
    parts: list[tuple[str, str, DType]] = []
    for r in nest.reductions:
        dtype = r.value.dtype
        value, start = scope.value(r.value)[0], scope.value(identity(r.combiner, dtype))[0]
        if scope.lane_axis is not None:
            value, start = scope.vector(r.value), scope.vector(identity(r.combiner, dtype))
            scope.vectors.add(r.name)
        if r in sums:
            total, part = Var(f"{r.name}t", dtype), Var(f"{r.name}v", dtype)
            parts.append((total.name, part.name, dtype))
            before.append(Set((total.name,), start))
            inner.append(Set((part.name,), operation("add", (part, value), dtype)))
            inner.append(Set((r.name,), operation("add", (total, part), dtype)))
        else:
            before.append(Set((r.name,), start))
            inner.append(Set((r.name,), operation(COMBINE[r.combiner], (Var(r.name, dtype), value), dtype)))
    body = (*inner, *scope.stores(nest))

    def steps(first: Value, stop: Value) -> list[Statement]:
        return count_up(axis.name, first, stop, body)

    is_scalar = scope.lane_axis is None
    loops = _in_blocks(axis, extent, BLOCK, parts, steps, is_scalar) if parts else steps(number(0), extent)
    return [*before, *loops]


def _names(nest: Nest) -> set[str]:
    return {let.name for let in nest.lets}


def _same_for_all_lanes(kernel: Kernel, lane: Axis) -> frozenset[str]:
    """Row numbers and the like, of nests without axes, that do not change along the lanes: found once a row."""
    changing, outputs = varying(kernel, lane), {b.name for b in kernel.outputs}
    found: set[str] = set()
    for nest in kernel.nests:
        if nest.axes:
            continue
        for let in nest.lets:
            parts = list(walk(let.value))
            ready = all(e.name in found for e in parts if isinstance(e, Var))
            own = any(isinstance(e, Load) and e.source in outputs for e in parts)
            if let.value.dtype.kind == "int" and let.name not in changing and ready and not own:
                found.add(let.name)
    return frozenset(found)
