"""A kernel's expressions and statements at one thread's point: the part of lowering that all schedules share.

Comes in: index notation. Goes out: L, for one point, or for four neighbours along an axis at once. Indices
are int32, values have their dtypes. May not know which thread has which point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from flowgraph.graph.size import Size
from flowgraph.graph.types import DType, boolean, int32, int64
from flowgraph.index_notation import Apply, Axis, Const, Expr, Extent, Index, Load, Var, axes_of, walk
from flowgraph.kernels.kernel import Buffer, Kernel, Nest, Store
from flowgraph.schedule.cuda import VECTOR, is_vector
from flowgraph.schedule.loops import (
    Call,
    Read,
    Set,
    SizeTable,
    Statement,
    Value,
    Write,
    number,
    plus,
    times,
    variable,
)

NEVER_NEGATIVE = frozenset({"add", "mul", "floordiv", "mod"})
LANES = "abcd"  # of four values that travel together


@dataclass
class Lanes:
    """Four points at once: neighbours along `axis`. Names that differ between them end in a lane's letter."""

    axis: Axis
    varying: set[str] = field(default_factory=set)
    loaded: dict[Load, str] = field(default_factory=dict)
    made: list[Statement] = field(default_factory=list)


@dataclass
class Point:
    """The kernel, its sizes, and whether statements are being made for four lanes."""

    kernel: Kernel
    sizes: SizeTable
    lanes: Lanes | None = None

    # values

    def value(self, expr: Expr, lane: int = 0) -> Value:
        """L for a value."""
        if isinstance(expr, Const):
            return expr
        if isinstance(expr, Var):
            return Var(self._name(expr.name, lane), expr.dtype)
        if isinstance(expr, (Index, Extent)):
            return Call("to_i64", (self.index(expr, lane),))
        if isinstance(expr, Load):
            return self._load(expr, lane)
        return apply(expr.function, expr.dtype, *(self.value(a, lane) for a in expr.arguments))

    def _name(self, name: str, lane: int) -> str:
        return name + f"_{LANES[lane]}" if self.lanes and name in self.lanes.varying else name

    def _load(self, expr: Load, lane: int) -> Value:
        buffer = self.kernel.buffer(str(expr.source))
        if not self._is_wide(buffer, expr.index):
            return Read(buffer.name, self.offset(buffer.type.shape, expr.index, lane), expr.dtype)
        assert self.lanes is not None
        if expr not in self.lanes.loaded:
            name = f"{buffer.name}_{len(self.lanes.loaded)}"
            self.lanes.loaded[expr] = name
            offset = self.offset(buffer.type.shape, expr.index)
            wide = Read(buffer.name, offset, expr.dtype, str(VECTOR))
            self.lanes.made.append(Set(tuple(f"{name}_{letter}" for letter in LANES), wide))
        return Var(f"{self.lanes.loaded[expr]}_{LANES[lane]}", expr.dtype)

    def _is_wide(self, buffer: Buffer, index: tuple[Expr, ...]) -> bool:
        """Whether the four lanes' elements lie side by side: a looked-up row may differ from lane to lane."""
        if self.lanes is None or not is_vector(buffer, index, self.lanes.axis):
            return False
        return not any(isinstance(v, Var) and v.name in self.lanes.varying for e in index for v in walk(e))

    def varies(self, expr: Expr) -> bool:
        """Whether the lanes have different values of it."""
        assert self.lanes is not None
        names = {e.name for e in walk(expr) if isinstance(e, Var)}
        return self.lanes.axis in axes_of(expr) or bool(names & self.lanes.varying)

    # indices: 32 bits, never a float

    def index(self, expr: Expr, lane: int = 0) -> Value:
        """L for an index, or a part of one."""
        if isinstance(expr, Const):
            return Const(expr.value, int64)
        if isinstance(expr, Extent):
            return self.sizes(expr.size)
        if isinstance(expr, Index):
            moved = lane if self.lanes and expr.axis == self.lanes.axis else 0
            return plus(variable(expr.axis.name), number(moved))
        if isinstance(expr, Var):
            made = Var(self._name(expr.name, lane), expr.dtype)
            return made if expr.dtype != int64 else Call("to_i32", (made,), int32)
        if isinstance(expr, Load):
            loaded = self._load(expr, lane)
            return loaded if expr.dtype == int32 else Call("to_i32", (loaded,), int32)
        if expr.function == "cast":
            return self.index(expr.arguments[0], lane)
        if expr.function in ("floordiv", "mod") and all(map(_not_negative, expr.arguments)):
            a, b = (self.index(e, lane) for e in expr.arguments)
            return divide(a, b) if expr.function == "floordiv" else remainder(a, b)
        arguments = [
            self.value(e, lane) if e.dtype == boolean else self.index(e, lane) for e in expr.arguments
        ]
        return apply(expr.function, int64, *arguments)

    def offset(self, shape: Sequence[Size], index: Sequence[Expr], lane: int = 0) -> Value:
        """The flat index of an element."""
        return plus(
            *(times(self.index(e, lane), self.sizes.product(shape[k + 1 :])) for k, e in enumerate(index))
        )

    # statements

    def lets(self, nest: Nest) -> list[Statement]:
        made: list[Statement] = []
        for let in nest.lets:
            if self.lanes is None or not self.varies(let.value):
                value = self.value(let.value)
                made += [*self._wide_loads(), Set((let.name,), value)]
                continue
            values = [self.value(let.value, lane) for lane in range(VECTOR)]
            self.lanes.varying.add(let.name)
            made += self._wide_loads()
            made += [Set((f"{let.name}_{LANES[k]}",), v) for k, v in enumerate(values)]
        return made

    def stores(self, nest: Nest) -> list[Statement]:
        made: list[Statement] = []
        for store in nest.stores:
            buffer = self.kernel.buffer(store.buffer)
            wide = self._is_wide(buffer, store.index)
            offsets = [
                self.offset(buffer.type.shape, store.index, k)
                for k in range(VECTOR if self.lanes and not wide else 1)
            ]
            values = [self._stored(store, k) for k in range(VECTOR if self.lanes else 1)]
            made += self._wide_loads()
            if wide:
                made.append(
                    Write(
                        buffer.name, offsets[0], values[0], buffer.type.dtype, str(VECTOR), tuple(values[1:])
                    )
                )
            else:
                made += [
                    Write(buffer.name, o, v, buffer.type.dtype) for o, v in zip(offsets, values, strict=True)
                ]
            if self.lanes:  # what was loaded from it before is old
                self.lanes.loaded = {e: n for e, n in self.lanes.loaded.items() if e.source != store.buffer}
        return made

    def _stored(self, store: Store, lane: int) -> Value:
        value = self.value(store.value, lane)
        if store.add:
            buffer = self.kernel.buffer(store.buffer)
            old = Read(buffer.name, self.offset(buffer.type.shape, store.index, lane), buffer.type.dtype)
            value = apply("add", buffer.type.dtype, old, value)
        return value

    def _wide_loads(self) -> list[Statement]:
        """The wide loads that the statements about to be made need."""
        if self.lanes is None:
            return []
        made, self.lanes.made = self.lanes.made, []
        return made


def _not_negative(expr: Expr) -> bool:
    """Whether an index is at least zero whatever the point, seen without knowing sizes."""
    if isinstance(expr, Const):
        return expr.value >= 0
    if isinstance(expr, Apply):
        return expr.function in NEVER_NEGATIVE and all(map(_not_negative, expr.arguments))
    return isinstance(expr, (Index, Extent))


# Small parts of L


def apply(function: str, dtype: DType, *arguments: Value) -> Apply:
    """A function of values: L's expressions are index notation over reads and calls."""
    return Apply(function, arguments, dtype)  # type: ignore[arg-type]


def divide(a: Value, b: Value) -> Value:
    """a // b of indices that are not negative: the cheap division."""
    return a if b == number(1) else Call("index_div", (a, b))


def remainder(a: Value, b: Value) -> Value:
    return number(0) if b == number(1) else Call("index_mod", (a, b))


def whole_fours(sizes: SizeTable, needed: Sequence[Size]) -> Value | None:
    """The condition that sizes are multiples of four: True if there are none, None if it is known to fail."""
    condition: Value = Const(True, boolean)
    for size in dict.fromkeys(needed):
        known = sizes(size)
        if isinstance(known, Const):
            if int(known.value) % VECTOR:
                return None
            continue
        one = apply("eq", boolean, remainder(known, number(VECTOR)), number(0))
        condition = one if isinstance(condition, Const) else apply("and", boolean, condition, one)
    return condition


def point_of(axes: Sequence[Axis], sizes: SizeTable, flat: Value) -> list[Statement]:
    """Set every axis from a flat number, the last axis fastest."""
    made: list[Statement] = []
    for place, axis in enumerate(axes):
        value = divide(flat, sizes.product([a.extent for a in axes[place + 1 :]]))
        if place > 0:
            value = remainder(value, sizes(axis.extent))
        made.append(Set((axis.name,), as_index(value)))
    return made


def as_index(value: Value) -> Value:
    """A literal that becomes a variable's value must say that it has 32 bits."""
    return Const(value.value, int32) if isinstance(value, Const) else value
