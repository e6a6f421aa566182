"""Reductions over axes: sum, mean, max, min, any, all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from flowgraph.errors import DTypeError, GraphError, ShapeError, shown
from flowgraph.graph import origin as origins
from flowgraph.graph.size import Shape, Size, product, show_shape
from flowgraph.graph.tensor import Tensor, apply
from flowgraph.graph.types import TensorType, boolean
from flowgraph.index_notation import Axis, Body
from flowgraph.ops.base import (
    Cotangents,
    Op,
    Sample,
    checks_settings,
    indices,
    load,
    require_float,
    require_numbers,
    values,
)
from flowgraph.ops.elementwise import cast, divide, equal, multiply
from flowgraph.ops.leaf import as_tensor, size_of
from flowgraph.ops.shape import broadcast_to, expand_dims, normalise_axes


@dataclass(frozen=True)
class Reduction(Op):
    """Elements combined along `axes` (sorted, non-negative), which disappear."""

    family: ClassVar[str] = "reduce"
    combiner: ClassVar[str] = ""
    of_two: ClassVar[str] = ""  # the elementwise function of the same meaning
    axes: tuple[int, ...]

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        (x,) = types
        self.require(x)
        self._require_axes(x)
        return (TensorType(tuple(s for k, s in enumerate(x.shape) if k not in self.axes), x.dtype),)

    def require(self, x: TensorType) -> None:
        """Raise DTypeError for what cannot be combined, a scalar too."""
        require_numbers(self, x)

    def _require_axes(self, x: TensorType) -> None:
        if not self.axes or not set(self.axes) <= set(range(x.rank)):
            raise ShapeError(
                f"{self.display} over axes {self.axes} of a tensor of shape {show_shape(x.shape)}"
            )

    def body(self, *types: TensorType) -> Body:
        (x,) = types
        everything = [Axis(f"r{k}" if k in self.axes else f"i{k}", s) for k, s in enumerate(x.shape)]
        kept = tuple(a for k, a in enumerate(everything) if k not in self.axes)
        reduced = tuple(a for k, a in enumerate(everything) if k in self.axes)
        return Body(kept, load(0, x, indices(everything)), reduced, self.combiner)

    def over_turns(self, inputs: Sequence[Tensor], stacked: Sequence[bool], turns: Size) -> Tensor | None:
        return apply(replace(self, axes=tuple(a + 1 for a in self.axes)), *inputs)[0]

    def _spread(self, g: Tensor, shape: Shape) -> Tensor:
        return broadcast_to(expand_dims(g, self.axes), shape)

    @classmethod
    def _samples(cls) -> list[Sample]:
        cases: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
            ((29, 17), (1,)), ((29, 17), (0,)), ((29, 17), (0, 1)), ((70,), (0,)), ((3, 5, 18), (0, 2)),
            ((3, 5, 18), (1,)),
            ((1, 1), (1,)), ((5, 130), (1,)), ((130, 40), (0,)),
        ]  # fmt: skip
        made = [Sample(cls(axes), (_distinct(shape),)) for shape, axes in cases]
        return [*made, Sample(cls((1,)), (_distinct((6, 33)).astype(np.float64),))]


def _distinct(shape: tuple[int, ...]) -> np.ndarray:
    """Values no two of which are near each other, so that max has a derivative."""
    count = int(np.prod(shape))
    order = np.random.default_rng(count).permutation(count)
    return ((order - count / 2) / count * 4 + 0.01).astype(np.float32).reshape(shape)


@dataclass(frozen=True)
class Sum(Reduction):
    """Sum over axes."""

    name: ClassVar[str] = "sum"
    of_two: ClassVar[str] = "add"
    combiner: ClassVar[str] = "sum"

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,) = cotangents
        assert g is not None
        return (self._spread(g, inputs[0].shape),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.sum(x, axis=self.axes, dtype=x.dtype)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [*cls._samples(), Sample(cls((0,)), (values(40, 3, low=-9, high=9, dtype="int32"),))]


@dataclass(frozen=True)
class Mean(Reduction):
    """Arithmetic mean over axes."""

    name: ClassVar[str] = "mean"

    def require(self, x: TensorType) -> None:
        require_float(self, x)

    def expand(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        count = size_of(product(x.shape[a] for a in self.axes), x.dtype)
        return divide(Sum(self.axes)(x), count)

    body = Op.body  # its meaning is `expand`

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,) = cotangents
        assert g is not None
        (x,) = inputs
        count = size_of(product(x.shape[a] for a in self.axes), x.dtype)
        return (self._spread(divide(g, count), x.shape),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.mean(x, axis=self.axes, dtype=x.dtype)

    @classmethod
    def samples(cls) -> list[Sample]:
        return cls._samples()


@dataclass(frozen=True)
class Selection(Reduction):
    """One of the elements over axes, which must have one. Tied ones share the gradient equally."""

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        found = super().infer(*types)
        if 0 in (types[0].shape[a] for a in self.axes):
            raise ShapeError(
                f"{self.name} over axes {self.axes} of a tensor of shape {show_shape(types[0].shape)}: "
                f"no elements have no {self.name}imum"
            )
        return found

    def nonempty(self, *types: TensorType) -> Mapping[Size, str]:
        return {types[0].shape[a]: f"{self.name} over an axis of size 0" for a in self.axes}

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,) = cotangents
        assert g is not None
        (x,), (y,) = inputs, outputs
        ties = cast(equal(x, self._spread(y, x.shape)), x.dtype)
        share = divide(g, Sum(self.axes)(ties))
        return (multiply(self._spread(share, x.shape), ties),)

    @classmethod
    def samples(cls) -> list[Sample]:
        nan = np.array([[1.0, np.nan, 3.0], [1.0, 2.0, -np.inf]], np.float32)
        ties = np.array([[2.0, 2.0, 1.0]] * 3, np.float32)
        whole = [values(40, 19, low=-9, high=9, dtype=t) for t in ("int32", "int64")]
        return [
            *cls._samples(), Sample(cls((1,)), (nan,), smooth=()), Sample(cls((1,)), (ties,), smooth=()),
            *(Sample(cls((k,)), (x,)) for k, x in enumerate(whole)),
        ]  # fmt: skip


@dataclass(frozen=True)
class Max(Selection):
    """Maximum over axes; NaN if there is one. Tied maxima share the gradient equally."""

    name: ClassVar[str] = "max"
    of_two: ClassVar[str] = "maximum"
    combiner: ClassVar[str] = "max"

    def reference(self, x: np.ndarray) -> np.ndarray:
        if not x.size:  # no rows: NumPy refuses these if they have no columns either
            return np.sum(x, axis=self.axes, dtype=x.dtype)
        return np.max(x, axis=self.axes)


@dataclass(frozen=True)
class Min(Selection):
    """Minimum over axes; NaN if there is one. Tied minima share the gradient equally."""

    name: ClassVar[str] = "min"
    of_two: ClassVar[str] = "minimum"
    combiner: ClassVar[str] = "min"

    def reference(self, x: np.ndarray) -> np.ndarray:
        if not x.size:
            return np.sum(x, axis=self.axes, dtype=x.dtype)
        return np.min(x, axis=self.axes)


@dataclass(frozen=True)
class Quantifier(Reduction):
    """Bools over axes."""

    def require(self, x: TensorType) -> None:
        if x.dtype is not boolean:
            raise DTypeError(f"{self.name} needs bools, got {x}", hint="compare first, as in fg.not_equal(x, 0)")

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        return (None,)

    @classmethod
    def samples(cls) -> list[Sample]:
        rare = values(29, 40, low=0, high=40, dtype="int32") == 0
        cases = ((rare, (1,)), (~rare, (0,)), (~rare, (0, 1)), (rare[:, :7], (1,)), (rare[:, 0], (0,)))
        return [Sample(cls(axes), (x,)) for x, axes in cases]


@dataclass(frozen=True)
class AnyOf(Quantifier):
    """Whether any holds, over axes; none of no elements does."""

    name: ClassVar[str] = "any"
    of_two: ClassVar[str] = "logical_or"
    combiner: ClassVar[str] = "max"

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.any(x, axis=self.axes)


@dataclass(frozen=True)
class AllOf(Quantifier):
    """Whether all hold, over axes; of no elements all do."""

    name: ClassVar[str] = "all"
    of_two: ClassVar[str] = "logical_and"
    combiner: ClassVar[str] = "min"

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.all(x, axis=self.axes)


def _reduce(kind: type[Reduction], x: Tensor, axis: int | Sequence[int] | None, keepdims: bool) -> Tensor:
    x = as_tensor(x, what=kind.name)
    if isinstance(axis, (Tensor, np.ndarray)):
        raise GraphError(
            f"{kind.name} combines the elements of one tensor over axes, got another: {shown(axis)}",
            where=origins.here(),
            hint=f"fg.{kind.of_two}(a, b) combines two" if kind.of_two else "axes are ints",
        )
    axes = tuple(sorted(normalise_axes(kind.name, range(x.rank) if axis is None else axis, x.shape)))
    if not axes:  # a scalar, or no axes: nothing to combine
        try:
            kind(axes).require(x.type)
        except DTypeError as error:
            error.where = origins.here()
            raise
        return x
    result = kind(axes)(x)
    return expand_dims(result, axes) if keepdims else result


@checks_settings
def sum(x: Tensor, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
    """Sum over `axis` (all axes by default); `keepdims` leaves axes of size 1."""
    return _reduce(Sum, x, axis, keepdims)


@checks_settings
def mean(x: Tensor, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
    """Mean over `axis` (all axes by default); `keepdims` leaves axes of size 1."""
    return _reduce(Mean, x, axis, keepdims)


@checks_settings
def max(x: Tensor, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
    """Maximum over `axis` (all axes by default); `keepdims` leaves axes of size 1."""
    return _reduce(Max, x, axis, keepdims)


@checks_settings
def min(x: Tensor, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
    """Minimum over `axis` (all axes by default); `keepdims` leaves axes of size 1."""
    return _reduce(Min, x, axis, keepdims)


@checks_settings
def any(x: Tensor, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
    """Whether any of the bools over `axis` (all axes by default) holds; `keepdims` leaves axes of size 1."""
    return _reduce(AnyOf, x, axis, keepdims)


@checks_settings
def all(x: Tensor, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
    """Whether all of the bools over `axis` (all axes by default) hold; `keepdims` leaves axes of size 1."""
    return _reduce(AllOf, x, axis, keepdims)
