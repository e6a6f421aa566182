"""Which backend runs a program. The only place that compares device names."""

from __future__ import annotations

from collections.abc import Sequence

from flowgraph.backends.reference import ReferenceExecutor
from flowgraph.errors import DeviceError
from flowgraph.graph import origin as origins
from flowgraph.graph.graph import Graph
from flowgraph.kernels.kernel import KernelCall
from flowgraph.program import Executor

DEVICES = ("auto", "cpu", "cuda", "reference")


def make_executor(device: str, graph: Graph, calls: Sequence[KernelCall], threads: int | None) -> Executor:
    """An executor for the device; raises DeviceError where there is none, never falls back in silence."""
    if device == "reference":
        return ReferenceExecutor(graph)
    if device in ("cpu", "auto"):
        from flowgraph.backends.cpu.executor import CpuExecutor

        return CpuExecutor(graph, calls, threads)
    raise DeviceError(
        f"unknown device {device!r}", where=origins.here(), hint="use one of " + ", ".join(map(repr, DEVICES))
    )
