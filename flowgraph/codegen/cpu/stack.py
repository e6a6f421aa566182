"""A kernel's own working memory: a few vectors on the stack, where a register tile puts its results.

Comes in: a number of elements known when the kernel is generated. Goes out: FUNCTIONS, name -> kernel
function. May not know what is kept there.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.typing.templates import Signature, signature

from flowgraph.codegen.cpu.memory import I8, fixed, load, size_of, store
from flowgraph.codegen.cpu.value import LANES, SCALAR, Value
from flowgraph.codegen.cpu.vector import FLOATS, VECTORS, KernelOnly, define_function

CACHE_LINE = 64


def stack(dtype: str) -> KernelOnly:
    """`stack_{dtype}(n)`: the address of n elements; n is a literal."""

    def emit(sig: object, count: Value) -> Value:
        builder = count.builder
        with builder.goto_entry_block():  # so that a loop does not grow the stack
            memory = builder.alloca(SCALAR[dtype], count.ir)
            memory.align = CACHE_LINE
            return Value(builder, "i64", builder.ptrtoint(memory, ir.IntType(64)))

    return define_function(f"stack_{dtype}", fixed(types.int64, types.int64), emit)


def clear(dtype: str) -> KernelOnly:
    """`clear_{dtype}(p, n)`: n elements from address p on become zeros."""

    def emit(sig: object, address: Value, count: Value) -> None:
        builder = address.builder
        pointer = builder.inttoptr(address.ir, I8.as_pointer())
        fill = builder.module.declare_intrinsic("llvm.memset", (pointer.type, count.ir.type))
        builder.call(fill, (pointer, I8(0), (count * size_of(dtype)).ir, ir.IntType(1)(0)))

    return define_function(f"clear_{dtype}", fixed(types.void, types.int64, types.int64), emit)


def spill(dtype: str, added: bool) -> KernelOnly:
    """`spill_{dtype}(p, vectors)`: the vectors of a tuple one after another from address p. `spill_sum_{dtype}(p,
    start, vectors)` adds them to what is there, unless start is 0: one tile serves the first terms and the others."""
    scalars = [types.int64] * (2 if added else 1)

    def rule(*operands: types.Type) -> Signature | None:
        *places, vectors = operands
        integers = len(places) == len(scalars) and all(isinstance(p, types.Integer) for p in places)
        if integers and isinstance(vectors, types.UniTuple) and vectors.dtype == VECTORS[dtype]:
            return signature(types.void, *scalars, vectors)
        return None

    def emit(sig: object, address: Value, *operands: Any) -> None:
        *start, vectors = operands
        for k, vector in enumerate(vectors):
            place = address.constant(LANES * k)
            if added:
                vector = (start[0] == 0).select(vector, load(address, place, dtype, True) + vector)
            store(address, place, vector)

    return define_function(f"spill_{'sum_' if added else ''}{dtype}", rule, emit)


_EVERY = [f for t in FLOATS for f in (stack(t), clear(t), spill(t, False), spill(t, True))] + [stack("i64")]
FUNCTIONS = {function.__name__: function for function in _EVERY}
