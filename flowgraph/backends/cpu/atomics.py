"""The driver's few instructions that Python has no word for: memory words, atomics, calls by address, the kernel.

In: addresses (int64) and words (int64). The prelude of `driver_source.py`; imported only to compile it. Knows nothing
of tables or teams.
"""

# mypy: disable-error-code="no-untyped-def, misc, no-any-return"
from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit
from numba.core import cgutils, types
from numba.extending import intrinsic

WORD = ir.IntType(64)
NATIVE_FUNCTION = ir.FunctionType(ir.VoidType(), [WORD] * 3).as_pointer()
FUTEX_CALL = {"x86_64": 202, "aarch64": 98}[platform.machine()]
FUTEX_WAIT_PRIVATE, FUTEX_WAKE_PRIVATE = 128, 129
EVERYONE = 2**31 - 1
CLOCK_MONOTONIC = 1


# A function called by the driver: native only, and linked into it.
part = njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy")


def namespace_for(text: str) -> dict[str, object]:
    """Nothing: the driver's source imports what it uses."""
    return {}


def _instruction(parameters: int, returns_word: bool, emit: Callable[..., Any]) -> Any:
    """An intrinsic on int64 words: `emit(builder, *words)` writes its LLVM instructions."""
    result = types.int64 if returns_word else types.void

    def typed(typing_context):
        def generate(context, builder, signature, arguments):
            word = emit(builder, *arguments)
            return word if returns_word else context.get_dummy_value()
        return result(*[types.int64] * parameters), generate

    def typed_1(typing_context, a):
        return typed(typing_context)

    def typed_2(typing_context, a, b):
        return typed(typing_context)

    def typed_4(typing_context, a, b, c, d):
        return typed(typing_context)

    return intrinsic({0: typed, 1: typed_1, 2: typed_2, 4: typed_4}[parameters])


def _word_at(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    return builder.inttoptr(address, WORD.as_pointer())


def _external(builder: ir.IRBuilder, name: str, result: ir.Type, parameters: list[ir.Type], variadic: bool = False):
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, parameters, variadic), name)


def _store(builder, address, word):
    builder.store(word, _word_at(builder, address))


def _store_release(builder, address, word):
    builder.store_atomic(word, _word_at(builder, address), "release", 8)


def _call(builder, function, args, lo, hi):
    builder.call(builder.inttoptr(function, NATIVE_FUNCTION), [args, lo, hi])


def _pause(builder):
    if FUTEX_CALL == 202:
        builder.call(_external(builder, "llvm.x86.sse2.pause", ir.VoidType(), []), [])
    else:
        builder.call(_external(builder, "llvm.aarch64.hint", ir.VoidType(), [ir.IntType(32)]), [ir.IntType(32)(1)])


def _sched_yield(builder):
    builder.call(_external(builder, "sched_yield", ir.IntType(32), []), [])


def _futex(builder, address, operation: int, value):
    """syscall(SYS_futex, address, operation, value, no timeout); EINTR and EAGAIN are for the caller's loop."""
    system_call = _external(builder, "syscall", WORD, [WORD], variadic=True)
    builder.call(system_call, [WORD(FUTEX_CALL), address, WORD(operation), value, WORD(0), WORD(0), WORD(0)])


def _clock(builder):
    time = cgutils.alloca_once(builder, ir.ArrayType(WORD, 2))
    gettime = _external(builder, "clock_gettime", ir.IntType(32), [ir.IntType(32), time.type])
    builder.call(gettime, [ir.IntType(32)(CLOCK_MONOTONIC), time])
    seconds, nanoseconds = cgutils.unpack_tuple(builder, builder.load(time), 2)
    return builder.add(builder.mul(seconds, WORD(10**9)), nanoseconds)


load = _instruction(1, True, lambda builder, address: builder.load(_word_at(builder, address)))
store = _instruction(2, False, _store)
load_acquire = _instruction(1, True, lambda builder, address: builder.load_atomic(_word_at(builder, address),
                                                                                  "acquire", 8))
store_release = _instruction(2, False, _store_release)
fetch_add = _instruction(2, True, lambda builder, address, word: builder.atomic_rmw(
    "add", _word_at(builder, address), word, "seq_cst"))
call = _instruction(4, False, _call)
pause = _instruction(0, False, _pause)
sched_yield = _instruction(0, False, _sched_yield)
futex_wait = _instruction(2, False, lambda builder, address, seen: _futex(builder, address, FUTEX_WAIT_PRIVATE, seen))
futex_wake_all = _instruction(1, False, lambda builder, address: _futex(builder, address, FUTEX_WAKE_PRIVATE,
                                                                        WORD(EVERYONE)))
clock = _instruction(0, True, _clock)
