"""A value inside a kernel that is being built: an LLVM value that knows its dtype and understands Python's
operators.

Comes in: an llvmlite builder and LLVM values. Goes out: LLVM instructions, appended to that builder. A value
is a scalar or a vector of LANES lanes; every operation here serves both, so each formula is written once. May
not know numba, memory, or what a kernel computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir

# For every dtype and machine: the order of a reduction may not depend on the hardware's vector width.
LANES = 16

SCALAR: dict[str, ir.Type] = {
    "f32": ir.FloatType(),
    "f64": ir.DoubleType(),
    "i32": ir.IntType(32),
    "i64": ir.IntType(64),
    "bool": ir.IntType(1),
}
BITS = {"f32": 32, "f64": 64, "i32": 32, "i64": 64, "bool": 1}

Number = bool | int | float


def ir_type(dtype: str, vector: bool) -> ir.Type:
    return ir.VectorType(SCALAR[dtype], LANES) if vector else SCALAR[dtype]


def call_intrinsic(
    builder: ir.IRBuilder, name: str, result: ir.Type, arguments: Sequence[ir.Value]
) -> ir.Value:
    """Call an LLVM intrinsic or an external function by its full name, declaring it on first use."""
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, ir.FunctionType(result, [a.type for a in arguments]), name)
    return builder.call(function, list(arguments))


class Value:
    """An LLVM value with a dtype. Operators take another Value (a scalar is spread over a vector) or a Python
    number."""

    __slots__ = ("builder", "dtype", "ir")

    def __init__(self, builder: ir.IRBuilder, dtype: str, value: ir.Value) -> None:
        self.builder, self.dtype, self.ir = builder, dtype, value

    # --- what it is -----------------------------------------------------------------------------------------

    @property
    def is_vector(self) -> bool:
        return isinstance(self.ir.type, ir.VectorType)

    @property
    def is_float(self) -> bool:
        return self.dtype in ("f32", "f64")

    @property
    def known(self) -> int | None:
        """The number that an integer scalar is written as, None if it is computed."""
        return self.ir.constant if isinstance(self.ir, ir.Constant) and not self.is_vector else None

    def _with(self, dtype: str, value: ir.Value) -> Value:
        return Value(self.builder, dtype, value)

    def constant(self, number: Number, dtype: str | None = None) -> Value:
        """`number` as a value like this one, in `dtype` or this one's."""
        dtype = dtype or self.dtype
        python = float(number) if dtype in ("f32", "f64") else int(number)
        scalar = ir.Constant(SCALAR[dtype], python)
        if not self.is_vector:
            return self._with(dtype, scalar)
        vector = ir.VectorType(SCALAR[dtype], LANES)
        if str(python) in ("0", "0.0"):         # (-0.0 has a sign)
            return self._with(dtype, ir.Constant(vector, None))         # one word of text instead of 16 numbers
        return self._with(dtype, ir.Constant(vector, [python] * LANES))

    def splat(self) -> Value:
        """A scalar in every lane."""
        if self.is_vector:
            return self
        vector = ir.VectorType(self.ir.type, LANES)
        if isinstance(self.ir, ir.Constant):
            return self._with(self.dtype, ir.Constant(vector, [self.ir.constant] * LANES))
        undefined = ir.Constant(vector, ir.Undefined)
        first = self.builder.insert_element(undefined, self.ir, ir.Constant(ir.IntType(32), 0))
        return self._with(self.dtype, self.builder.shuffle_vector(first, undefined, _indices([0] * LANES)))

    def _pair(self, other: Value | Number) -> tuple[Value, Value]:
        if not isinstance(other, Value):
            return self, self.constant(other)
        if self.dtype != other.dtype:
            raise TypeError(f"{self.dtype} and {other.dtype} do not mix")
        if self.is_vector == other.is_vector:
            return self, other
        return self.splat(), other.splat()

    # --- arithmetic -----------------------------------------------------------------------------------------

    def _arithmetic(self, other: Value | Number, real: str, integer: str) -> Value:
        # No contraction: fusion computes a value twice where that is cheap, and it must come out the same both
        # times (max(x * y) against x * y). Only `fma` fuses.
        a, b = self._pair(other)
        if a.is_float:
            return a._with(a.dtype, getattr(a.builder, real)(a.ir, b.ir))
        return a._with(a.dtype, getattr(a.builder, integer)(a.ir, b.ir))

    def __add__(self, other: Value | Number) -> Value:
        return self._arithmetic(other, "fadd", "add")

    def __sub__(self, other: Value | Number) -> Value:
        return self._arithmetic(other, "fsub", "sub")

    def __mul__(self, other: Value | Number) -> Value:
        return self._arithmetic(other, "fmul", "mul")

    def __truediv__(self, other: Value | Number) -> Value:
        return self._arithmetic(other, "fdiv", "unsupported")

    def __radd__(self, other: Number) -> Value:
        return self.constant(other) + self

    def __rsub__(self, other: Number) -> Value:
        return self.constant(other) - self

    def __rmul__(self, other: Number) -> Value:
        return self.constant(other) * self

    def __rtruediv__(self, other: Number) -> Value:
        return self.constant(other) / self

    def __neg__(self) -> Value:
        negate = self.builder.fneg if self.is_float else self.builder.neg
        return self._with(self.dtype, negate(self.ir))

    def fma(self, factor: Value | Number, addend: Value | Number) -> Value:
        """self * factor + addend, rounded once."""
        _, b = self._pair(factor)
        _, c = self._pair(addend)
        return self._intrinsic("fma", b, c)

    def divide_floored(self, other: Value | Number) -> tuple[Value, Value]:
        """Integer quotient rounded down, and the remainder with the divisor's sign; both 0 where the divisor
        is 0, as NumPy.

        The divisor 0 and the pair (smallest, -1) would trap, also in lanes nobody looks at, so they never
        reach the division: x // 0 = x % 0 = 0, and -1 is divided by as a negation.
        """
        a, b = self._pair(other)
        zero, minus = b == 0, b == -1
        safe = (zero | minus).select(1, b)
        quotient = a._with(a.dtype, a.builder.sdiv(a.ir, safe.ir))
        rest = a - quotient * safe
        down = (rest != 0) & ((rest < 0) ^ (safe < 0))
        quotient, rest = down.select(quotient - 1, quotient), down.select(rest + safe, rest)
        return zero.select(0, minus.select(-a, quotient)), (zero | minus).select(0, rest)

    def divide_real_floored(self, other: Value | Number) -> tuple[Value, Value]:
        """Float quotient rounded down, and the exact remainder with the divisor's sign: NumPy's npy_divmod."""
        a, b = self._pair(other)
        rest = a.to("f64").libm("fmod", b.to("f64")).to(a.dtype)  # exact, so the wider one serves both
        down = (rest != 0.0) & ((b < 0.0) ^ (rest < 0.0))
        ratio = (a - rest) / b
        ratio = down.select(ratio - 1.0, ratio)
        whole = ratio.floor()
        whole = (ratio - whole > 0.5).select(whole + 1.0, whole)
        exact = a / b
        whole = (ratio == 0.0).select(a.constant(0.0).copy_sign(exact), whole)
        rest = down.select(rest + b, (rest == 0.0).select(a.constant(0.0).copy_sign(b), rest))
        return (b == 0.0).select(exact, whole), rest

    # --- comparison and choice ------------------------------------------------------------------------------

    def _compare(self, other: Value | Number, operator: str) -> Value:
        a, b = self._pair(other)
        if a.is_float and operator == "!=":
            return a._with("bool", a.builder.fcmp_unordered("!=", a.ir, b.ir))  # NaN != NaN
        if a.is_float:
            return a._with("bool", a.builder.fcmp_ordered(operator, a.ir, b.ir))
        compare = a.builder.icmp_unsigned if a.dtype == "bool" else a.builder.icmp_signed
        return a._with("bool", compare(operator, a.ir, b.ir))

    def __lt__(self, other: Value | Number) -> Value:
        return self._compare(other, "<")

    def __le__(self, other: Value | Number) -> Value:
        return self._compare(other, "<=")

    def __gt__(self, other: Value | Number) -> Value:
        return self._compare(other, ">")

    def __ge__(self, other: Value | Number) -> Value:
        return self._compare(other, ">=")

    def __eq__(self, other: Value | Number) -> Value:  # type: ignore[override]
        return self._compare(other, "==")

    def __ne__(self, other: Value | Number) -> Value:  # type: ignore[override]
        return self._compare(other, "!=")

    __hash__ = None  # type: ignore[assignment]

    def __and__(self, other: Value | Number) -> Value:
        a, b = self._pair(other)
        return a._with(a.dtype, a.builder.and_(a.ir, b.ir))

    def __or__(self, other: Value | Number) -> Value:
        a, b = self._pair(other)
        return a._with(a.dtype, a.builder.or_(a.ir, b.ir))

    def __xor__(self, other: Value | Number) -> Value:
        a, b = self._pair(other)
        return a._with(a.dtype, a.builder.xor(a.ir, b.ir))

    def __invert__(self) -> Value:
        return self._with(self.dtype, self.builder.not_(self.ir))

    def __lshift__(self, count: int) -> Value:
        return self._with(self.dtype, self.builder.shl(self.ir, self.constant(count).ir))

    def __rshift__(self, count: int) -> Value:
        return self._with(self.dtype, self.builder.ashr(self.ir, self.constant(count).ir))

    def select(self, yes: Value | Number, no: Value | Number) -> Value:
        """Where this bool holds, `yes`, else `no`; at most one of the two may be a Python number."""
        if not isinstance(yes, Value):
            assert isinstance(no, Value)
            yes, no = no._pair(yes)[::-1]
        else:
            yes, no = yes._pair(no)
        if self.is_vector:
            yes, no = yes.splat(), no.splat()
        return yes._with(yes.dtype, self.builder.select(self.ir, yes.ir, no.ir))

    def minimum(self, other: Value | Number) -> Value:
        """The smaller; NaN if either is. Compare and choose, since that is one native instruction and the
        same for zeros everywhere."""
        a, b = self._pair(other)
        smaller = (a < b).select(a, b)  # b, if b is NaN
        return (a != a).select(a, smaller) if a.is_float else smaller

    def maximum(self, other: Value | Number) -> Value:
        a, b = self._pair(other)
        larger = (a > b).select(a, b)
        return (a != a).select(a, larger) if a.is_float else larger

    def clip(self, low: float, high: float) -> Value:
        """Within [low, high]; NaN stays."""
        inner = (self < low).select(low, self)
        return (inner > high).select(high, inner)

    # --- functions the hardware has -------------------------------------------------------------------------

    def _intrinsic(self, name: str, *others: Value) -> Value:
        operands = [self, *others]
        if any(v.is_vector for v in operands):
            operands = [v.splat() for v in operands]
        kind = f"f{BITS[self.dtype]}" if self.is_float else f"i{BITS[self.dtype]}"
        lanes = f"v{LANES}" if operands[0].is_vector else ""
        name, like = f"llvm.{name}.{lanes}{kind}", operands[0].ir.type
        return self._with(self.dtype, call_intrinsic(self.builder, name, like, [v.ir for v in operands]))

    def absolute(self) -> Value:
        return self._intrinsic("fabs") if self.is_float else (self < 0).select(-self, self)

    def sqrt(self) -> Value:
        return self._intrinsic("sqrt")

    def floor(self) -> Value:
        return self._intrinsic("floor") if self.is_float else self

    def round(self) -> Value:
        """The nearest whole number, of two equally near ones the even one."""
        return self._intrinsic("roundeven")

    def copy_sign(self, sign: Value) -> Value:
        """This magnitude with the sign of `sign`."""
        return self._intrinsic("copysign", sign)

    def sign(self) -> Value:
        """-1, 0 or 1; NaN for NaN."""
        one = (self > 0).select(self.constant(1), (self < 0).select(self.constant(-1), self.constant(0)))
        return (self != self).select(self, one) if self.is_float else one

    # --- conversions ----------------------------------------------------------------------------------------

    def to(self, dtype: str) -> Value:
        """Converted: floats to integers by truncation, anything to bool by comparison with zero."""
        if dtype == self.dtype:
            return self
        if dtype == "bool":
            return self != 0
        target, b = ir_type(dtype, self.is_vector), self.builder
        to_float = dtype in ("f32", "f64")
        if self.is_float and to_float:
            convert = b.fpext if dtype == "f64" else b.fptrunc
        elif self.is_float:
            convert = b.fptosi
        elif to_float:
            convert = b.uitofp if self.dtype == "bool" else b.sitofp
        elif BITS[dtype] < BITS[self.dtype]:
            convert = b.trunc
        else:
            convert = b.zext if self.dtype == "bool" else b.sext
        return self._with(dtype, convert(self.ir, target))

    def bits(self) -> Value:
        """A float's bit pattern as an integer of its size."""
        integer = {"f32": "i32", "f64": "i64"}[self.dtype]
        return self._with(integer, self.builder.bitcast(self.ir, ir_type(integer, self.is_vector)))

    def from_bits(self) -> Value:
        """The float that has this bit pattern."""
        real = {"i32": "f32", "i64": "f64"}[self.dtype]
        return self._with(real, self.builder.bitcast(self.ir, ir_type(real, self.is_vector)))

    # --- lanes ----------------------------------------------------------------------------------------------

    def interleave(self, other: Value, start: int) -> Value:
        """self[start], other[start], self[start + 1], ...: as many as there are lanes."""
        order = [side * LANES + start + k for k in range(LANES // 2) for side in (0, 1)]
        return self._with(self.dtype, self.builder.shuffle_vector(self.ir, other.ir, _indices(order)))

    def backwards(self) -> Value:
        """The lanes from the last to the first."""
        order = _indices(range(LANES - 1, -1, -1))
        return self._with(self.dtype, self.builder.shuffle_vector(self.ir, self.ir, order))

    def lane(self, index: int) -> Value:
        element = self.builder.extract_element(self.ir, ir.Constant(ir.IntType(32), index))
        return self._with(self.dtype, element)

    def fold(self, combine: Callable[[Value, Value], Value]) -> Value:
        """All lanes combined by halves: lane i with lane i + 8, then + 4, + 2, + 1. Always this order."""
        if not self.is_vector:
            return self
        value, width = self, LANES
        while width > 1:
            width //= 2
            undefined = ir.Constant(value.ir.type, ir.Undefined)
            low, high = (
                self._with(self.dtype, self.builder.shuffle_vector(value.ir, undefined, _indices(half)))
                for half in (range(width), range(width, 2 * width))
            )
            value = combine(low, high)
        return value.lane(0)

    def any_lane(self) -> Value:
        """Whether any lane of a bool vector is true."""
        if not self.is_vector:
            return self
        mask = self.builder.bitcast(self.ir, ir.IntType(LANES))
        return self._with("bool", self.builder.icmp_unsigned("!=", mask, ir.Constant(ir.IntType(LANES), 0)))

    def map_lanes(self, function: Callable[..., Value], *others: Value) -> Value:
        """`function` of scalars applied lane by lane: for what has no vector form."""
        if not self.is_vector:
            return function(self, *others)
        result = ir.Constant(self.ir.type, ir.Undefined)
        for i in range(LANES):
            one = function(self.lane(i), *(v.lane(i) for v in others))
            result = self.builder.insert_element(result, one.ir, ir.Constant(ir.IntType(32), i))
        return self._with(self.dtype, result)

    def libm(self, name: str, *others: Value) -> Value:
        """The C library's float64 function of this name, lane by lane."""

        def one(*operands: Value) -> Value:
            arguments = [v.ir for v in operands]
            return self._with("f64", call_intrinsic(self.builder, name, SCALAR["f64"], arguments))

        return self.map_lanes(one, *others)

    def branch(self, yes: Callable[[], Value], no: Callable[[], Value]) -> Value:
        """`yes()` or `no()` by this scalar bool; unlike select, only one of the two runs."""
        b, arms = self.builder, []
        blocks = [b.append_basic_block(name) for name in ("yes", "no", "join")]
        b.cbranch(self.ir, *blocks[:2])
        for block, function in zip(blocks, (yes, no), strict=False):
            b.position_at_end(block)
            arms.append((function(), b.block))
            b.branch(blocks[2])
        b.position_at_end(blocks[2])
        result = b.phi(arms[0][0].ir.type)
        for value, block in arms:
            result.add_incoming(value.ir, block)
        return self._with(arms[0][0].dtype, result)


def _indices(lanes: Sequence[int]) -> ir.Constant:
    return ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes))


def shared_function(
    name: str, body: Callable[..., Value], arguments: Sequence[Value], result: str = "", inline: bool = True
) -> Value:
    """Call `body` as a function of its own, built once per module for each combination of operand types.

    LLVM simplifies it once, before it is inlined: everywhere, or where LLVM finds that it pays. `result` is its dtype,
    by default that of the first operand, which it is as wide as.
    """
    builder, module = arguments[0].builder, arguments[0].builder.module
    full_name = f"flowgraph.{name}." + ".".join(f"{a.dtype}x{LANES if a.is_vector else 1}" for a in arguments)
    dtype = result or arguments[0].dtype
    function = module.globals.get(full_name)
    if function is None:
        made = ir.FunctionType(ir_type(dtype, arguments[0].is_vector), [a.ir.type for a in arguments])
        function = ir.Function(module, made, full_name)
        function.linkage = "internal"
        if inline:
            function.attributes.add("alwaysinline")
        inner = ir.IRBuilder(function.append_basic_block("entry"))
        inner.ret(body(*(Value(inner, a.dtype, p) for a, p in zip(arguments, function.args, strict=True))).ir)
    return Value(builder, dtype, builder.call(function, [a.ir for a in arguments]))
