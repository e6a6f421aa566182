"""The verifier of L: names are bound before they are used, and memory is touched only through the kernel's buffers."""

from __future__ import annotations

from collections.abc import Iterable

from flowgraph.errors import VerificationError
from flowgraph.index_notation import Var
from flowgraph.schedule.loops import For, If, Read, Set, Statement, Write, parts_of, values_of


def verify_statements(
    name: str, statements: Iterable[Statement], buffers: Iterable[str], known: Iterable[str]
) -> None:
    """Check lowered statements; `known` are names bound before they begin. Raises VerificationError."""
    memory = set(buffers)
    _check(name, list(statements), memory, set(known) | memory)


def _check(name: str, statements: list[Statement], buffers: set[str], known: set[str]) -> None:
    for s in statements:
        for value in values_of(s):
            for part in parts_of(value):
                if isinstance(part, Var) and part.name not in known:
                    raise VerificationError(f"{name}: {part.name} is used before it is bound, in {s}")
                if isinstance(part, Read) and part.buffer not in known:
                    raise VerificationError(f"{name}: {part.buffer} is read but is no buffer, in {s}")
        if isinstance(s, Write) and s.buffer not in buffers:
            raise VerificationError(f"{name}: {s.buffer} is written but is no buffer, in {s}")
        if isinstance(s, Set):
            known |= set(s.names)
        elif isinstance(s, For):
            _check(name, list(s.body), buffers, known | {s.variable})
        elif isinstance(s, If):
            inner, other = set(known), set(known)
            _check(name, list(s.body), buffers, inner)
            _check(name, list(s.otherwise), buffers, other)
            known |= inner & other if s.otherwise else set()
