"""A GPU that is not there: runs a generated kernel's own LLVM IR on the CPU, strictly.

In: a `KernelSource`, a grid, a block, arguments. Out: the buffers the kernel wrote, or a `DeviceError` that
names the fault: an access outside every live buffer, a write outside a shared array, threads that diverge at
a barrier or a shuffle. May not know: graphs, schedules, CUDA drivers.
"""

from __future__ import annotations

import ctypes
import itertools
import re
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from flowgraph.backends.cuda import emulator_ir
from flowgraph.backends.cuda.compiler import Capability, KernelSource, kernel_ir
from flowgraph.backends.cuda.emulator_adapt import adapt
from flowgraph.backends.cuda.emulator_memory import GuardedMemory
from flowgraph.backends.cuda.emulator_scheduler import SCHEDULER
from flowgraph.errors import DeviceError

Extent = tuple[int, int, int]

# ---- the machine state that adapted code shares with the scheduler

_registers = (ctypes.c_int32 * len(emulator_ir.REGISTERS))()
_slots = (ctypes.c_int32 * 2048)()
_memory = (ctypes.c_int64 * 3)()  # base, bytes, distance to the shadow
_fault = (ctypes.c_int64 * 6)()  # count, address, site, thread xyz and block xyz
_lock = threading.Lock()  # one launch at a time: there is one machine state


class Launch(ctypes.Structure):
    _fields_ = [
        ("start", ctypes.c_void_p),
        ("args", ctypes.c_void_p),
        ("frames", ctypes.c_void_p),
        ("states", ctypes.c_void_p),
        ("shared", ctypes.c_void_p),
        ("threads", ctypes.c_int32),
        ("blocks", ctypes.c_int32),
        ("cooperates", ctypes.c_int32),
        ("reverse", ctypes.c_int32),
        ("arrays", ctypes.c_int32),
        ("unused", ctypes.c_int32),
    ]


class State(ctypes.Structure):
    _fields_ = [("continuation", ctypes.c_void_p), ("code", ctypes.c_int32)]


_frames = (ctypes.c_char * (1024 * emulator_ir.FRAME + 64))()
_states = (State * 1024)()
_FRAMES = (ctypes.addressof(_frames) + 63) // 64 * 64


@cache
def _machine() -> Any:
    """LLVM ready for this processor, with the machine state's symbols in place."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    for name, area in (("registers", _registers), ("slots", _slots), ("memory", _memory), ("fault", _fault)):
        llvm.add_symbol(f"fg.{name}", ctypes.addressof(area))
    return llvm.Target.from_default_triple()


def _engine(text: str, speed: int) -> Any:
    """Compile a module; the engine owns the code."""
    target = _machine()
    module = llvm.parse_assembly(text)
    module.triple = llvm.get_process_triple()
    machine = target.create_target_machine(
        opt=speed, cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten()
    )
    module.data_layout = str(machine.target_data)
    module.verify()
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=speed))
    builder.getModulePassManager().run(module, builder)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    return engine


@cache
def _scheduler() -> tuple[Any, Callable[[Any], int]]:
    engine = _engine(SCHEDULER, 2)
    return engine, ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)(engine.get_function_address("fg.run"))


_WORD: dict[str, Any] = {
    "i64": ctypes.c_int64,
    "i32": ctypes.c_int32,
    "f32": ctypes.c_float,
    "f64": ctypes.c_double,
    "bool": ctypes.c_bool,
}


class EmulatedKernel:
    """A kernel compiled for this processor."""

    def __init__(self, source: KernelSource) -> None:
        self.source = source
        ir = kernel_ir(source)
        self.adapted = adapt(ir.text, ir.symbol, "void" if llvm.llvm_version_info >= (22,) else "i1")
        self._engine = _engine(self.adapted.text, 1)
        self._start = self._engine.get_function_address("fg.thread")
        areas = [(self._engine.get_global_value_address(name), size) for name, size in self.adapted.shared]
        self._areas = (ctypes.c_int64 * (2 * len(areas)))(*(word for area in areas for word in area))
        self._words = [_WORD[name] for name in source.signature]

    def launch(self, grid: Extent, block: Extent, args: Sequence[float], reverse: bool = False) -> int:
        """Run every thread of every block: 0, or 1 for divergence, 2 for a write outside a shared array."""
        if len(args) != len(self._words):
            raise DeviceError(
                f"kernel '{self.source.entry}' takes {len(self._words)} arguments, not {len(args)}"
            )
        table = (ctypes.c_int64 * max(1, len(args)))()
        for k, (word, value) in enumerate(zip(self._words, args, strict=True)):
            word.from_buffer(table, 8 * k).value = value
        _registers[3:6], _registers[9:12], _registers[13] = list(block), list(grid), 32
        run = Launch(
            self._start,
            ctypes.addressof(table),
            _FRAMES,
            ctypes.addressof(_states),
            ctypes.addressof(self._areas),
            block[0] * block[1] * block[2],
            grid[0] * grid[1] * grid[2],
            self.adapted.cooperates,
            reverse,
            len(self.adapted.shared),
            0,
        )
        return _scheduler()[1](ctypes.addressof(run))

    def line(self, number: int) -> str:
        """The generated source behind a line of the IR: found by compiling again, with line numbers."""
        plain, annotated = kernel_ir(self.source), kernel_ir(self.source, lines=True)
        before, after = adapt(plain.text, plain.symbol), adapt(annotated.text, annotated.symbol)
        lines = annotated.text.splitlines()
        same = dict(zip((a.line for a in before.accesses), (a.line for a in after.accesses), strict=True))
        same |= dict(zip(before.meetings, after.meetings, strict=True))
        location = re.search(r"!dbg (!\d+)", lines[same[number]])
        place = location and re.search(
            rf"^{location[1]} = .*DILocation\(.*?line: (\d+)", annotated.text, re.M
        )
        if not place:
            raise DeviceError(
                f"numba gave no line for '{lines[same[number]].strip()}' of '{self.source.entry}'"
            )
        row = int(place[1])
        return f"line {row}: {self.source.text.splitlines()[row - 1].strip()}"


@lru_cache(maxsize=512)
def compile_emulated(source: KernelSource) -> EmulatedKernel:
    """The compiled kernel, kept by source within the process."""
    return EmulatedKernel(source)


# ---- the device


class EmulatedDevice:
    """The device protocol on the CPU. `reverse` runs threads and blocks in reverse order."""

    name = "emulated CUDA device"
    capability: Capability = (9, 0)
    multiprocessors = 4  # few, so that small tests meet every branch

    def __init__(self, memory: int = 1 << 30, reverse: bool = False) -> None:
        self._buffers = GuardedMemory(memory)
        self.reverse = reverse
        self.launches = 0

    def alloc(self, nbytes: int) -> int:
        return self._buffers.alloc(nbytes)

    def free(self, address: int) -> None:
        self._buffers.free(address)

    def _range(self, address: int, array: np.ndarray[Any, Any], verb: str) -> None:
        if not array.flags.c_contiguous:
            raise DeviceError(f"cannot {verb} an array that is not C-contiguous")
        if array.nbytes and not self._buffers.holds(address, array.nbytes):
            raise DeviceError(f"cannot {verb} {array.nbytes} bytes at {self._buffers.nearest(address)}")

    def to_device(self, address: int, array: np.ndarray[Any, Any]) -> None:
        self._range(address, array, "copy in")
        ctypes.memmove(address, array.ctypes.data, array.nbytes)

    def to_host(self, address: int, array: np.ndarray[Any, Any]) -> None:
        self._range(address, array, "copy out")
        ctypes.memmove(array.ctypes.data, address, array.nbytes)

    def load(self, source_text: str, entry: str, signature: Sequence[str]) -> EmulatedKernel:
        return compile_emulated(KernelSource(source_text, entry, tuple(signature)))

    def launch(self, handle: EmulatedKernel, grid: Extent, block: Extent, args: Sequence[float]) -> None:
        threads = block[0] * block[1] * block[2]
        if not (
            1 <= threads <= 1024
            and min(*grid, *block) >= 1
            and block[2] <= 64
            and grid[0] < 1 << 31
            and max(grid[1:]) < 1 << 16
        ):
            raise DeviceError(f"a grid of {grid} blocks of {block} threads is outside CUDA's limits")
        with _lock:
            _memory[:] = list(self._buffers.words)
            _fault[0] = 0
            status = handle.launch(grid, block, args, self.reverse)
            fault = list(_fault)
            place = [half for word in fault[3:6] for half in (word & 0xFFFFFFFF, word >> 32)]
            block_index = tuple(_registers[6:9])
            codes = [_states[t].code for t in range(threads)] if status == 1 else []
        self.launches += 1
        entry = handle.source.entry
        if fault[0]:
            count, address, site = fault[:3]
            access = handle.adapted.accesses[site]
            where = "its shared arrays" if access.space == 3 else "its buffers"
            wrong = (
                f"is not aligned to {access.nbytes} bytes"
                if address % access.nbytes
                else f"is outside {where}"
            )
            nearest = f" at {self._buffers.nearest(address)}" if access.space == 1 else ""
            raise DeviceError(
                f"kernel '{entry}': {count} accesses to memory are wrong; the first {wrong}: thread "
                f"{tuple(place[:3])} of block {tuple(place[3:])}{nearest}, {handle.line(access.line)}"
            )
        if status == 1:
            first = {code: t for t, code in reversed(list(enumerate(codes)))}
            told = "; ".join(
                f"thread {t} "
                + (
                    "has returned"
                    if code == 0
                    else f"is at {handle.line(handle.adapted.meetings[(code - 1) // 2])}"
                )
                for code, t in first.items()
            )
            raise DeviceError(
                f"threads of block {block_index} of kernel '{entry}' diverge at a barrier or shuffle "
                f"({threads} threads, warps of 32): {told}"
            )
        if status == 2:
            raise DeviceError(f"kernel '{entry}' writes outside a shared array in block {block_index}")

    def capture(self, run: Callable[[], None]) -> Callable[[], None]:
        """There is nothing to record here: replaying is running again."""
        return run

    def synchronize(self) -> None:
        """Launches have finished when `launch` returns."""

    def time(self, runs: Sequence[Callable[[], None]]) -> list[float]:
        """What emulating takes, which says nothing of a GPU."""
        stamps = [time.perf_counter()]
        for run in runs:
            run()
            stamps.append(time.perf_counter())
        return [end - start for start, end in itertools.pairwise(stamps)]

    def close(self) -> None:
        for address in list(self._buffers.live):
            self._buffers.free(address)
