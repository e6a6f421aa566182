"""Softmax and the cross-entropy cost, apart and as one numerically stable op."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from flowgraph.errors import DTypeError, ShapeError
from flowgraph.graph import origin as origins
from flowgraph.graph.size import Size, show_shape
from flowgraph.graph.tensor import Tensor
from flowgraph.graph.types import TensorType
from flowgraph.ops.base import Cotangents, Op, Sample, checks_settings, require_float, values
from flowgraph.ops.elementwise import add, cast, divide, equal, multiply, negative, subtract, where
from flowgraph.ops.functions import exp, log, log1p, logistic
from flowgraph.ops.indexing import one_hot
from flowgraph.ops.leaf import as_tensor, constant
from flowgraph.ops.piecewise import absolute, maximum
from flowgraph.ops.reduce import max as max_
from flowgraph.ops.reduce import sum as sum_
from flowgraph.ops.shape import broadcast_to, common_shape, expand_dims, normalise_axes


@dataclass(frozen=True)
class _OverClasses(Op):
    """A function of each vector along `axis`, counted from the end."""

    family: ClassVar[str] = "classification"
    axis: int = -1

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        (x,) = types
        require_float(self, x)
        _require_classes(self, x, self.axis)
        return (x,)

    def attributes(self) -> str:
        return "" if self.axis == -1 else f"axis={self.axis}"

    @classmethod
    def samples(cls) -> list[Sample]:
        large = (np.array([[1e4, -1e4, 0.0], [1e4, 1e4, -1e4]], np.float32),)
        return [
            *(Sample(cls(), (values(*s),)) for s in ((29, 10), (1, 1), (3, 70), (2, 3, 17), (5,))),
            Sample(cls(), large, smooth=()),
            *(Sample(cls(axis), (values(4, 5, 3),)) for axis in (-2, -3)),
        ]


@dataclass(frozen=True)
class Softmax(_OverClasses):
    """exp(x) / sum(exp(x)) along an axis: a probability distribution, computed without overflow."""

    name: ClassVar[str] = "softmax"
    display: ClassVar[str] = "softMax"

    def expand(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        e = exp(subtract(x, max_(x, axis=self.axis, keepdims=True)))
        return divide(e, sum_(e, axis=self.axis, keepdims=True))

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,), (p,) = cotangents, outputs
        assert g is not None
        return (multiply(p, subtract(g, sum_(multiply(g, p), axis=self.axis, keepdims=True))),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        e = np.exp(x - x.max(axis=self.axis, keepdims=True))
        return e / e.sum(axis=self.axis, keepdims=True)


@dataclass(frozen=True)
class LogSoftmax(_OverClasses):
    """log(softMax(x)) along an axis, computed without overflow and without the logarithm of 0."""

    name: ClassVar[str] = "log_softmax"
    display: ClassVar[str] = "logSoftMax"

    def expand(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        centred = subtract(x, max_(x, axis=self.axis, keepdims=True))
        return subtract(centred, log(sum_(exp(centred), axis=self.axis, keepdims=True)))

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,), (y,) = cotangents, outputs
        assert g is not None
        return (subtract(g, multiply(exp(y), sum_(g, axis=self.axis, keepdims=True))),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        centred = x - x.max(axis=self.axis, keepdims=True)
        return centred - np.log(np.exp(centred).sum(axis=self.axis, keepdims=True))


@dataclass(frozen=True)
class MaskedSoftmax(Op):
    """softMax along an axis over the elements where the mask holds; 0 elsewhere, and everywhere if it holds nowhere.

    What is masked reaches neither the result nor the gradient, not even NaN.
    """

    name: ClassVar[str] = "masked_softmax"
    display: ClassVar[str] = "maskedSoftMax"
    family: ClassVar[str] = "classification"
    axis: int = -1

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        x, mask = types
        require_float(self, x)
        if mask.dtype.kind != "bool":
            hint = "compare, as in fg.less(place, length)"
            raise DTypeError(f"{self.display} needs a bool mask, got {mask}", hint=hint)
        _require_classes(self, x, self.axis)
        if mask.shape != x.shape:
            raise ShapeError(f"{self.display} of {show_shape(x.shape)} under a mask of {show_shape(mask.shape)}")
        return (x,)

    def attributes(self) -> str:
        return "" if self.axis == -1 else f"axis={self.axis}"

    def expand(self, *inputs: Tensor) -> Tensor:
        x, mask = inputs
        lowest = constant(np.finfo(x.dtype.numpy).min, x.dtype)
        largest = broadcast_to(max_(where(mask, x, lowest), axis=self.axis, keepdims=True), x.shape)
        e = where(mask, exp(subtract(where(mask, x, largest), largest)), 0.0)
        total = sum_(e, axis=self.axis, keepdims=True)
        return divide(e, where(equal(total, 0.0), 1.0, total))

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,), (p,), (_, mask) = cotangents, outputs, inputs
        assert g is not None
        g = where(mask, g, 0.0)
        return multiply(p, subtract(g, sum_(multiply(g, p), axis=self.axis, keepdims=True))), None

    def reference(self, x: np.ndarray, mask: np.ndarray) -> np.ndarray:
        shown = np.where(mask, x, -np.inf)
        largest = shown.max(axis=self.axis, keepdims=True)
        with np.errstate(invalid="ignore"):
            e = np.exp(shown - np.where(np.isneginf(largest), 0, largest))
        total = e.sum(axis=self.axis, keepdims=True)
        return e / np.where(total == 0, 1, total)

    @classmethod
    def samples(cls) -> list[Sample]:
        some = values(7, 10, dtype="bool")
        some[2], some[5] = False, True
        large = np.array([[1e4, -1e4, np.nan], [1e4, 1e4, np.inf], [3e38, -3e38, -3e38]], np.float32)
        shown = np.array([[True, True, False], [False, True, False], [False, True, True]])
        return [
            Sample(cls(), (values(7, 10), some)),
            Sample(cls(-2), (values(7, 10), some)),
            Sample(cls(), (values(2, 3, 17), values(2, 3, 17, dtype="bool"))),
            Sample(cls(), (values(70), values(70, dtype="bool"))),
            Sample(cls(), (large, shown), smooth=()),
        ]


def _require_classes(op: Op, x: TensorType, axis: int = -1) -> None:
    if x.rank < -axis or x.shape[axis] == 0:
        raise ShapeError(f"{op.display} needs a class axis of at least 1, got shape {show_shape(x.shape)}")


def _check_targets(op: Op, predictions: TensorType, y: TensorType) -> TensorType:
    require_float(op, predictions)
    _require_classes(op, predictions)
    shapes = f"predictions {show_shape(predictions.shape)} and targets {show_shape(y.shape)}"
    if y.dtype.kind == "int":
        if y.shape != predictions.shape[:-1]:
            raise ShapeError(
                f"{op.display}: {shapes} do not fit",
                hint=f"class numbers need shape {show_shape(predictions.shape[:-1])}: one integer an example",
            )
    elif y.dtype != predictions.dtype:
        raise DTypeError(
            f"{op.display}: predictions are {predictions.dtype}, targets {y.dtype}",
            hint="targets are class numbers (dtype='int32') or a distribution of the predictions' dtype",
        )
    elif y.shape != predictions.shape:
        hint = "a target distribution needs the predictions' shape"
        if y.shape == predictions.shape[:-1]:
            hint = f"these targets are {y.dtype}; class numbers are integers: declare them with dtype='int32'"
        raise ShapeError(f"{op.display}: {shapes} do not fit", hint=hint)
    return TensorType(predictions.shape[:-1], predictions.dtype)


def _one_hot_targets(y: Tensor, like: Tensor) -> Tensor:
    return one_hot(y, like.shape[-1], like.dtype) if y.dtype.kind == "int" else y


def _target_samples(op: Op, predictions: np.ndarray) -> list[Sample]:
    classes = predictions.shape[-1]
    labels = values(*predictions.shape[:-1], low=0, high=classes, dtype="int32", seed=3)
    soft = values(*predictions.shape, low=0.1, high=1.0, seed=4)
    soft /= soft.sum(axis=-1, keepdims=True)
    return [Sample(op, (predictions, labels)), Sample(op, (predictions, soft.astype(predictions.dtype)))]


class _BoundedTargets(Op):
    def index_bounds(self, *types: TensorType) -> dict[int, Size]:
        return {1: types[0].shape[-1]} if types[1].dtype.kind == "int" else {}


@dataclass(frozen=True)
class CrossEnt(_BoundedTargets):
    """-sum(y log p) per example, for probabilities p (..., classes) and targets y (numbers or distribution).

    Classes whose target is 0 contribute nothing, whatever their probability.
    """

    name: ClassVar[str] = "cross_ent"
    display: ClassVar[str] = "crossEnt"
    family: ClassVar[str] = "classification"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        return (_check_targets(self, *types),)

    def expand(self, *inputs: Tensor) -> Tensor:
        p, y = inputs
        target = _one_hot_targets(y, p)
        return negative(sum_(where(equal(target, 0.0), 0.0, multiply(target, log(p))), axis=-1))

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,) = cotangents
        assert g is not None
        p, y = inputs
        target = _one_hot_targets(y, p)
        spread = broadcast_to(expand_dims(g, g.rank), p.shape)
        absent = equal(
            target, 0.0
        )  # also kept from the divisor: 0/0 would come back in the second derivative
        dp = where(absent, 0.0, negative(multiply(spread, divide(target, where(absent, 1.0, p)))))
        dy = None if y.dtype.kind == "int" else negative(multiply(spread, log(p)))
        return dp, dy

    def reference(self, p: np.ndarray, y: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            if y.dtype.kind == "i":
                return -np.log(np.take_along_axis(p, y[..., None].astype(np.int64), -1)[..., 0])
            return -np.where(y == 0, 0, y * np.log(p)).sum(axis=-1)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            s
            for shape in ((29, 10), (1, 2), (4, 40))
            for s in _target_samples(cls(), values(*shape, low=0.05, high=1.0))
        ]


@dataclass(frozen=True)
class CrossEntOfSoftmax(_BoundedTargets):
    """crossEnt(softMax(logits)) per example, stable for logits of any size; its gradient is P - Y."""

    name: ClassVar[str] = "cross_ent_of_softmax"
    display: ClassVar[str] = "crossEntOfSoftMax"
    family: ClassVar[str] = "classification"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        return (_check_targets(self, *types),)

    def expand(self, *inputs: Tensor) -> Tensor:
        logits, y = inputs
        centred = subtract(logits, max_(logits, axis=-1, keepdims=True))
        log_sum = log(sum_(exp(centred), axis=-1))
        target = _one_hot_targets(y, logits)
        picked = sum_(where(equal(target, 0.0), 0.0, multiply(target, centred)), axis=-1)
        if y.dtype.kind == "int":
            return subtract(log_sum, picked)
        return subtract(multiply(log_sum, sum_(y, axis=-1)), picked)

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,) = cotangents
        assert g is not None
        logits, y = inputs
        p = Softmax()(logits)
        spread = broadcast_to(expand_dims(g, g.rank), logits.shape)
        if y.dtype.kind == "int":
            return multiply(subtract(p, _one_hot_targets(y, logits)), spread), None
        total = broadcast_to(sum_(y, axis=-1, keepdims=True), logits.shape)
        centred = subtract(logits, broadcast_to(max_(logits, axis=-1, keepdims=True), logits.shape))
        log_sum = log(sum_(exp(centred), axis=-1, keepdims=True))
        return multiply(subtract(multiply(p, total), y), spread), multiply(spread, subtract(log_sum, centred))

    def reference(self, logits: np.ndarray, y: np.ndarray) -> np.ndarray:
        centred = logits - logits.max(axis=-1, keepdims=True)
        log_p = centred - np.log(np.exp(centred).sum(axis=-1, keepdims=True))
        if y.dtype.kind == "i":
            return -np.take_along_axis(log_p, y[..., None].astype(np.int64), -1)[..., 0]
        return -np.where(y == 0, 0, y * log_p).sum(axis=-1)

    @classmethod
    def samples(cls) -> list[Sample]:
        made = [s for shape in ((29, 10), (1, 2), (4, 40)) for s in _target_samples(cls(), values(*shape))]
        large = np.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4]], np.float32)
        return [*made, Sample(cls(), (large, np.array([1, 1], np.int32)), smooth=())]


@dataclass(frozen=True)
class _YesOrNo(Op):
    """One yes-or-no question a number: targets are 1 or 0, or anything between, or integers 1 or 0, which are checked
    where they are fed."""

    family: ClassVar[str] = "classification"
    advice: ClassVar[str] = "targets are 1 for yes and 0 for no; where they are masked anyway, fg.clip(y, 0, 1)"

    def index_bounds(self, *types: TensorType) -> dict[int, Size]:
        return {1: 2} if types[1].dtype.kind == "int" else {}

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        predictions, y = types
        require_float(self, predictions)
        if y.dtype != predictions.dtype and y.dtype.kind != "int":
            raise DTypeError(
                f"{self.display}: predictions are {predictions.dtype}, targets {y.dtype}",
                hint="targets are 0 or 1, integers or of the predictions' dtype",
            )
        if y.shape != predictions.shape:
            raise ShapeError(
                f"{self.display}: predictions {show_shape(predictions.shape)} and targets {show_shape(y.shape)} do not "
                "fit",
                hint="one target a prediction",
            )
        return (predictions,)

    @classmethod
    def _samples(cls, low: float, high: float) -> list[Sample]:
        x, soft = values(9, 17, low=low, high=high), values(9, 17, low=0.1, high=0.9, seed=1)
        hard = values(9, 17, low=0, high=2, dtype="int32", seed=2)
        return [Sample(cls(), (x, soft)), Sample(cls(), (x, hard)), Sample(cls(), (x[0, 0], soft[0, 0]))]


@dataclass(frozen=True)
class CrossEntOfLogistic(_YesOrNo):
    """-(y log p + (1 - y) log(1 - p)) for p = logistic(x), elementwise, stable for x of any size."""

    name: ClassVar[str] = "cross_ent_of_logistic"
    display: ClassVar[str] = "crossEntOfLogistic"

    def expand(self, *inputs: Tensor) -> Tensor:
        x, y = inputs
        y = cast(y, x.dtype)
        return add(subtract(maximum(x, 0.0), multiply(x, y)), log1p(exp(negative(absolute(x)))))

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,), (x, y) = cotangents, inputs
        assert g is not None
        dy = negative(multiply(g, x)) if y.dtype.is_float else None
        return multiply(g, subtract(logistic(x), cast(y, x.dtype))), dy

    def reference(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        y = y.astype(x.dtype)
        return np.maximum(x, 0) - x * y + np.log1p(np.exp(-np.abs(x)))

    @classmethod
    def samples(cls) -> list[Sample]:
        large = np.array([90, -90, 90, -90], np.float32), np.array([1, 0, 0, 1], np.int32)
        return [*cls._samples(-4, 4), Sample(cls(), large, smooth=())]


@dataclass(frozen=True)
class BinaryCrossEnt(_YesOrNo):
    """-(y log p + (1 - y) log(1 - p)), elementwise; a term whose weight is 0 is 0 whatever its logarithm."""

    name: ClassVar[str] = "binary_cross_ent"
    display: ClassVar[str] = "binaryCrossEnt"

    def expand(self, *inputs: Tensor) -> Tensor:
        p, y = inputs
        y = cast(y, p.dtype)
        never, always = equal(y, 0.0), equal(y, 1.0)
        yes = multiply(y, log(where(never, 1.0, p)))  # its gradient, too, stays clear of what has no weight
        no = multiply(subtract(1.0, y), log1p(negative(where(always, 0.0, p))))
        return negative(add(yes, no))

    def reference(self, p: np.ndarray, y: np.ndarray) -> np.ndarray:
        y = y.astype(p.dtype)
        with np.errstate(divide="ignore", invalid="ignore"):
            return -(np.where(y == 0, 0, y * np.log(p)) + np.where(y == 1, 0, (1 - y) * np.log1p(-p)))

    @classmethod
    def samples(cls) -> list[Sample]:
        sure = np.array([1, 0, 0, 1], np.float32), np.array([1, 0, 1, 0], np.int32)
        return [*cls._samples(0.1, 0.9), Sample(cls(), sure, smooth=())]


# The user's functions


def _from_the_end(what: str, x: Tensor, axis: int) -> int:
    (number,) = normalise_axes(what, axis, x.shape)
    return number - x.rank


@checks_settings
def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """exp(x) / sum(exp(x)) along an axis, the last by default."""
    x = as_tensor(x, what="softmax")
    return Softmax(_from_the_end("softmax", x, axis))(x)


@checks_settings
def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """log(softmax(x)) along an axis, the last by default, without overflow. The compiler makes it of those two."""
    x = as_tensor(x, what="log_softmax")
    return LogSoftmax(_from_the_end("log_softmax", x, axis))(x)


@checks_settings
def masked_softmax(x: Tensor, mask: Tensor, axis: int = -1) -> Tensor:
    """softmax along an axis over the elements where the bool `mask` holds, 0 elsewhere; the mask broadcasts to x.

    Where a mask holds nowhere along the axis the result is 0, and so is its gradient; what is masked, be it NaN,
    reaches neither. Attention over sequences of unequal length is one.

    >>> import flowgraph as fg
    >>> scores, there = fg.input("scores", ("batch", 7)), fg.input("there", ("batch", 7), "bool")
    >>> fg.masked_softmax(scores, there)
    <Tensor masked_softmax: float32(batch, 7)>
    """
    x, mask = as_tensor(x, what="masked_softmax"), as_tensor(mask, what="masked_softmax")
    if common_shape("masked_softmax", x.shape, mask.shape) != x.shape:
        raise ShapeError(
            f"masked_softmax of {show_shape(x.shape)} under a mask of {show_shape(mask.shape)}",
            where=origins.here(),
            hint="the mask broadcasts to the shape of what is masked, not the other way round",
        )
    return MaskedSoftmax(_from_the_end("masked_softmax", x, axis))(x, broadcast_to(mask, x.shape))


def cross_ent_of_logistic(logits: Tensor, y: Tensor) -> Tensor:
    """Binary cross-entropy of logistic(logits), elementwise: stable for logits of any size.

    y, of the logits' shape, is 0 or 1 (integers, or floats of the logits' dtype, also between 0 and 1). Other integers
    are an InputError when they are fed.
    """
    return CrossEntOfLogistic()(logits, y)


def binary_cross_ent(p: Tensor, y: Tensor) -> Tensor:
    """Binary cross-entropy -(y log p + (1 - y) log(1 - p)) of probabilities, elementwise.

    Where a program contains `binary_cross_ent(logistic(x), y)`, the compiler makes it `cross_ent_of_logistic(x, y)`.
    """
    return BinaryCrossEnt()(p, y)


def cross_ent(p: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy -sum(y log p) per example, of probabilities p (..., classes).

    y is int class numbers (...) or a distribution (..., classes). Prefer `cross_ent_of_softmax` on logits;
    where a program contains `cross_ent(softmax(a), y)`, the compiler does that for you.
    """
    return CrossEnt()(p, y)


def cross_ent_of_softmax(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of softmax(logits) per example: stable for logits of any size.

    logits (..., classes); y is int class numbers (...) or a distribution (..., classes).
    """
    return CrossEntOfSoftmax()(logits, y)
