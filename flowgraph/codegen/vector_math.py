"""float32 exp, log, tanh, ... as formulas, and their float64 forms through the C library.

Comes in: values with operators, scalars or vectors alike. Goes out: the same kind of value. Written only in the
operations of a value, so a scalar and a lane get the same bits. May not know LLVM, numba, or the machine.

The float32 formulas: reduce the range exactly (with fused multiply-adds), evaluate a minimax polynomial or rational
whose coefficients were fitted by reweighted least squares and rounded to float32 one at a time, undo the reduction.
NaN passes through every comparison used here as "not less, not greater", so it needs no test of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Value = Any  # flowgraph.codegen.cpu.value.Value, or anything with the same operations

LOG2_E = 1.4426950408889634
# log 2 in two parts: the first has 15 bits, so that its product with an exponent is exact.
LOG_2_HIGH, LOG_2_LOW = 0.693145751953125, 1.428606765330187e-06
# Adding it rounds a float32 of moderate size to an integer, which then stands in the low bits (1.5 * 2**23).
ROUND = 12582912.0
ROUND_BITS = 0x4B400000
ONE_BITS = 0x3F800000
SMALLEST_NORMAL = 1.1754943508222875e-38


def polynomial(x: Value, coefficients: Sequence[float]) -> Value:
    """c[0] + c[1] x + c[2] x**2 + ..., by Horner's rule."""
    result = x.constant(coefficients[-1])
    for c in coefficients[-2::-1]:
        result = result.fma(x, c)
    return result


def power_of_two(n: Value) -> Value:
    """2**n as a float32, for an int32 n in -126..127."""
    return ((n << 23) + ONE_BITS).from_bits()


def reduce_exponent(x: Value) -> tuple[Value, Value]:
    """(n, r) with x = n log 2 + r, n an int32, |r| <= log(2) / 2."""
    shifted = x.fma(LOG2_E, ROUND)
    n = shifted - ROUND
    r = n.fma(-LOG_2_LOW, n.fma(-LOG_2_HIGH, x))
    return shifted.bits() - ROUND_BITS, r


# exp r = 1 + r + r**2 (...) on |r| <= log(2) / 2
EXP = (0.4999999403953552, 0.1666652113199234, 0.04166825860738754, 0.008368666283786297, 0.0013821172760799527)


def exp(x: Value) -> Value:
    if x.dtype == "f64":
        return x.libm("exp")
    n, r = reduce_exponent(x.clip(-104.0, 89.0))  # beyond: 0 and infinity all the same
    y = polynomial(r, (1.0, 1.0, *EXP))
    half = n >> 1  # in two factors: n reaches -150 and 128, so that results below the normal range round once
    return y * power_of_two(half) * power_of_two(n - half)


# expm1 r = r + r**2 (...) on |r| <= log(2) / 2
EXPM1 = (0.4999999701976776, 0.1666654646396637, 0.04166743904352188, 0.008366257883608341, 0.001387030235491693)


def expm1(x: Value) -> Value:
    if x.dtype == "f64":
        return x.libm("expm1")
    n, r = reduce_exponent(x.clip(-25.0, 89.0))
    y = polynomial(r, EXPM1).fma(r * r, r)
    scale = power_of_two(n - 1)  # 2**(n - 1), doubled at the end: n may be 128
    y = y.fma(scale, scale - 0.5) * 2.0
    return (x.absolute() < 1e-8).select(x, y)  # keeps -0 and the values below the normal range


# log(1 + f) = f - f**2 / 2 + f**3 (...) on sqrt(1/2) <= 1 + f <= sqrt(2)
LOG1P = (
    0.3333333134651184, -0.2500081956386566, 0.2000124156475067, -0.166234090924263,
    0.14201579988002777, -0.13159610331058502, 0.12762217223644257, -0.07636439055204391,
)  # fmt: skip
SQRT_HALF_BITS = 0x3F3504F3


def split_exponent(x: Value) -> tuple[Value, Value]:
    """(e, m) with x = 2**e m and sqrt(1/2) <= m < sqrt(2), for a positive normal x; e as a float."""
    bits = x.bits() - SQRT_HALF_BITS
    e = bits >> 23
    return e.to("f32"), ((bits & 0x7FFFFF) + SQRT_HALF_BITS).from_bits()


def log_of_parts(e: Value, f: Value, correction: Value) -> Value:
    """e log 2 + log(1 + f) + correction, the last a tiny term; small terms are added first."""
    square = f * f
    tail = polynomial(f, LOG1P) * f * square
    tail = square.fma(-0.5, e.fma(LOG_2_LOW, tail + correction))
    return e.fma(LOG_2_HIGH, f + tail)


def log(x: Value) -> Value:
    if x.dtype == "f64":
        return x.libm("log")
    subnormal = x < SMALLEST_NORMAL
    e, m = split_exponent(subnormal.select(x * 8388608.0, x))
    y = log_of_parts(subnormal.select(e - 23.0, e), m - 1.0, x.constant(0.0))
    return log_limits(x, y)


def log_limits(x: Value, y: Value) -> Value:
    """y = log x, put right where x is negative, 0, infinite or NaN."""
    y = (x < float("inf")).select(y, x)  # infinity and NaN
    y = (x == 0.0).select(float("-inf"), y)
    return (x < 0.0).select(float("nan"), y)


def log1p(x: Value) -> Value:
    if x.dtype == "f64":
        return x.libm("log1p")
    u = x + 1.0
    e, m = split_exponent(u)
    # u was rounded; what was lost, relative to u, is log1p's correction to first order.
    lost = (x > 1.0).select(1.0 - (u - x), x - (u - 1.0))
    y = log_of_parts(e, m - 1.0, lost / u)
    y = (x.absolute() < 1e-8).select(x, y)  # keeps -0 and the values below the normal range
    y = (x < float("inf")).select(y, x)
    y = (x == -1.0).select(float("-inf"), y)
    return (x < -1.0).select(float("nan"), y)


# tanh x = x P(x**2) / Q(x**2); at the clip tanh is 1 to float32
TANH_LIMIT = 9.010913848876953
TANH_P = (1.0, 0.13383276760578156, 0.003498158883303404, 2.0647414203267545e-05, 1.3400470066926573e-08)
TANH_Q = (1.0, 0.4671659767627716, 0.025887025520205498, 0.0003289666201453656, 7.796845125085383e-07)


def tanh(x: Value) -> Value:
    if x.dtype == "f64":
        return x.libm("tanh")
    x = x.clip(-TANH_LIMIT, TANH_LIMIT)
    square = x * x
    return (x * polynomial(square, TANH_P) / polynomial(square, TANH_Q)).clip(-1.0, 1.0)


def logistic(x: Value) -> Value:
    """1 / (1 + exp(-x)), from exp(-|x|) <= 1, so that neither tail overflows nor cancels."""
    e = exp(-x.absolute())
    return (x < 0.0).select(e, x.constant(1.0)) / (e + 1.0)


def softplus(x: Value) -> Value:
    """log(1 + exp x) = max(x, 0) + log1p(exp(-|x|))."""
    return x.maximum(0.0) + log1p(exp(-x.absolute()))
