"""LLVM IR that a kernel calls where it would call the GPU: registers, shuffles, libdevice, guarded memory.

In: which functions a kernel needs, its shared arrays. Out: the text to put before the adapted kernel. May not
know: how threads are scheduled, Python objects, numba, what a kernel computes.
"""

from __future__ import annotations

from collections.abc import Sequence

FRAME = 1024  # bytes of a thread's frame; a larger one is allocated by malloc
RED_ZONE = 1024  # bytes before and after each shared array that must keep their fill

REGISTERS = [f"{register}.{axis}" for register in ("tid", "ntid", "ctaid", "nctaid") for axis in "xyz"]
REGISTERS += ["laneid", "warpsize", "posts"]  # posts: where in fg.slots this warp's lanes leave their values

_LIBM = {name: name for name in ("exp", "log", "log1p", "expm1", "tanh", "erf", "sin", "cos", "fmod")} | {
    "pow": "pow"
}
_INTRINSIC = ("fabs", "floor", "rint", "sqrt", "copysign")
_BINARY = ("pow", "fmod", "copysign")


def _function(name: str, target: str, arity: int, dtype: str) -> str:
    parameters = ", ".join(f"{dtype} %a{k}" for k in range(arity))
    return (
        f"declare {dtype} @{target}({', '.join([dtype] * arity)})\n"
        f"define internal {dtype} @{name}({parameters}) alwaysinline {{\n"
        f"  %r = call {dtype} @{target}({parameters})\n  ret {dtype} %r\n}}\n"
    )


def _libdevice() -> dict[str, str]:
    """libdevice's functions by the C library's or LLVM's, one definition each."""
    functions = {}
    for dtype, suffix, bits in (("float", "f", "f32"), ("double", "", "f64")):
        for name in (*_LIBM, *_INTRINSIC):
            target = f"{_LIBM[name]}{suffix}" if name in _LIBM else f"llvm.{name}.{bits}"
            functions[f"__nv_{name}{suffix}"] = _function(
                f"__nv_{name}{suffix}", target, 2 if name in _BINARY else 1, dtype
            )
    return functions


def _special_registers() -> dict[str, str]:
    return {
        f"fg.read.ptx.sreg.{name}": f'define internal i32 @"fg.read.ptx.sreg.{name}"() alwaysinline {{\n'
        f"  %r = load i32, ptr getelementptr (i32, ptr @fg.registers, i64 {k})\n  ret i32 %r\n}}\n"
        for k, name in enumerate(REGISTERS)
    }


def _guard(size: int) -> str:
    """The address itself if it is aligned and all its bytes are live, else a scratch one and a note."""
    return f"""
define internal ptr addrspace(1) @fg.guard1.{size}(ptr addrspace(1) %p, i32 %site) alwaysinline {{
  %address = ptrtoint ptr addrspace(1) %p to i64
  %base = load i64, ptr @fg.memory
  %limit = load i64, ptr getelementptr (i64, ptr @fg.memory, i64 1)
  %offset = sub i64 %address, %base
  %inside = icmp ult i64 %offset, %limit
  %low = and i64 %address, {size - 1}
  %aligned = icmp eq i64 %low, 0
  %fit = and i1 %inside, %aligned
  br i1 %fit, label %shadowed, label %bad
shadowed:
  %delta = load i64, ptr getelementptr (i64, ptr @fg.memory, i64 2)
  %place = add i64 %address, %delta
  %shadow = inttoptr i64 %place to ptr
  %live = load i{8 * size}, ptr %shadow, align 1
  %whole = icmp eq i{8 * size} %live, -1
  br i1 %whole, label %good, label %bad
good:
  ret ptr addrspace(1) %p
bad:
  call void @fg.note(i64 %address, i32 %site)
  ret ptr addrspace(1) addrspacecast (ptr @fg.sink to ptr addrspace(1))
}}
"""


def _shared_guard(size: int, areas: Sequence[tuple[str, int]]) -> str:
    """The same for shared memory: inside one of the kernel's arrays, red zones excluded."""
    wide_enough = [(area, nbytes) for area, nbytes in areas if nbytes - 2 * RED_ZONE >= size]
    tests = "".join(
        f"""
  %offset{k} = sub i64 %address, ptrtoint (ptr getelementptr (i8, ptr @"{area}", i64 {RED_ZONE}) to i64)
  %inside{k} = icmp ule i64 %offset{k}, {nbytes - 2 * RED_ZONE - size}
  %any{k + 1} = or i1 %any{k}, %inside{k}"""
        for k, (area, nbytes) in enumerate(wide_enough)
    )
    return f"""
define internal ptr addrspace(3) @fg.guard3.{size}(ptr addrspace(3) %p, i32 %site) alwaysinline {{
  %address = ptrtoint ptr addrspace(3) %p to i64
  %any0 = icmp eq i64 0, 1{tests}
  %low = and i64 %address, {size - 1}
  %aligned = icmp eq i64 %low, 0
  %fit = and i1 %any{len(wide_enough)}, %aligned
  br i1 %fit, label %good, label %bad
good:
  ret ptr addrspace(3) %p
bad:
  call void @fg.note(i64 %address, i32 %site)
  ret ptr addrspace(3) addrspacecast (ptr @fg.sink to ptr addrspace(3))
}}
"""


GUARDED_SIZES = (1, 2, 4, 8, 16)

_COMMON = """
@fg.registers = external global [15 x i32]
@fg.slots = external global [2048 x i32]
@fg.memory = external global [3 x i64]
@fg.fault = external global [6 x i64]
@fg.sink = internal global [64 x i8] zeroinitializer, align 64

define internal void @fg.note(i64 %address, i32 %site) noinline cold {
  %count = load i64, ptr @fg.fault
  %first = icmp eq i64 %count, 0
  %next = add i64 %count, 1
  store i64 %next, ptr @fg.fault
  br i1 %first, label %write, label %done
write:
  %where = zext i32 %site to i64
  store i64 %address, ptr getelementptr (i64, ptr @fg.fault, i64 1)
  store i64 %where, ptr getelementptr (i64, ptr @fg.fault, i64 2)
  %threads = load <3 x i32>, ptr @fg.registers, align 4
  %blocks = load <3 x i32>, ptr getelementptr (i32, ptr @fg.registers, i64 6), align 4
  store <3 x i32> %threads, ptr getelementptr (i64, ptr @fg.fault, i64 3), align 4
  store <3 x i32> %blocks, ptr getelementptr (i8, ptr @fg.fault, i64 36), align 4
  br label %done
done:
  ret void
}

; the two halves of a shuffle: leave a value before the warp's lanes meet, fetch one after
define internal void @fg.post(i32 %value) alwaysinline {
  %lane = load i32, ptr getelementptr (i32, ptr @fg.registers, i64 12)
  %posts = load i32, ptr getelementptr (i32, ptr @fg.registers, i64 14)
  %k = add i32 %posts, %lane
  %slot = getelementptr i32, ptr @fg.slots, i32 %k
  store i32 %value, ptr %slot
  ret void
}
define internal {i32, i1} @fg.fetch(i32 %mode, i32 %operand) alwaysinline {
  %lane = load i32, ptr getelementptr (i32, ptr @fg.registers, i64 12)
  %posts = load i32, ptr getelementptr (i32, ptr @fg.registers, i64 14)
  %previous = xor i32 %posts, 32
  %up = sub i32 %lane, %operand
  %down = add i32 %lane, %operand
  %cross = xor i32 %lane, %operand
  %wrapped = and i32 %operand, 31
  %is_up = icmp eq i32 %mode, 1
  %is_down = icmp eq i32 %mode, 2
  %is_cross = icmp eq i32 %mode, 3
  %s0 = select i1 %is_up, i32 %up, i32 %wrapped
  %s1 = select i1 %is_down, i32 %down, i32 %s0
  %source = select i1 %is_cross, i32 %cross, i32 %s1
  %exists = icmp ult i32 %source, 32
  %from = select i1 %exists, i32 %source, i32 %lane
  %k = add i32 %previous, %from
  %slot = getelementptr i32, ptr @fg.slots, i32 %k
  %value = load i32, ptr %slot
  %a = insertvalue {i32, i1} poison, i32 %value, 0
  %b = insertvalue {i32, i1} %a, i1 %exists, 1
  ret {i32, i1} %b
}
declare token @llvm.coro.id.retcon(i32, i32, ptr, ptr, ptr, ptr)
declare ptr @llvm.coro.begin(token, ptr)
declare i1 @llvm.coro.suspend.retcon.i1(...)
declare {coro_end} @llvm.coro.end(ptr, i1, token)
declare {ptr, i32} @fg.prototype(ptr, i1)
declare ptr @malloc(i64)
declare void @free(ptr)
define internal ptr @fg.allocate(i32 %bytes) {
  %wide = zext i32 %bytes to i64
  %p = call ptr @malloc(i64 %wide)
  ret ptr %p
}
"""

DEFINITIONS: dict[str, str] = _libdevice() | _special_registers()  # only those a kernel names are added to it


def support(names: set[str], shared: Sequence[tuple[str, int]], coro_end: str) -> str:
    """The definitions needed by a kernel that calls `names` and has these shared arrays' areas."""
    common = _COMMON.replace("{coro_end}", coro_end)
    functions = [DEFINITIONS[name] for name in sorted(names)]
    guards = [_guard(size) for size in GUARDED_SIZES]
    if shared:
        guards += [_shared_guard(size, shared) for size in GUARDED_SIZES]
    return "".join([common, *functions, *guards])
