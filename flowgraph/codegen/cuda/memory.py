"""Global memory: loads and stores of one element, and of 16 bytes at once.

A buffer is an int64 device address; an index counts elements and has 32 bits.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from flowgraph.codegen.cuda.word import (
    DTYPES,
    GLOBAL,
    I8,
    I32,
    I64,
    MEMORY,
    Lower,
    convert,
    need,
    types,
    word,
)


def _address(builder: ir.IRBuilder, address: Any, index: Any, element: Any, access: Any) -> Any:
    """Pointer to element `index` (32 bit: one IMAD.WIDE in SASS) of the buffer at `address`."""
    if index.type.width > 32:
        index = builder.trunc(index, I32)
    base = builder.inttoptr(address, element.as_pointer(GLOBAL))
    pointer = builder.gep(base, [builder.sext(index, I64)])
    return pointer if access == element else builder.bitcast(pointer, access.as_pointer(GLOBAL))


def _check_place(name: str, address: Any, index: Any) -> None:
    need(
        name,
        isinstance(address, types.Integer) and address.bitwidth == 64 and isinstance(index, types.Integer),
        address,
        index,
    )


def _load(name: str, dtype: Any) -> Any:
    def typing(address: Any, index: Any) -> tuple[Any, Lower]:
        _check_place(name, address, index)

        def lower(builder: ir.IRBuilder, args: list[Any]) -> Any:
            value = builder.load(_address(builder, args[0], args[1], MEMORY[dtype], MEMORY[dtype]))
            return builder.icmp_unsigned("!=", value, ir.Constant(I8, 0)) if dtype == types.boolean else value

        return dtype, lower

    return word(name, 2, typing, "Element i of the buffer at address p.")


def _store(name: str, dtype: Any) -> Any:
    def typing(address: Any, index: Any, value: Any) -> tuple[Any, Lower]:
        _check_place(name, address, index)
        need(
            name,
            value == dtype
            or (dtype == types.int32 and isinstance(value, types.Integer))
            or (dtype == types.int64 and isinstance(value, types.Integer)),
            address,
            index,
            value,
        )

        def lower(builder: ir.IRBuilder, args: list[Any]) -> Any:
            converted = convert(builder, args[2], value, dtype)
            memory = builder.zext(converted, I8) if dtype == types.boolean else converted
            builder.store(memory, _address(builder, args[0], args[1], MEMORY[dtype], MEMORY[dtype]))

        return types.void, lower

    return word(name, 3, typing, "Element i of the buffer at address p becomes v; integers wrap.")


def _vectors(dtype: Any, width: int) -> tuple[Any, int, int]:
    """How `width` elements travel, 16 bytes at once: (vector type, elements of one access, accesses)."""
    each = min(width, 16 * 8 // dtype.bitwidth)
    return ir.VectorType(MEMORY[dtype], each), each, width // each


def _load_vector(name: str, dtype: Any, width: int) -> Any:
    vector, each, accesses = _vectors(dtype, width)

    def typing(address: Any, index: Any) -> tuple[Any, Lower]:
        _check_place(name, address, index)

        def lower(builder: ir.IRBuilder, args: list[Any]) -> Any:
            first = _address(builder, args[0], args[1], MEMORY[dtype], vector)
            lanes = []
            for part in range(accesses):
                value = builder.load(builder.gep(first, [ir.Constant(I32, part)]), align=16)
                lanes += [builder.extract_element(value, ir.Constant(I32, k)) for k in range(each)]
            return lanes

        return types.UniTuple(dtype, width), lower

    return word(name, 2, typing, f"Elements i … i+{width - 1}; p + i is aligned to 16 bytes.")


def _store_vector(name: str, dtype: Any, width: int) -> Any:
    vector, each, accesses = _vectors(dtype, width)

    def typing(address: Any, index: Any, *values: Any) -> tuple[Any, Lower]:
        _check_place(name, address, index)
        need(name, all(v == dtype for v in values), address, index, *values)

        def lower(builder: ir.IRBuilder, args: list[Any]) -> Any:
            first = _address(builder, args[0], args[1], MEMORY[dtype], vector)
            for part in range(accesses):
                value: Any = ir.Constant(vector, ir.Undefined)
                for k in range(each):
                    value = builder.insert_element(value, args[2 + part * each + k], ir.Constant(I32, k))
                builder.store(value, builder.gep(first, [ir.Constant(I32, part)]), align=16)

        return types.void, lower

    return word(
        name,
        2 + width,
        typing,
        f"Elements i … i+{width - 1} become the values; p + i is aligned to 16 bytes.",
    )


FUNCTIONS: dict[str, Any] = {
    **{f"load_{name}": _load(f"load_{name}", dtype) for name, dtype in DTYPES.items()},
    **{f"store_{name}": _store(f"store_{name}", dtype) for name, dtype in DTYPES.items()},
}
for _width, _name in ((4, "f32"), (4, "i32"), (4, "f64"), (2, "f64"), (2, "i64")):
    FUNCTIONS[f"load{_width}_{_name}"] = _load_vector(f"load{_width}_{_name}", DTYPES[_name], _width)
    FUNCTIONS[f"store{_width}_{_name}"] = _store_vector(f"store{_width}_{_name}", DTYPES[_name], _width)
