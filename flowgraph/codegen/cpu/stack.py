"""A kernel's own working memory: a few vectors on the stack, where a register tile puts its results.

Comes in: a number of elements known when the kernel is generated. Goes out: FUNCTIONS, name -> kernel
function. May not know what is kept there.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.core.typing.templates import Signature, signature

from flowgraph.codegen.cpu.memory import fixed, load, store
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


def spill(dtype: str, added: bool) -> KernelOnly:
    """`spill_{dtype}(p, vectors)`: the vectors of a tuple one after another from address p; `spill_add_...` adds them
    to what is there."""

    def rule(*operands: types.Type) -> Signature | None:
        match operands:
            case [types.Integer(), types.UniTuple() as vectors] if vectors.dtype == VECTORS[dtype]:
                return signature(types.void, types.int64, vectors)
        return None

    def emit(sig: object, address: Value, vectors: tuple[Value, ...]) -> None:
        for k, vector in enumerate(vectors):
            place = address.constant(LANES * k)
            store(address, place, load(address, place, dtype, True) + vector if added else vector)

    return define_function(f"spill_{'add_' if added else ''}{dtype}", rule, emit)


_EVERY = [f for t in FLOATS for f in (stack(t), spill(t, False), spill(t, True))] + [stack("i64")]
FUNCTIONS = {function.__name__: function for function in _EVERY}
