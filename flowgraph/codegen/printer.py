"""L -> readable Python source. One printer; what differs between devices is in a dialect's tables.

Decides nothing: every loop, mask and vector is already in L. Names are made by the compiler, so a user's text can only
appear in comments, where line breaks are taken out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flowgraph.graph.types import DType, boolean, int64
from flowgraph.index_notation import COMPARISONS, RANDOM, Apply, Const, Var
from flowgraph.schedule.loops import Call, Comment, Do, For, If, Read, Set, Statement, Value, Write

INFIX = {
    "eq": ("==", 3), "ne": ("!=", 3), "lt": ("<", 3), "le": ("<=", 3), "gt": (">", 3), "ge": (">=", 3),
    "or": ("|", 4), "xor": ("^", 5), "and": ("&", 6), "add": ("+", 7), "sub": ("-", 7), "mul": ("*", 8),
    "div": ("/", 8), "floordiv": ("//", 8), "mod": ("%", 8), "accumulate": ("+", 7),
}  # fmt: skip


@dataclass(frozen=True)
class Dialect:
    """The words of one device's source. `index_literals`: dtype in which plain int literals are written."""

    name: str

    def constant(self, value: float | bool, dtype: DType) -> str:
        if dtype is boolean:
            return str(bool(value))
        if not dtype.is_float:
            return str(int(value)) if dtype == int64 else f"to_{dtype.code}({int(value)})"
        if math.isnan(value):
            text = "1e400 - 1e400"
        elif math.isinf(value):
            text = "1e400" if value > 0 else "-1e400"
        else:
            text = str(np.float32(value)) if dtype.itemsize == 4 else repr(float(value))  # the shortest that reads back
        return f"to_{dtype.code}({text})"

    def read(self, buffer: str, offset: str, dtype: DType, how: str, extra: Sequence[str]) -> str:
        kind = f"vload{how[1:]}" if how.startswith("v") and how != "v_gather" and how != "v_gather_head" else "load"
        if how.startswith("v_gather"):
            kind = f"vgather{how[len('v_gather') :]}"
        return f"{kind}_{dtype.code}({', '.join([buffer, offset, *extra])})"

    def write(self, buffer: str, offset: str, value: str, dtype: DType, how: str, extra: Sequence[str]) -> str:
        kind = f"vstore{how[1:]}" if how.startswith("v") else "store"
        return f"{kind}_{dtype.code}({', '.join([buffer, offset, value, *extra])})"

    def loop(self, variable: str, start: str, stop: str, step: str) -> tuple[list[str], str, list[str]]:
        """What stands before a loop, its header, and what ends its body."""
        bounds = [stop] if (start, step) == ("0", "1") else [start, stop] if step == "1" else [start, stop, step]
        return [], f"for {variable} in range({', '.join(bounds)}):", []

    def call(self, function: str, arguments: Sequence[str]) -> str:
        if function.startswith("at_"):  # the address of an element
            size = {"f32": 4, "i32": 4, "bool": 1}.get(function[3:], 8)
            return arguments[0] if arguments[1] == "0" else f"{arguments[0]} + {size} * ({arguments[1]})"
        return f"{function}({', '.join(arguments)})"


def print_statements(statements: Sequence[Statement], dialect: Dialect, indent: int) -> list[str]:
    """Lines of Python."""
    pad = "    " * indent
    lines: list[str] = []
    for s in statements:
        if isinstance(s, Comment):
            lines.append(f"{pad}# {one_line(s.text)}")
        elif isinstance(s, Set):
            lines.append(f"{pad}{', '.join(s.names)} = {show(s.value, dialect)}")
        elif isinstance(s, Write):
            extra = [show(e, dialect) for e in s.extra]
            lines.append(
                pad + dialect.write(s.buffer, show(s.offset, dialect), show(s.value, dialect), s.dtype, s.how, extra)
            )
        elif isinstance(s, Do):
            lines.append(pad + show(s.call, dialect))
        elif isinstance(s, For):
            before, header, after = dialect.loop(s.variable, *(show(v, dialect) for v in (s.start, s.stop, s.step)))
            lines += [pad + line for line in (*before, header)]
            lines += print_statements(s.body, dialect, indent + 1) or ([] if after else [pad + "    pass"])
            lines += [f"{pad}    {line}" for line in after]
        elif isinstance(s, If):
            lines.append(f"{pad}if {show(s.condition, dialect)}:")
            lines += print_statements(s.body, dialect, indent + 1) or [pad + "    pass"]
            if len(s.otherwise) == 1 and isinstance(s.otherwise[0], If):
                nested = print_statements(s.otherwise, dialect, indent)
                lines.append(nested[0].replace("if ", "elif ", 1))
                lines += nested[1:]
            elif s.otherwise:
                lines.append(f"{pad}else:")
                lines += print_statements(s.otherwise, dialect, indent + 1)
    return lines


def show(value: Value, dialect: Dialect, outer: int = 0) -> str:
    """An expression, with the parentheses it needs."""
    if isinstance(value, Const):
        return dialect.constant(value.value, value.dtype)
    if isinstance(value, Var):
        return value.name
    if isinstance(value, Read):
        return dialect.read(
            value.buffer, show(value.offset, dialect), value.dtype, value.how, [show(e, dialect) for e in value.extra]
        )
    if isinstance(value, Call):
        text = dialect.call(value.function, [show(a, dialect) for a in value.arguments])
        return f"({text})" if outer and value.function.startswith("at_") and " + " in text else text
    assert isinstance(value, Apply), value
    if value.function in INFIX:
        sign, level = INFIX[value.function]
        left, right = value.arguments
        first = level + 1 if value.function in COMPARISONS else level  # a < b < c would mean another thing
        text = f"{show(left, dialect, first)} {sign} {show(right, dialect, level + 1)}"
        return f"({text})" if level < outer else text
    arguments = [show(a, dialect) for a in value.arguments]
    if value.function == "neg":
        return f"-{show(value.arguments[0], dialect, 10)}"
    if value.function == "not":
        return f"select({arguments[0]}, False, True)"
    if value.function == "cast":
        return f"to_{value.dtype.code}({arguments[0]})"
    name = f"{value.function}_{value.dtype.code}" if value.function in RANDOM else value.function
    return f"{name}({', '.join(arguments)})"


def one_line(text: str) -> str:
    """Text that cannot leave a comment."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
