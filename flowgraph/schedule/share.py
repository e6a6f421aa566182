"""Places in memory that several accesses compute are computed once, as early as what they depend on is known.

In: statements of L. Out: the same effects, with names for sums and products of integers that are written twice or more.
LLVM would find them, too; but every operation less saves the compiler before it a quarter of a millisecond, and the
source is easier to read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from flowgraph.graph.types import int64
from flowgraph.index_notation import Apply, Const, Var
from flowgraph.schedule.loops import (
    Call,
    Comment,
    Do,
    For,
    If,
    Read,
    Set,
    Statement,
    Value,
    Write,
    inner_of,
    operands_of,
    operation,
    parts_of,
    values_of,
    variable,
)

SHARED = frozenset({"add", "sub", "mul"})


def share_places(statements: Iterable[Statement]) -> list[Statement]:
    """The statements with repeated arithmetic on integers named."""
    made = list(statements)
    taken = set(_assigned(made))
    names = (name for number in range(10**9) if (name := f"at{number}") not in taken)
    return _share(made, names)


def _share(block: list[Statement], names: Iterator[str]) -> list[Statement]:
    """Name what is steady in this block, then go on with the blocks in it."""
    bound, unsteady = _bound(block)
    found = Counter(e for s in block for value in _all_values(s) for e in _steady(value, unsteady))
    named: dict[Value, Value] = {}
    before: dict[int, list[Statement]] = {}
    for expr, count in found.items():
        if count > 1:
            name = next(names)
            place = max((bound[v] + 1 for v in _names(expr) if v in bound), default=0)
            before.setdefault(place, []).append(Set((name,), expr))
            named[expr] = variable(name)
    made: list[Statement] = []
    for number, s in enumerate(block):
        made += before.get(number, [])
        s = _renamed(s, named) if named else s
        if isinstance(s, For):
            s = replace(s, body=tuple(_share(list(s.body), names)))
        elif isinstance(s, If):
            s = replace(s, body=tuple(_share(list(s.body), names)), otherwise=tuple(_share(list(s.otherwise), names)))
        made.append(s)
    return made


def _bound(block: list[Statement]) -> tuple[dict[str, int], set[str]]:
    """Where in a block names are bound that keep their value from there to its end, and the names that change in it."""
    times = Counter(_assigned(block))
    bound: dict[str, int] = {}
    read: set[str] = set()
    for number, s in enumerate(block):
        read |= {name for value in _all_values(s) for name in _names(value)}
        if isinstance(s, Set):
            bound |= {name: number for name in s.names if times[name] == 1 and name not in read}
    return bound, set(times) - set(bound)


def _assigned(block: Iterable[Statement]) -> Iterator[str]:
    """Every name that is bound in a block, as often as it is."""
    for s in block:
        if isinstance(s, Set):
            yield from s.names
        elif isinstance(s, For):
            yield s.variable
        yield from _assigned(inner_of(s))


def _all_values(s: Statement) -> Iterator[Value]:
    """The values of a statement, and of the statements in it."""
    yield from values_of(s)
    for inner in inner_of(s):
        yield from _all_values(inner)


def _names(value: Value) -> Iterator[str]:
    return (part.name for part in parts_of(value) if isinstance(part, Var))


def _steady(value: Value, unsteady: set[str]) -> Iterator[Value]:
    """The largest parts of a value that are integer arithmetic on names which do not change."""
    if _is_steady(value, unsteady):
        if isinstance(value, Apply):
            yield value
        return
    for part in operands_of(value):
        yield from _steady(part, unsteady)


def _is_steady(value: Value, unsteady: set[str]) -> bool:
    if isinstance(value, Var):
        return value.dtype is int64 and value.name not in unsteady
    if isinstance(value, Apply):
        simple = value.dtype is int64 and value.function in SHARED
        return simple and all(_is_steady(a, unsteady) for a in value.arguments)
    return isinstance(value, Const)


def _renamed(s: Statement, named: Mapping[Value, Value]) -> Statement:
    def of(value: Value) -> Value:
        if value in named:
            return named[value]
        if isinstance(value, Apply):
            return operation(value.function, map(of, value.arguments), value.dtype)
        if isinstance(value, Call):
            return replace(value, arguments=tuple(map(of, value.arguments)))
        if isinstance(value, Read):
            return replace(value, offset=of(value.offset), extra=tuple(map(of, value.extra)))
        return value

    if isinstance(s, Set):
        return replace(s, value=of(s.value))
    if isinstance(s, Write):
        return replace(s, offset=of(s.offset), value=of(s.value), extra=tuple(map(of, s.extra)))
    if isinstance(s, Do):
        return Do(replace(s.call, arguments=tuple(map(of, s.call.arguments))))
    if isinstance(s, For):
        body = tuple(_renamed(inner, named) for inner in s.body)
        return replace(s, start=of(s.start), stop=of(s.stop), step=of(s.step), body=body)
    if isinstance(s, If):
        body, otherwise = (tuple(_renamed(inner, named) for inner in part) for part in (s.body, s.otherwise))
        return replace(s, condition=of(s.condition), body=body, otherwise=otherwise)
    assert isinstance(s, Comment), s
    return s
