"""K + CpuSchedule -> L: loops, vectors, masks for the ends. Decides nothing that the schedule has not decided."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from flowgraph.graph.size import Size, floor_divide, product
from flowgraph.graph.types import DType, boolean, int64
from flowgraph.index_notation import Axis, Const, Expr, Extent, Index, Load, Var, axes_of, reindex, transform, walk
from flowgraph.kernels.kernel import Kernel, Nest, Reduction
from flowgraph.schedule.access import coefficient, collapse, stride_along, varying
from flowgraph.schedule.cpu import LANES, AcrossLanes, CpuSchedule, Product, Strips, Tile, as_product, choose
from flowgraph.schedule.loops import (
    Call,
    Comment,
    Do,
    For,
    If,
    Loops,
    Read,
    Set,
    SizeTable,
    Statement,
    Value,
    Write,
    binary,
    ceil_div,
    minus,
    number,
    operation,
    plus,
    times,
    variable,
)
from flowgraph.schedule.sorting import merge_sort
from flowgraph.schedule.verify import verify_statements

IDENTITY = {"sum": 0.0, "max": float("-inf"), "min": float("inf")}
COMBINE = {"sum": "add", "max": "maximum", "min": "minimum"}
HORIZONTAL = {"sum": "hsum", "max": "hmax", "min": "hmin"}
BLOCK = 512  # terms in a row before a sum starts anew
FULL = None  # instead of a number of lanes: all of them
Step = Callable[["Value | None"], list[Statement]]  # the statements for some lanes


def lower(kernel: Kernel, tile: tuple[int, int]) -> tuple[Loops, CpuSchedule]:
    """The loops of a kernel under the schedule chosen for it."""
    kernel = collapse(kernel)
    schedule = choose(kernel, tile)
    return lower_with(kernel, schedule), schedule


def lower_with(kernel: Kernel, schedule: CpuSchedule) -> Loops:
    """The loops of a kernel under a given schedule."""
    scope = _Scope(kernel, SizeTable(kernel.sizes()))
    scratch: Size = 0
    if isinstance(schedule, Tile):
        found = as_product(kernel)
        assert found is not None
        body, tasks, scratch = _tile(scope, schedule, found)
    elif isinstance(schedule, AcrossLanes):
        body, tasks = _across(scope, schedule)
    elif isinstance(schedule, Strips):
        body, tasks = _strips(scope, schedule)
    else:
        body, tasks = _along(scope)
    buffers = tuple(b.name for b in kernel.buffers) + (("panel",) if scratch != 0 else ())
    working = ("tile",) if isinstance(schedule, Tile) else ()  # memory of its own, on the stack
    verify_statements(kernel.name, body, (*buffers, *working), ("lo", "hi", *scope.sizes.names))
    return Loops(kernel.name, buffers, scope.sizes.sizes, scope.sizes.names, tuple(body), tasks, scratch)


@dataclass
class _Scope:
    """The kernel, its sizes, and which names hold vectors."""

    kernel: Kernel
    sizes: SizeTable
    vectors: set[str] = field(default_factory=set)
    lane_axis: Axis | None = None  # vectors run along this axis
    lanes: Value | None = FULL  # how many lanes count, FULL for all

    # expressions

    def value(self, expr: Expr) -> tuple[Value, bool]:
        """L for an expression, and whether it is a vector."""
        if isinstance(expr, Const):
            return expr, False
        if isinstance(expr, Var):
            return expr, expr.name in self.vectors
        if isinstance(expr, Extent):
            return self.sizes(expr.size), False
        if isinstance(expr, Index):
            if expr.axis == self.lane_axis:
                return Call("lanes_i64", (variable(expr.axis.name),)), True
            return variable(expr.axis.name), False
        if isinstance(expr, Load):
            return self.load(expr)
        made = [self.value(a) for a in expr.arguments]
        return operation(expr.function, [v for v, _ in made], expr.dtype), any(f for _, f in made)

    def load(self, expr: Load) -> tuple[Value, bool]:
        shape = self.kernel.buffer(str(expr.source)).type.shape
        name, dtype = str(expr.source), expr.dtype
        count: tuple[Value, ...] = () if self.lanes is None else (self.lanes,)
        suffix = "" if self.lanes is FULL else "_head"
        if self.lane_axis is None or not any(self.lane_axis in axes_of(e) for e in expr.index):
            if any(self.value(e)[1] for e in expr.index):
                return self._gather(expr, shape, suffix, count)
            return Read(name, self.offset(shape, expr.index), dtype), False
        stride = stride_along(shape, expr.index, self.lane_axis)
        if stride is None or any(isinstance(v, Var) and v.name in self.vectors for e in expr.index for v in walk(e)):
            return self._gather(expr, shape, suffix, count)
        offset = self.offset(shape, expr.index)
        if stride == 1:
            return Read(name, offset, dtype, f"v{suffix}", count), True
        step = self.stride(shape, expr.index)
        return Read(name, offset, dtype, f"v_strided{suffix}", (step, *count)), True

    def _gather(self, expr: Load, shape: Sequence[Size], suffix: str, count: tuple[Value, ...]) -> tuple[Value, bool]:
        total: Value = number(0)
        for place, e in enumerate(expr.index):
            part, _ = self.value(e)
            total = plus(total, times(part, self.sizes.product(shape[place + 1 :])))
        return Read(str(expr.source), total, expr.dtype, f"v_gather{suffix}", count), True

    def stride(self, shape: Sequence[Size], index: Sequence[Expr]) -> Value:
        """The stride along the lane axis as L: what the index grows by, times the buffer's inner dimensions."""
        assert self.lane_axis is not None
        terms = []
        for place, e in enumerate(index):
            if self.lane_axis in axes_of(e):
                step = coefficient(e, self.lane_axis)
                assert step is not None
                terms.append(times(self.sizes.polynomial(step), self.sizes.product(shape[place + 1 :])))
        return plus(*terms)

    def offset(self, shape: Sequence[Size], index: Sequence[Expr]) -> Value:
        """The flat index of an element; along the lane axis, of the first lane's."""
        lane_axis, self.lane_axis = self.lane_axis, None
        try:
            terms = []
            for place, e in enumerate(index):
                part, _ = self.value(e)
                terms.append(times(part, self.sizes.product(shape[place + 1 :])))
        finally:
            self.lane_axis = lane_axis
        return plus(*terms)

    # statements

    def lets(self, nest: Nest, skipped: frozenset[str] = frozenset()) -> list[Statement]:
        made: list[Statement] = []
        for let in nest.lets:
            if let.name in skipped:
                continue
            value, is_vector = self.value(let.value)
            (self.vectors.add if is_vector else self.vectors.discard)(let.name)
            made.append(Set((let.name,), value))
        return made

    def stores(self, nest: Nest) -> list[Statement]:
        made: list[Statement] = []
        no_extra: tuple[Value, ...] = ()
        for store in nest.stores:
            buffer = self.kernel.buffer(store.buffer)
            value, is_vector = self.value(store.value)
            if self.lane_axis is not None and any(self.lane_axis in axes_of(e) for e in store.index):
                count: tuple[Value, ...] = () if self.lanes is None else (self.lanes,)
                suffix = "" if self.lanes is FULL else "_head"
                if stride_along(buffer.type.shape, store.index, self.lane_axis) == 1:
                    how, extra = f"v{suffix}", count
                else:
                    how, extra = f"v_strided{suffix}", (self.stride(buffer.type.shape, store.index), *count)
                if not is_vector:
                    value = Call(f"splat_{buffer.type.dtype.code}", (value,), buffer.type.dtype)
            else:
                how, extra = "", no_extra
            offset = self.offset(buffer.type.shape, store.index)
            if store.add:
                old = Read(buffer.name, offset, buffer.type.dtype, how, extra)
                value = operation("add", (old, value), buffer.type.dtype)
            made.append(Write(buffer.name, offset, value, buffer.type.dtype, how, extra))
        return made


def _identity(combiner: str, dtype: DType) -> Const:
    if dtype.is_float or combiner == "sum":
        return Const(IDENTITY[combiner] if dtype.is_float else 0, dtype)
    if dtype == boolean:
        return Const(combiner == "min", dtype)
    bits = 8 * dtype.itemsize - 1
    return Const(-(2**bits) if combiner == "max" else 2**bits - 1, dtype)


def _point(axes: Sequence[Axis], sizes: SizeTable, task: Value) -> list[Statement]:
    """Set every axis from a flat task number."""
    made: list[Statement] = []
    for place, axis in enumerate(axes):
        inner = [a.extent for a in axes[place + 1 :]]
        value = task if not inner else binary("floordiv", task, sizes.product(inner))
        if place > 0:
            value = binary("mod", value, sizes(axis.extent))
        made.append(Set((axis.name,), value))
    return made


# Vectors along the inner axes: one task a point of the outer axes.


def _along(scope: _Scope) -> tuple[list[Statement], Size]:
    kernel = scope.kernel
    body: list[Statement] = []
    for nest in kernel.nests:
        body += _row_nest(scope, nest)
    if not kernel.axes:
        return [For("task", variable("lo"), variable("hi"), number(1), tuple(body))], 1
    ahead = _ask_ahead(
        scope,
        kernel.nests,
        kernel.axes,
        variable("task"),
        variable("hi"),
        lambda task: _point(kernel.axes, scope.sizes, task),
    )
    body = [*ahead, *_point(kernel.axes, scope.sizes, variable("task")), *body]
    return [For("task", variable("lo"), variable("hi"), number(1), tuple(body))], product(a.extent for a in kernel.axes)


def _row_nest(scope: _Scope, nest: Nest) -> list[Statement]:
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
        identity = _identity(r.combiner, r.value.dtype)
        before.append(Set((f"{r.name}v",), Call(f"splat_{r.value.dtype.code}", (identity,), r.value.dtype)))
        after.append(Set((r.name,), Call(HORIZONTAL[r.combiner], (Var(f"{r.name}v", r.value.dtype),), r.value.dtype)))

    def step(lanes: Value | None) -> list[Statement]:
        scope.lane_axis, scope.lanes = lane, lanes
        made = [*scope.lets(nest)]
        for r in nest.reductions:
            value, is_vector = scope.value(r.value)
            dtype = r.value.dtype
            if not is_vector:
                value = Call(f"splat_{dtype.code}", (value,), dtype)
            if lanes is not None:
                value = Call("head", (value, lanes, _identity(r.combiner, dtype)), dtype)
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
        loops = [For(axis.name, number(0), scope.sizes(axis.extent), number(1), tuple(loops))]
    return [*before, *loops, *after]


def _long_sums(nest: Nest, extent: Size) -> list[Reduction]:
    """The sums whose rounding errors would grow with the length of the innermost loop."""
    if isinstance(extent, int) and extent <= BLOCK:
        return []
    return [r for r in nest.reductions if r.combiner == "sum" and r.value.dtype.is_float]


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
    body = [
        *(Set((part,), Const(0.0, dtype) if scalar else _zero(dtype)) for _, part, dtype in sums),
        Set((stop,), Call("min", (plus(variable(block), number(length)), extent))),
        *inner(variable(block), variable(stop)),
        *(Set((total,), operation("add", (Var(total, dtype), Var(part, dtype)), dtype)) for total, part, dtype in sums),
    ]
    return [For(block, number(0), extent, number(length), tuple(body))]


def _lane_loops(lane: Axis, start: Value, stop: Value, step: Step) -> list[Statement]:
    """Whole vectors from start to stop, then the rest under a mask."""
    extent = stop.value if isinstance(stop, Const) and start == number(0) else None
    if extent is not None and extent < LANES:
        return [Set((lane.name,), number(0)), *step(number(int(extent)))] if extent else []
    whole = f"{lane.name}_whole"
    length = minus(stop, start)
    made: list[Statement] = [
        Set((whole,), plus(start, times(binary("floordiv", length, number(LANES)), number(LANES)))),
        For(lane.name, start, variable(whole), number(LANES), tuple(step(FULL))),
    ]
    rest = f"{lane.name}_rest"
    made.append(Set((rest,), minus(stop, variable(whole))))
    tail = [Set((lane.name,), variable(whole)), *step(variable(rest))]
    made.append(If(binary("gt", variable(rest), number(0)), tuple(tail)))
    return made


def _scalar_nest(scope: _Scope, nest: Nest) -> list[Statement]:
    """Loops one element at a time: where the order matters (scatter without an outer axis)."""
    body: list[Statement] = [*scope.lets(nest), *scope.stores(nest)]
    for axis in reversed(nest.axes):
        body = [For(axis.name, number(0), scope.sizes(axis.extent), number(1), tuple(body))]
    return body


# Vectors across the last outer axis: reductions are ordinary loops.


def _across(scope: _Scope, schedule: AcrossLanes) -> tuple[list[Statement], Size]:
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
        body = [*_point(rows, scope.sizes, variable("task")), *inner]
        return [For("task", variable("lo"), variable("hi"), number(1), tuple(body))], tasks
    block = schedule.block
    blocks = floor_divide(lane.extent + (block - 1), block)
    start = f"{lane.name}_start"
    if rows:
        count = ceil_div(extent, block)
        point: list[Statement] = [
            Set(("row_task",), binary("floordiv", variable("task"), count)),
            Set((start,), times(binary("mod", variable("task"), count), number(block))),
            *_point(rows, scope.sizes, variable("row_task")),
        ]
    else:
        point = [Set((start,), times(variable("task"), number(block)))]
    point += before
    if block == LANES:
        rest = minus(extent, variable(start))
        body = [
            *point,
            Set((lane.name,), variable(start)),
            Set(("rest",), rest),
            If(binary("ge", variable("rest"), number(LANES)), tuple(step(FULL)), tuple(step(variable("rest")))),
        ]
    else:
        stop = Call("min", (plus(variable(start), number(block)), extent))
        body = [*point, Set(("stop",), stop), *_lane_loops(lane, variable(start), variable("stop"), step)]
    tasks = product([*(a.extent for a in rows), blocks])
    return [For("task", variable("lo"), variable("hi"), number(1), tuple(body))], tasks


# Rows of a table that integers choose come from anywhere in memory: they are asked for some steps ahead.

AHEAD = 8  # steps: about what memory takes to answer, at a few dozen nanoseconds a step
LINE = 64  # bytes


def _ask_ahead(
    scope: _Scope,
    nests: Sequence[Nest],
    axes: Sequence[Axis],
    counter: Value,
    stop: Value,
    point: Callable[[Value], list[Statement]],
) -> list[Statement]:
    """Prefetch what the step AHEAD of this one looks up; `point` sets the axes of a step, given its number."""
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
        ask = Do(Call("prefetch", (address,)))
        line = number(LINE // dtype.itemsize)
        made += [Set(("wanted",), row), For("line", number(0), scope.sizes(extent), line, (ask,))]
    return made


def _strips(scope: _Scope, schedule: Strips) -> tuple[list[Statement], Size]:
    """Steps outside, a strip of the last outer axis inside."""
    kernel = scope.kernel
    *rows, lane = kernel.axes
    extent, width = scope.sizes(lane.extent), schedule.width
    strips = variable("strips")
    start, stop = variable("start"), variable("stop")
    body: list[Statement] = [
        Set(("start",), times(binary("mod", variable("task"), strips), number(width))),
        Set(("stop",), Call("min", (plus(start, number(width)), extent))),
        Set(("row_task",), binary("floordiv", variable("task"), strips)),
        *_point(rows, scope.sizes, variable("row_task")),
    ]
    changing = varying(kernel, lane)
    for nest in kernel.nests:
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
            return _point(nest.axes, scope.sizes, position)

        steps = scope.sizes.product([a.extent for a in nest.axes])
        ahead = _ask_ahead(scope, [nest], (*rows, *nest.axes), variable("step"), steps, at) if nest.axes else []
        if ahead:
            loops = [For("step", number(0), steps, number(1), (*ahead, *at(variable("step")), *loops))]
        else:
            for axis in reversed(nest.axes):
                loops = [For(axis.name, number(0), scope.sizes(axis.extent), number(1), tuple(loops))]
        body += loops
    tasks = product([*(a.extent for a in rows), floor_divide(lane.extent + (width - 1), width)])
    head = Set(("strips",), ceil_div(extent, width))
    return [head, For("task", variable("lo"), variable("hi"), number(1), tuple(body))], tasks


def _running_nest(scope: _Scope, nest: Nest) -> list[Statement]:
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
        value, is_vector = scope.value(r.value)
        start: Value = _identity(r.combiner, dtype)
        if scope.lane_axis is not None:
            scope.vectors.add(r.name)
            start = Call(f"splat_{dtype.code}", (start,), dtype)
            value = value if is_vector else Call(f"splat_{dtype.code}", (value,), dtype)
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
        return [For(axis.name, first, stop, number(1), body)]

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


def _across_nest(scope: _Scope, nest: Nest, early: frozenset[str] = frozenset()) -> list[Statement]:
    if nest.running:
        return _running_nest(scope, nest)
    sums = _long_sums(nest, nest.axes[-1].extent) if nest.axes else []
    before: list[Statement] = []
    inner: list[Statement] = [*scope.lets(nest, early)]
    for r in nest.reductions:
        dtype = r.value.dtype
        value, is_vector = scope.value(r.value)
        scope.vectors.add(r.name)
        if not is_vector:
            value = Call(f"splat_{dtype.code}", (value,), dtype)
        before.append(Set((r.name,), Call(f"splat_{dtype.code}", (_identity(r.combiner, dtype),), dtype)))
        running = f"{r.name}v" if r in sums else r.name
        inner.append(Set((running,), operation(COMBINE[r.combiner], (Var(running, dtype), value), dtype)))
    inner += scope.stores(nest)
    for place, axis in reversed(list(enumerate(nest.axes))):
        extent, body = scope.sizes(axis.extent), tuple(inner)
        if sums and place == len(nest.axes) - 1:
            parts = [(r.name, f"{r.name}v", r.value.dtype) for r in sums]

            def terms(
                start: Value, stop: Value, axis: Axis = axis, body: tuple[Statement, ...] = body
            ) -> list[Statement]:
                return [For(axis.name, start, stop, number(1), body)]

            inner = _in_blocks(axis, extent, BLOCK, parts, terms)
        else:
            inner = [For(axis.name, number(0), extent, number(1), body)]
    return [*before, *inner]


# Products: a register tile whose results go through the epilogue.


def _tile(scope: _Scope, schedule: Tile, found: Product) -> tuple[list[Statement], Size, Size]:
    kernel, sizes = scope.kernel, scope.sizes
    dtype: DType = kernel.buffer(str(found.a.source)).type.dtype
    mr, nv = schedule.rows, schedule.vectors
    width = nv * LANES
    m, n, depth = sizes(found.i.extent), sizes(found.j.extent), sizes(found.k.extent)

    def stride(load: Load, axis: Axis) -> Value:
        shape = kernel.buffer(str(load.source)).type.shape
        terms = []
        for place, expr in enumerate(load.index):
            step = coefficient(expr, axis)
            assert isinstance(step, int)  # see as_product
            if step:
                terms.append(times(number(step), sizes.product(shape[place + 1 :])))
        return plus(*terms) if terms else number(0)

    def start(load: Load) -> Value:
        """Where the operand of this batch begins."""
        inner = dict.fromkeys((found.i, found.j, found.k), Const(0, int64))
        return scope.offset(kernel.buffer(str(load.source)).type.shape, [reindex(e, inner) for e in load.index])

    a_row, a_k = stride(found.a, found.i), stride(found.a, found.k)
    b_k, b_j = stride(found.b, found.k), stride(found.b, found.j)
    i, j = found.i.name, found.j.name
    a_start, b_start = start(found.a), start(found.b)
    address = Call(f"at_{dtype.code}", (variable(str(found.a.source)), plus(a_start, times(variable(i), a_row))))
    row_blocks = ceil_div(m, mr)
    panel: Value = Call(f"at_{dtype.code}", (variable(str(found.b.source)), plus(b_start, variable(j))))
    panel_k = b_k
    if schedule.pack:
        panel, panel_k = variable("packed"), number(width)
    operands: tuple[Value, ...] = (address, variable("rows"), a_row, a_k, panel, panel_k, depth)

    def product_of(vectors: int, lanes: Value | None) -> list[Statement]:
        name = f"tile_{'' if lanes is FULL else 'head_'}{dtype.code}_{mr}x{vectors}"
        call = Call(name, operands if lanes is None else (*operands, lanes), dtype)
        return [Set(("pitch",), number(vectors * LANES)), Do(Call(f"spill_{dtype.code}", (variable("tile"), call)))]

    columns = variable("columns")
    whole = product_of(nv, FULL)
    if schedule.pack:  # panels are padded with zeros, always whole
        compute = whole
    else:
        rest: list[Statement] = product_of(1, columns)
        for vectors in range(2, nv + 1):
            taken = LANES * (vectors - 1)
            rest = [
                If(
                    binary("gt", columns, number(taken)),
                    tuple(product_of(vectors, minus(columns, number(taken)))),
                    tuple(rest),
                )
            ]
        compute = [If(binary("ge", columns, number(width)), tuple(whole), tuple(rest))]

    def epilogue(lanes: Value | None) -> list[Statement]:
        scope.lane_axis, scope.lanes = found.j, lanes
        scope.vectors = {found.result}
        made: list[Statement] = [
            Set(
                (found.result,),
                Read("tile", plus(times(variable("row"), variable("pitch")), variable("column")), dtype, "v"),
            )
        ]
        for nest in kernel.nests[1:]:
            made += [*scope.lets(nest), *scope.stores(nest)]
        scope.lane_axis, scope.lanes = None, FULL
        return made

    first_row, first_column = f"{i}_first", f"{j}_first"
    lanes = minus(columns, variable("column"))
    is_whole = binary("ge", variable("lanes"), number(LANES))
    finish: list[Statement] = [
        For("row", number(0), variable("rows"), number(1), (
            Set((i,), plus(variable(first_row), variable("row"))),
            For("column", number(0), columns, number(LANES), (
                Set((j,), plus(variable(first_column), variable("column"))),
                Set(("lanes",), lanes),
                If(is_whole, tuple(epilogue(FULL)), tuple(epilogue(variable("lanes")))),
            )),
        )),
    ]  # fmt: skip
    one_tile: list[Statement] = [
        Set((first_row,), variable(i)),
        Set((first_column,), variable(j)),
        Set(("rows",), Call("min", (number(mr), minus(m, variable(i))))),
        *compute,
        *finish,
    ]
    setup: list[Statement] = [Set(("tile",), Call(f"stack_{dtype.code}", (number(mr * width),)))]
    column_setup: list[Statement] = [Set(("columns",), Call("min", (number(width), minus(n, variable(j)))))]
    column_blocks = floor_divide(found.j.extent + (width - 1), width)
    local: Value = variable("task")  # among the tasks of one batch
    batch: list[Statement] = []
    each = column_blocks if schedule.pack else floor_divide(found.i.extent + (mr - 1), mr) * column_blocks
    if found.others:
        local = variable("local")
        count = ceil_div(n, width) if schedule.pack else times(row_blocks, ceil_div(n, width))
        batch = [
            Set(("each",), count),
            Set(("local",), binary("mod", variable("task"), variable("each"))),
            Set(("batch",), binary("floordiv", variable("task"), variable("each"))),
            *_point(found.others, sizes, variable("batch")),
        ]
    tasks: Size = product([*(x.extent for x in found.others), each])
    scratch: Size = 0
    if schedule.pack:
        source = Call(f"at_{dtype.code}", (variable(str(found.b.source)), plus(b_start, times(variable(j), b_j))))
        place = times(variable("task"), number(width), depth)
        packed = Call(f"at_{dtype.code}", (variable("panel"), place))
        packing = (variable("packed"), number(width), source, b_k, b_j, depth, columns, number(width))
        body: list[Statement] = [
            *batch,
            Set((j,), times(local, number(width))),
            *column_setup,
            Comment("this block of columns of the second operand, row by row"),
            Set(("packed",), packed),
            Do(Call(f"pack_{dtype.code}", packing)),
            Set(("j_kept",), variable(j)),
            For("block", number(0), row_blocks, number(1), (
                Set((i,), times(variable("block"), number(mr))),
                Set((j,), variable("j_kept")),
                *one_tile,
            )),
        ]  # fmt: skip
        scratch = found.k.extent * tasks * (width * dtype.itemsize)
    else:
        body = [
            *batch,
            Set(("block",), row_blocks),
            Set((i,), times(binary("mod", local, variable("block")), number(mr))),
            Set((j,), times(binary("floordiv", local, variable("block")), number(width))),
            *column_setup,
            *one_tile,
        ]
    return [*setup, For("task", variable("lo"), variable("hi"), number(1), tuple(body))], tasks, scratch
