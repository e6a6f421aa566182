"""K + CudaSchedule -> L for one thread, and its blocks. Decides nothing that the schedule has not decided.

Every kernel strides through its tasks by the size of the grid, so any number of blocks runs it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flowgraph.graph.size import Size, floor_divide, product
from flowgraph.graph.types import DType, boolean
from flowgraph.index_notation import Const, Load, Var, walk
from flowgraph.kernels.kernel import Kernel, Nest
from flowgraph.schedule.access import as_walked
from flowgraph.schedule.cpu import as_product
from flowgraph.schedule.cuda import (
    THREADS,
    VECTOR,
    WARP,
    Columns,
    CudaSchedule,
    Elementwise,
    Rows,
    Serial,
    Tile,
    choose,
    pitches,
)
from flowgraph.schedule.cuda_point import (
    Lanes,
    Point,
    apply,
    as_index,
    divide,
    point_of,
    remainder,
    whole_fours,
)
from flowgraph.schedule.cuda_tile import lower_tile
from flowgraph.schedule.loops import (
    COMBINE,
    Call,
    Comment,
    Do,
    For,
    If,
    Set,
    SizeTable,
    Statement,
    Value,
    identity,
    minus,
    number,
    plus,
    times,
    variable,
)
from flowgraph.schedule.sorting import merge_sort
from flowgraph.schedule.verify import verify_statements

BARRIER = Do(Call("barrier", ()))


@dataclass(frozen=True)
class BlockLoops:
    """A lowered kernel: what one thread does, and how many blocks have work (fewer can do it too)."""

    name: str
    buffers: tuple[str, ...]
    sizes: tuple[Size, ...]
    size_names: tuple[str, ...]
    body: tuple[Statement, ...]
    blocks: Size
    threads: int


def lower(kernel: Kernel) -> tuple[BlockLoops, CudaSchedule]:
    """The loops of a kernel under the schedule chosen for it."""
    kernel = as_walked(kernel)
    schedule = choose(kernel)
    return lower_with(kernel, schedule), schedule


def lower_with(kernel: Kernel, schedule: CudaSchedule) -> BlockLoops:
    """The loops of a (collapsed) kernel under a given schedule."""
    point = Point(kernel, SizeTable(kernel.sizes()))
    threads = THREADS
    if isinstance(schedule, Elementwise):
        body, blocks = _elementwise(point, schedule)
    elif isinstance(schedule, Serial):
        body, blocks = _serial(point)
    elif isinstance(schedule, Tile):
        found = as_product(kernel)
        assert found is not None
        body, blocks = lower_tile(point, schedule, found)
        threads = schedule.threads
    else:
        body, blocks, threads = (
            _columns(point, schedule) if isinstance(schedule, Columns) else _rows(point, schedule)
        )
    buffers = tuple(b.name for b in kernel.buffers)
    verify_statements(kernel.name, body, buffers, point.sizes.names)
    return BlockLoops(
        kernel.name, buffers, point.sizes.sizes, point.sizes.names, tuple(body), blocks, threads
    )


def blocks_for(tasks: Size, each: int) -> Size:
    return floor_divide(tasks + (each - 1), each)


# One thread a point, or four


def _thread() -> Value:
    """This thread's number in the grid."""
    return plus(times(Call("block", ()), number(THREADS)), Call("thread", ()))


def _stride() -> Value:
    return times(Call("blocks", ()), number(THREADS))


def _elementwise(point: Point, schedule: Elementwise) -> tuple[list[Statement], Size]:
    kernel, sizes = point.kernel, point.sizes
    count = sizes.product([a.extent for a in kernel.axes])
    total = product(a.extent for a in kernel.axes)

    def statements() -> tuple[Statement, ...]:
        made: list[Statement] = []
        for nest in kernel.nests:
            made += [*point.lets(nest), *point.stores(nest)]
        return tuple(made)

    def loop(first: Value, stop: Value, step: Value) -> For:
        if len(kernel.axes) == 1:
            return For(kernel.axes[0].name, first, stop, step, statements())
        flat = variable("flat")
        return For("flat", first, stop, step, (*point_of(kernel.axes, sizes, flat), *statements()))

    last = kernel.axes[-1] if kernel.axes else None
    fits = None
    if schedule.width == VECTOR and last is not None:
        needed = pitches(kernel, kernel.nests, last)
        fits = whole_fours(sizes, [*needed, *([last.extent] if len(kernel.axes) > 1 else [])])
    if fits is None:
        return [loop(_thread(), count, _stride())], blocks_for(total, THREADS)
    assert last is not None
    fours = minus(count, remainder(count, number(VECTOR)))
    whole: Statement = Set(("whole",), as_index(fours))
    if not isinstance(fits, Const):
        whole = If(fits, (whole,), (Set(("whole",), as_index(number(0))),))
    point.lanes = Lanes(last)
    wide = loop(times(_thread(), number(VECTOR)), variable("whole"), times(_stride(), number(VECTOR)))
    point.lanes = None
    rest = loop(plus(variable("whole"), _thread()), count, _stride())
    return [whole, wide, rest], blocks_for(total, THREADS * VECTOR)


def _serial(point: Point) -> tuple[list[Statement], Size]:
    kernel, sizes = point.kernel, point.sizes
    body: list[Statement] = []
    for nest in kernel.nests:
        inner = [*point.lets(nest), *_accumulate(point, nest), *point.stores(nest)]
        for axis in reversed(nest.axes):
            inner = [For(axis.name, number(0), sizes(axis.extent), number(1), tuple(inner))]
        for sort in nest.sorts:
            extent = sizes(nest.axes[0].extent)
            inner = merge_sort(kernel, nest.axes[0], sort, point.value, point.offset, extent)
        body += [*_start(nest), *inner]
    count = sizes.product([a.extent for a in kernel.axes])
    point_statements = point_of(kernel.axes, sizes, variable("task"))
    loop = For("task", _thread(), count, _stride(), (*point_statements, *body))
    return [loop], blocks_for(product(a.extent for a in kernel.axes), THREADS)


def _start(nest: Nest) -> list[Statement]:
    return [Set((r.name,), identity(r.combiner, r.value.dtype)) for r in nest.reductions]


def _accumulate(point: Point, nest: Nest) -> list[Statement]:
    made: list[Statement] = []
    for r in nest.reductions:
        dtype = r.value.dtype
        made.append(
            Set((r.name,), apply(COMBINE[r.combiner], dtype, Var(r.name, dtype), point.value(r.value)))
        )
    return made


# Several threads a point. Lane k of n takes inner elements k, k + n, …, in every nest alike.

Combine = Callable[[str, str, DType], list[Statement]]


@dataclass(frozen=True)
class _Team:
    """The lanes of a point: which one this thread is, how they wait, how partial results become one."""

    lane: Value
    lanes: int
    sync: Statement
    combine: Combine
    inside: Value | None = None  # whether this thread's point exists; None if it is sure to


def _together(point: Point, team: _Team) -> list[Statement]:
    """All nests of the kernel at one point."""
    nests = point.kernel.nests
    made: list[Statement] = []
    for k, nest in enumerate(nests):
        made += (
            _shared(point, team, nest) if nest.axes else _alone(point, team, nest, last=k + 1 == len(nests))
        )
    return made


def _alone(point: Point, team: _Team, nest: Nest, last: bool) -> list[Statement]:
    """Every lane computes, lane 0 stores: after all have read, for it may overwrite what they read."""
    lets, stores = point.lets(nest), point.stores(nest)
    if not stores:
        return lets
    reads = any(isinstance(e, Load) for let in nest.lets for e in walk(let.value))
    first: Value = apply("eq", boolean, team.lane, number(0))
    if team.inside is not None:
        first = apply("and", boolean, first, team.inside)
    return [*lets, *([team.sync] if reads and not last else []), If(first, tuple(stores))]


def _shared(point: Point, team: _Team, nest: Nest) -> list[Statement]:
    sizes = point.sizes
    inner = [*point.lets(nest), *_accumulate(point, nest)]
    stores = point.stores(nest)
    inner += stores if team.inside is None or not stores else [If(team.inside, tuple(stores))]
    if len(nest.axes) == 1:
        loop = For(nest.axes[0].name, team.lane, sizes(nest.axes[0].extent), number(team.lanes), tuple(inner))
    else:
        count = sizes.product([a.extent for a in nest.axes])
        place = point_of(nest.axes, sizes, variable("element"))
        loop = For("element", team.lane, count, number(team.lanes), (*place, *inner))
    made = [*_start(nest), loop]
    for r in nest.reductions:
        made += team.combine(r.name, r.combiner, r.value.dtype)
    return made


def _rows(point: Point, schedule: Rows) -> tuple[list[Statement], Size, int]:
    kernel, sizes = point.kernel, point.sizes
    count = sizes.product([a.extent for a in kernel.axes])
    total = product(a.extent for a in kernel.axes)
    lane, warp = variable("lane"), variable("warp")
    if schedule.lanes == WARP:  # several warps a block, each with a point of its own
        warps = 4
        team = _Team(lane, WARP, Do(Call("warp_barrier", ())), _over_warp)
        head = _lane_of_warp()
        first = plus(times(Call("block", ()), number(warps)), warp)
        body = [*point_of(kernel.axes, sizes, variable("task")), *_together(point, team)]
        loop = For("task", first, count, times(Call("blocks", ()), number(warps)), tuple(body))
        return [*head, loop], blocks_for(total, warps), warps * WARP
    warps = schedule.lanes // WARP

    def combine(name: str, combiner: str, dtype: DType) -> list[Statement]:
        partials = [
            Call(f"shared_load_{dtype.code}", (variable(f"{name}partials"), number(k)), dtype)
            for k in range(warps)
        ]
        post = Do(Call(f"shared_store_{dtype.code}", (variable(f"{name}partials"), warp, Var(name, dtype))))
        leader = apply("eq", boolean, remainder(lane, number(WARP)), number(0))
        return [
            *_over_warp(name, combiner, dtype),
            If(leader, (post,)),
            BARRIER,
            Set((name,), _chain(combiner, partials, dtype)),
        ]

    team = _Team(lane, schedule.lanes, BARRIER, combine)
    head = [
        Set(("lane",), Call("thread", ())),
        Set(("warp",), divide(lane, number(WARP))),
        *_partials(kernel, warps),
    ]
    body = [*point_of(kernel.axes, sizes, variable("task")), *_together(point, team), *_end(kernel)]
    return (
        [*head, For("task", Call("block", ()), count, Call("blocks", ()), tuple(body))],
        total,
        schedule.lanes,
    )


def _columns(point: Point, schedule: Columns) -> tuple[list[Statement], Size, int]:
    kernel, sizes = point.kernel, point.sizes
    *rows, column = kernel.axes
    across, lanes = schedule.across, schedule.lanes
    extent = sizes(column.extent)
    place, lane, inside = variable("place"), variable("lane"), Var("inside", boolean)

    def combine(name: str, combiner: str, dtype: DType) -> list[Statement]:
        partials = variable(f"{name}partials")
        mine = plus(times(lane, number(across)), place)
        others = [plus(place, number(k * across)) for k in range(lanes)]
        loads = [Call(f"shared_load_{dtype.code}", (partials, o), dtype) for o in others]
        post = Do(Call(f"shared_store_{dtype.code}", (partials, mine, Var(name, dtype))))
        return [post, BARRIER, Set((name,), _chain(combiner, loads, dtype))]

    head: list[Statement] = [
        Set(("place",), remainder(Call("thread", ()), number(across))),
        Set(("lane",), divide(Call("thread", ()), number(across))),
        *_partials(kernel, across * lanes),
    ]
    strips = Call("index_div", (plus(extent, number(across - 1)), number(across)))
    count = times(sizes.product([a.extent for a in rows]), variable("strips"))
    position = plus(times(remainder(variable("task"), variable("strips")), number(across)), place)
    name = variable(column.name)
    body: list[Statement] = [
        *(point_of(rows, sizes, divide(variable("task"), variable("strips"))) if rows else []),
        Set((column.name,), position),
        Set(("inside",), apply("lt", boolean, name, extent)),
        Comment("beyond the last column: compute it again, store nothing"),
        If(apply("ge", boolean, name, extent), (Set((column.name,), minus(extent, number(1))),)),
        *_together(point, _Team(lane, lanes, BARRIER, combine, inside)),
        *_end(kernel),
    ]
    total = product([*(a.extent for a in rows), blocks_for(column.extent, across)])
    loop = For("task", Call("block", ()), count, Call("blocks", ()), tuple(body))
    return [*head, Set(("strips",), as_index(strips)), loop], total, across * lanes


def _lane_of_warp() -> list[Statement]:
    thread = Call("thread", ())
    return [Set(("lane",), remainder(thread, number(WARP))), Set(("warp",), divide(thread, number(WARP)))]


def _over_warp(name: str, combiner: str, dtype: DType) -> list[Statement]:
    return [Set((name,), Call(f"warp_{combiner}", (Var(name, dtype),), dtype))]


def _chain(combiner: str, parts: list[Call], dtype: DType) -> Value:
    """All parts combined, first to last."""
    total: Value = parts[0]
    for part in parts[1:]:
        total = apply(COMBINE[combiner], dtype, total, part)
    return total


def _partials(kernel: Kernel, count: int) -> list[Statement]:
    """A shared array for each reduction, so that one barrier a reduction is enough."""
    reductions = [r for nest in kernel.nests for r in nest.reductions]
    return [
        Set((f"{r.name}partials",), Call(f"shared_{r.value.dtype.code}", (number(count),)))
        for r in reductions
    ]


def _end(kernel: Kernel) -> list[Statement]:
    """Before the next task writes the shared arrays, all must have read them."""
    return [BARRIER] if any(nest.reductions for nest in kernel.nests) else []
