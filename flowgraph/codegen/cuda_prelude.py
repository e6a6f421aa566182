"""The words of generated CUDA source: every name the cuda dialect may print, as numba-cuda intrinsics.

In: scalars; buffers are int64 device addresses, indices are 32 bit. Out: LLVM instructions in the kernel itself (no
device functions to link), calls to libdevice, and the two warp instructions. May not know: kernels, schedules, devices.

    from flowgraph.codegen.cuda_prelude import *       # the first line of a generated file

Conventions. `T` is one of f32 f64 i32 i64 bool. Operands of one call have one dtype (integers widen to the wider one);
a constant is written `to_f32(0.5)` and folds away. numba gives int32 + int32 the type int64; LLVM narrows it again
where the result is truncated, and every load and store truncates its index. Nothing here assumes away NaN or infinity.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Any

from llvmlite import ir
from numba import cuda
from numba.cuda.extending import intrinsic

try:
    from numba.cuda import types  # numba-cuda >= 0.18 has its own
except ImportError:
    from numba.core import types

DTYPES: dict[str, Any] = {"f32": types.float32, "f64": types.float64, "i32": types.int32, "i64": types.int64,
                          "bool": types.boolean}
_I1, _I8, _I32, _I64 = (ir.IntType(bits) for bits in (1, 8, 32, 64))
_MEMORY = {types.float32: ir.FloatType(), types.float64: ir.DoubleType(), types.int32: _I32, types.int64: _I64,
           types.boolean: _I8}                                        # what a buffer holds: a bool is one byte
_VALUE = {**_MEMORY, types.boolean: _I1}                              # what a register holds
_GLOBAL = 1                                                           # the address space that makes LDG and STG

Lower = Callable[[ir.IRBuilder, list[Any]], Any]


class KernelTypeError(TypeError):
    """A generated kernel calls a prelude function with operands it does not take: a bug in the code generator."""


def _word(name: str, arity: int, typing: Callable[..., tuple[Any, Lower]], doc: str = "") -> Any:
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


def _need(name: str, condition: bool, *operands: Any) -> None:
    if not condition:
        raise KernelTypeError(f"{name}({', '.join(map(str, operands))}) is not defined")


def _common(name: str, a: Any, b: Any) -> Any:
    """The one dtype of two operands: equal, or the wider of two integers."""
    if a == b:
        return a
    _need(name, isinstance(a, types.Integer) and isinstance(b, types.Integer), a, b)
    return types.int64


def _is_float(dtype: Any) -> bool:
    return dtype in (types.float32, types.float64)


def _convert(builder: ir.IRBuilder, value: Any, source: Any, target: Any) -> Any:
    """`source` -> `target`; float -> int truncates (undefined when out of range), anything -> bool is `!= 0`."""
    here, there = value.type, _VALUE[target]
    if target == types.boolean:
        if source == types.boolean:
            return value
        zero = ir.Constant(here, 0)
        return builder.fcmp_unordered("!=", value, zero) if _is_float(source) else builder.icmp_signed("!=", value, zero)
    if _is_float(source):
        if not _is_float(target):
            return builder.fptosi(value, there)
        return value if here == there else (builder.fptrunc if there == ir.FloatType() else builder.fpext)(value, there)
    unsigned = source == types.boolean or not getattr(source, "signed", True)
    if _is_float(target):
        return (builder.uitofp if unsigned else builder.sitofp)(value, there)
    if here.width == there.width:
        return value
    return builder.trunc(value, there) if here.width > there.width else (
        builder.zext if unsigned else builder.sext)(value, there)


def _declared(builder: ir.IRBuilder, name: str, result: Any, args: list[Any]) -> Any:
    """Call the external or intrinsic function `name`."""
    module = builder.module
    function = module.globals.get(name) or ir.Function(module, ir.FunctionType(result, [a.type for a in args]), name)
    return builder.call(function, args)


def _libdevice(builder: ir.IRBuilder, name: str, *args: Any) -> Any:
    suffix = "f" if args[0].type == ir.FloatType() else ""
    return _declared(builder, f"__nv_{name}{suffix}", args[0].type, list(args))


# ---- memory

def _address(builder: ir.IRBuilder, address: Any, index: Any, element: Any, access: Any) -> Any:
    """Pointer to element `index` (32 bit, one IMAD.WIDE in SASS) of the buffer at `address`, in global memory."""
    if index.type.width > 32:
        index = builder.trunc(index, _I32)
    base = builder.inttoptr(address, element.as_pointer(_GLOBAL))
    pointer = builder.gep(base, [builder.sext(index, _I64)])
    return pointer if access == element else builder.bitcast(pointer, access.as_pointer(_GLOBAL))


def _check_place(name: str, address: Any, index: Any) -> None:
    _need(name, isinstance(address, types.Integer) and address.bitwidth == 64 and isinstance(index, types.Integer),
          address, index)


def _load(name: str, dtype: Any) -> Any:
    def typing(address: Any, index: Any) -> tuple[Any, Lower]:
        _check_place(name, address, index)

        def lower(builder: ir.IRBuilder, args: list[Any]) -> Any:
            value = builder.load(_address(builder, args[0], args[1], _MEMORY[dtype], _MEMORY[dtype]))
            return builder.icmp_unsigned("!=", value, ir.Constant(_I8, 0)) if dtype == types.boolean else value
        return dtype, lower
    return _word(name, 2, typing, "Element i of the buffer at address p.")


def _store(name: str, dtype: Any) -> Any:
    def typing(address: Any, index: Any, value: Any) -> tuple[Any, Lower]:
        _check_place(name, address, index)
        _need(name, value == dtype or dtype == types.int32 and isinstance(value, types.Integer)
              or dtype == types.int64 and isinstance(value, types.Integer), address, index, value)

        def lower(builder: ir.IRBuilder, args: list[Any]) -> Any:
            converted = _convert(builder, args[2], value, dtype)
            memory = builder.zext(converted, _I8) if dtype == types.boolean else converted
            builder.store(memory, _address(builder, args[0], args[1], _MEMORY[dtype], _MEMORY[dtype]))
        return types.void, lower
    return _word(name, 3, typing, "Element i of the buffer at address p becomes v; integers wrap.")


def _vectors(dtype: Any, width: int) -> tuple[Any, int, int]:
    """How `width` elements travel: (vector type, elements in one access, accesses); an access is at most 16 bytes."""
    each = min(width, 16 * 8 // dtype.bitwidth)
    return ir.VectorType(_MEMORY[dtype], each), each, width // each


def _load_vector(name: str, dtype: Any, width: int) -> Any:
    vector, each, accesses = _vectors(dtype, width)

    def typing(address: Any, index: Any) -> tuple[Any, Lower]:
        _check_place(name, address, index)

        def lower(builder: ir.IRBuilder, args: list[Any]) -> Any:
            first = _address(builder, args[0], args[1], _MEMORY[dtype], vector)
            lanes = []
            for part in range(accesses):
                value = builder.load(builder.gep(first, [ir.Constant(_I32, part)]), align=16)
                lanes += [builder.extract_element(value, ir.Constant(_I32, k)) for k in range(each)]
            return lanes
        return types.UniTuple(dtype, width), lower
    return _word(name, 2, typing, f"Elements i … i+{width - 1}; p + i is aligned to 16 bytes.")


def _store_vector(name: str, dtype: Any, width: int) -> Any:
    vector, each, accesses = _vectors(dtype, width)

    def typing(address: Any, index: Any, *values: Any) -> tuple[Any, Lower]:
        _check_place(name, address, index)
        _need(name, all(v == dtype for v in values), address, index, *values)

        def lower(builder: ir.IRBuilder, args: list[Any]) -> Any:
            first = _address(builder, args[0], args[1], _MEMORY[dtype], vector)
            for part in range(accesses):
                value: Any = ir.Constant(vector, ir.Undefined)
                for k in range(each):
                    value = builder.insert_element(value, args[2 + part * each + k], ir.Constant(_I32, k))
                builder.store(value, builder.gep(first, [ir.Constant(_I32, part)]), align=16)
        return types.void, lower
    return _word(name, 2 + width, typing, f"Elements i … i+{width - 1} become the values; p + i is aligned to 16 bytes.")


load_f32, load_f64, load_i32, load_i64, load_bool = (_load(f"load_{k}", t) for k, t in DTYPES.items())
store_f32, store_f64, store_i32, store_i64, store_bool = (_store(f"store_{k}", t) for k, t in DTYPES.items())
load4_f32, load4_f64, load4_i32 = (_load_vector(f"load4_{k}", DTYPES[k], 4) for k in ("f32", "f64", "i32"))
store4_f32, store4_f64, store4_i32 = (_store_vector(f"store4_{k}", DTYPES[k], 4) for k in ("f32", "f64", "i32"))
load2_f64, load2_i64 = (_load_vector(f"load2_{k}", DTYPES[k], 2) for k in ("f64", "i64"))
store2_f64, store2_i64 = (_store_vector(f"store2_{k}", DTYPES[k], 2) for k in ("f64", "i64"))


# ---- conversion, choice, order

def _conversion(name: str, dtype: Any) -> Any:
    def typing(value: Any) -> tuple[Any, Lower]:
        _need(name, isinstance(value, (types.Integer, types.Float, types.Boolean)), value)
        return dtype, lambda builder, args: _convert(builder, args[0], value, dtype)
    return _word(name, 1, typing, "The value in another dtype; float to integer truncates, to bool is `!= 0`.")


to_f32, to_f64, to_i32, to_i64, to_bool = (_conversion(f"to_{k}", t) for k, t in DTYPES.items())


def _type_select(condition: Any, a: Any, b: Any) -> tuple[Any, Lower]:
    _need("select", condition == types.boolean, condition, a, b)
    dtype = _common("select", a, b)
    return dtype, lambda builder, args: builder.select(
        args[0], _convert(builder, args[1], a, dtype), _convert(builder, args[2], b, dtype))


select = _word("select", 3, _type_select, "a where the condition holds, else b.")


def _extremum(builder: ir.IRBuilder, dtype: Any, order: str, a: Any, b: Any) -> Any:
    """minimum (order '<') or maximum ('>'); the first NaN wins, as in NumPy."""
    if dtype == types.boolean:
        return builder.and_(a, b) if order == "<" else builder.or_(a, b)
    if not _is_float(dtype):
        return builder.select(builder.icmp_signed(order, a, b), a, b)
    first = builder.or_(builder.fcmp_ordered(order, a, b), builder.fcmp_unordered("uno", a, a))
    return builder.select(first, a, b)


def _binary(name: str, lower: Callable[[ir.IRBuilder, Any, Any, Any], Any], doc: str,
            accepts: Callable[[Any], bool] = lambda dtype: True) -> Any:
    def typing(a: Any, b: Any) -> tuple[Any, Lower]:
        dtype = _common(name, a, b)
        _need(name, dtype in _VALUE and accepts(dtype), a, b)
        return dtype, lambda builder, args: lower(
            builder, dtype, _convert(builder, args[0], a, dtype), _convert(builder, args[1], b, dtype))
    return _word(name, 2, typing, doc)


def _unary(name: str, lower: Callable[[ir.IRBuilder, Any, Any], Any], doc: str,
           accepts: Callable[[Any], bool] = _is_float) -> Any:
    def typing(a: Any) -> tuple[Any, Lower]:
        _need(name, a in _VALUE and accepts(a), a)
        return a, lambda builder, args: lower(builder, a, args[0])
    return _word(name, 1, typing, doc)


minimum = _binary("minimum", lambda b, t, x, y: _extremum(b, t, "<", x, y), "The smaller; NaN propagates.")
maximum = _binary("maximum", lambda b, t, x, y: _extremum(b, t, ">", x, y), "The larger; NaN propagates.")


# ---- arithmetic

def _absolute(builder: ir.IRBuilder, dtype: Any, x: Any) -> Any:
    if _is_float(dtype):
        return _libdevice(builder, "fabs", x)
    return builder.select(builder.icmp_signed("<", x, ir.Constant(x.type, 0)), builder.neg(x), x)


def _sign(builder: ir.IRBuilder, dtype: Any, x: Any) -> Any:
    """-1, 0 or 1; NaN stays NaN and either zero becomes +0, as in NumPy."""
    zero, one, minus_one = (ir.Constant(x.type, k) for k in (0, 1, -1))
    compare = builder.fcmp_ordered if _is_float(dtype) else builder.icmp_signed
    rest = builder.select(builder.fcmp_unordered("uno", x, x), x, zero) if _is_float(dtype) else zero
    return builder.select(compare(">", x, zero), one, builder.select(compare("<", x, zero), minus_one, rest))


def _integer_floor_division(builder: ir.IRBuilder, a: Any, b: Any) -> tuple[Any, Any]:
    """Floored quotient and remainder with NumPy's x // 0 = x % 0 = 0, branch-free."""
    zero, one, minus_one = (ir.Constant(a.type, k) for k in (0, 1, -1))
    by_zero = builder.icmp_signed("==", b, zero)
    overflow = builder.and_(builder.icmp_signed("==", a, ir.Constant(a.type, -(1 << (a.type.width - 1)))),
                            builder.icmp_signed("==", b, minus_one))
    divisor = builder.select(builder.or_(by_zero, overflow), one, b)      # sdiv traps on both; a // 1 is right
    quotient, rest = builder.sdiv(a, divisor), builder.srem(a, divisor)
    down = builder.and_(builder.icmp_signed("!=", rest, zero),
                        builder.icmp_signed("<", builder.xor(rest, divisor), zero))
    quotient = builder.sub(quotient, builder.zext(down, a.type))
    return builder.select(by_zero, zero, quotient), builder.add(rest, builder.select(down, divisor, zero))


def _float_floor_division(builder: ir.IRBuilder, a: Any, b: Any) -> tuple[Any, Any]:
    """Floored quotient and remainder as NumPy's npy_divmod: the remainder has the sign of b and is exact."""
    zero, half, one = (ir.Constant(a.type, k) for k in (0.0, 0.5, 1.0))
    rest = _libdevice(builder, "fmod", a, b)
    down = builder.and_(builder.fcmp_unordered("!=", rest, zero),
                        builder.xor(builder.fcmp_ordered("<", b, zero), builder.fcmp_ordered("<", rest, zero)))
    ratio = builder.fdiv(builder.fsub(a, rest), b)
    ratio = builder.select(down, builder.fsub(ratio, one), ratio)
    whole = _libdevice(builder, "floor", ratio)
    whole = builder.select(builder.fcmp_ordered(">", builder.fsub(ratio, whole), half), builder.fadd(whole, one), whole)
    exact = builder.fdiv(a, b)
    whole = builder.select(builder.fcmp_ordered("==", ratio, zero), _libdevice(builder, "copysign", zero, exact), whole)
    signed_zero = _libdevice(builder, "copysign", zero, b)
    rest = builder.select(down, builder.fadd(rest, b),
                          builder.select(builder.fcmp_ordered("==", rest, zero), signed_zero, rest))
    return builder.select(builder.fcmp_ordered("==", b, zero), exact, whole), rest


def _floor_division(which: int) -> Callable[[ir.IRBuilder, Any, Any, Any], Any]:
    return lambda builder, dtype, a, b: (
        _float_floor_division if _is_float(dtype) else _integer_floor_division)(builder, a, b)[which]


def _is_number(dtype: Any) -> bool:
    return bool(dtype != types.boolean)


absolute = _unary("absolute", _absolute, "|a|.", _is_number)
sign = _unary("sign", _sign, "-1, 0 or 1; NaN stays.", _is_number)
sqrt = _unary("sqrt", lambda b, t, x: _libdevice(b, "sqrt", x), "Square root, correctly rounded.")
floor = _unary("floor", lambda b, t, x: _libdevice(b, "floor", x), "The largest whole number not above a.")
floor_divide = _binary("floor_divide", _floor_division(0), "a // b as NumPy's, in the operands' dtype.", _is_number)
remainder = _binary("remainder", _floor_division(1), "a % b as NumPy's, in the operands' dtype.", _is_number)


def _index_division(name: str, instruction: str) -> Any:
    def typing(i: Any, n: Any) -> tuple[Any, Lower]:
        _need(name, isinstance(i, types.Integer) and isinstance(n, types.Integer), i, n)
        return types.int32, lambda builder, args: getattr(builder, instruction)(
            _convert(builder, args[0], i, types.int32), _convert(builder, args[1], n, types.int32))
    return _word(name, 2, typing, "For 0 <= i, 0 < n, both 32 bit: the cheap division that takes indices apart.")


index_div, index_mod = _index_division("index_div", "udiv"), _index_division("index_mod", "urem")


def _type_fma(a: Any, b: Any, c: Any) -> tuple[Any, Lower]:
    _need("fma", a == b == c and _is_float(a), a, b, c)
    suffix = "f32" if a == types.float32 else "f64"
    return a, lambda builder, args: _declared(builder, f"llvm.fma.{suffix}", args[0].type, args)


fma = _word("fma", 3, _type_fma, "a·b + c, rounded once.")


# ---- functions (libdevice: float32 within 2 ulp, power 4; right at infinities and NaN)

def _from_libdevice(name: str, stem: str) -> Any:
    return _unary(name, lambda b, t, x: _libdevice(b, stem, x), f"{stem}(a).")


exp, log, log1p, expm1, tanh, erf, sin, cos = (
    _from_libdevice(name, name) for name in ("exp", "log", "log1p", "expm1", "tanh", "erf", "sin", "cos"))
power = _binary("power", lambda b, t, x, y: _libdevice(b, "pow", x, y), "a to the power b.", _is_float)


def _exp_minus_absolute(builder: ir.IRBuilder, x: Any) -> Any:
    negative_zero = ir.Constant(x.type, -0.0)                             # NVVM's IR has no fneg
    return _libdevice(builder, "exp", builder.fsub(negative_zero, _libdevice(builder, "fabs", x)))


def _logistic(builder: ir.IRBuilder, dtype: Any, x: Any) -> Any:
    """1 / (1 + e^-x), with e = e^-|x| so that nothing overflows and small results keep their digits."""
    e, one = _exp_minus_absolute(builder, x), ir.Constant(x.type, 1.0)
    numerator = builder.select(builder.fcmp_ordered(">=", x, ir.Constant(x.type, 0.0)), one, e)
    return builder.fdiv(numerator, builder.fadd(one, e))


def _softplus(builder: ir.IRBuilder, dtype: Any, x: Any) -> Any:
    """log(1 + e^x) = max(x, 0) + log1p(e^-|x|)."""
    rectified = _extremum(builder, dtype, ">", x, ir.Constant(x.type, 0.0))
    return builder.fadd(rectified, _libdevice(builder, "log1p", _exp_minus_absolute(builder, x)))


logistic = _unary("logistic", _logistic, "1 / (1 + exp(-a)).")
softplus = _unary("softplus", _softplus, "log(1 + exp(a)).")


# ---- lanes of a warp (all 32 take part)

_DOWN, _XOR = 2, 3                                                    # modes of shfl.sync


def _shuffle_word(builder: ir.IRBuilder, mode: int, word: Any, lane: Any) -> Any:
    pair = ir.LiteralStructType([_I32, _I1])
    args = [ir.Constant(_I32, -1), ir.Constant(_I32, mode), word, lane, ir.Constant(_I32, 31)]
    return builder.extract_value(_declared(builder, "llvm.nvvm.shfl.sync.i32", pair, args), 0)


def _shuffle(builder: ir.IRBuilder, mode: int, value: Any, lane: Any) -> Any:
    """The value of another lane; 64 bits travel as two words."""
    if value.type == _I1:
        return builder.trunc(_shuffle_word(builder, mode, builder.zext(value, _I32), lane), _I1)
    if value.type in (_I32, ir.FloatType()):
        return builder.bitcast(_shuffle_word(builder, mode, builder.bitcast(value, _I32), lane), value.type)
    bits = builder.bitcast(value, _I64)
    low, high = builder.trunc(bits, _I32), builder.trunc(builder.lshr(bits, ir.Constant(_I64, 32)), _I32)
    low, high = (builder.zext(_shuffle_word(builder, mode, half, lane), _I64) for half in (low, high))
    return builder.bitcast(builder.or_(low, builder.shl(high, ir.Constant(_I64, 32))), value.type)


def _shuffle_by(name: str, mode: int, doc: str) -> Any:
    def typing(value: Any, distance: Any) -> tuple[Any, Lower]:
        _need(name, value in _VALUE and isinstance(distance, types.Integer), value, distance)
        return value, lambda builder, args: _shuffle(
            builder, mode, args[0], _convert(builder, args[1], distance, types.int32))
    return _word(name, 2, typing, doc)


def _butterfly(combine: Callable[[ir.IRBuilder, Any, Any, Any], Any]) -> Callable[[ir.IRBuilder, Any, Any], Any]:
    """Combine all lanes pairwise over distances 16 … 1: every lane gets the same bits."""
    def lower(builder: ir.IRBuilder, dtype: Any, value: Any) -> Any:
        for distance in (16, 8, 4, 2, 1):
            value = combine(builder, dtype, value, _shuffle(builder, _XOR, value, ir.Constant(_I32, distance)))
        return value
    return lower


shuffle_down = _shuffle_by("shuffle_down", _DOWN, "The value of the lane d above; its own where there is none.")
shuffle_xor = _shuffle_by("shuffle_xor", _XOR, "The value of lane (own ^ d).")
warp_sum = _unary("warp_sum", _butterfly(lambda b, t, x, y: b.fadd(x, y) if _is_float(t) else b.add(x, y)),
                  "The sum over the warp, in every lane.", _is_number)
warp_max = _unary("warp_max", _butterfly(lambda b, t, x, y: _extremum(b, t, ">", x, y)),
                  "The maximum over the warp (any, for bool), in every lane; NaN propagates.", lambda t: True)
warp_min = _unary("warp_min", _butterfly(lambda b, t, x, y: _extremum(b, t, "<", x, y)),
                  "The minimum over the warp (all, for bool), in every lane; NaN propagates.", lambda t: True)

float32, float64, int32, int64, boolean = DTYPES.values()             # for cuda.shared.array(n, float32)
inf, nan = float("inf"), float("nan")

__all__ = ["cuda", "float32", "float64", "int32", "int64", "boolean", "inf", "nan",
           *(f"{verb}_{dtype}" for verb in ("load", "store", "to") for dtype in DTYPES),
           "load4_f32", "load4_f64", "load4_i32", "store4_f32", "store4_f64", "store4_i32",
           "load2_f64", "load2_i64", "store2_f64", "store2_i64",
           "select", "minimum", "maximum", "absolute", "sqrt", "floor", "sign", "floor_divide", "remainder",
           "index_div", "index_mod", "fma", "exp", "log", "log1p", "expm1", "tanh", "logistic", "softplus", "erf",
           "sin", "cos", "power", "shuffle_down", "shuffle_xor", "warp_sum", "warp_max", "warp_min"]
