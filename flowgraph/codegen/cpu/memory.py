"""Loads and stores of generated kernels: buffers are addresses (int64), elements are indexed by int64.

Comes in: numba types of addresses, indices and values. Goes out: FUNCTIONS, name -> kernel function. A vector
needs only its elements' alignment. A bool is one byte in memory. May not know what is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.typing.templates import Signature, signature

from flowgraph.codegen.cpu.value import BITS, LANES, SCALAR, Value, call_intrinsic
from flowgraph.codegen.cpu.vector import (
    ALL,
    SCALARS,
    VECTORS,
    KernelOnly,
    Rule,
    canonical,
    common,
    define_function,
    on_values,
)

I1, I8, I32, I64 = ir.IntType(1), ir.IntType(8), ir.IntType(32), ir.IntType(64)


def memory_type(dtype: str) -> ir.Type:
    return I8 if dtype == "bool" else SCALAR[dtype]


def size_of(dtype: str) -> int:
    return 1 if dtype == "bool" else BITS[dtype] // 8


def element(address: Value, index: Value, dtype: str, vector: bool = False) -> ir.Value:
    """Pointer to element `index`, typed for a scalar or a vector."""
    b = address.builder
    pointer = b.gep(b.inttoptr(address.ir, memory_type(dtype).as_pointer()), [index.ir], inbounds=True)
    return b.bitcast(pointer, ir.VectorType(memory_type(dtype), LANES).as_pointer()) if vector else pointer


def from_memory(builder: ir.IRBuilder, dtype: str, loaded: ir.Value) -> Value:
    if dtype == "bool":
        loaded = builder.icmp_unsigned("!=", loaded, ir.Constant(loaded.type, None))
    return Value(builder, dtype, loaded)


def to_memory(value: Value) -> ir.Value:
    if value.dtype != "bool":
        return value.ir
    byte = ir.VectorType(I8, LANES) if value.is_vector else I8
    return value.builder.zext(value.ir, byte)


def load(address: Value, index: Value, dtype: str, vector: bool) -> Value:
    b = address.builder
    loaded = b.load(element(address, index, dtype, vector))
    loaded.align = size_of(dtype)
    return from_memory(b, dtype, loaded)


def store(address: Value, index: Value, value: Value) -> None:
    b = address.builder
    pointer = element(address, index, value.dtype, value.is_vector)
    b.store(to_memory(value), pointer).align = size_of(value.dtype)


def lane_numbers(builder: ir.IRBuilder, dtype: str = "i64") -> Value:
    return Value(builder, dtype, ir.Constant(ir.VectorType(SCALAR[dtype], LANES), list(range(LANES))))


def first_lanes(count: Value) -> Value:
    """The mask of lanes < count."""
    return lane_numbers(count.builder, "i32") < count.to("i32")


def _suffix(dtype: str) -> str:
    return f"v{LANES}{'f' if dtype in ('f32', 'f64') else 'i'}{8 * size_of(dtype)}"


def _alignment(dtype: str) -> ir.Constant:
    return ir.Constant(I32, size_of(dtype))


def load_head(address: Value, index: Value, count: Value, dtype: str) -> Value:
    """The first `count` lanes; memory behind them is not touched, their lanes are 0."""
    return load_where(address, index, first_lanes(count), dtype)


def load_where(address: Value, index: Value, there: Value, dtype: str) -> Value:
    """The lanes of a bool vector, or all or none; the others' memory is not touched, and they are 0."""
    b, vector = address.builder, ir.VectorType(memory_type(dtype), LANES)
    pointer, mask = element(address, index, dtype, True), there.splat().ir
    arguments = [pointer, _alignment(dtype), mask, ir.Constant(vector, None)]
    loaded = call_intrinsic(b, f"llvm.masked.load.{_suffix(dtype)}.p0", vector, arguments)
    return from_memory(b, dtype, loaded)


def store_head(address: Value, index: Value, value: Value, count: Value) -> None:
    store_where(address, index, value, first_lanes(count))


def store_where(address: Value, index: Value, value: Value, there: Value) -> None:
    """The lanes of a bool vector; the others' memory is not touched."""
    b, dtype = address.builder, value.dtype
    pointer, mask = element(address, index, dtype, True), there.ir
    name = f"llvm.masked.store.{_suffix(dtype)}.p0"
    call_intrinsic(b, name, ir.VoidType(), [to_memory(value), pointer, _alignment(dtype), mask])


def gather(address: Value, indices: Value, count: Value | None, dtype: str) -> Value:
    """Elements at a vector of indices; lanes from `count` on, if given, are not read and are 0."""
    b, vector = address.builder, ir.VectorType(memory_type(dtype), LANES)
    addresses = indices * size_of(dtype) + address
    pointers = b.inttoptr(addresses.ir, ir.VectorType(memory_type(dtype).as_pointer(), LANES))
    every_lane = ir.Constant(ir.VectorType(I1, LANES), [1] * LANES)
    mask = every_lane if count is None else first_lanes(count).ir
    arguments = [pointers, _alignment(dtype), mask, ir.Constant(vector, None)]
    name = f"llvm.masked.gather.{_suffix(dtype)}.v{LANES}p0"
    return from_memory(b, dtype, call_intrinsic(b, name, vector, arguments))


BACKWARDS = -1  # the stride of neighbours side by side: to turn the lanes is faster than 16 accesses


def strided(address: Value, index: Value, stride: Value, count: Value | None, dtype: str) -> Value:
    """Elements index, index + stride, ..., as many as `count` says, else all; the other lanes are 0."""
    if stride.known == BACKWARDS:
        first = index - (LANES - 1)
        if count is None:
            return load(address, first, dtype, True).backwards()
        return load_where(address, first, first_lanes(count).backwards(), dtype).backwards()
    return gather(address, lane_numbers(address.builder) * stride + index, count, dtype)


def store_strided(address: Value, index: Value, value: Value, stride: Value, count: Value | None) -> None:
    """To elements index, index + stride, ...; lanes from `count` on, if given, are not written."""
    b, dtype = address.builder, value.dtype
    if stride.known == BACKWARDS:
        first, value = index - (LANES - 1), value.backwards()
        if count is None:
            store(address, first, value)
        else:
            store_where(address, first, value, first_lanes(count).backwards())
        return
    addresses = (lane_numbers(b) * stride + index) * size_of(dtype) + address
    pointers = b.inttoptr(addresses.ir, ir.VectorType(memory_type(dtype).as_pointer(), LANES))
    mask = ir.Constant(ir.VectorType(I1, LANES), [1] * LANES) if count is None else first_lanes(count).ir
    arguments = [to_memory(value), pointers, _alignment(dtype), mask]
    call_intrinsic(b, f"llvm.masked.scatter.{_suffix(dtype)}.v{LANES}p0", ir.VoidType(), arguments)


def prefetch(address: Value) -> None:
    """Ask for the cache line of an address, to be read and perhaps written soon; any address will do."""
    b = address.builder
    pointer = b.inttoptr(address.ir, I8.as_pointer())
    numbers = [ir.Constant(I32, k) for k in (0, 3, 1)]  # to read, keep in all levels, data
    call_intrinsic(b, "llvm.prefetch.p0", ir.VoidType(), [pointer, *numbers])


# --- typing rules and names ---------------------------------------------------------------------------------


def fixed(result: types.Type, *expected: types.Type) -> Rule:
    """Exactly these operand types; any integer passes for int64, as for int32 (where numba had widened
    it)."""

    def fits(given: types.Type, wanted: types.Type) -> bool:
        given = canonical(given)
        integers = wanted in (types.int64, types.int32) and isinstance(given, types.Integer)
        return given == wanted or integers

    def rule(*operands: types.Type) -> Signature | None:
        if len(operands) != len(expected) or not all(map(fits, operands, expected)):
            return None
        return signature(result, *expected)

    return rule


def _head_rule(*operands: types.Type) -> Signature | None:
    found = common((operands[0], operands[2])) if len(operands) == 3 else None
    if found is None or not found[1] or not isinstance(canonical(operands[1]), types.Integer):
        return None
    vector, scalar = VECTORS[found[0]], SCALARS[found[0]]
    return signature(vector, vector, types.int64, scalar)


def _functions() -> dict[str, KernelOnly]:
    index, indices, none = types.int64, VECTORS["i64"], types.void
    table: list[tuple[str, Rule, Any]] = [
        ("arg", fixed(index, index, index), lambda sig, p, k: load(p, k, "i64", False)),
        ("lanes_i64", fixed(indices, index), lambda sig, i: i + lane_numbers(i.builder)),
        ("head", _head_rule, lambda sig, v, n, fill: first_lanes(n).select(v, fill)),
    ]

    table.append(("prefetch", fixed(none, index), lambda sig, p: prefetch(p)))

    def add(name: str, result: types.Type, operands: Sequence[types.Type], emit: Any) -> None:
        table.append((name, fixed(result, *operands), emit))

    for t in ALL:
        one, many = SCALARS[t], VECTORS[t]
        add(f"load_{t}", one, (index,) * 2, lambda sig, p, i, t=t: load(p, i, t, False))
        add(f"vload_{t}", many, (index,) * 2, lambda sig, p, i, t=t: load(p, i, t, True))
        add(f"vload_head_{t}", many, (index,) * 3, lambda sig, p, i, n, t=t: load_head(p, i, n, t))
        add(f"store_{t}", none, (index, index, one), on_values(store))
        add(f"vstore_{t}", none, (index, index, many), on_values(store))
        add(f"vstore_head_{t}", none, (index, index, many, index), on_values(store_head))
        add(f"vstore_strided_{t}", none, (index, index, many, index),
            lambda sig, p, i, v, s: store_strided(p, i, v, s, None))  # fmt: skip
        add(f"vstore_strided_head_{t}", none, (index, index, many, index, index), on_values(store_strided))
        add(f"vgather_{t}", many, (index, indices), lambda sig, p, i, t=t: gather(p, i, None, t))
        add(f"vgather_head_{t}", many, (index, indices, index), lambda sig, p, i, n, t=t: gather(p, i, n, t))
        add(f"vload_strided_{t}", many, (index,) * 3, lambda sig, p, i, s, t=t: strided(p, i, s, None, t))
        add(f"vload_strided_head_{t}", many, (index,) * 4,
            lambda sig, p, i, s, n, t=t: strided(p, i, s, n, t))  # fmt: skip
    return {name: define_function(name, rule, emit) for name, rule, emit in table}


FUNCTIONS = _functions()
