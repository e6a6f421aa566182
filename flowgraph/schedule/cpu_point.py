"""A kernel's expressions and statements where a task stands: the part of CPU lowering that all schedules share.

Comes in: index notation. Goes out: L, for one element, or for a vector of neighbours along an axis, all of whose lanes
count or the first few. May not know which task has which point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from flowgraph.graph.size import Size
from flowgraph.graph.types import int64
from flowgraph.index_notation import (
    TRANSCENDENTAL,
    Apply,
    Axis,
    Const,
    Expr,
    Extent,
    Index,
    Load,
    Var,
    axes_of,
    reindex,
    walk,
)
from flowgraph.kernels.kernel import Kernel, Nest
from flowgraph.schedule.access import coefficient, stride_along
from flowgraph.schedule.cpu import LANES
from flowgraph.schedule.loops import (
    Call,
    If,
    Read,
    Set,
    SizeTable,
    Statement,
    Value,
    Write,
    binary,
    number,
    operation,
    parts_of,
    plus,
    times,
    values_of,
    variable,
)

FULL = None  # instead of a number of lanes: all of them
LARGE = 24  # statements for a vector: of more, one version, under a mask, is compiled in half the time of two
LARGE_BESIDE_TILES = 8  # the same where there are register tiles to compile, whose sums take most of the time to run
LONG = 4  # statements that a transcendental function counts for besides
Step = Callable[["Value | None"], list[Statement]]  # the statements for some lanes


@dataclass
class Scope:
    """The kernel, its sizes, and which names hold vectors."""

    kernel: Kernel
    sizes: SizeTable
    vectors: set[str] = field(default_factory=set)
    lane_axis: Axis | None = None  # vectors run along this axis
    lanes: Value | None = FULL  # how many lanes count, FULL for all
    begun: Mapping[str, Expr] = field(default_factory=dict)  # what sums begin with, where that is not 0

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
        value = operation(expr.function, [v for v, _ in made], expr.dtype)
        return value, any(f for _, f in made) and not isinstance(value, Const)

    def vector(self, expr: Expr) -> Value:
        """L for an expression, the same in all lanes if it does not change along them."""
        value, is_vector = self.value(expr)
        return value if is_vector else Call(f"splat_{expr.dtype.code}", (value,), expr.dtype)

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
        scattered = False
        for place, e in enumerate(expr.index):
            part, is_vector = self.value(e)
            scattered = scattered or is_vector
            total = plus(total, times(part, self.sizes.product(shape[place + 1 :])))
        if not scattered:  # a remainder of 1, say: the same place for all lanes
            return Read(str(expr.source), total, expr.dtype), False
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

    def step(self, load: Load, axis: Axis) -> Value:
        """Elements between an operand's neighbours along an axis in which it is affine."""
        shape = self.kernel.buffer(str(load.source)).type.shape
        terms = []
        for place, expr in enumerate(load.index):
            by = coefficient(expr, axis)
            assert isinstance(by, int)  # see as_product
            if by:
                terms.append(times(number(by), self.sizes.product(shape[place + 1 :])))
        return plus(*terms)

    def first(self, load: Load, axes: Iterable[Axis]) -> Value:
        """The flat index of an operand's element where these axes begin."""
        zeros = dict.fromkeys(axes, Const(0, int64))
        shape = self.kernel.buffer(str(load.source)).type.shape
        return self.offset(shape, [reindex(e, zeros) for e in load.index])

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


def point_of(axes: Sequence[Axis], sizes: SizeTable, task: Value) -> list[Statement]:
    """Set every axis from a flat task number."""
    made: list[Statement] = []
    for place, axis in enumerate(axes):
        inner = [a.extent for a in axes[place + 1 :]]
        value = task if not inner else binary("floordiv", task, sizes.product(inner))
        if place > 0:
            value = binary("mod", value, sizes(axis.extent))
        made.append(Set((axis.name,), value))
    return made


def only_whole(extent: Size) -> bool:
    """Whether vectors along so many elements are known to be whole."""
    return isinstance(extent, int) and extent % LANES == 0


def never_whole(extent: Size) -> bool:
    """Whether there are known to be fewer elements than lanes."""
    return isinstance(extent, int) and extent < LANES


def is_large(statements: Sequence[Statement], limit: int = LARGE) -> bool:
    """Whether two versions of these would take long to compile; a loop counts as one, whatever is in it."""
    values = (e for s in statements for value in values_of(s) for e in parts_of(value))
    functions = sum(isinstance(e, Apply) and e.function in TRANSCENDENTAL for e in values)
    return len(statements) + LONG * functions > limit


def by_lanes(extent: Size, name: str, left: Value, step: Step, limit: int = LARGE) -> list[Statement]:
    """What is done for a vector along so many elements, of which so many lanes, or all of them, are left: that number
    gets a name where it is needed."""
    if only_whole(extent):
        return step(FULL)
    rest, all_lanes = variable(name), step(FULL)
    count = Set((name,), left)
    if never_whole(extent) or is_large(all_lanes, limit):
        return [count, *step(rest)]
    return [count, If(binary("ge", rest, number(LANES)), tuple(all_lanes), tuple(step(rest)))]
