"""The CPU backend: kernels compiled once, the plan bound to sizes, the native driver walking the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flowgraph.backends.cpu.arguments import Arguments, loop_rows, row_of_calls
from flowgraph.backends.cpu.store import KernelSource
from flowgraph.backends.cpu.team import CpuRuntime, Tape
from flowgraph.backends.cpu.words import AGAIN, LOOP, Row
from flowgraph.backends.cpu.words import Profile as Words
from flowgraph.backends.listing import source_files
from flowgraph.backends.once import plan_launches
from flowgraph.backends.one_run import OneRun
from flowgraph.codegen.cpu_prelude import default_tile
from flowgraph.codegen.cpu_source import cpu_source
from flowgraph.graph.graph import Graph
from flowgraph.graph.size import GUESS, Size, evaluate, names_in
from flowgraph.graph.tensor import Tensor
from flowgraph.kernels.kernel import Call, Kernel, KernelCall
from flowgraph.ops.leaf import aligned
from flowgraph.plan.arena import Arena, lay_out, room_for
from flowgraph.plan.barriers import Access, Span, place_barriers, verify_barriers
from flowgraph.plan.plan import Plan
from flowgraph.program import OnChunk, Sizes
from flowgraph.report.debug import Tally
from flowgraph.report.profile import Timed
from flowgraph.schedule.cpu import CpuSchedule
from flowgraph.schedule.loops import Loops
from flowgraph.schedule.lower_cpu import lower

MOST_BINDINGS = 16  # sizes of a program whose memory is kept
SMALL = 20_000  # nanoseconds: such calls may wait for one another; larger ones run while what they read is in the cache
SPARE = 2**18  # bytes that launching calls together may cost: a part of the cache
NANOSECONDS_A_THREAD = 1500  # less work than this is not worth waking another thread for


@dataclass(frozen=True)
class Compiled:
    """A kernel with its schedule, loops and source."""

    call: KernelCall
    schedule: CpuSchedule
    loops: Loops
    source: str


@dataclass
class Binding:
    """A plan at fixed sizes: memory, argument words, launch table. Input addresses are filled in per run."""

    table: np.ndarray
    words: np.ndarray
    arena: np.ndarray
    input_words: dict[Tensor, list[tuple[int, int]]]
    outputs: list[np.ndarray]
    alive: list[np.ndarray]
    rows: list[int]  # of the table, by the number of the call


class CpuExecutor:
    """Runs a plan on the processors of this machine."""

    device = "cpu"

    def __init__(
        self, graph: Graph, calls: Sequence[Call], threads: int | None, runtime: CpuRuntime | None = None
    ) -> None:
        self.graph = graph
        self.runtime = runtime or shared_runtime(threads)
        self.plan, self.compiled = planned(graph, calls)
        self._bindings: dict[tuple[tuple[str, int], ...], Binding] = {}
        found = {p.of for p in self.plan.places.values() if p.kind == "parameter"}
        self._parameters = sorted(found, key=lambda t: t.node.serial)
        self._addresses: list[int] | None = None
        self._one_run = OneRun()

    @property
    def addresses(self) -> list[int]:
        """Native addresses of the kernels: compiled, or loaded from the store, on first use. (Not a `cached_property`:
        Python 3.11's holds a lock meanwhile, which a forked child would never get.)"""
        if self._addresses is None:
            self._addresses = self.runtime.store.load(self._sources())
        return self._addresses

    def _sources(self) -> list[KernelSource]:
        return [KernelSource(c.loops.name, c.source, c.loops.name) for c in self.compiled]

    def to_compile(self) -> int:
        """Kernels that the first run must compile, since the store does not have them."""
        return 0 if self._addresses is not None else self.runtime.store.missing(self._sources())

    def run(
        self, sizes: Sizes, inputs: Mapping[Tensor, np.ndarray], steps: int, on_chunk: OnChunk | None
    ) -> tuple[np.ndarray, ...]:
        return self._run(sizes, inputs, steps, on_chunk)[0]

    def profile(self, sizes: Sizes, inputs: Mapping[Tensor, np.ndarray], steps: int) -> Timed:
        outputs, tape = self._run(sizes, inputs, steps, None, profiled=True)
        seconds, threads = tape.seconds(), self.runtime.threads if tape.team > 1 else 1
        wait, work = seconds[:threads, :, Words.WAIT], seconds[:threads, :, Words.WORK]
        rows = self._binding(sizes).rows
        return Timed(
            self.plan.calls,
            work[:, rows],
            wait[:, rows],
            wait[:, -1],
            1e-9 * tape.nanoseconds,
            "the native driver, on every thread, before and after each launch",
            outputs,
        )

    def _run(
        self,
        sizes: Sizes,
        inputs: Mapping[Tensor, np.ndarray],
        steps: int,
        on_chunk: OnChunk | None,
        profiled: bool = False,
    ) -> tuple[tuple[np.ndarray, ...], Tape]:
        with self._one_run:
            binding = self._binding(sizes)
            for parameter in self._parameters:
                parameter.op.storage.read()
            fed = {t: self._apart(inputs[t]) for t in binding.input_words}
            for tensor, places in binding.input_words.items():
                for word, offset in places:
                    binding.words[:, word] = fed[tensor].ctypes.data + offset
            tape = Tape(binding.table, self.runtime.new_profile(binding.table) if profiled else None)
            try:
                self.runtime.run_tape(tape, steps, on_chunk)
            finally:  # what `on_chunk` raises ends a run whose steps are made
                for parameter, _ in self.graph.updates:
                    parameter.op.storage.version += 1
            return tuple(output.copy() for output in binding.outputs), tape

    def _binding(self, sizes: Sizes) -> Binding:
        key = tuple(sorted(sizes.items()))
        if key not in self._bindings:
            if len(self._bindings) == MOST_BINDINGS:
                del self._bindings[next(iter(self._bindings))]
            self._bindings[key] = self._bind(sizes)
        return self._bindings[key]

    def _apart(self, array: np.ndarray) -> np.ndarray:
        """The array, copied if a parameter lives in it: the step would change its own input."""
        shared = any(np.may_share_memory(array, p.op.storage.array) for p, _ in self.graph.updates)
        return array.copy() if shared else array

    def _bind(self, sizes: Sizes) -> Binding:
        plan = self.plan
        layout = lay_out(plan, self.working(sizes), sizes)
        with room_for(layout):
            arena = aligned((max(layout.total, 1),), np.uint8)
        base = arena.ctypes.data
        address = {t: base + offset for t, offset in layout.offsets.items()}
        alive: list[np.ndarray] = []
        for tensor in plan.owners("parameter"):
            address[tensor] = tensor.op.storage.array.ctypes.data
        for tensor in plan.owners("constant"):
            constant = aligned(tensor.op.array.shape, tensor.dtype.numpy)
            constant[...] = tensor.op.array
            alive.append(constant)
            address[tensor] = constant.ctypes.data
        words = Arguments(plan, sizes, address)
        for number, compiled in enumerate(self.compiled):
            working = {name: base + offset for name, offset in layout.working[number].items()}
            words.add(compiled.loops.buffers, compiled.call.operands(), working, compiled.loops.sizes)
        teams, tasks = self._teams(sizes)
        loops = plan.turning(sizes)
        copies = words.copies(self.runtime.threads)
        table = np.zeros((len(self.compiled) + 2 * len(loops), len(Row)), np.int64)
        rows = row_of_calls(len(self.compiled), loops)
        for k, row in enumerate(rows):
            table[row, Row.KERNEL] = self.addresses[k]
            table[row, Row.ARGS] = copies.ctypes.data + 8 * words.starts[k]
            table[row, Row.TASKS] = tasks[k]
            table[row, Row.TEAM] = teams[k]
        for run in plan.launches:
            places = rows[run.start : run.stop]
            table[places, Row.BEFORE] = np.cumsum([0, *(tasks[k] for k in run[:-1])])
            table[places, Row.TOTAL] = sum(tasks[k] for k in run)
        accesses = self._accesses(teams, layout, sizes)
        barriers = place_barriers(accesses, loops)
        verify_barriers(accesses, barriers, loops)
        table[rows, Row.BARRIER] = barriers
        table[:, Row.STRIDE] = copies.strides[0] if len(copies) > 1 else 0
        for number, loop in enumerate(loops):
            moves = words.moves(number)
            alive.append(moves)
            begin, end = loop_rows(number, loops)
            for row, mark, jump in ((begin, LOOP, end + 1), (end, AGAIN, begin + 1)):
                table[row, [Row.MOVES, Row.ARGS, Row.MARK]] = moves.ctypes.data, copies.ctypes.data, mark
                table[row, [Row.TEAM, Row.TURNS, Row.JUMP]] = 1, loop.turns, jump
        outputs = []
        for tensor in plan.outputs:
            shape = tuple(evaluate(s, sizes) for s in tensor.shape)
            place = plan.places[tensor]
            start = address[place.of] - base + evaluate(place.start, sizes) * tensor.dtype.itemsize
            nbytes = evaluate(plan.bytes_of(tensor), sizes)
            outputs.append(arena[start : start + nbytes].view(tensor.dtype.numpy).reshape(shape))
        return Binding(table, copies, arena, words.input_words, outputs, alive, rows)

    def _teams(self, sizes: Sizes) -> tuple[list[int], list[int]]:
        """Threads and tasks of every call, from what its launch costs at these sizes."""
        teams: list[int] = []
        tasks = [evaluate(c.loops.tasks, sizes) for c in self.compiled]
        for run in self.plan.launches:
            worth = sum(cost(self.compiled[k].call.kernel, sizes) for k in run) / NANOSECONDS_A_THREAD
            team = max(1, min(self.runtime.threads, sum(tasks[k] for k in run), int(worth)))
            teams += [team] * len(run)
        return teams, tasks

    def _accesses(self, teams: Sequence[int], arena: Arena, sizes: Sizes) -> list[Access]:
        """What every launch touches: bytes of the arena, or a given array as a whole."""

        def span(tensor: Tensor) -> Span:
            place = self.plan.places[tensor]
            if place.kind != "arena":
                return Span(place.of, 0, 1)
            width = tensor.dtype.itemsize
            start = arena.offsets[place.of] + evaluate(place.start, sizes) * width
            steps = tuple((step.loop, evaluate(step.by, sizes) * width, step.swings) for step in place.steps)
            return Span("arena", start, start + evaluate(self.plan.bytes_of(tensor), sizes), steps)

        made = []
        for compiled, team, (offset, size) in zip(self.compiled, teams, arena.scratch, strict=True):
            writes = [span(t) for t in compiled.call.outputs]
            if size:
                writes.append(Span("arena", offset, offset + size))
            made.append(Access(tuple(span(t) for t in compiled.call.inputs), tuple(writes), team))
        return made

    def working(self, sizes: Sizes) -> list[dict[str, int]]:
        """Bytes that every launch needs for itself, by name: packed panels, and what the kernel asks for."""
        return [working_memory(c, sizes) for c in self.compiled]

    def tally(self) -> Tally:
        """Kernels that this process found in the store, and compiled, for all its programs."""
        done = self.runtime.store.done
        return Tally(done.hits, done.compiled, done.compile_seconds)

    def files(self) -> dict[str, str]:
        """The generated source: every kernel with what it computes and where the user wrote it, and the table."""
        return generated_files(self.plan, self.compiled)


def planned(graph: Graph, calls: Sequence[Call]) -> tuple[Plan, list[Compiled]]:
    """The launches of a graph's kernels, and the kernels as they will run."""
    return plan_launches(graph, calls, prepare, lambda call: cost(call.kernel, guesses(call)) <= SMALL, SPARE)


def guesses(call: KernelCall) -> Sizes:
    return {name: GUESS for size in call.kernel.sizes() for name in names_in(size)}


def working_memory(compiled: Compiled, sizes: Sizes) -> dict[str, int]:
    """Bytes of a launch's own memory by name: packed panels, and what the kernel asks for."""
    asked: dict[str, Size] = {b.name: b.bytes for b in compiled.call.kernel.work}
    if compiled.loops.scratch != 0:
        asked["panel"] = compiled.loops.scratch
    return {name: evaluate(size, sizes) for name, size in asked.items()}


def generated_files(plan: Plan, compiled: Sequence[Compiled]) -> dict[str, str]:
    """The source of prepared kernels, by file name."""
    head = "One step is this table of launches, walked by the native driver:"

    def write(loops: Loops, comments: Sequence[str], together: bool) -> str:
        return cpu_source(loops, comments)  # the driver splits the tasks of a launch, of one call or of several

    return source_files(plan, compiled, write, lambda loops: f"{loops.tasks} tasks", head)


def cost(kernel: Kernel, sizes: Sizes) -> float:
    """A rough estimate of one launch on one thread, in nanoseconds: points times operations."""
    total = 0.0
    outer = 1.0
    for axis in kernel.axes:
        outer *= evaluate(axis.extent, sizes)
    for nest in kernel.nests:
        points = outer
        for axis in nest.axes:
            points *= evaluate(axis.extent, sizes)
        operations = max(1, len(nest.lets) + len(nest.reductions) + len(nest.stores))
        is_product = bool(nest.reductions) and not nest.lets and len(kernel.axes) == 2
        total += points * (1 / 50 if is_product else operations / 8)
    return total


def prepare(call: KernelCall) -> Compiled:
    """Schedule, lower and print a kernel."""
    dtypes = {b.type.dtype for b in call.kernel.buffers if b.type.dtype.is_float}
    code = "f64" if any(d.itemsize == 8 for d in dtypes) else "f32"
    loops, schedule = lower(call.kernel, default_tile(code))
    return Compiled(call, schedule, loops, cpu_source(loops))


_runtimes: dict[int | None, CpuRuntime] = {}


def shared_runtime(threads: int | None) -> CpuRuntime:
    """One team and one store for all programs of a process that ask for as many threads."""
    if threads not in _runtimes:
        _runtimes[threads] = CpuRuntime(threads)
    return _runtimes[threads]
