"""Random numbers in a kernel: the formulas of codegen/philox.py on this dialect's scalars."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from flowgraph.codegen import philox
from flowgraph.codegen.cpu.value import Value
from flowgraph.codegen.cuda.word import Lower, convert, need, types, word


def _uniform(name: str, number: int, wide: bool) -> Any:
    def typing(*operands: Any) -> tuple[Any, Lower]:
        need(name, all(isinstance(t, types.Integer) for t in operands), *operands)

        def lower(builder: ir.IRBuilder, args: list[Any]) -> Any:
            given = zip(args, operands, strict=True)
            values = (Value(builder, "i64", convert(builder, a, t, types.int64)) for a, t in given)
            return philox.uniform(number, wide, *values).ir

        return types.float64 if wide else types.float32, lower

    return word(name, 4, typing, "A number in [0, 1) that belongs to seed, step, stream and element.")


FUNCTIONS: dict[str, Any] = {name: _uniform(name, *which) for name, which in philox.NAMES.items()}
