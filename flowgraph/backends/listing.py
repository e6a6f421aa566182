"""A compiled program as files that a person reads: one a kernel, and the table of launches. Knows no device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from flowgraph.kernels.kernel import KernelCall


class Prepared(Protocol):
    """A kernel with the schedule chosen for it and its loops."""

    @property
    def call(self) -> KernelCall: ...
    @property
    def schedule(self) -> Any: ...
    @property
    def loops(self) -> Any: ...


def source_files(
    kernels: Sequence[Prepared], write: Callable[[Any, Sequence[str]], str], launch: Callable[[Any], str], head: str
) -> dict[str, str]:
    """File name -> text. `write(loops, comments)` is the dialect, `launch(loops)` says how a kernel is launched."""
    files: dict[str, str] = {}
    rows = [f"# {head}"]
    for number, prepared in enumerate(kernels):
        kernel = prepared.call.kernel
        comments = [
            f"kernel {number}: {kernel.name}",
            f"because: {kernel.reason}",
            f"schedule: {prepared.schedule}",
            *kernel.comments,
        ]
        files[f"{number:02}_{kernel.name}.py"] = write(prepared.loops, comments)
        rows.append(f"# {number:>3}  {kernel.name:<44} {launch(prepared.loops)}")
    files["step.py"] = "\n".join(rows) + "\n"
    return files
