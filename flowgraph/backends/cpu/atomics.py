"""Instructions that Python has no word for: words of memory, atomics, calls by address, futex and clock.

In: addresses (int64) and words (int64). Used by `driver_source.py` and imported only to compile it.
Knows nothing of tables or teams.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"
from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit
from numba.core import cgutils, types
from numba.extending import intrinsic

from flowgraph.backends.cpu.toolchain import KernelPasses

WORD = ir.IntType(64)
NATIVE_FUNCTION = ir.FunctionType(ir.VoidType(), [WORD] * 3).as_pointer()
INT = ir.IntType(32)
MACHINE = platform.machine()

# Linux: <linux/futex.h>, <asm/unistd.h>, <time.h>
FUTEX_CALL = {"x86_64": 202, "aarch64": 98}[MACHINE]
FUTEX_WAIT_PRIVATE, FUTEX_WAKE_PRIVATE = 128, 129
CLOCK_MONOTONIC = 1


# A function that the driver calls: native only, and linked into it.
part = njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy", pipeline_class=KernelPasses)


def _instruction(parameters: int, returns_word: bool, emit: Callable[..., Any]) -> Any:
    """An intrinsic on int64 words: `emit(builder, *words)` writes its LLVM instructions."""
    result = types.int64 if returns_word else types.void

    def generate(context, builder, signature, arguments):
        word = emit(builder, *arguments)
        return word if returns_word else context.get_dummy_value()

    typed = result(*[types.int64] * parameters), generate
    return intrinsic({                          # numba reads the number of parameters off the function
        0: lambda typing_context: typed,
        2: lambda typing_context, a, b: typed,
        3: lambda typing_context, a, b, c: typed,
        4: lambda typing_context, a, b, c, d: typed,
    }[parameters])


def _word_at(builder, base, offset):
    return builder.inttoptr(builder.add(base, offset), WORD.as_pointer())


def _external(builder, name, result, *parameters, variadic=False):
    """A function of the C library or an intrinsic of LLVM."""
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, parameters, variadic), name)


def _load(builder, base, offset):
    return builder.load(_word_at(builder, base, offset))


def _store(builder, base, offset, word):
    builder.store(word, _word_at(builder, base, offset))


def _load_acquire(builder, base, offset):
    return builder.load_atomic(_word_at(builder, base, offset), "acquire", 8)


def _fetch_add(builder, base, offset, word):
    return builder.atomic_rmw("add", _word_at(builder, base, offset), word, "seq_cst")


def _call(builder, function, args, lo, hi):
    builder.call(builder.inttoptr(function, NATIVE_FUNCTION), [args, lo, hi])


def _pause(builder):
    """Be gentle: the neighbour on this core may be the thread that is waited for."""
    if MACHINE == "x86_64":
        builder.call(_external(builder, "llvm.x86.sse2.pause", ir.VoidType()), [])
    else:
        builder.call(_external(builder, "llvm.aarch64.hint", ir.VoidType(), INT), [INT(1)])


def _sched_yield(builder):
    builder.call(_external(builder, "sched_yield", INT), [])


def _futex(builder, base, offset, operation, value):
    """No timeout. Why it returned (woken, a signal, the word had changed already) is for the caller's
    loop."""
    system_call = _external(builder, "syscall", WORD, WORD, variadic=True)
    address, none = builder.add(base, offset), WORD(0)
    builder.call(system_call, [WORD(FUTEX_CALL), address, WORD(operation), value, none, none, none])


def _futex_wait(builder, base, offset, seen):
    _futex(builder, base, offset, FUTEX_WAIT_PRIVATE, seen)


def _futex_wake_all(builder, base, offset):
    _futex(builder, base, offset, FUTEX_WAKE_PRIVATE, WORD(2**31 - 1))


def _clock(builder):
    time = cgutils.alloca_once(builder, ir.ArrayType(WORD, 2))
    builder.call(_external(builder, "clock_gettime", INT, INT, time.type), [INT(CLOCK_MONOTONIC), time])
    seconds, nanoseconds = cgutils.unpack_tuple(builder, builder.load(time), 2)
    return builder.add(builder.mul(seconds, WORD(10**9)), nanoseconds)


def _ticks(builder):
    """Of a counter that costs a third of a clock to read, where the processor lets everybody read it."""
    if MACHINE == "x86_64":
        return builder.call(_external(builder, "llvm.readcyclecounter", WORD), [])
    return _clock(builder)


# A word's place is a base address and an offset in bytes.
load = _instruction(2, True, _load)                         # (base, offset)
store = _instruction(3, False, _store)                      # (base, offset, word)
load_acquire = _instruction(2, True, _load_acquire)
fetch_add = _instruction(3, True, _fetch_add)               # sequentially consistent
call = _instruction(4, False, _call)                        # (function's address, args, lo, hi)
pause = _instruction(0, False, _pause)
sched_yield = _instruction(0, False, _sched_yield)
futex_wait = _instruction(3, False, _futex_wait)            # (base, offset, word seen there)
futex_wake_all = _instruction(2, False, _futex_wake_all)
clock = _instruction(0, True, _clock)                       # nanoseconds, as time.monotonic_ns
ticks = _instruction(0, True, _ticks)                       # of a length that is measured anew by each run
