"""The CUDA backend: kernels compiled once, the plan bound to sizes, a step's launches recorded and replayed.

Comes in: a graph, its kernels, a `CudaDevice`. Goes out: an `Executor`. Nothing waits for the device between
steps. May not know CUDA's driver, nor what a kernel computes.
"""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np

from flowgraph.backends.cuda.compiler import address_and_size_signature
from flowgraph.backends.cuda.device import CudaDevice, Extent
from flowgraph.backends.cuda.parameters import parameters_of
from flowgraph.backends.listing import source_files
from flowgraph.backends.once import prepare_once
from flowgraph.codegen.cuda_source import cuda_source
from flowgraph.errors import DeviceError
from flowgraph.graph.graph import Graph
from flowgraph.graph.size import Size, evaluate, product
from flowgraph.graph.tensor import Tensor
from flowgraph.kernels.kernel import KernelCall
from flowgraph.plan.arena import lay_out
from flowgraph.plan.plan import Plan, make_plan
from flowgraph.program import OnChunk, Sizes
from flowgraph.report.debug import Tally
from flowgraph.report.profile import Timed
from flowgraph.schedule.cuda import CudaSchedule
from flowgraph.schedule.lower_cuda import BlockLoops, lower

BLOCKS_A_MULTIPROCESSOR = 32  # more than fit at once; a block that is done makes room for the next
MOST_ELEMENTS = 2**31 - 2**24  # indices have 32 bits, and a loop's last step may overshoot by the whole grid
SECONDS_A_CHUNK = 0.05  # between two looks at signals and progress
MOST_BINDINGS = 8  # sizes of a program whose memory is kept


@dataclass(frozen=True)
class Compiled:
    """A kernel with its schedule, loops and source."""

    call: KernelCall
    schedule: CudaSchedule
    loops: BlockLoops
    source: str


@dataclass(frozen=True)
class Launch:
    """A kernel with everything it is called with."""

    handle: Any
    grid: Extent
    block: Extent
    arguments: tuple[int, ...]

    def start(self, target: CudaDevice) -> None:
        target.launch(self.handle, self.grid, self.block, self.arguments)


@dataclass(eq=False)
class Binding:
    """A plan at fixed sizes: addresses of inputs and outputs, and the recorded step."""

    inputs: dict[Tensor, int]
    outputs: list[tuple[int, tuple[int, ...], np.dtype]]
    step: Callable[[], None]
    launches: list[tuple[int, Launch]] = field(default_factory=list)  # by the number of the kernel


class CudaExecutor:
    """Runs a plan on a CUDA device."""

    device = "cuda"

    def __init__(self, graph: Graph, calls: Sequence[KernelCall], target: CudaDevice) -> None:
        self.graph, self.target = graph, target
        self.plan: Plan = make_plan(graph, calls)
        self.parameters = parameters_of(target)
        self.compiled = prepare_once(self.plan.calls, prepare)
        self._bindings: dict[tuple[tuple[str, int], ...], Binding] = {}
        self._lock = threading.Lock()  # the device's memory belongs to one run at a time

    def run(
        self, sizes: Sizes, inputs: Mapping[Tensor, np.ndarray], steps: int, on_chunk: OnChunk | None
    ) -> tuple[np.ndarray, ...]:
        return self._run(sizes, inputs, lambda binding: self._replay(binding.step, steps, on_chunk))

    def profile(self, sizes: Sizes, inputs: Mapping[Tensor, np.ndarray], steps: int) -> Timed:
        work = np.zeros((1, len(self.plan.calls)))

        def measured(binding: Binding) -> None:
            numbers = [number for number, _ in binding.launches]
            runs = [partial(launch.start, self.target) for _, launch in binding.launches]
            for _ in range(steps):
                work[0, numbers] += self.target.time(runs)

        outputs = self._run(sizes, inputs, measured)
        clock = f"{self.target.name}, each launch asked for by itself and not by a recorded step"
        return Timed(self.plan.calls, work, np.zeros_like(work), np.zeros(1), float(work.sum()), clock, outputs)

    def _run(
        self, sizes: Sizes, inputs: Mapping[Tensor, np.ndarray], work: Callable[[Binding], None]
    ) -> tuple[np.ndarray, ...]:
        with self._lock:
            binding = self._binding(sizes)
            for storage in self._storages:
                self.parameters.bring(storage)
            for tensor, address in binding.inputs.items():
                self.target.to_device(address, np.asarray(inputs[tensor], order="C"))
            work(binding)
            for parameter, _ in self.graph.updates:
                self.parameters.changed(parameter.op.storage)
            results = []
            for address, shape, dtype in binding.outputs:
                results.append(np.empty(shape, dtype))
                self.target.to_host(address, results[-1])
            return tuple(results)

    def _replay(self, step: Callable[[], None], steps: int, on_chunk: OnChunk | None) -> None:
        """The step, many times; now and then wait, so that Ctrl-C and progress follow the device."""
        done, chunk = 0, 1
        while done < steps:
            started = time.perf_counter()
            count = min(chunk, steps - done)
            for _ in range(count):
                step()
            done += count
            if done == steps and on_chunk is None:
                return
            self.target.synchronize()
            if on_chunk is not None:
                on_chunk(done)
            if time.perf_counter() - started < SECONDS_A_CHUNK:
                chunk *= 2

    @cached_property
    def _storages(self) -> list[Any]:
        found = {p.of for p in self.plan.places.values() if p.kind == "parameter"}
        return [t.op.storage for t in sorted(found, key=lambda t: t.node.serial)]

    @cached_property
    def _constants(self) -> dict[Tensor, int]:
        """Addresses of the constants, which all sizes share."""
        found = {}
        for tensor, place in self.plan.places.items():
            if place.kind == "constant":
                array = place.of.op.array
                found[tensor] = self._alloc(self, array.nbytes)
                self.target.to_device(found[tensor], np.asarray(array, order="C"))
        return found

    @cached_property
    def _handles(self) -> list[Any]:
        """The kernels on the device, compiled or loaded from the store."""
        return [
            self.target.load(
                c.source, c.loops.name, address_and_size_signature(len(c.loops.buffers), len(c.loops.sizes))
            )
            for c in self.compiled
        ]

    def _alloc(self, owner: object, nbytes: int) -> int:
        """Memory that is given back when `owner` is gone."""
        address = self.target.alloc(nbytes)
        weakref.finalize(owner, self.target.free, address).atexit = False
        return address

    # sizes -> addresses and launches

    def _binding(self, sizes: Sizes) -> Binding:
        key = tuple(sorted(sizes.items()))
        if key not in self._bindings:
            if len(self._bindings) == MOST_BINDINGS:
                del self._bindings[next(iter(self._bindings))]
            self._bindings[key] = self._bind(sizes)
        return self._bindings[key]

    def _bind(self, sizes: Sizes) -> Binding:
        plan = self.plan
        self._check_indices(sizes)
        binding = Binding({}, [], lambda: None)
        layout = lay_out(plan, self.working(sizes), sizes)
        base = self._alloc(binding, layout.total)
        address = {t: base + offset for t, offset in layout.offsets.items()} | self._constants
        working = [{name: base + offset for name, offset in each.items()} for each in layout.working]
        for tensor, place in plan.places.items():
            if place.kind == "parameter":
                address[tensor] = self.parameters.address(place.of.op.storage)
            elif place.kind == "input":
                binding.inputs[tensor] = address[tensor] = self._alloc(
                    binding, evaluate(plan.bytes_of(tensor), sizes)
                )
        binding.launches = [
            (number, launch)
            for number, compiled in enumerate(self.compiled)
            if (launch := self._launch(number, compiled, address, working[number], sizes)) is not None
        ]
        for tensor in plan.outputs:
            shape = tuple(evaluate(s, sizes) for s in tensor.shape)
            binding.outputs.append((address[tensor], shape, tensor.dtype.numpy))

        launches = [launch for _, launch in binding.launches]
        target = self.target  # not self: the step must not keep its own binding alive

        def step() -> None:
            for launch in launches:
                launch.start(target)

        with _no_collection():
            binding.step = target.capture(step)
        return binding

    def _launch(
        self,
        number: int,
        compiled: Compiled,
        address: Mapping[Tensor, int],
        working: Mapping[str, int],
        sizes: Sizes,
    ) -> Launch | None:
        """The launch of a kernel at these sizes; None if there is nothing to compute."""
        call, loops = compiled.call, compiled.loops
        blocks = evaluate(loops.blocks, sizes)
        if blocks == 0:
            return None
        places = {name: address[tensor] for name, tensor in call.operands().items()} | dict(working)
        arguments = (*(places[name] for name in loops.buffers), *(evaluate(s, sizes) for s in loops.sizes))
        grid = min(blocks, self.target.multiprocessors * BLOCKS_A_MULTIPROCESSOR)
        return Launch(self._handles[number], (grid, 1, 1), (loops.threads, 1, 1), arguments)

    def _check_indices(self, sizes: Sizes) -> None:
        """Kernels count in 32 bits: refuse what they could not reach."""

        def check(count: Size, what: str, where: object) -> None:
            found = evaluate(count, sizes)
            if found > MOST_ELEMENTS:
                raise DeviceError(
                    f"{what} has {found} elements; on CUDA at most {MOST_ELEMENTS} are possible",
                    where=where,
                    hint="feed smaller batches, or use device='cpu'",
                )

        for tensor in self.plan.places:
            check(tensor.type.count, tensor.label or tensor.op.name, tensor.origin)
        for compiled in self.compiled:
            kernel = compiled.call.kernel
            for axes in (kernel.axes, *(nest.axes for nest in kernel.nests)):
                check(product(a.extent for a in axes), f"a loop of {kernel.name}", kernel.origin)

    # for people

    def working(self, sizes: Sizes) -> list[dict[str, int]]:
        """Bytes that every launch needs for itself, by name."""
        return [{b.name: evaluate(b.bytes, sizes) for b in c.call.kernel.work} for c in self.compiled]

    def tally(self) -> Tally | None:
        """None: a device does not count what it compiled and what was kept."""
        return None

    def files(self) -> dict[str, str]:
        """The generated source: every kernel with what it computes and where the user wrote it, and the table."""
        return generated_files(self.compiled)


def generated_files(compiled: Sequence[Compiled]) -> dict[str, str]:
    """The source of prepared kernels, by file name. Needs no device."""
    head = "One step is these launches, recorded once and replayed:"
    return source_files(compiled, cuda_source, lambda loops: f"{loops.blocks} blocks of {loops.threads} threads", head)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Garbage gives memory back, and the device waits for that: not while launches are being recorded."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def prepare(call: KernelCall) -> Compiled:
    """Schedule, lower and print a kernel."""
    loops, schedule = lower(call.kernel)
    return Compiled(call, schedule, loops, cuda_source(loops))
