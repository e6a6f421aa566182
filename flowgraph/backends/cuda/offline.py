"""What ptxas makes of a generated kernel, without a GPU: registers, stack, spills, shared memory, SASS.

In: source text and a compute capability. Out: a `Report` that tests assert on. May not know: devices,
schedules.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from flowgraph.backends.cuda.compiler import Capability, KernelSource, address_and_size_signature, link_cubin
from flowgraph.errors import DeviceError


@dataclass(frozen=True)
class Report:
    """One kernel on one architecture; sizes in bytes."""

    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    shared_bytes: int
    sass: str

    @property
    def instructions(self) -> tuple[str, ...]:
        """The opcodes with their modifiers, in program order ("LDG.E.128", "FFMA", …)."""
        return tuple(
            re.findall(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P[\dT]+\s+)?([A-Z][A-Z0-9_.]*)", self.sass, re.M)
        )

    def count(self, pattern: str) -> int:
        """How many instructions match a regular expression from their beginning."""
        return sum(bool(re.match(pattern, name)) for name in self.instructions)

    @property
    def spills(self) -> bool:
        """Whether anything lives in local memory: spilled registers or a stack frame."""
        return bool(self.stack or self.spill_stores or self.spill_loads or self.count(r"LDL|STL"))


@cache
def _disassembler() -> str:
    from cuda import pathfinder

    tool = pathfinder.find_nvidia_binary_utility("nvdisasm")
    if tool is None:
        raise DeviceError("nvdisasm is not installed", hint="pip install nvidia-cuda-nvdisasm")
    return str(tool)


def disassemble(code: bytes) -> str:
    """The SASS of a cubin."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(code)
        done = subprocess.run([_disassembler(), "-c", str(path)], capture_output=True, text=True)
    if done.returncode:
        raise DeviceError(f"nvdisasm refused a cubin: {done.stderr.strip()}")
    return done.stdout


def check(
    source_text: str, entry: str, n_pointers: int, n_sizes: int, cc: Capability, sass: bool = True
) -> Report:
    """Compile `entry` for (8, 0) or (9, 0) and report what came out; without `sass` thrice as fast."""
    cubin = link_cubin(KernelSource(source_text, entry, address_and_size_signature(n_pointers, n_sizes)), cc)
    frame = re.search(
        r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", cubin.log
    )
    registers = re.search(r"Used (\d+) registers", cubin.log)
    if frame is None or registers is None:
        raise DeviceError(f"ptxas reported nothing about kernel '{entry}': {cubin.log!r}")
    shared = re.search(r"(\d+) bytes smem", cubin.log)
    stack, spill_stores, spill_loads = map(int, frame.groups())
    shared_bytes = int(shared[1]) if shared else 0
    listing = disassemble(cubin.code) if sass else ""
    return Report(int(registers[1]), stack, spill_stores, spill_loads, shared_bytes, listing)
