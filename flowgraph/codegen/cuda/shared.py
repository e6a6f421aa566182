"""Shared memory: arrays of a block, elements of them, and four elements at once (LDS.128).

An array is known by an int64 address, as a buffer is, so that no index is checked for being negative. May not
know what kernels compute.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.cuda.extending import intrinsic

from flowgraph.codegen.cuda.word import DTYPES, I8, I32, I64, MEMORY, Lower, convert, need, types, word

SHARED = 3  # the address space of LDS and STS


def _array(name: str, dtype: Any) -> Any:
    def define(typing_context: Any, count: Any) -> Any:
        if not isinstance(count, types.IntegerLiteral):
            return None  # numba asks again with the literal
        need(name, count.literal_value > 0, count)
        area = ir.ArrayType(MEMORY[dtype], count.literal_value)

        def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            unique = f"{name}_{len(builder.module.globals)}"  # NVVM refuses the dot of llvmlite's own
            array = ir.GlobalVariable(builder.module, area, unique, addrspace=SHARED)
            array.align, array.initializer = 16, ir.Constant(area, ir.Undefined)
            return builder.ptrtoint(array, I64)

        return types.int64(count), emit

    define.__name__, define.__doc__ = name, "The address of an array of n (a literal) elements of this block."
    return intrinsic(define)


def _element(builder: ir.IRBuilder, address: Any, index: Any, element: Any, access: Any) -> Any:
    pointer = builder.gep(builder.inttoptr(address, element.as_pointer(SHARED)), [builder.sext(index, I64)])
    return pointer if access == element else builder.bitcast(pointer, access.as_pointer(SHARED))


def _place(name: str, address: Any, index: Any) -> None:
    need(name, address == types.int64 and isinstance(index, types.Integer), address, index)


def _index(builder: ir.IRBuilder, index: Any) -> Any:
    return index if index.type == I32 else builder.trunc(index, I32)


def _load(name: str, dtype: Any) -> Any:
    def typing(address: Any, index: Any) -> tuple[Any, Lower]:
        _place(name, address, index)

        def lower(builder: ir.IRBuilder, args: list[Any]) -> Any:
            at = _element(builder, args[0], _index(builder, args[1]), MEMORY[dtype], MEMORY[dtype])
            value = builder.load(at)
            return builder.icmp_unsigned("!=", value, ir.Constant(I8, 0)) if dtype == types.boolean else value

        return dtype, lower

    return word(name, 2, typing, "Element i of the shared array at address p.")


def _store(name: str, dtype: Any) -> Any:
    def typing(address: Any, index: Any, value: Any) -> tuple[Any, Lower]:
        _place(name, address, index)
        need(name, value == dtype, value)

        def lower(builder: ir.IRBuilder, args: list[Any]) -> Any:
            memory = convert(builder, args[2], value, dtype)
            memory = builder.zext(memory, I8) if dtype == types.boolean else memory
            builder.store(
                memory, _element(builder, args[0], _index(builder, args[1]), MEMORY[dtype], MEMORY[dtype])
            )

        return types.void, lower

    return word(name, 3, typing, "Element i of the shared array at address p becomes v.")


def _load4(name: str, dtype: Any) -> Any:
    each = 16 * 8 // dtype.bitwidth
    vector = ir.VectorType(MEMORY[dtype], each)

    def typing(address: Any, index: Any) -> tuple[Any, Lower]:
        _place(name, address, index)

        def lower(builder: ir.IRBuilder, args: list[Any]) -> Any:
            first = _element(builder, args[0], _index(builder, args[1]), MEMORY[dtype], vector)
            lanes = []
            for part in range(4 // each):
                value = builder.load(builder.gep(first, [ir.Constant(I32, part)]), align=16)
                lanes += [builder.extract_element(value, ir.Constant(I32, k)) for k in range(each)]
            return lanes

        return types.UniTuple(dtype, 4), lower

    return word(name, 2, typing, "Elements i … i+3 of a shared array; i is a multiple of 4.")


def _store4(name: str, dtype: Any) -> Any:
    each = 16 * 8 // dtype.bitwidth
    vector = ir.VectorType(MEMORY[dtype], each)

    def typing(address: Any, index: Any, *values: Any) -> tuple[Any, Lower]:
        _place(name, address, index)
        need(name, all(v == dtype for v in values), *values)

        def lower(builder: ir.IRBuilder, args: list[Any]) -> Any:
            first = _element(builder, args[0], _index(builder, args[1]), MEMORY[dtype], vector)
            for part in range(4 // each):
                value: Any = ir.Constant(vector, ir.Undefined)
                for k in range(each):
                    value = builder.insert_element(value, args[2 + part * each + k], ir.Constant(I32, k))
                builder.store(value, builder.gep(first, [ir.Constant(I32, part)]), align=16)

        return types.void, lower

    return word(
        name, 6, typing, "Elements i … i+3 of a shared array become the values; i is a multiple of 4."
    )


FUNCTIONS: dict[str, Any] = {
    **{f"shared_{name}": _array(f"shared_{name}", dtype) for name, dtype in DTYPES.items()},
    **{f"shared_load_{name}": _load(f"shared_load_{name}", dtype) for name, dtype in DTYPES.items()},
    **{f"shared_store_{name}": _store(f"shared_store_{name}", dtype) for name, dtype in DTYPES.items()},
    **{f"shared_load4_{name}": _load4(f"shared_load4_{name}", DTYPES[name]) for name in ("f32", "f64")},
    **{f"shared_store4_{name}": _store4(f"shared_store4_{name}", DTYPES[name]) for name in ("f32", "f64")},
}
