"""Index notation: the expressions ops use to say what they mean, and kernels are made of.

    out[i, j] = sum over k of a[i, k] * b[k, j]

is `Body(axes=(i, j), reduce=(k,), combiner="sum", value=Load(0, (i, k)) * Load(1, (k, j)))`. Pure data; knows no graph
and no device. Integer arithmetic on indices is int64; sizes appear as `Extent`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from flowgraph.graph.size import Size
from flowgraph.graph.types import DType, boolean, int64

# Functions of the notation. Binary and unary ones keep the dtype of their arguments unless listed here.
COMPARISONS = frozenset({"eq", "ne", "lt", "le", "gt", "ge"})
LOGICAL = frozenset({"and", "or", "xor", "not"})
# floordiv and mod are of indices; floor_divide and remainder of any numbers, by any numbers, as NumPy has them.
DIVIDING = frozenset({"div", "floordiv", "mod", "floor_divide", "remainder"})
# accumulate(x, s) is x + s, where s is a sum: its terms may be added to x, one after the other.
ARITHMETIC = DIVIDING | {"add", "sub", "mul", "neg", "accumulate"}
SELECTING = frozenset({"select", "minimum", "maximum", "absolute", "sign", "floor", "round"})
TRANSCENDENTAL = frozenset(
    {"exp", "log", "log1p", "expm1", "tanh", "logistic", "softplus", "erf", "sin", "cos", "power", "sqrt"}
)
# random{w}(seed, step, stream, element): a number in [0, 1) from word w of the bits that belong there (ops/random_bits)
RANDOM = {f"random{word}": word for word in range(4)}
FUNCTIONS = COMPARISONS | LOGICAL | ARITHMETIC | SELECTING | TRANSCENDENTAL | RANDOM.keys() | {"cast"}

# What functions cost. Free: as good as the load they go with. Cheap: a few of them cost less than a load from L2.
FREE = COMPARISONS | LOGICAL | {"cast", "select"}
CHEAP = FREE | SELECTING | ARITHMETIC - DIVIDING

COMBINERS = {"sum": "add", "max": "maximum", "min": "minimum"}


@dataclass(frozen=True)
class Axis:
    """A loop variable and how far it runs."""

    name: str
    extent: Size

    def __str__(self) -> str:
        return f"{self.name}<{self.extent}"


class _Arithmetic:
    """Python operators for expressions; a Python number takes the expression's dtype."""

    dtype: DType
    __match_args__: ClassVar[tuple[str, ...]]  # the fields, set by dataclass

    def _hash(self) -> int:
        """Structural, computed once: expressions are trees, and are looked up at every level."""
        known = self.__dict__.get("hash")
        if known is None:
            known = self.__dict__["hash"] = hash((type(self), *(getattr(self, name) for name in self.__match_args__)))
        return known

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "hash"}  # strings hash anew in every process

    def __add__(self, other: Any) -> Apply:
        return call("add", self, other)

    def __sub__(self, other: Any) -> Apply:
        return call("sub", self, other)

    def __mul__(self, other: Any) -> Apply:
        return call("mul", self, other)

    def __truediv__(self, other: Any) -> Apply:
        return call("div", self, other)

    def __neg__(self) -> Apply:
        return call("neg", self)


@dataclass(frozen=True, eq=False)
class Const(_Arithmetic):
    """A number. -0.0 is not 0.0, and NaN is NaN: constants are equal if they are written the same."""

    value: float | int | bool
    dtype: DType

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Const) and (repr(self.value), self.dtype) == (repr(other.value), other.dtype)

    def __hash__(self) -> int:
        return hash((repr(self.value), self.dtype))


@dataclass(frozen=True)
class Index(_Arithmetic):
    """The value of an axis, int64."""

    __hash__ = _Arithmetic._hash
    axis: Axis

    @property
    def dtype(self) -> DType:  # type: ignore[override]
        return int64


@dataclass(frozen=True)
class Extent(_Arithmetic):
    """A size known when the program runs, int64."""

    __hash__ = _Arithmetic._hash
    size: Size

    @property
    def dtype(self) -> DType:  # type: ignore[override]
        return int64


@dataclass(frozen=True)
class Var(_Arithmetic):
    """A value computed earlier in the same kernel."""

    __hash__ = _Arithmetic._hash
    name: str
    dtype: DType


@dataclass(frozen=True)
class Load(_Arithmetic):
    """An element of an operand (by number in an op's body) or of a buffer (by name in a kernel)."""

    __hash__ = _Arithmetic._hash
    source: int | str
    index: tuple[Expr, ...]
    dtype: DType


@dataclass(frozen=True)
class Apply(_Arithmetic):
    """A function of scalars."""

    __hash__ = _Arithmetic._hash
    function: str
    arguments: tuple[Expr, ...]
    dtype: DType


Expr = Const | Index | Extent | Var | Load | Apply


@dataclass(frozen=True)
class Body:
    """The meaning of an op with one output: `value` at every point of `axes`, combined over `reduce`."""

    axes: tuple[Axis, ...]
    value: Expr
    reduce: tuple[Axis, ...] = ()
    combiner: str = ""


def call(function: str, *arguments: Any, dtype: DType | None = None) -> Apply:
    """Apply a function; infers the dtype and turns Python numbers into constants."""
    typed = next((a.dtype for a in arguments if isinstance(a, _Arithmetic) and a.dtype is not boolean), None)
    typed = typed or next(a.dtype for a in arguments if isinstance(a, _Arithmetic))
    made = tuple(a if isinstance(a, _Arithmetic) else Const(a, typed) for a in arguments)
    if dtype is None:
        dtype = boolean if function in COMPARISONS | LOGICAL else made[-1].dtype
    return Apply(function, made, dtype)  # type: ignore[arg-type]


def cast(value: Expr, dtype: DType) -> Expr:
    """The value in another dtype."""
    return value if value.dtype == dtype else Apply("cast", (value,), dtype)


def children(expr: Expr) -> tuple[Expr, ...]:
    if isinstance(expr, Apply):
        return expr.arguments
    return expr.index if isinstance(expr, Load) else ()


def walk(expr: Expr) -> Iterator[Expr]:
    """Every distinct subexpression, children after parents."""
    seen: set[Expr] = set()
    stack: list[Expr] = [expr]
    while stack:
        item = stack.pop()
        if item not in seen:
            seen.add(item)
            yield item
            stack.extend(children(item))


def transform(expr: Expr, rule: Callable[[Expr], Expr | None]) -> Expr:
    """Rebuild top-down: `rule` returns a replacement (not descended into) or None to go on into the children."""
    memo: dict[Expr, Expr] = {}

    def visit(item: Expr) -> Expr:
        if item in memo:
            return memo[item]
        result = rule(item)
        if result is None:
            result = item
            if isinstance(item, Apply):
                result = replace(item, arguments=tuple(map(visit, item.arguments)))
            elif isinstance(item, Load):
                result = replace(item, index=tuple(map(visit, item.index)))
        memo[item] = result
        return result

    return visit(expr)


def reindex(expr: Expr, axes: Mapping[Axis, Expr]) -> Expr:
    """The expression at other points: every `Index` of a mapped axis replaced."""
    return transform(expr, lambda e: axes.get(e.axis) if isinstance(e, Index) else None)


def axes_of(expr: Expr) -> frozenset[Axis]:
    """The axes an expression depends on."""
    return frozenset(e.axis for e in walk(expr) if isinstance(e, Index))


_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "floordiv": "//", "mod": "%",
    "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "and": "&", "or": "|", "xor": "^",
}  # fmt: skip


def show(expr: Expr) -> str:
    """An expression as one reads it: `tanh(z[i, j]) * 2`."""
    if isinstance(expr, Const):
        return f"{expr.value:g}" if isinstance(expr.value, float) else str(expr.value)
    if isinstance(expr, Index):
        return expr.axis.name
    if isinstance(expr, Extent):
        return f"{{{expr.size}}}"
    if isinstance(expr, Var):
        return expr.name
    if isinstance(expr, Load):
        return f"{expr.source}[{', '.join(map(show, expr.index))}]"
    shown = [show(a) for a in expr.arguments]
    if expr.function in _INFIX:
        wrapped = [
            f"({s})" if isinstance(a, Apply) and a.function in _INFIX else s
            for s, a in zip(shown, expr.arguments, strict=True)
        ]
        return f" {_INFIX[expr.function]} ".join(wrapped)
    name = str(expr.dtype) if expr.function == "cast" else expr.function
    return f"{name}({', '.join(shown)})"
