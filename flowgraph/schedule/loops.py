"""L, the statement language: exactly what runs, in what order, on which lanes. A dialect prints it, deciding nothing.

Expressions are index notation (`Const`, `Var`, `Apply`) plus `Read` (memory) and `Call` (a prelude function).
Offsets count elements. Values are scalars or whole vectors; the same arithmetic serves both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from flowgraph.graph.size import Size, exact_quotient
from flowgraph.graph.types import DType, boolean, int64
from flowgraph.index_notation import Apply, Const, Expr, Var


@dataclass(frozen=True)
class Call:
    """A function of the dialect's prelude."""

    function: str
    arguments: tuple[Value, ...]
    dtype: DType = int64


@dataclass(frozen=True)
class Read:
    """An element, or a vector of elements, of a buffer. `how` names the access: see the dialects."""

    buffer: str
    offset: Value
    dtype: DType
    how: str = ""  # "", "v", "v_head", "v_strided", "v_strided_head", "v_gather", "v_gather_head"
    extra: tuple[Value, ...] = ()  # stride and number of lanes, as the access needs


Value = Expr | Call | Read


@dataclass(frozen=True)
class Comment:
    text: str


@dataclass(frozen=True)
class Set:
    """Bind or rebind names: one, or the several results of a call."""

    names: tuple[str, ...]
    value: Value


@dataclass(frozen=True)
class For:
    """for variable in start, start + step, ... < stop."""

    variable: str
    start: Value
    stop: Value
    step: Value
    body: tuple[Statement, ...]


@dataclass(frozen=True)
class If:
    condition: Value
    body: tuple[Statement, ...]
    otherwise: tuple[Statement, ...] = ()


@dataclass(frozen=True)
class Write:
    """Store a value; `how` and `extra` as for Read ("", "v", "v_head")."""

    buffer: str
    offset: Value
    value: Value
    dtype: DType
    how: str = ""
    extra: tuple[Value, ...] = ()


@dataclass(frozen=True)
class Do:
    """Call for the effect: a barrier, packing."""

    call: Call


Statement = Comment | Set | For | If | Write | Do


def values_of(s: Statement) -> tuple[Value, ...]:
    """The values of a statement itself; those of the statements in it are theirs."""
    if isinstance(s, Set):
        return (s.value,)
    if isinstance(s, For):
        return s.start, s.stop, s.step
    if isinstance(s, If):
        return (s.condition,)
    if isinstance(s, Write):
        return s.offset, s.value, *s.extra
    if isinstance(s, Do):
        return (s.call,)
    assert isinstance(s, Comment), s
    return ()


def inner_of(s: Statement) -> tuple[Statement, ...]:
    """The statements in a statement."""
    return s.body if isinstance(s, For) else (*s.body, *s.otherwise) if isinstance(s, If) else ()


def count_up(name: str, start: Value, stop: Value, body: Sequence[Statement]) -> list[Statement]:
    """The statements for each of start, start + 1, ... < stop; one round needs no loop."""
    if stop == plus(start, number(1)):
        return [Set((name,), start), *body]
    return [For(name, start, stop, number(1), tuple(body))]


def operands_of(value: Value) -> tuple[Value, ...]:
    """What a value is directly made of."""
    if isinstance(value, (Apply, Call)):
        return value.arguments
    if isinstance(value, Read):
        return value.offset, *value.extra
    assert isinstance(value, (Const, Var)), value
    return ()


def parts_of(value: Value) -> Iterator[Value]:
    """A value and all that it is made of."""
    stack = [value]
    while stack:
        item = stack.pop()
        yield item
        stack.extend(operands_of(item))


@dataclass(frozen=True)
class Loops:
    """A lowered kernel. `parameters` in the order of its arguments: buffers, then sizes; `tasks` and `scratch` are
    what the launch must know: into how many tasks the work is divided, and bytes of working memory."""

    name: str
    buffers: tuple[str, ...]
    sizes: tuple[Size, ...]
    size_names: tuple[str, ...]
    body: tuple[Statement, ...]
    tasks: Size = 1
    scratch: Size = 0


def number(value: int) -> Const:
    return Const(value, int64)


def variable(name: str) -> Var:
    return Var(name, int64)


def operation(function: str, arguments: Iterable[Value], dtype: DType) -> Value:
    """A function of index notation applied to values of L. Of integers, what is known is computed now."""
    made = tuple(arguments)
    if dtype is int64 and len(made) == 2 and function in _SIMPLE:
        simple = _SIMPLE[function](*made)
        if simple is not None:
            return simple
    return Apply(function, made, dtype)  # type: ignore[arg-type]


def _folded(combine: Callable[[int, int], int], a: Value, b: Value) -> Value | None:
    if not isinstance(a, Const) or not isinstance(b, Const):
        return None
    value = combine(int(a.value), int(b.value))
    return number(value) if abs(value) < 2**31 else None


def _simple_add(a: Value, b: Value) -> Value | None:
    return b if a == number(0) else a if b == number(0) else _folded(int.__add__, a, b)


def _simple_mul(a: Value, b: Value) -> Value | None:
    if number(0) in (a, b):
        return number(0)
    return b if a == number(1) else a if b == number(1) else _folded(int.__mul__, a, b)


def _simple_floordiv(a: Value, b: Value) -> Value | None:
    return a if b == number(1) else None


def _simple_mod(a: Value, b: Value) -> Value | None:
    return number(0) if b == number(1) else None


_SIMPLE = {"add": _simple_add, "mul": _simple_mul, "floordiv": _simple_floordiv, "mod": _simple_mod}


def plus(*terms: Value) -> Value:
    """A sum of indices, without the zeros."""
    total: Value = number(0)
    for term in terms:
        total = operation("add", (total, term), int64)
    return total


def times(*factors: Value) -> Value:
    """A product of indices, without the ones."""
    total: Value = number(1)
    for factor in factors:
        total = operation("mul", (total, factor), int64)
    return total


def minus(a: Value, b: Value) -> Value:
    return a if b == number(0) else operation("sub", (a, b), int64)


def binary(function: str, a: Value, b: Value) -> Value:
    return operation(function, (a, b), int64)


def ceil_div(a: Value, b: int) -> Value:
    return a if b == 1 else binary("floordiv", plus(a, number(b - 1)), number(b))


class SizeTable:
    """Run-time sizes of a kernel as variables n0, n1, ...; small static sizes as numbers."""

    STATIC_LIMIT = 8

    def __init__(self, sizes: Iterable[Size]) -> None:
        self.sizes = tuple(s for s in sizes if not (isinstance(s, int) and s <= self.STATIC_LIMIT))
        self.names = tuple(f"n{k}" for k in range(len(self.sizes)))

    def __call__(self, size: Size) -> Value:
        if isinstance(size, int) and size <= self.STATIC_LIMIT:
            return number(size)
        if size in self.sizes:
            return variable(self.names[self.sizes.index(size)])
        raise KeyError(f"{size} is not a size of this kernel")

    def polynomial(self, size: Size) -> Value:
        """A size of integer terms over sizes of this kernel: -1, n, 2·n."""
        if isinstance(size, int):
            return number(size)
        if size in self.sizes:
            return self(size)
        if len(size.terms) == 1:
            ((_, factor),) = size.terms
            whole = exact_quotient(size, factor)
            if whole in self.sizes:
                return times(number(factor), self(whole))
        raise KeyError(f"{size} is not made of sizes of this kernel")

    def product(self, sizes: Iterable[Size]) -> Value:
        return times(*(self(s) for s in sizes)) if sizes else number(1)


COMBINE = {"sum": "add", "max": "maximum", "min": "minimum"}  # a reduction's function of two values


def identity(combiner: str, dtype: DType) -> Const:
    """The value that changes nothing."""
    if combiner == "sum":
        return Const(0.0 if dtype.is_float else 0, dtype)
    if dtype.is_float:
        return Const(float("-inf") if combiner == "max" else float("inf"), dtype)
    if dtype == boolean:
        return Const(combiner == "min", dtype)
    bits = 8 * dtype.itemsize - 1
    return Const(-(2**bits) if combiner == "max" else 2**bits - 1, dtype)
