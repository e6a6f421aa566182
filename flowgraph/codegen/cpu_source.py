"""The CPU dialect: a lowered kernel as numba source with the native signature (args, lo, hi)."""

from __future__ import annotations

from collections.abc import Sequence

from flowgraph.codegen.printer import Dialect, one_line, print_statements
from flowgraph.schedule.loops import Loops

CPU = Dialect("cpu")


def cpu_source(loops: Loops, comments: Sequence[str] = ()) -> str:
    """One Python function; word k of `args` is a buffer's address, then the sizes, in the order of `loops`."""
    lines = [f"# {one_line(c)}" for c in comments]
    lines.append(f"def {loops.name}(args, lo, hi):")
    lines += [f"    {name} = arg(args, {k})" for k, name in enumerate((*loops.buffers, *loops.size_names))]
    lines += print_statements(loops.body, CPU, 1)
    return "\n".join(lines) + "\n"
