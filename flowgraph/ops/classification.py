"""Softmax and the cross-entropy cost, apart and as one numerically stable op."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from flowgraph.errors import DTypeError, ShapeError
from flowgraph.graph.size import Size, show_shape
from flowgraph.graph.tensor import Tensor
from flowgraph.graph.types import TensorType
from flowgraph.ops.base import Cotangents, Op, Sample, require_float, values
from flowgraph.ops.elementwise import divide, equal, multiply, negative, subtract, where
from flowgraph.ops.functions import exp, log
from flowgraph.ops.indexing import one_hot
from flowgraph.ops.reduce import max as max_
from flowgraph.ops.reduce import sum as sum_
from flowgraph.ops.shape import broadcast_to, expand_dims


@dataclass(frozen=True)
class Softmax(Op):
    """exp(x) / sum(exp(x)) along the last axis: a probability distribution, computed without overflow."""

    name: ClassVar[str] = "softmax"
    display: ClassVar[str] = "softMax"
    family: ClassVar[str] = "classification"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        (x,) = types
        require_float(self, x)
        _require_classes(self, x)
        return (x,)

    def expand(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        e = exp(subtract(x, max_(x, axis=-1, keepdims=True)))
        return divide(e, sum_(e, axis=-1, keepdims=True))

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,), (p,) = cotangents, outputs
        assert g is not None
        return (multiply(p, subtract(g, sum_(multiply(g, p), axis=-1, keepdims=True))),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)

    @classmethod
    def samples(cls) -> list[Sample]:
        large = (np.array([[1e4, -1e4, 0.0], [1e4, 1e4, -1e4]], np.float32),)
        return [
            *(Sample(cls(), (values(*s),)) for s in ((29, 10), (1, 1), (3, 70), (2, 3, 17), (5,))),
            Sample(cls(), large, smooth=()),
        ]


def _require_classes(op: Op, x: TensorType) -> None:
    if x.rank < 1 or x.shape[-1] == 0:
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
        raise ShapeError(
            f"{op.display}: {shapes} do not fit", hint="a target distribution needs the predictions' shape"
        )
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


def softmax(x: Tensor) -> Tensor:
    """exp(x) / sum(exp(x)) along the last axis."""
    return Softmax()(x)


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
