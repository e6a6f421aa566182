"""float32 exp, log, tanh, ... as formulas, and their float64 forms through the C library.

Comes in: values with operators, scalars or vectors alike. Goes out: the same kind of value. Written only in
the operations of a value, so a scalar and a lane get the same bits. May not know LLVM, numba, or the machine.

The float32 formulas reduce the range exactly (by fused multiply-adds), evaluate a minimax polynomial, and
undo the reduction. The coefficients were fitted by reweighted least squares and rounded to float32 one at a
time. NaN passes through every comparison used here as "not less, not greater", so it needs no test of its
own. Largest errors seen among 13 million float32 values of all sizes, in units of the last place: log, log1p
0.8, exp 0.9, erf 1.1, expm1, softplus 1.5, sin, cos 1.6, logistic 2.1, tanh 2.4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
EXP = (
    0.4999999403953552, 0.1666652113199234, 0.04166825860738754, 0.008368666283786297, 0.0013821172760799527,
)  # fmt: skip


def exp(x: Value) -> Value:
    if x.dtype == "f64":
        return x.libm("exp")
    n, r = reduce_exponent(x.clip(-104.0, 89.0))  # beyond: 0 and infinity all the same
    y = polynomial(r, (1.0, 1.0, *EXP))
    half = n >> 1  # in two factors: n reaches -150 and 128, so that results below the normal range round once
    return y * power_of_two(half) * power_of_two(n - half)


# expm1 r = r + r**2 (...) on |r| <= log(2) / 2
EXPM1 = (
    0.4999999701976776, 0.1666654646396637, 0.04166743904352188, 0.008366257883608341, 0.001387030235491693,
)  # fmt: skip


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


def tanh(x: Value) -> Value:
    """t / (t + 2) with t = expm1(2 |x|): exact near 0, and near 1 the errors of t cancel."""
    if x.dtype == "f64":
        return x.libm("tanh")
    magnitude = x.absolute()
    n, r = reduce_exponent((magnitude > 10.0).select(10.0, magnitude) * 2.0)
    scale = power_of_two(n)
    t = polynomial(r, EXPM1).fma(r * r, r).fma(scale, scale - 1.0)
    return (t / (t + 2.0)).copy_sign(x)


def logistic(x: Value) -> Value:
    """1 / (1 + exp(-x)), from exp(-|x|) <= 1, so that neither tail overflows nor cancels."""
    e = exp(-x.absolute())
    return (x < 0.0).select(e, x.constant(1.0)) / (e + 1.0)


def softplus(x: Value) -> Value:
    """log(1 + exp x) = max(x, 0) + log1p(exp(-|x|))."""
    return x.maximum(0.0) + log1p(exp(-x.absolute()))


# erf x = x + x (...)(x**2) below the bound, 1 - exp(...) above it, where exp is at most erfc(bound), so exact
# enough
ERF_BOUND = 0.92
ERF_SMALL = (
    0.12837916612625122, -0.3761262893676758, 0.11283625662326813, -0.026855729520320892,
    0.005192392040044069, -0.0008049496682360768, 7.99488989287056e-05,
)  # fmt: skip
ERFC_EXPONENT = (
    -0.0001956751657417044, -1.1276756525039673, -0.6371821761131287, -0.10393166542053223,
    0.02222694456577301, -0.0030432173516601324, 0.00019593609613366425,
)  # fmt: skip


def erf(x: Value) -> Value:
    if x.dtype == "f64":
        return x.libm("erf")
    magnitude = x.absolute()
    small = (polynomial(x * x, ERF_SMALL)).fma(x, x)
    large = 1.0 - exp(polynomial((magnitude > 4.0).select(4.0, magnitude), ERFC_EXPONENT))
    return (magnitude < ERF_BOUND).select(small, large.copy_sign(x))


TWO_OVER_PI = 0.6366197723675814
# pi / 2 in three parts; the first has 17 bits, so that its products with an integer below 2**15 are
# subtracted exactly.
HALF_PI = (1.5707855224609375, 1.0804334124259185e-05, -1.6513992864147786e-13)
QUADRANT_LIMIT = 16384.0  # beyond it three parts are not enough
SIN = (-0.1666666716337204, 0.008333379402756691, -0.00019853065896313637, 2.8325487164693186e-06)
COS = (0.0416666679084301, -0.0013888980029150844, 2.4822011255309917e-05, -2.8879142632831645e-07)


def _sin_or_cos(x: Value, name: str) -> Value:
    if x.dtype == "f64":
        return x.libm(name)
    shifted = x.fma(TWO_OVER_PI, ROUND)
    n, r = shifted - ROUND, x
    for part in HALF_PI:
        r = n.fma(-part, r)
    square = r * r
    sine = polynomial(square, SIN).fma(r * square, r)
    cosine = polynomial(square, COS).fma(square * square, square.fma(-0.5, 1.0))
    quadrant = shifted.bits() + (1 if name == "cos" else 0)  # cos x = sin(x + pi / 2)
    y = ((quadrant & 1) != 0).select(cosine, sine)
    y = ((quadrant & 2) != 0).select(-y, y)
    y = (x == 0.0).select(1.0 if name == "cos" else x, y)  # sin -0 = -0
    beyond = x.absolute() > QUADRANT_LIMIT
    return beyond.any_lane().branch(lambda: beyond.select(x.to("f64").libm(name).to("f32"), y), lambda: y)


def sin(x: Value) -> Value:
    return _sin_or_cos(x, "sin")


def cos(x: Value) -> Value:
    return _sin_or_cos(x, "cos")


# log2((1 + s) / (1 - s)) = s (...)(s**2), |s| <= 0.1716; 2**r = (...)(r), |r| <= 1/2; both to 36 bits, in
# float64
LOG2 = (
    2.8853900817778504, 0.9617966941130376, 0.5770779424256197,
    0.4122092475867084, 0.3199058595991073, 0.28289816617696584,
)  # fmt: skip
EXP2 = (
    0.9999999999997623, 0.6931471805465147, 0.24022650698880715, 0.0555041093934112, 0.009618128542802263,
    0.0013333452062733364, 0.00015403851790421415, 1.5309737294080415e-05, 1.3175849040671453e-06,
)  # fmt: skip
ROUND_F64 = 6755399441055744.0  # 1.5 * 2**52
SQRT_HALF_BITS_F64 = 0x3FE6A09E667F3BCD


def _log2_f64(x: Value) -> Value:
    """log2 of a positive normal float64, to 36 bits."""
    bits = x.bits() - SQRT_HALF_BITS_F64
    m = ((bits & 0xFFFFFFFFFFFFF) + SQRT_HALF_BITS_F64).from_bits()
    s = (m - 1.0) / (m + 1.0)
    return polynomial(s * s, LOG2).fma(s, (bits >> 52).to("f64"))


def _exp2_f64(x: Value) -> Value:
    """2**x, to 36 bits; x is clipped to where float32 is already 0 or infinite."""
    x = x.clip(-200.0, 200.0)
    shifted = x + ROUND_F64
    scale = ((shifted.bits() << 52) + 0x3FF0000000000000).from_bits()
    return polynomial(x - (shifted - ROUND_F64), EXP2) * scale


def power(a: Value, b: Value) -> Value:
    """a**b as C's pow: in float64 inside, since b log2 a needs seven bits more than a float32 has."""
    if a.dtype == "f64":
        return a.libm("pow", b)
    magnitude, infinity = a.absolute(), float("inf")
    logarithm = _log2_f64(magnitude.to("f64"))
    logarithm = (magnitude == 0.0).select(-infinity, (magnitude == infinity).select(infinity, logarithm))
    exponent = (magnitude == 1.0).select(0.0, b.to("f64") * logarithm)  # 1**infinity is 1
    y = _exp2_f64(exponent).to("f32")
    integral, half = b.floor() == b, b * 0.5
    y = (integral & (half.floor() != half)).select(y.copy_sign(a), y)
    y = ((a < 0.0) & (magnitude < infinity) & ~integral).select(float("nan"), y)
    y = ((a != a) | (b != b)).select(float("nan"), y)
    return ((a == 1.0) | (b == 0.0)).select(1.0, y)


FUNCTIONS: dict[Callable[..., Value], int] = {
    exp: 1, expm1: 1, log: 1, log1p: 1, tanh: 1, logistic: 1, softplus: 1, erf: 1, sin: 1, cos: 1, power: 2,
}  # fmt: skip
"""What kernels may call, and with how many operands."""
