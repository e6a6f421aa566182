"""What `FLOWGRAPH_DEBUG` prints: a ladder from a line a compile to every graph and every launch. All of it is here.

To stderr, plain text, always in the same order. The level is read once a compile.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from flowgraph.errors import InputError
from flowgraph.graph import origin as origins
from flowgraph.graph.graph import Graph
from flowgraph.graph.size import evaluate
from flowgraph.kernels.kernel import Call, kernel_calls
from flowgraph.passes.pipeline import Record
from flowgraph.plan.plan import Plan
from flowgraph.report.memory import Memory

VARIABLE = "FLOWGRAPH_DEBUG"
LINE, PASSES, KERNELS, SOURCE, EVERYTHING = range(1, 6)


@dataclass(frozen=True)
class Tally:
    """What a backend has done so far to have native kernels."""

    kept: int = 0  # found in the store
    compiled: int = 0
    seconds: float = 0.0  # of compiling

    def __sub__(self, other: Tally) -> Tally:
        return Tally(self.kept - other.kept, self.compiled - other.compiled, self.seconds - other.seconds)

    def __str__(self) -> str:
        return f"kernels {self.compiled} compiled in {self.seconds:.2f} s, {self.kept} from the store"


def level_asked() -> int:
    """The level that the environment asks for, 0 for none; InputError for anything but 0 to 5."""
    text = os.environ.get(VARIABLE, "").strip()
    if text not in ("", "0", "1", "2", "3", "4", "5"):
        raise InputError(
            f"{VARIABLE} is a level from 0 to 5, got {text!r}",
            where=origins.here(),
            hint="1: a line a compile, 2: passes, 3: kernels, 4: generated source, 5: graphs and launches",
        )
    return int(text or 0)


def tell_compiled(
    level: int,
    declared: Graph,
    optimised: Graph,
    calls: Sequence[Call],
    passes: Sequence[Record],
    files: Callable[[], Mapping[str, str]],
    device: str,
    seconds: float,
) -> None:
    """What a level says of a program that was just compiled; `files` gives the generated source."""
    nodes = f"{len(declared.nodes())} nodes -> {len(optimised.nodes())}"
    kernels = [call.kernel for call in kernel_calls(calls)]
    count = f"{len(kernels)} kernel{'s' * (len(kernels) != 1)}"
    distinct = len(set(kernels))
    _tell(f"compiled for {device}: {nodes}, {count} ({distinct} distinct), {1e3 * seconds:.1f} ms")
    if level >= PASSES:
        for record in passes:
            _tell(f"pass {record}")
            if level >= EVERYTHING and record.changed:
                _tell(record.text().rstrip("\n"))
    if level >= KERNELS:
        for kernel in kernels:
            _tell(f"{kernel}\n  because: {kernel.reason}")
    if level >= SOURCE:
        for name, text in files().items():
            _tell(f"== {name}\n{text.rstrip()}")


def tell_first_run(level: int, plan: Plan, memory: Memory, done: Tally | None, seconds: float) -> None:
    """What a level says of the first run of a program at some sizes."""
    at = ", ".join(f"{name} = {value}" for name, value in sorted(memory.sizes.items())) or "fixed sizes"
    arena = "no arena" if memory.arena is None else f"arena {memory.arena:,} bytes"
    given = ", ".join(f"{kind}s {memory.bytes(kind):,}" for kind in ("parameter", "input", "constant"))
    _tell(
        f"first run at {at}: {arena}, {given} bytes; {done or 'kernels not counted'}; "
        f"{1e3 * seconds:.1f} ms with its steps"
    )
    if level >= EVERYTHING:
        for number, call in enumerate(plan.calls):
            loops = ", ".join(f"{axis.name}<{evaluate(axis.extent, memory.sizes)}" for axis in call.kernel.axes)
            _tell(f"launch {number}: {call.kernel.name}  for {loops or 'one point'}")


def _tell(text: str) -> None:
    print("\n".join(f"flowgraph: {line}" for line in text.splitlines()), file=sys.stderr)
