"""Which backend runs a program. The only place that compares device names."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Union

from flowgraph.backends.reference import ReferenceExecutor
from flowgraph.errors import DeviceError
from flowgraph.graph import origin as origins
from flowgraph.graph.graph import Graph
from flowgraph.kernels.kernel import Call
from flowgraph.program import Executor

if TYPE_CHECKING:
    from flowgraph.backends.cuda.device import CudaDevice

DEVICES = ("auto", "cpu", "cuda", "reference")
Device = Union[str, "CudaDevice"]  # a name, or a device that the caller has opened


def kind(device: Device) -> str:
    """What a device is, as far as compiling for it goes: "cpu", "cuda" or "reference"."""
    if device == "auto":
        from flowgraph.backends.cuda.device import cuda_available

        return "cuda" if cuda_available()[0] else "cpu"
    return device if isinstance(device, str) else "cuda"


def wants_blocks(kind: str) -> bool:
    """Whether a kind of device reads loops' weights sooner in blocks of columns: processors do; a GPU's threads fetch
    what lies side by side, whatever is above it."""
    return kind == "cpu"


def make_executor(device: Device, graph: Graph, calls: Sequence[Call], threads: int | None) -> Executor:
    """An executor for the device; raises DeviceError where there is none, never falls back in silence."""
    if device == "auto":
        device = kind(device)
    if device == "reference":
        return ReferenceExecutor(graph)
    if device == "cpu":
        from flowgraph.backends.cpu.executor import CpuExecutor

        return CpuExecutor(graph, calls, threads)
    if device == "cuda" or not isinstance(device, str):
        from flowgraph.backends.cuda.executor import CudaExecutor

        return CudaExecutor(graph, calls, first_cuda_device() if isinstance(device, str) else device)
    raise _unknown(device)


def _unknown(device: object) -> DeviceError:
    hint = "use one of " + ", ".join(map(repr, DEVICES))
    return DeviceError(f"unknown device {device!r}", where=origins.here(), hint=hint)


def generated_source(device: str, graph: Graph, calls: Sequence[Call]) -> dict[str, str]:
    """The source a device would run, by file name. Needs no such device; DeviceError for a name that is none."""
    if device == "cuda":
        from flowgraph.backends.cuda import executor as cuda

        return cuda.generated_files(*cuda.planned(graph, calls))
    if device == "cpu":
        from flowgraph.backends.cpu import executor as cpu

        return cpu.generated_files(*cpu.planned(graph, calls))
    if device != "reference":
        raise _unknown(device)
    return ReferenceExecutor(graph).files()


def first_cuda_device() -> CudaDevice:
    """The first CUDA device, opened once a process; DeviceError with the reason where there is none."""
    from flowgraph.backends.cuda.device import cuda_available

    usable, reason = cuda_available()
    if not usable:
        raise DeviceError(
            f"device 'cuda' cannot be used: {reason}",
            where=origins.here(),
            hint="`flowgraph doctor` says what is missing; device='cpu' runs anywhere",
        )
    return _opened()


@cache
def _opened() -> CudaDevice:
    from flowgraph.backends.cuda.device import RealDevice

    return RealDevice()
