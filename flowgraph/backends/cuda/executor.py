"""The CUDA backend: kernels compiled once, the plan bound to sizes, a step's launches recorded and replayed.

Comes in: a graph, its kernels, a `CudaDevice`. Goes out: an `Executor`. Nothing waits for the device between
steps. May not know CUDA's driver, nor what a kernel computes.
"""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import accumulate
from typing import Any

import numpy as np

from flowgraph.backends.cuda.compiler import address_and_size_signature
from flowgraph.backends.cuda.device import CudaDevice, Extent
from flowgraph.backends.cuda.parameters import parameters_of
from flowgraph.backends.listing import source_files
from flowgraph.backends.once import plan_launches
from flowgraph.backends.one_run import OneRun
from flowgraph.codegen.cuda_source import TOGETHER_SIGNATURE, cuda_source
from flowgraph.errors import DeviceError
from flowgraph.graph.graph import Graph
from flowgraph.graph.size import Size, evaluate, product
from flowgraph.graph.tensor import Tensor
from flowgraph.kernels.kernel import Call, KernelCall
from flowgraph.plan.arena import lay_out, room_for
from flowgraph.plan.plan import Plan
from flowgraph.plan.turns import in_turn
from flowgraph.program import OnChunk, Sizes
from flowgraph.report.debug import Tally
from flowgraph.report.profile import Timed
from flowgraph.schedule.cuda import LARGE, CudaSchedule
from flowgraph.schedule.lower_cuda import BlockLoops, lower

BLOCKS_A_MULTIPROCESSOR = 32  # more than fit at once; a block that is done makes room for the next
MOST_ELEMENTS = 2**31 - 2**24  # indices have 32 bits, and a loop's last step may overshoot by the whole grid
SPARE = 2**24  # bytes that launching calls together may cost: a part of the cache
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
class Part:
    """One call of a launch: its number in the plan, its blocks, and what the kernel is called with."""

    number: int
    blocks: int
    arguments: tuple[int, ...]


@dataclass(frozen=True)
class Launch:
    """A kernel with everything it is launched with."""

    handle: Any
    grid: Extent
    block: Extent
    arguments: tuple[int, ...]
    parts: tuple[Part, ...]

    def start(self, target: CudaDevice) -> None:
        target.launch(self.handle, self.grid, self.block, self.arguments)


@dataclass(eq=False)
class Binding:
    """A plan at fixed sizes: addresses of inputs and outputs, and the recorded step."""

    inputs: dict[Tensor, int]
    outputs: list[tuple[int, tuple[int, ...], np.dtype]]
    step: Callable[[], None]
    launches: list[Launch] = field(default_factory=list)


class CudaExecutor:
    """Runs a plan on a CUDA device."""

    device = "cuda"

    def __init__(self, graph: Graph, calls: Sequence[Call], target: CudaDevice) -> None:
        self.graph, self.target = graph, target
        self.parameters = parameters_of(target)
        self.plan, self.compiled = planned(graph, calls)
        self._bindings: dict[tuple[tuple[str, int], ...], Binding] = {}
        self._one_run = OneRun()

    def run(
        self, sizes: Sizes, inputs: Mapping[Tensor, np.ndarray], steps: int, on_chunk: OnChunk | None
    ) -> tuple[np.ndarray, ...]:
        return self._run(sizes, inputs, lambda binding: self._replay(binding.step, steps, on_chunk))

    def profile(self, sizes: Sizes, inputs: Mapping[Tensor, np.ndarray], steps: int) -> Timed:
        work = np.zeros((1, len(self.plan.calls)))

        def measured(binding: Binding) -> None:
            runs = [partial(launch.start, self.target) for launch in binding.launches]
            for _ in range(steps):
                for launch, seconds in zip(binding.launches, self.target.time(runs), strict=True):
                    for part in launch.parts:
                        work[0, part.number] += seconds * part.blocks / launch.grid[0]

        outputs = self._run(sizes, inputs, measured)
        clock = f"{self.target.name}, each launch asked for by itself and not by a recorded step"
        return Timed(self.plan.calls, work, np.zeros_like(work), np.zeros(1), float(work.sum()), clock, outputs)

    def _run(
        self, sizes: Sizes, inputs: Mapping[Tensor, np.ndarray], work: Callable[[Binding], None]
    ) -> tuple[np.ndarray, ...]:
        with self._one_run:
            binding = self._binding(sizes)
            for storage in self._storages:
                self.parameters.bring(storage)
            for tensor, address in binding.inputs.items():
                self.target.to_device(address, np.asarray(inputs[tensor], order="C"))
            try:
                work(binding)
            finally:  # what `on_chunk` raises ends a run whose steps are made
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
        return [t.op.storage for t in sorted(self.plan.owners("parameter"), key=lambda t: t.node.serial)]

    @cached_property
    def _constants(self) -> dict[Tensor, int]:
        """Addresses of the constants, which all sizes share."""
        found = {}
        for tensor in self.plan.owners("constant"):
            array = tensor.op.array
            found[tensor] = self._alloc(self, array.nbytes)
            self.target.to_device(found[tensor], np.asarray(array, order="C"))
        return found

    @cached_property
    def _handles(self) -> list[Any]:
        """The kernel of each launch on the device, compiled or loaded from the store."""
        return [self._load(self.compiled[run.start], together=len(run) > 1) for run in self.plan.launches]

    def _load(self, compiled: Compiled, together: bool) -> Any:
        loops = compiled.loops
        if together:
            return self.target.load(cuda_source(loops, together=True), loops.name, TOGETHER_SIGNATURE)
        signature = address_and_size_signature(len(loops.buffers), len(loops.sizes))
        return self.target.load(compiled.source, loops.name, signature)

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
        with room_for(layout):
            base = self._alloc(binding, layout.total)
        address = {t: base + offset for t, offset in layout.offsets.items()} | self._constants
        working = [{name: base + offset for name, offset in each.items()} for each in layout.working]
        for tensor in plan.owners("parameter"):
            address[tensor] = self.parameters.address(tensor.op.storage)
        for tensor in plan.owners("input"):
            address[tensor] = self._alloc(binding, evaluate(plan.bytes_of(tensor), sizes))
            binding.inputs[tensor] = address[tensor]
        for number, at in in_turn(len(plan.launches), plan.turning(sizes)):
            run = plan.launches[number]
            parts = [self._part(k, partial(self._address, address, sizes, at), working[k], sizes) for k in run]
            if any(part.blocks for part in parts):
                busy = [part for part in parts if part.blocks]
                binding.launches.append(self._launch(self._handles[number], busy, len(run) > 1, binding))
        for tensor in plan.outputs:
            shape = tuple(evaluate(s, sizes) for s in tensor.shape)
            binding.outputs.append((self._address(address, sizes, {}, tensor), shape, tensor.dtype.numpy))

        launches, target = binding.launches, self.target  # not self: the step must not keep its own binding alive

        def step() -> None:
            for launch in launches:
                launch.start(target)

        with _no_collection():
            binding.step = target.capture(step)
        return binding

    def _address(self, owners: Mapping[Tensor, int], sizes: Sizes, turns: Mapping[int, int], tensor: Tensor) -> int:
        """Where a tensor lies at these turns of the loops around."""
        place = self.plan.places[tensor]
        elements = evaluate(place.start, sizes)
        for step in place.steps:
            elements += evaluate(step.by, sizes) * (turns[step.loop] % 2 if step.swings else turns[step.loop])
        return owners[place.of] + elements * tensor.dtype.itemsize

    def _part(
        self, number: int, address: Callable[[Tensor], int], working: Mapping[str, int], sizes: Sizes
    ) -> Part:
        """A call at these sizes; no blocks if there is nothing to compute."""
        call, loops = self.compiled[number].call, self.compiled[number].loops
        places = {name: address(tensor) for name, tensor in call.operands().items()} | dict(working)
        arguments = (*(places[name] for name in loops.buffers), *(evaluate(s, sizes) for s in loops.sizes))
        blocks = min(evaluate(loops.blocks, sizes), self.target.multiprocessors * BLOCKS_A_MULTIPROCESSOR)
        return Part(number, blocks, arguments)

    def _launch(self, handle: Any, parts: Sequence[Part], together: bool, owner: Binding) -> Launch:
        """One launch of a call, or of several by a table that the device reads."""
        arguments = parts[0].arguments
        if together:
            words = [0, *accumulate(part.blocks for part in parts)]
            words += [word for part in parts for word in part.arguments]
            table = self._alloc(owner, 8 * len(words))
            self.target.to_device(table, np.array(words, np.int64))
            arguments = (table, len(parts))
        threads = self.compiled[parts[0].number].loops.threads
        return Launch(handle, (sum(part.blocks for part in parts), 1, 1), (threads, 1, 1), arguments, tuple(parts))

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

    def to_compile(self) -> int:
        """0: what is kept for a device is not looked through."""
        return 0

    def tally(self) -> Tally | None:
        """None: a device does not count what it compiled and what was kept."""
        return None

    def files(self) -> dict[str, str]:
        """The generated source: every kernel with what it computes and where the user wrote it, and the table."""
        return generated_files(self.plan, self.compiled)


def planned(graph: Graph, calls: Sequence[Call]) -> tuple[Plan, list[Compiled]]:
    """The launches of a graph's kernels, and the kernels as they will run. Any call may wait for others like it: a
    launch costs more than memory that has left a cache. But large tiles are launched alone: one launch of them occupies
    the device, and arguments from a table would cost registers, so that half as many blocks fit at once."""
    return plan_launches(graph, calls, prepare, lambda call: True, SPARE, alone=lambda made: made.schedule == LARGE)


def generated_files(plan: Plan, compiled: Sequence[Compiled]) -> dict[str, str]:
    """The source of prepared kernels, by file name. Needs no device."""
    head = "One step is these launches, recorded once and replayed:"

    def launch(loops: BlockLoops) -> str:
        return f"{loops.blocks} blocks of {loops.threads} threads"

    return source_files(plan, compiled, cuda_source, launch, head)


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
