"""A kernel's own working memory: a few vectors on the stack, where a register tile puts its results.

Comes in: a number of elements known when the kernel is generated. Goes out: FUNCTIONS, name -> kernel function. May not
know what is kept there.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.typing.templates import Signature, signature

from flowgraph.codegen.cpu.memory import element
from flowgraph.codegen.cpu.value import LANES, SCALAR, Value
from flowgraph.codegen.cpu.vector import VECTORS, KernelOnly, canonical, define_function

CACHE_LINE = 64


def _stack_rule(*operands: types.Type) -> Signature | None:
    if len(operands) != 1 or not isinstance(canonical(operands[0]), types.Integer):
        return None
    return signature(types.int64, types.int64)


def _stack(builder: ir.IRBuilder, count: ir.Value, dtype: str) -> Value:
    # In the entry block, so that a loop does not grow the stack; the count is a literal by then.
    with builder.goto_entry_block():
        memory = builder.alloca(SCALAR[dtype], count)
        memory.align = CACHE_LINE
        return Value(builder, "i64", builder.ptrtoint(memory, ir.IntType(64)))


def _spill_rule(dtype: str) -> Any:
    def rule(*operands: types.Type) -> Signature | None:
        if len(operands) != 2 or not isinstance(operands[1], types.UniTuple) or operands[1].dtype != VECTORS[dtype]:
            return None
        return signature(types.void, types.int64, operands[1])

    return rule


def _functions() -> dict[str, KernelOnly]:
    made: dict[str, KernelOnly] = {}
    for t in ("f32", "f64"):
        made[f"stack_{t}"] = define_function(f"stack_{t}", _stack_rule, lambda sig, n, t=t: _stack(n.builder, n.ir, t))
        made[f"spill_{t}"] = _define_spill(t)
    return made


def _define_spill(dtype: str) -> KernelOnly:
    """spill_T(p, vectors): the vectors of a tuple one after another from address p."""
    from numba.core.imputils import lower_builtin
    from numba.core.typing.templates import AbstractTemplate, infer_global

    key = KernelOnly(f"spill_{dtype}")
    rule = _spill_rule(dtype)

    class Template(AbstractTemplate):  # type: ignore[misc]
        def generic(self, arguments: Any, keywords: Any) -> Signature | None:
            return None if keywords else rule(*arguments)

    Template.key = key
    Template.__name__ = f"Template_spill_{dtype}"
    infer_global(key, types.Function(Template))

    def lower(context: Any, builder: ir.IRBuilder, sig: Signature, arguments: Any) -> ir.Value:
        address = Value(builder, "i64", arguments[0])
        for k in range(sig.args[1].count):
            index = Value(builder, "i64", ir.Constant(ir.IntType(64), LANES * k))
            builder.store(builder.extract_value(arguments[1], k), element(address, index, dtype, True)).align = CACHE_LINE // 4
        return context.get_dummy_value()

    lower_builtin(key, types.int64, types.UniTuple)(lower)
    return key


FUNCTIONS = _functions()
