"""The CUDA dialect: a lowered kernel as numba-cuda source, a function of addresses (int64) and sizes (int32).

Indices stay 32 bits wide, so a loop is a `while` over an int32: over `range` numba counts in 64 bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from flowgraph.codegen.printer import Dialect, one_line, print_statements
from flowgraph.graph.types import DType
from flowgraph.schedule.lower_cuda import BlockLoops

PLACES = {
    "thread": "cuda.threadIdx.x",
    "block": "cuda.blockIdx.x",
    "blocks": "cuda.gridDim.x",
    "barrier": "cuda.syncthreads()",
    "warp_barrier": "cuda.syncwarp()",
}


@dataclass(frozen=True)
class CudaDialect(Dialect):
    """What CUDA says otherwise."""

    def constant(self, value: float | bool, dtype: DType) -> str:
        if dtype.is_float and not math.isfinite(value):
            return f"to_{dtype.code}({'nan' if math.isnan(value) else 'inf' if value > 0 else '-inf'})"
        return super().constant(value, dtype)

    def read(self, buffer: str, offset: str, dtype: DType, how: str, extra: Sequence[str]) -> str:
        return f"load{how}_{dtype.code}({buffer}, {offset})"

    def write(
        self, buffer: str, offset: str, value: str, dtype: DType, how: str, extra: Sequence[str]
    ) -> str:
        return f"store{how}_{dtype.code}({', '.join([buffer, offset, value, *extra])})"

    def loop(self, variable: str, start: str, stop: str, step: str) -> tuple[list[str], str, list[str]]:
        first = f"to_i32({start})" if start.lstrip("-").isdigit() else start
        return [f"{variable} = {first}"], f"while {variable} < {stop}:", [f"{variable} += {step}"]

    def call(self, function: str, arguments: Sequence[str]) -> str:
        if function in PLACES:
            return PLACES[function]
        if function == "xor":
            return f"(({arguments[0]}) ^ ({arguments[1]}))"
        return f"{function}({', '.join(arguments)})"


@dataclass(frozen=True)
class TogetherDialect(CudaDialect):
    """What several calls in one launch say otherwise: a block counts within its call."""

    def call(self, function: str, arguments: Sequence[str]) -> str:
        return function if function in ("block", "blocks") else super().call(function, arguments)


CUDA, TOGETHER = CudaDialect("cuda"), TogetherDialect("cuda")
TOGETHER_SIGNATURE = ("i64", "i32")  # the address of a table of words, and how many calls are in it


def cuda_source(loops: BlockLoops, comments: Sequence[str] = (), together: bool = False) -> str:
    """One Python function of the buffers' addresses, then the sizes, in the order of `loops`.

    With `together`, a function for several calls in one launch, of the address and the length of a table: the first
    block of each call, and the blocks of all; then for each call what the function would have been called with.
    """
    lines = [f"# {one_line(c)}" for c in comments]
    if not together:
        lines.append(f"def {loops.name}({', '.join((*loops.buffers, *loops.size_names))}):")
        lines += print_statements(loops.body, CUDA, 1)
        return "\n".join(lines) + "\n"
    arguments = (*loops.buffers, *loops.size_names)
    lines += [
        f"def {loops.name}(table, calls):",
        "    call = to_i32(0)",
        "    last = calls - 1",
        "    while call < last:",
        "        middle = index_div(call + last + 1, 2)",
        "        if to_i32(load_i64(table, middle)) <= cuda.blockIdx.x:",
        "            call = middle",
        "        else:",
        "            last = middle - 1",
        "    block = cuda.blockIdx.x - to_i32(load_i64(table, call))",
        "    blocks = to_i32(load_i64(table, call + 1)) - to_i32(load_i64(table, call))",
        f"    words = calls + 1 + call * {len(arguments)}",
    ]
    for place, name in enumerate(arguments):
        word = f"load_i64(table, words + {place})"
        lines.append(f"    {name} = {word if name in loops.buffers else f'to_i32({word})'}")
    lines += print_statements(loops.body, TOGETHER, 1)
    return "\n".join(lines) + "\n"
