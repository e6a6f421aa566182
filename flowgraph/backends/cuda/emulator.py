"""A GPU that is not there: runs a generated kernel's own LLVM IR on the CPU, strictly.

In: a `KernelSource`, a grid, a block, arguments. Out: the buffers the kernel wrote, or a `DeviceError` that
names the fault: an access outside every live buffer, a write outside a shared array, threads that diverge at
a barrier or a shuffle. Fresh buffers and shared arrays are filled with ones (float: NaN). May not know:
graphs, schedules, CUDA drivers.

The IR is numba-cuda's, before NVVM. Adapting it is a matter of lines: the kernel takes its arguments from a
table, barriers and shuffles become suspensions of a coroutine, accesses to global memory pass a guard (see
emulator_ir).
"""

from __future__ import annotations

import ctypes
import mmap
import re
import threading
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from flowgraph.backends.cuda import emulator_ir
from flowgraph.backends.cuda.compiler import Capability, KernelSource, kernel_ir
from flowgraph.errors import DeviceError

Extent = tuple[int, int, int]

# ---- adapting the IR

_ENTRY = r'define void @"?{symbol}"?\((?P<parameters>[^)]*)\)'
_ACCESS = re.compile(
    r'(?P<kind>load|store) .*?(?P<type><\d+ x \w+>|\w+) ?addrspace\(1\)\* (?P<pointer>%"[^"]+"|%[\w.$]+)'
)
_BARRIER = re.compile(r'call void @"fg\.barrier0"\(\)|call void @"fg\.barrier\.cta\.sync\.aligned\.all"')
_WARP_SYNC = re.compile(r'call void @"fg\.bar\.warp\.sync"')
_SHUFFLE = re.compile(
    r'(?P<result>%\S+) = call \{ ?i32, i1 ?\} @"fg\.shfl\.sync\.i32"\(i32 \S+ i32 (?P<mode>[^,]+), '
    r"i32 (?P<value>[^,]+), i32 (?P<operand>[^,]+), i32 [^)]+\)"
)
_SHARED = re.compile(
    r'@"(?P<name>[^"]+)" = addrspace\(3\) global (?P<type>.+?) undef(, align (?P<align>\d+))?'
)
_BITS = {"float": 32, "double": 64, "half": 16}


def _bytes(llvm_type: str) -> int:
    """Size of a scalar, `<n x T>` vector or `[n x T]` array in LLVM's notation."""
    many = re.fullmatch(r"[<\[](\d+) x (.+)[>\]]", llvm_type)
    if many:
        return int(many[1]) * _bytes(many[2])
    return (_BITS.get(llvm_type) or int(llvm_type[1:])) // 8


@dataclass(frozen=True)
class Adapted:
    """A kernel's IR for this machine. Sites are the lines of the original IR that an error may name."""

    text: str
    cooperates: bool
    accesses: tuple[int, ...]  # line of the IR, by access number
    meetings: tuple[int, ...]  # line of the IR, by barrier or shuffle number
    shared: tuple[tuple[str, int], ...]  # area of each shared array, bytes with red zones


def adapt(text: str, symbol: str, coro_end: str = "void") -> Adapted:
    """Rewrite one kernel module line by line; sites are numbered as in `accesses` and `meetings`."""
    text = text.replace('"llvm.nvvm.', '"fg.')
    cooperates = any(pattern.search(text) for pattern in (_BARRIER, _WARP_SYNC, _SHUFFLE))
    lines: list[str] = []
    accesses: list[int] = []
    meetings: list[int] = []
    shared: list[tuple[str, int]] = []

    def suspend(number: int, parity: int) -> None:
        meetings.append(number)
        lines.append(f"  call i1 (...) @llvm.coro.suspend.retcon.i1(i32 {2 * len(meetings) - 2 + parity})")

    entry = re.compile(_ENTRY.format(symbol=re.escape(symbol)))
    parameters: str | None = None
    for number, line in enumerate(text.splitlines()):
        if (
            line.startswith(("target ", '@"llvm.used"', "!nvvm"))
            or (line.startswith("!") and symbol in line)
            or re.match(r'declare .*@"(fg\.|__nv_)', line)
        ):
            continue  # NVVM's own, or defined by the support text
        head = entry.match(line)
        array = _SHARED.match(line)
        access = _ACCESS.search(line)
        shuffle = _SHUFFLE.search(line)
        if head:
            lines.append(
                "define {ptr, i32} @fg.thread(ptr %fg.frame, ptr %fg.args) presplitcoroutine"
                if cooperates
                else "define void @fg.thread(ptr %fg.args)"
            )
            parameters = head["parameters"]
        elif parameters is not None and line.startswith("entry:"):
            lines += [line, *_prologue(parameters, cooperates)]
        elif array:
            size, zone = _bytes(array["type"]), emulator_ir.RED_ZONE
            padding = -size % 16  # keeps the tail zone's address aligned
            shared.append((f"fg.shared.{len(shared)}", size + padding + 2 * zone))
            layout = f"[{zone} x i8], {array['type']}, [{zone + padding} x i8]"
            lines.append(f'@"{shared[-1][0]}" = global <{{ {layout} }}> undef, align 64')
            lines.append(
                f'@"{array["name"]}" = internal alias {array["type"]}, ptr addrspace(3) addrspacecast (ptr '
                f'getelementptr (i8, ptr @"{shared[-1][0]}", i64 {zone}) to ptr addrspace(3))'
            )
        elif access:
            guarded = f"%fg.guarded.{len(accesses)}"
            lines.append(
                f"  {guarded} = call ptr addrspace(1) @fg.guard.{_bytes(access['type'])}"
                f"(ptr addrspace(1) {access['pointer']}, i32 {len(accesses)})"
            )
            accesses.append(number)
            lines.append(line[: access.start("pointer")] + guarded + line[access.end("pointer") :])
        elif _BARRIER.search(line):
            suspend(number, 1)
        elif _WARP_SYNC.search(line):
            suspend(number, 2)
        elif shuffle:
            lines.append(f"  call void @fg.post(i32 {shuffle['value']})")
            suspend(number, 2)
            lines.append(
                f"  {shuffle['result']} = call {{i32, i1}} @fg.fetch(i32 {shuffle['mode']}, "
                f"i32 {shuffle['operand']})"
            )
        elif cooperates and line.strip().startswith("ret void"):
            lines.append("  br label %fg.end")
        elif cooperates and line == "}":  # the module's only function ends
            lines += [
                "fg.end:",
                f"  call {coro_end} @llvm.coro.end(ptr %fg.handle, i1 0, token none)",
                "  unreachable",
                line,
            ]
        else:
            lines.append(line)
    adapted = "\n".join(lines)
    names = set(re.findall(r'@"((?:fg\.(?!shared\.)|__nv_)[^"]+)"', adapted))
    unknown = names - set(emulator_ir.DEFINITIONS)
    if unknown:
        raise DeviceError(f"the emulator does not know {', '.join(sorted(unknown))}")
    return Adapted(
        emulator_ir.support(names, coro_end) + adapted,
        cooperates,
        tuple(accesses),
        tuple(meetings),
        tuple(shared),
    )


def _prologue(parameters: str, cooperates: bool) -> list[str]:
    """Begin the coroutine, then load every parameter from the argument table of 8-byte words."""
    lines = []
    if cooperates:
        lines += [
            f"  %fg.id = call token @llvm.coro.id.retcon(i32 {emulator_ir.FRAME}, i32 16, ptr %fg.frame, "
            "ptr @fg.prototype, ptr @fg.allocate, ptr @free)",
            "  %fg.handle = call ptr @llvm.coro.begin(token %fg.id, ptr null)",
        ]
    for k, parameter in enumerate(filter(None, parameters.split(", "))):
        llvm_type, name = parameter.split()
        lines += [
            f"  %fg.word.{k} = getelementptr i64, ptr %fg.args, i64 {k}",
            f"  {name} = load {llvm_type}, ptr %fg.word.{k}",
        ]
    return lines


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
    engine = _engine(emulator_ir.SCHEDULER, 2)
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

    def line(self, sites: str, number: int) -> str:
        """The generated source behind an access or a meeting: found by compiling again, with line numbers."""
        ir = kernel_ir(self.source, lines=True)
        instruction = ir.text.splitlines()[getattr(adapt(ir.text, ir.symbol), sites)[number]]
        location = re.search(r"!dbg (!\d+)", instruction)
        place = location and re.search(rf"^{location[1]} = .*DILocation\(.*?line: (\d+)", ir.text, re.M)
        if not place:
            raise DeviceError(
                f"numba gave no line for '{instruction.strip()}' of kernel '{self.source.entry}'"
            )
        row = int(place[1])
        return f"line {row}: {self.source.text.splitlines()[row - 1].strip()}"


@lru_cache(maxsize=4096)
def compile_emulated(source: KernelSource) -> EmulatedKernel:
    """The compiled kernel, kept by source within the process."""
    return EmulatedKernel(source)


# ---- memory

_PAGE = mmap.PAGESIZE
_ALIGNMENT = 256


def _map(nbytes: int) -> tuple[mmap.mmap, int]:
    """Address space that costs nothing until it is touched."""
    area = mmap.mmap(
        -1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
    )
    return area, ctypes.addressof(ctypes.c_char.from_buffer(area))


class GuardedMemory:
    """Buffers in one reserved region, 256 bytes or more apart; a shadow byte of ones for each byte in use."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self._region, self.base = _map(nbytes)
        self._shadow_region, self._shadow = _map(nbytes + _PAGE)
        self._free: list[tuple[int, int]] = [
            (self.base, nbytes)
        ]  # (address, bytes), ascending, never adjacent
        self.live: dict[int, int] = {}  # address -> bytes asked for

    @property
    def words(self) -> tuple[int, int, int]:
        """What the guard in adapted code needs: base, bytes, distance from an address to its shadow."""
        return self.base, self.nbytes, self._shadow - self.base

    def _mark(self, address: int, nbytes: int, value: int) -> None:
        ctypes.memset(self._shadow + address - self.base, value, nbytes)

    def alloc(self, nbytes: int) -> int:
        span = (max(nbytes, 1) + 2 * _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT  # with a red zone behind
        for k, (address, room) in enumerate(self._free):
            if room >= span:
                self._free[k : k + 1] = [(address + span, room - span)] if room > span else []
                self.live[address] = nbytes
                self._mark(address, nbytes, 255)
                ctypes.memset(address, 255, nbytes)
                return address
        raise DeviceError(f"the emulator's {self.nbytes >> 20} MiB cannot hold another {nbytes} bytes")

    def free(self, address: int) -> None:
        nbytes = self.live.pop(address, None)
        if nbytes is None:
            raise DeviceError(f"{address:#x} is not the address of a live buffer")
        self._mark(address, nbytes, 0)
        span = (max(nbytes, 1) + 2 * _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT
        k = bisect_right(self._free, (address, 0))
        self._free.insert(k, (address, span))
        for left in (k, k - 1):  # merge with the neighbours
            if 0 <= left < len(self._free) - 1 and sum(self._free[left]) == self._free[left + 1][0]:
                self._free[left : left + 2] = [
                    (self._free[left][0], self._free[left][1] + self._free[left + 1][1])
                ]

    def holds(self, address: int, nbytes: int) -> bool:
        """Whether a range lies in one live buffer."""
        return any(start <= address and address + nbytes <= start + size for start, size in self.live.items())

    def nearest(self, address: int) -> str:
        """An address in words: which buffer it is closest to."""

        def distance(item: tuple[int, int]) -> int:
            start, size = item
            return max(start - address, address - (start + size) + 1, 0)

        if not self.live:
            return f"{address:#x}; no buffer is live"
        start, size = min(self.live.items(), key=distance)
        return f"byte {address - start} of a buffer of {size} bytes"


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
            where = [half for word in fault[3:6] for half in (word & 0xFFFFFFFF, word >> 32)]
            block_index = tuple(_registers[6:9])
            codes = [_states[t].code for t in range(threads)] if status == 1 else []
        self.launches += 1
        entry = handle.source.entry
        if fault[0]:
            site = handle.line("accesses", fault[2])
            raise DeviceError(
                f"kernel '{entry}' reaches outside its buffers {fault[0]} times; first thread "
                f"{tuple(where[:3])} of block {tuple(where[3:])} at "
                f"{self._buffers.nearest(fault[1])}, {site}"
            )
        if status == 1:
            first = {code: t for t, code in reversed(list(enumerate(codes)))}
            told = "; ".join(
                f"thread {t} "
                + ("has returned" if code == 0 else f"is at {handle.line('meetings', (code - 1) // 2)}")
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

    def close(self) -> None:
        for address in list(self._buffers.live):
            self._buffers.free(address)
