"""Scalars: conversion, choice, order, arithmetic, mathematics. Nothing assumes away NaN or infinity.

Operands of one call have one dtype; two integers widen to the wider one. A constant is written `to_f32(0.5)`
and folds away. The functions are libdevice's: float32 within 2 ulp (power: 4), right at infinities and NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from flowgraph.codegen.cuda.word import (
    DTYPES,
    VALUE,
    Lower,
    call_function,
    common,
    convert,
    is_float,
    libdevice,
    need,
    types,
    word,
)

# ---- conversion, choice, order


def _conversion(name: str, dtype: Any) -> Any:
    def typing(value: Any) -> tuple[Any, Lower]:
        need(name, isinstance(value, (types.Integer, types.Float, types.Boolean)), value)
        return dtype, lambda builder, args: convert(builder, args[0], value, dtype)

    return word(name, 1, typing, "The value in another dtype; float to integer truncates, to bool is `!= 0`.")


conversions = tuple(_conversion(f"to_{name}", dtype) for name, dtype in DTYPES.items())


def _type_select(condition: Any, a: Any, b: Any) -> tuple[Any, Lower]:
    need("select", condition == types.boolean, condition, a, b)
    dtype = common("select", a, b)
    return dtype, lambda builder, args: builder.select(
        args[0], convert(builder, args[1], a, dtype), convert(builder, args[2], b, dtype)
    )


select = word("select", 3, _type_select, "a where the condition holds, else b.")


def extremum(builder: ir.IRBuilder, dtype: Any, order: str, a: Any, b: Any) -> Any:
    """minimum (order '<') or maximum ('>'); the first NaN wins, as in NumPy."""
    if dtype == types.boolean:
        return builder.and_(a, b) if order == "<" else builder.or_(a, b)
    if not is_float(dtype):
        return builder.select(builder.icmp_signed(order, a, b), a, b)
    first = builder.or_(builder.fcmp_ordered(order, a, b), builder.fcmp_unordered("uno", a, a))
    return builder.select(first, a, b)


def binary(
    name: str,
    lower: Callable[[ir.IRBuilder, Any, Any, Any], Any],
    doc: str,
    accepts: Callable[[Any], bool] = lambda dtype: True,
) -> Any:
    def typing(a: Any, b: Any) -> tuple[Any, Lower]:
        dtype = common(name, a, b)
        need(name, dtype in VALUE and accepts(dtype), a, b)
        return dtype, lambda builder, args: lower(
            builder, dtype, convert(builder, args[0], a, dtype), convert(builder, args[1], b, dtype)
        )

    return word(name, 2, typing, doc)


def unary(
    name: str,
    lower: Callable[[ir.IRBuilder, Any, Any], Any],
    doc: str,
    accepts: Callable[[Any], bool] = is_float,
) -> Any:
    def typing(a: Any) -> tuple[Any, Lower]:
        need(name, a in VALUE and accepts(a), a)
        return a, lambda builder, args: lower(builder, a, args[0])

    return word(name, 1, typing, doc)


minimum = binary("minimum", lambda b, t, x, y: extremum(b, t, "<", x, y), "The smaller; NaN propagates.")
maximum = binary("maximum", lambda b, t, x, y: extremum(b, t, ">", x, y), "The larger; NaN propagates.")


# ---- arithmetic


def _absolute(builder: ir.IRBuilder, dtype: Any, x: Any) -> Any:
    if is_float(dtype):
        return libdevice(builder, "fabs", x)
    return builder.select(builder.icmp_signed("<", x, ir.Constant(x.type, 0)), builder.neg(x), x)


def _sign(builder: ir.IRBuilder, dtype: Any, x: Any) -> Any:
    """-1, 0 or 1; NaN stays NaN and either zero becomes +0, as in NumPy."""
    zero, one, minus_one = (ir.Constant(x.type, k) for k in (0, 1, -1))
    compare = builder.fcmp_ordered if is_float(dtype) else builder.icmp_signed
    rest = builder.select(builder.fcmp_unordered("uno", x, x), x, zero) if is_float(dtype) else zero
    return builder.select(compare(">", x, zero), one, builder.select(compare("<", x, zero), minus_one, rest))


def integer_floor_division(builder: ir.IRBuilder, a: Any, b: Any) -> tuple[Any, Any]:
    """Floored quotient and remainder with NumPy's x // 0 = x % 0 = 0, branch-free."""
    zero, one, minus_one = (ir.Constant(a.type, k) for k in (0, 1, -1))
    by_zero = builder.icmp_signed("==", b, zero)
    overflow = builder.and_(
        builder.icmp_signed("==", a, ir.Constant(a.type, -(1 << (a.type.width - 1)))),
        builder.icmp_signed("==", b, minus_one),
    )
    divisor = builder.select(builder.or_(by_zero, overflow), one, b)  # sdiv traps on both; a // 1 is right
    quotient, rest = builder.sdiv(a, divisor), builder.srem(a, divisor)
    down = builder.and_(
        builder.icmp_signed("!=", rest, zero), builder.icmp_signed("<", builder.xor(rest, divisor), zero)
    )
    quotient = builder.sub(quotient, builder.zext(down, a.type))
    return builder.select(by_zero, zero, quotient), builder.add(rest, builder.select(down, divisor, zero))


def _float_floor_division(builder: ir.IRBuilder, a: Any, b: Any) -> tuple[Any, Any]:
    """Floored quotient and remainder as NumPy's npy_divmod: the remainder has the sign of b and is exact."""
    zero, half, one = (ir.Constant(a.type, k) for k in (0.0, 0.5, 1.0))
    rest = libdevice(builder, "fmod", a, b)
    down = builder.and_(
        builder.fcmp_unordered("!=", rest, zero),
        builder.xor(builder.fcmp_ordered("<", b, zero), builder.fcmp_ordered("<", rest, zero)),
    )
    ratio = builder.fdiv(builder.fsub(a, rest), b)
    ratio = builder.select(down, builder.fsub(ratio, one), ratio)
    whole = libdevice(builder, "floor", ratio)
    whole = builder.select(
        builder.fcmp_ordered(">", builder.fsub(ratio, whole), half), builder.fadd(whole, one), whole
    )
    exact = builder.fdiv(a, b)
    whole = builder.select(
        builder.fcmp_ordered("==", ratio, zero), libdevice(builder, "copysign", zero, exact), whole
    )
    signed_zero = libdevice(builder, "copysign", zero, b)
    rest = builder.select(
        down, builder.fadd(rest, b), builder.select(builder.fcmp_ordered("==", rest, zero), signed_zero, rest)
    )
    return builder.select(builder.fcmp_ordered("==", b, zero), exact, whole), rest


def _floor_division(which: int) -> Callable[[ir.IRBuilder, Any, Any, Any], Any]:
    return lambda builder, dtype, a, b: (
        _float_floor_division if is_float(dtype) else integer_floor_division
    )(builder, a, b)[which]


def is_number(dtype: Any) -> bool:
    return bool(dtype != types.boolean)


absolute = unary("absolute", _absolute, "|a|.", is_number)
sign = unary("sign", _sign, "-1, 0 or 1; NaN stays.", is_number)
sqrt = unary("sqrt", lambda b, t, x: libdevice(b, "sqrt", x), "Square root, correctly rounded.")
floor = unary(
    "floor",
    lambda b, t, x: libdevice(b, "floor", x) if is_float(t) else x,
    "The largest whole number not above a.",
    is_number,
)
round_ = unary("round", lambda b, t, x: libdevice(b, "rint", x), "The nearest whole number, half to even.")
floor_divide = binary(
    "floor_divide", _floor_division(0), "a // b as NumPy's, in the operands' dtype.", is_number
)
remainder = binary("remainder", _floor_division(1), "a % b as NumPy's, in the operands' dtype.", is_number)


def _index_division(name: str, instruction: str) -> Any:
    def typing(i: Any, n: Any) -> tuple[Any, Lower]:
        need(name, isinstance(i, types.Integer) and isinstance(n, types.Integer), i, n)
        return types.int32, lambda builder, args: getattr(builder, instruction)(
            convert(builder, args[0], i, types.int32), convert(builder, args[1], n, types.int32)
        )

    return word(
        name, 2, typing, "For 0 <= i, 0 < n, both 32 bit: the cheap division that takes indices apart."
    )


index_div, index_mod = _index_division("index_div", "udiv"), _index_division("index_mod", "urem")


def _type_fma(a: Any, b: Any, c: Any) -> tuple[Any, Lower]:
    need("fma", a == b == c and is_float(a), a, b, c)
    suffix = "f32" if a == types.float32 else "f64"
    return a, lambda builder, args: call_function(builder, f"llvm.fma.{suffix}", args[0].type, args)


fma = word("fma", 3, _type_fma, "a·b + c, rounded once.")


# ---- mathematics


def _from_libdevice(name: str, stem: str) -> Any:
    return unary(name, lambda b, t, x: libdevice(b, stem, x), f"{stem}(a).")


exp, log, log1p, expm1, tanh, erf, sin, cos = (
    _from_libdevice(name, name) for name in ("exp", "log", "log1p", "expm1", "tanh", "erf", "sin", "cos")
)
power = binary("power", lambda b, t, x, y: libdevice(b, "pow", x, y), "a to the power b.", is_float)


def _exp_minus_absolute(builder: ir.IRBuilder, x: Any) -> Any:
    negative_zero = ir.Constant(x.type, -0.0)  # NVVM's IR has no fneg
    return libdevice(builder, "exp", builder.fsub(negative_zero, libdevice(builder, "fabs", x)))


def _logistic(builder: ir.IRBuilder, dtype: Any, x: Any) -> Any:
    """1 / (1 + e^-x), with e = e^-|x| so that nothing overflows and small results keep their digits."""
    e, one = _exp_minus_absolute(builder, x), ir.Constant(x.type, 1.0)
    numerator = builder.select(builder.fcmp_ordered(">=", x, ir.Constant(x.type, 0.0)), one, e)
    return builder.fdiv(numerator, builder.fadd(one, e))


def _softplus(builder: ir.IRBuilder, dtype: Any, x: Any) -> Any:
    """log(1 + e^x) = max(x, 0) + log1p(e^-|x|)."""
    rectified = extremum(builder, dtype, ">", x, ir.Constant(x.type, 0.0))
    return builder.fadd(rectified, libdevice(builder, "log1p", _exp_minus_absolute(builder, x)))


logistic = unary("logistic", _logistic, "1 / (1 + exp(-a)).")
softplus = unary("softplus", _softplus, "log(1 + exp(a)).")

FUNCTIONS: dict[str, Any] = {
    function.__name__: function
    for function in (
        *conversions,
        select,
        minimum,
        maximum,
        absolute,
        sign,
        sqrt,
        floor,
        round_,
        floor_divide,
        remainder,
        index_div,
        index_mod,
        fma,
        exp,
        log,
        log1p,
        expm1,
        tanh,
        erf,
        sin,
        cos,
        power,
        logistic,
        softplus,
    )
}
