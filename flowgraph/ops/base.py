"""What an op is. One class holds all there is to know of an op; adding one touches one file.

An op has exactly one meaning: `expand` (a graph of other ops), `body` (index notation), or a template
(`scatter`: index notation with an accumulating store; `pieces`: several stores into one output; `running`: a value
combined along an axis and stored at every step). Leaves (inputs, parameters, constants) have none: they are given.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, TypeVar

import numpy as np

from flowgraph.errors import DTypeError, GraphError, ShapeError, listed, nearest
from flowgraph.graph import origin as origins
from flowgraph.graph.graph import Graph
from flowgraph.graph.size import Dim, Shape, Size, evaluate, names_in, show_shape
from flowgraph.graph.tensor import Node, Tensor, apply
from flowgraph.graph.types import TensorType
from flowgraph.index_notation import Axis, Body, Expr, Index, Load

Cotangents = tuple["Tensor | None", ...]
P = ParamSpec("P")
R = TypeVar("R")


MEANINGS = ("expand", "body", "scatter", "pieces", "running", "sorting", "loop")


@dataclass(frozen=True)
class Sample:
    """One case of the registry test: the op applied to these arrays.

    `smooth` lists the operands to differentiate (all floating ones by default); samples stay clear of kinks
    and ties.
    """

    op: Op
    arrays: tuple[np.ndarray, ...]
    smooth: tuple[int, ...] | None = None

    @property
    def operands(self) -> tuple[int, ...]:
        floats = tuple(k for k, a in enumerate(self.arrays) if a.dtype.kind == "f")
        return floats if self.smooth is None else self.smooth


@dataclass(frozen=True)
class Piece:
    """A part of an output: at every point of its axes (and of those that all pieces share) `value` goes to `index`."""

    axes: tuple[Axis, ...]
    index: tuple[Expr, ...]
    value: Expr


@dataclass(frozen=True)
class Op:
    """Base of all ops. Subclasses are frozen dataclasses: equality, hash and cache key come for free."""

    name: ClassVar[str] = ""
    display: ClassVar[str] = ""
    family: ClassVar[str] = "other"  # the picture's colour
    remedy: ClassVar[str] = "feed longer data"  # where a size of `nonnegative` is negative
    registry: ClassVar[dict[str, type[Op]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__dict__.get("name"):  # abstract families have none
            if cls.name in Op.registry and Op.registry[cls.name].__qualname__ != cls.__qualname__:
                raise ValueError(f"two ops are called {cls.name!r}")
            Op.registry[cls.name] = cls
            if not cls.__dict__.get("display"):
                cls.display = cls.name

    # 1. types
    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Output types; raises ShapeError or DTypeError for inputs the op cannot take."""
        raise NotImplementedError(type(self).__name__)

    # 2. meaning: exactly one of these
    def expand(self, *inputs: Tensor) -> Tensor:
        """The op as a graph of other ops."""
        raise NotImplementedError(type(self).__name__)

    def body(self, *types: TensorType) -> Body:
        """The op in index notation."""
        raise NotImplementedError(type(self).__name__)

    def nonnegative(self, *types: TensorType) -> Mapping[Size, str]:
        """Sizes that may not be negative, and what is wrong if one is: checked when data are fed."""
        return {}

    # 3. derivative
    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        """Cotangents of the inputs from those of the outputs; None stands for zero. Only called with one not
        None.
        """
        raise NotImplementedError(type(self).__name__)

    # 4. the oracle on NumPy arrays, never derived from 2: every op but inputs and parameters defines it
    if TYPE_CHECKING:
        reference: ClassVar[Callable[..., Any]]  # of as many arrays as it has operands
    else:

        def reference(self, *arrays):
            """The op on NumPy arrays."""
            raise NotImplementedError(type(self).__name__)

    # 5. test cases
    @classmethod
    def samples(cls) -> list[Sample]:
        raise NotImplementedError(cls.__name__)

    @classmethod
    @cache
    def meaning(cls) -> str:
        """One of `MEANINGS`, which of them the class defines; or "leaf"."""
        defined = [m for m in MEANINGS if getattr(cls, m, None) is not getattr(Op, m, None)]
        if len(defined) > 1:
            raise TypeError(f"{cls.__name__} has more than one meaning: {defined}")
        return defined[0] if defined else "leaf"

    def attributes(self) -> str:
        """Attributes for the text form, but for those that are what they usually are."""
        return ", ".join(
            f"{f.name}={_show(getattr(self, f.name))}"
            for f in dataclasses.fields(self)
            if f.repr and getattr(self, f.name) != f.default
        )

    def named_sizes(self) -> frozenset[str]:
        """The named sizes among the attributes: the op has no reference until they have values."""
        found: frozenset[str] = frozenset()
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            for part in value if isinstance(value, tuple) else (value,):
                found |= names_in(part) if isinstance(part, Dim) else frozenset()
        return found

    def subgraphs(self) -> tuple[Graph, ...]:
        """The graphs among the attributes: a loop's body."""
        return ()

    def nonempty(self, *types: TensorType) -> Mapping[Size, str]:
        """Sizes that may not be 0 where the result has elements, and what is wrong if one is."""
        return {}

    def over_turns(self, inputs: Sequence[Tensor], stacked: Sequence[bool], turns: Size) -> Tensor | None:
        """What the op makes in every turn of a loop, stacked along a new first axis, computed for all turns at once;
        None if that is not to be had. An operand is stacked likewise, or is the same in every turn."""
        return None

    def at_inference(self, *inputs: Tensor) -> Tensor | None:
        """What stands for the op where a trained model is used; None for the op itself."""
        return None

    def __call__(self, *inputs: Any) -> Tensor:
        """The op applied to tensors; numbers, lists and arrays among them become constants."""
        from flowgraph.ops.leaf import as_operands  # a leaf is itself an op

        return apply(self, *as_operands(self.display, inputs))[0]


def concrete(op: Any, sizes: Mapping[str, int]) -> Any:
    """The op with every symbolic size among its attributes replaced by its value."""

    def value(attribute: Any) -> Any:
        if isinstance(attribute, tuple):
            return tuple(map(value, attribute))
        if hasattr(attribute, "with_sizes"):
            return attribute.with_sizes(sizes)
        return evaluate(attribute, sizes) if isinstance(attribute, Dim) else attribute

    changes = {f.name: value(getattr(op, f.name)) for f in dataclasses.fields(op)}
    return dataclasses.replace(op, **changes)


def evaluate_node(node: Node, op: Op, arrays: Sequence[np.ndarray]) -> dict[Tensor, np.ndarray]:
    """The results of a node, by the NumPy reference of its op with all sizes known."""
    made = op.reference(*arrays)
    results = made if isinstance(made, tuple) else (made,)
    return {t: np.asarray(array, t.dtype.numpy) for t, array in zip(node.outputs, results, strict=True)}


def _show(value: object) -> str:
    if isinstance(value, tuple):
        return "(" + ",".join(map(_show, value)) + ")"
    return str(value)


# Helpers that keep op classes short.


ELSEWHERE = {"dim": "axis", "dims": "axis", "keepdim": "keepdims", "ddof": "correction", "input": "x", "tensor": "x"}


def require_known(what: str, settings: Iterable[str], own: Iterable[str], elsewhere: Mapping[str, str]) -> None:
    """GraphError for a setting that is none of its `own`: which was meant, as of those called otherwise `elsewhere`."""
    known = list(own)
    for name in settings:
        if name not in known:
            meant = elsewhere.get(name) or nearest(name, known)
            hint = (f"did you mean {meant!r}? " if meant in known else "") + f"it has {listed(known, most=20)}"
            raise GraphError(f"{what} has no setting {name!r}", where=origins.here(), hint=hint)


def checks_settings(function: Callable[P, R]) -> Callable[P, R]:
    """The function; given a setting by a name that it has not, it says which was meant."""
    own = inspect.signature(function).parameters

    @wraps(function)
    def checked(*args: P.args, **settings: P.kwargs) -> R:
        require_known(function.__name__, settings, own, ELSEWHERE)
        return function(*args, **settings)

    return checked


def axes_for(shape: Shape, prefix: str = "i") -> tuple[Axis, ...]:
    """Fresh axes for a shape: i0, i1, ..."""
    return tuple(Axis(f"{prefix}{k}", size) for k, size in enumerate(shape))


def indices(axes: Sequence[Axis]) -> tuple[Expr, ...]:
    return tuple(Index(a) for a in axes)


def load(operand: int, type_: TensorType, index: Sequence[Expr]) -> Load:
    return Load(operand, tuple(index), type_.dtype)


def require_float(op: Op, *types: TensorType) -> None:
    for t in types:
        if not t.dtype.is_float:
            raise DTypeError(
                f"{op.display} needs floating-point values, got {t}",
                hint="convert with fg.cast(x, 'float32')",
            )


def require_numbers(op: Op, *types: TensorType) -> None:
    for t in types:
        if t.dtype.kind == "bool":
            raise DTypeError(
                f"{op.display} needs numbers, got {t}",
                hint="convert with fg.cast(x, 'float32'), or use fg.where",
            )


def require_same(op: Op, *types: TensorType) -> None:
    """Equal shapes and dtypes, or an error that names both."""
    first = types[0]
    for t in types[1:]:
        if t.dtype != first.dtype:
            raise DTypeError(
                f"{op.display} needs equal dtypes, got {first} and {t}",
                hint="nothing is promoted silently: convert one with fg.cast",
            )
        if t.shape != first.shape:
            raise ShapeError(
                f"{op.display} needs equal shapes, got {show_shape(first.shape)} and {show_shape(t.shape)}"
            )


def values(
    *shape: int, low: float = -2.0, high: float = 2.0, dtype: str = "float32", seed: int = 0
) -> np.ndarray:
    """Seeded sample values in [low, high); integers in [low, high)."""
    rng = np.random.default_rng((seed, *shape))
    kind = np.dtype(dtype).kind
    if kind == "b":
        return rng.random(shape) < 0.5
    if kind == "i":
        return rng.integers(int(low), int(high), shape).astype(dtype)
    return rng.uniform(low, high, shape).astype(dtype)
