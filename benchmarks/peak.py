"""The cores' peak: fused multiply-adds in registers, nothing loaded or stored. `python -m benchmarks.peak`

A pass of the loop does `CHAINS` independent vector multiply-adds: enough to hide their latency (4 cycles,
2 a cycle, on today's CPUs), few enough for 16 registers. Every vector width is tried; the best rate is the
peak. Knows llvmlite only.
"""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from time import perf_counter
from typing import Any

import llvmlite.binding as llvm

CHAINS, PASSES, TRIALS = 12, 3_000_000, 5
WIDTHS = {"float": (4, 8, 16), "double": (2, 4, 8)}


def source(scalar: str, lanes: int) -> str:
    """LLVM text of `peak(passes, out)`: x ← x·½ + 1 in every chain, passes times over; their sum in out."""
    vector, fma = f"<{lanes} x {scalar}>", f"@llvm.fma.v{lanes}{'f32' if scalar == 'float' else 'f64'}"
    chains = range(CHAINS)

    def constant(value: float) -> str:
        return f"<{', '.join([f'{scalar} {value:e}'] * lanes)}>"

    phis = [f"%x{k} = phi {vector} [{constant(k)}, %entry], [%y{k}, %loop]" for k in chains]
    steps = [
        f"%y{k} = call {vector} {fma}({vector} %x{k}, {vector} {constant(0.5)}, {vector} {constant(1.0)})"
        for k in chains
    ]
    sums = [f"%s{k + 1} = fadd {vector} %s{k}, %y{k}" for k in chains]
    return "\n".join(
        [
            f"declare {vector} {fma}({vector}, {vector}, {vector})",
            f"define void @peak(i64 %passes, {vector}* %out) {{",
            "entry: br label %loop",
            "loop:",
            "%i = phi i64 [0, %entry], [%next, %loop]",
            *phis,
            *steps,
            "%next = add i64 %i, 1",
            "%more = icmp ult i64 %next, %passes",
            "br i1 %more, label %loop, label %end",
            "end:",
            f"%s0 = fadd {vector} {constant(0.0)}, {constant(0.0)}",
            *sums,
            f"store {vector} %s{CHAINS}, {vector}* %out, align 4",
            "ret void",
            "}",
        ]
    )


@cache
def compiled(scalar: str, lanes: int) -> tuple[Any, llvm.ExecutionEngine]:
    """The loop as a ctypes function, and the engine that owns its code."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3
    )
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(source(scalar, lanes)), machine)
    engine.finalize_object()
    loop = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p)(engine.get_function_address("peak"))
    return loop, engine


def seconds(scalar: str, lanes: int) -> float:
    """One run of the loop on the calling thread; ctypes lets other threads run meanwhile."""
    loop, _ = compiled(scalar, lanes)
    out = (ctypes.c_double * lanes)()
    start = perf_counter()
    loop(PASSES, out)
    return perf_counter() - start


def all_cores(scalar: str = "float", cores: int = 1) -> float:
    """Operations a second (a multiply-add is two) of this many cores at once: the best of all widths."""
    best = 0.0
    with ThreadPoolExecutor(cores) as threads:
        for lanes in WIDTHS[scalar]:
            compiled(scalar, lanes)
            for _ in range(TRIALS):
                slowest = max(threads.map(seconds, [scalar] * cores, [lanes] * cores))
                best = max(best, 2 * lanes * CHAINS * PASSES * cores / slowest)
    return best


def main() -> None:
    cores = len(os.sched_getaffinity(0))
    for scalar in WIDTHS:
        alone, together = all_cores(scalar), all_cores(scalar, cores)
        print(f"{scalar:7} {alone / 1e9:6.1f} GF/s one core, {together / 1e9:6.1f} GF/s on {cores} at once")


if __name__ == "__main__":
    main()
