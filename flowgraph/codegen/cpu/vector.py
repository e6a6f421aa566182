"""The vector type for numba, and the operators and functions that kernels apply to vectors and scalars alike.

Comes in: numba's scalar types. Goes out: FUNCTIONS, name -> the object that generated source calls by that
name. Each is a typing rule (which operand types, which result) and an emitter on `Value`. May not know memory
or tiles.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, Signature, infer_global, signature
from numba.extending import models, register_model

from flowgraph.codegen import philox, vector_math
from flowgraph.codegen.cpu.value import Value, ir_type, shared_function

Rule = Callable[..., Signature | None]
Emitter = Callable[..., "Value | tuple[Value, ...] | None"]


class Vector(types.Type):
    """LANES lanes of one dtype, held in registers."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        super().__init__(name=f"vector({dtype})")


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, ir_type(vector.dtype, True))


VECTORS = {dtype: Vector(dtype) for dtype in ("f32", "f64", "i32", "i64", "bool")}
SCALARS = {
    "f32": types.float32,
    "f64": types.float64,
    "i32": types.int32,
    "i64": types.int64,
    "bool": types.boolean,
}
DTYPES = {t: dtype for table in (SCALARS, VECTORS) for dtype, t in table.items()}
ALL, FLOATS, INTEGERS, NUMBERS = tuple(SCALARS), ("f32", "f64"), ("i32", "i64"), ("f32", "f64", "i32", "i64")


def canonical(t: types.Type) -> types.Type:
    """The prelude's type for a numba type: literals lose their value, every other integer becomes int64."""
    t = types.unliteral(t)
    if isinstance(t, types.Integer) and t not in DTYPES:
        return types.int64
    return t


def common(operands: Sequence[types.Type]) -> tuple[str, bool] | None:
    """(dtype, whether any is a vector) of operands that may meet, else None.

    Floats never mix with other dtypes. An integer scalar takes an integer vector's dtype, since numba itself
    widens int32 arithmetic on scalars to int64; among scalars int32 and int64 meet in int64.
    """
    given = [canonical(t) for t in operands]
    if not all(t in DTYPES for t in given):
        return None
    vectors = {DTYPES[t] for t in given if isinstance(t, Vector)}
    found = {DTYPES[t] for t in given}
    if len(found) > 1 and (found != set(INTEGERS) or len(vectors) > 1):
        return None
    (dtype,) = vectors or (found if len(found) == 1 else {"i64"})
    return dtype, bool(vectors)


def type_of(dtype: str, vector: bool) -> types.Type:
    return VECTORS[dtype] if vector else SCALARS[dtype]


# --- how an operation is made known to numba ----------------------------------------------------------------


class KernelOnly:
    """A name that means something only inside a compiled kernel."""

    def __init__(self, name: str) -> None:
        self.__name__ = self.__qualname__ = name

    def __call__(self, *arguments: object) -> object:
        raise TypeError(f"{self.__name__} exists only inside a compiled kernel")

    def __repr__(self) -> str:
        return f"<kernel function {self.__name__}>"


ANY_OPERANDS = ((types.VarArg(types.Any),),)


def define(key: Any, rule: Rule, emit: Emitter, patterns: Sequence[tuple[Any, ...]] = ANY_OPERANDS) -> Any:
    """Let kernels call `key`: `rule(*types)` gives the signature or None, `emit(signature, *values)` the
    result."""

    class Template(AbstractTemplate):
        def generic(self, operands: Sequence[types.Type], keywords: dict[str, Any]) -> Signature | None:
            return None if keywords else rule(*operands)

    Template.key = key
    Template.__name__ = f"Template_{getattr(key, '__name__', key)}"
    infer_global(key, types.Function(Template))

    def lower(context: Any, builder: ir.IRBuilder, sig: Signature, arguments: Sequence[ir.Value]) -> ir.Value:
        def operand(t: types.Type, value: ir.Value) -> Any:
            if isinstance(t, types.UniTuple):
                return tuple(operand(t.dtype, builder.extract_value(value, k)) for k in range(t.count))
            return Value(builder, DTYPES[canonical(t)], value)

        result = emit(sig, *map(operand, sig.args, arguments))
        if result is None:
            return context.get_dummy_value()
        if isinstance(result, tuple):
            return context.make_tuple(builder, sig.return_type, [v.ir for v in result])
        return result.ir

    for pattern in patterns:
        lower_builtin(key, *pattern)(lower)
    return key


def define_function(name: str, rule: Rule, emit: Emitter) -> KernelOnly:
    return define(KernelOnly(name), rule, emit)


def define_operator(key: Any, rule: Rule, emit: Emitter, arity: int = 2) -> None:
    """Teach a Python operator about vectors; numba's own meaning for scalars stays."""

    def with_vector(*operands: types.Type) -> Signature | None:
        return rule(*operands) if any(isinstance(t, Vector) for t in operands) else None

    both = ((Vector, Vector), (Vector, types.Any), (types.Any, Vector))
    define(key, with_vector, emit, both if arity == 2 else ((Vector,),))


# --- typing rules -------------------------------------------------------------------------------------------


def elementwise(arity: int, dtypes: Sequence[str], result: str | None = None) -> Rule:
    """Operands of one common dtype out of `dtypes`, spread over vectors; the result in it, or in `result`."""

    def rule(*operands: types.Type) -> Signature | None:
        found = common(operands)
        if len(operands) != arity or found is None or found[0] not in dtypes:
            return None
        dtype, vector = found
        arguments = [VECTORS[dtype] if isinstance(t, Vector) else SCALARS[dtype] for t in operands]
        return signature(type_of(result or dtype, vector), *arguments)

    return rule


def horizontal(dtypes: Sequence[str]) -> Rule:
    def rule(*operands: types.Type) -> Signature | None:
        match operands:
            case [Vector() as v] if v.dtype in dtypes:
                return signature(SCALARS[v.dtype], v)
        return None

    return rule


def conversion(dtype: str, vector: bool | None = None) -> Rule:
    """One operand of any dtype to `dtype`; a vector always, or where the operand is one."""

    def rule(*operands: types.Type) -> Signature | None:
        if len(operands) != 1 or (t := canonical(operands[0])) not in DTYPES:
            return None
        if vector and isinstance(t, Vector):
            return None
        return signature(type_of(dtype, vector or isinstance(t, Vector)), t)

    return rule


def selection(*operands: types.Type) -> Signature | None:
    if len(operands) != 3 or (condition := canonical(operands[0])) not in (types.boolean, VECTORS["bool"]):
        return None
    found = common(operands[1:])
    if found is None:
        return None
    dtype, vector = found
    choices = [VECTORS[dtype] if isinstance(t, Vector) else SCALARS[dtype] for t in operands[1:]]
    return signature(type_of(dtype, vector or isinstance(condition, Vector)), condition, *choices)


def randomness(dtype: str) -> Rule:
    """Four integers to a float: a vector if any of them is one."""

    def rule(*operands: types.Type) -> Signature | None:
        given = [canonical(t) for t in operands]
        if len(given) != 4 or not all(DTYPES.get(t) in INTEGERS for t in given):
            return None
        return signature(type_of(dtype, any(isinstance(t, Vector) for t in given)), *given)

    return rule


# --- the operations -----------------------------------------------------------------------------------------


def on_values(function: Callable[..., Any]) -> Emitter:
    """An emitter that does not care about the signature."""
    return lambda sig, *values: function(*values)


def shared(function: Callable[..., Value]) -> Emitter:
    """An emitter whose instructions are one function of the module, however often it is called."""

    def emit(sig: Signature, *values: Value) -> Value:
        wide = any(v.is_vector for v in values)
        return shared_function(function.__name__, function, [v.splat() for v in values] if wide else values)

    return emit


def _divide_floored(a: Value, b: Value) -> tuple[Value, Value]:
    return a.divide_real_floored(b) if a.is_float else a.divide_floored(b)


def _operators() -> None:
    for op in (operator.add, operator.sub, operator.mul):
        define_operator(op, elementwise(2, NUMBERS), on_values(op))
    define_operator(operator.truediv, elementwise(2, FLOATS), on_values(operator.truediv))
    define_operator(operator.floordiv, elementwise(2, INTEGERS), lambda sig, a, b: a.divide_floored(b)[0])
    define_operator(operator.mod, elementwise(2, INTEGERS), lambda sig, a, b: a.divide_floored(b)[1])
    for op in (operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne):
        define_operator(op, elementwise(2, ALL, "bool"), on_values(op))
    for op in (operator.and_, operator.or_, operator.xor):
        define_operator(op, elementwise(2, ("bool",)), on_values(op))
    for builtin, emit in ((min, Value.minimum), (max, Value.maximum)):
        define(builtin, elementwise(2, NUMBERS), on_values(emit))
    define_operator(operator.neg, elementwise(1, NUMBERS), on_values(operator.neg), arity=1)
    define_operator(operator.invert, elementwise(1, ("bool",)), on_values(operator.invert), arity=1)


def _functions() -> dict[str, KernelOnly]:
    table: list[tuple[str, Rule, Emitter]] = [
        ("floor_divide", elementwise(2, NUMBERS), on_values(lambda a, b: _divide_floored(a, b)[0])),
        ("remainder", elementwise(2, NUMBERS), on_values(lambda a, b: _divide_floored(a, b)[1])),
        ("select", selection, on_values(Value.select)),
        ("minimum", elementwise(2, ALL), on_values(Value.minimum)),
        ("maximum", elementwise(2, ALL), on_values(Value.maximum)),
        ("absolute", elementwise(1, NUMBERS), on_values(Value.absolute)),
        ("sqrt", elementwise(1, FLOATS), on_values(Value.sqrt)),
        ("floor", elementwise(1, NUMBERS), on_values(Value.floor)),
        ("round", elementwise(1, FLOATS), on_values(Value.round)),
        ("sign", elementwise(1, NUMBERS), on_values(Value.sign)),
        ("hsum", horizontal(NUMBERS), on_values(lambda v: v.fold(operator.add))),
        ("hmax", horizontal(ALL), on_values(lambda v: v.fold(Value.maximum))),
        ("hmin", horizontal(ALL), on_values(lambda v: v.fold(Value.minimum))),
        ("hany", horizontal(("bool",)), on_values(Value.any_lane)),
        ("hall", horizontal(("bool",)), on_values(lambda v: ~(~v).any_lane())),
    ]
    for dtype in ALL:
        table.append((f"to_{dtype}", conversion(dtype), lambda sig, v, t=dtype: v.to(t)))
        table.append((f"splat_{dtype}", conversion(dtype, True), lambda sig, v, t=dtype: v.to(t).splat()))
    for function, arity in vector_math.FUNCTIONS.items():
        table.append((function.__name__, elementwise(arity, FLOATS), shared(function)))
    for name, (word, wide) in philox.NAMES.items():
        table.append((name, randomness("f64" if wide else "f32"), _random(name, word, wide)))
    return {name: define_function(name, rule, emit) for name, rule, emit in table}


def _random(name: str, word: int, wide: bool) -> Emitter:
    """Ten rounds are some 150 instructions, so it is LLVM that says where they are inlined."""

    def body(element: Value, seed: Value, step: Value, stream: Value) -> Value:
        return philox.uniform(word, wide, seed, step, stream, element)

    def emit(sig: Signature, *values: Value) -> Value:
        wide_any = any(v.is_vector for v in values)
        seed, step, stream, element = (v.to("i64") for v in values)
        first = element.splat() if wide_any else element
        return shared_function(name, body, (first, seed, step, stream), "f64" if wide else "f32", inline=False)

    return emit


_operators()
FUNCTIONS = _functions()
