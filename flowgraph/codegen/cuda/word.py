"""What a prelude function is: a name, a rule for its type, and the LLVM instructions it becomes.

Goes out: `word`, which makes a numba-cuda intrinsic of these, and the conversions between dtypes. May not
know any particular function. Everything is inlined into the kernel: there are no device functions to link.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Any

from llvmlite import ir

try:
    from numba.cuda import types as types
    from numba.cuda.extending import intrinsic as intrinsic
except ImportError:  # an older numba-cuda, which uses numba's own
    from functools import partial

    from numba.core import types as types
    from numba.core.extending import intrinsic as _intrinsic

    intrinsic = partial(_intrinsic, target="cuda")

DTYPES: dict[str, Any] = {
    "f32": types.float32,
    "f64": types.float64,
    "i32": types.int32,
    "i64": types.int64,
    "bool": types.boolean,
}
I1, I8, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 32, 64))
MEMORY = {
    types.float32: ir.FloatType(),
    types.float64: ir.DoubleType(),
    types.int32: I32,
    types.int64: I64,
    types.boolean: I8,
}  # what a buffer holds: a bool is one byte
VALUE = {**MEMORY, types.boolean: I1}  # what a register holds
GLOBAL = 1  # the address space that makes LDG and STG

Lower = Callable[[ir.IRBuilder, list[Any]], Any]


class KernelTypeError(TypeError):
    """A generated kernel calls a prelude function with operands it does not take: a bug in the generator."""


def word(name: str, arity: int, typing: Callable[..., tuple[Any, Lower]], doc: str = "") -> Any:
    """An intrinsic `name` of `arity` operands; `typing(*types)` gives its result type and how to lower it."""

    def define(typing_context: Any, *operands: Any) -> tuple[Any, Callable[..., Any]]:
        operands = tuple(types.unliteral(t) for t in operands)
        result, lower = typing(*operands)

        def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            value = lower(builder, list(args))
            if isinstance(result, types.BaseTuple):
                return context.make_tuple(builder, result, value)
            return context.get_dummy_value() if value is None else value

        return result(*operands), emit

    names = ["typing_context", *(f"a{k}" for k in range(arity))]
    define.__signature__ = Signature([Parameter(n, Parameter.POSITIONAL_OR_KEYWORD) for n in names])  # type: ignore
    define.__name__, define.__doc__ = name, doc
    return intrinsic(define)


def need(name: str, condition: bool, *operands: Any) -> None:
    if not condition:
        raise KernelTypeError(f"{name}({', '.join(map(str, operands))}) is not defined")


def common(name: str, a: Any, b: Any) -> Any:
    """The one dtype of two operands: equal, or the wider of two integers."""
    if a == b:
        return a
    need(name, isinstance(a, types.Integer) and isinstance(b, types.Integer), a, b)
    return types.int64


def is_float(dtype: Any) -> bool:
    return dtype in (types.float32, types.float64)


def convert(builder: ir.IRBuilder, value: Any, source: Any, target: Any) -> Any:
    """`source` -> `target`; float -> int truncates (undefined out of range), anything -> bool is `!= 0`."""
    here, there = value.type, VALUE[target]
    if target == types.boolean:
        if source == types.boolean:
            return value
        zero = ir.Constant(here, 0)
        return (
            builder.fcmp_unordered("!=", value, zero)
            if is_float(source)
            else builder.icmp_signed("!=", value, zero)
        )
    if is_float(source):
        if not is_float(target):
            return builder.fptosi(value, there)
        return (
            value
            if here == there
            else (builder.fptrunc if there == ir.FloatType() else builder.fpext)(value, there)
        )
    unsigned = source == types.boolean or not getattr(source, "signed", True)
    if is_float(target):
        return (builder.uitofp if unsigned else builder.sitofp)(value, there)
    if here.width == there.width:
        return value
    return (
        builder.trunc(value, there)
        if here.width > there.width
        else (builder.zext if unsigned else builder.sext)(value, there)
    )


def call_function(builder: ir.IRBuilder, name: str, result: Any, args: list[Any]) -> Any:
    """Call the external or intrinsic function `name`."""
    module = builder.module
    function = module.globals.get(name) or ir.Function(
        module, ir.FunctionType(result, [a.type for a in args]), name
    )
    return builder.call(function, args)


def libdevice(builder: ir.IRBuilder, name: str, *args: Any) -> Any:
    suffix = "f" if args[0].type == ir.FloatType() else ""
    return call_function(builder, f"__nv_{name}{suffix}", args[0].type, list(args))
