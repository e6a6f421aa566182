"""A compiled program as files that a person reads: one a kernel, and the table of launches. Knows no device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from flowgraph.kernels.kernel import KernelCall
from flowgraph.plan.plan import Plan


class Prepared(Protocol):
    """A kernel with the schedule chosen for it and its loops."""

    @property
    def call(self) -> KernelCall: ...
    @property
    def schedule(self) -> Any: ...
    @property
    def loops(self) -> Any: ...


def source_files(
    plan: Plan,
    kernels: Sequence[Prepared],
    write: Callable[[Any, Sequence[str], bool], str],
    launch: Callable[[Any], str],
    head: str,
) -> dict[str, str]:
    """File name -> text. `write(loops, comments, together)` is the dialect; `launch(loops)` says how a kernel is
    launched."""
    files: dict[str, str] = {}
    launched = [run for run in plan.launches for _ in run]
    rows = [f"# {head}"]
    if any(len(run) > 1 for run in plan.launches):
        rows.append("# (+: in one launch with the one before)")
    for number, prepared in enumerate(kernels):
        kernel = prepared.call.kernel
        comments = [
            f"kernel {number}: {kernel.name}",
            f"because: {kernel.reason}",
            f"schedule: {prepared.schedule}",
            *kernel.comments,
        ]
        files[f"{number:02}_{kernel.name}.py"] = write(prepared.loops, comments, len(launched[number]) > 1)
        around = [loop for loop in plan.loops if loop.first <= number < loop.stop]
        for depth, loop in enumerate(around):
            if loop.first == number:
                rows.append(f"#      {'  ' * depth}{loop.turns} times:")
        mark = " " if number == launched[number].start else "+"
        name = "  " * len(around) + kernel.name
        rows.append(f"# {number:>3} {mark}{name:<44} {launch(prepared.loops)}")
    files["step.py"] = "\n".join(rows) + "\n"
    return files
