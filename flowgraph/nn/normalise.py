"""Normalisation over axes: a tensor's own mean and spread are taken out, and learned ones may be put in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flowgraph.errors import GraphError, ShapeError
from flowgraph.graph import origin as origins
from flowgraph.graph.origin import scope
from flowgraph.graph.size import show_shape
from flowgraph.graph.tensor import Tensor
from flowgraph.nn.layers import Layer, one_tensor
from flowgraph.ops.averages import Averaged
from flowgraph.ops.elementwise import add, divide, multiply, subtract
from flowgraph.ops.functions import sqrt, square
from flowgraph.ops.leaf import as_tensor, parameter
from flowgraph.ops.reduce import mean
from flowgraph.ops.shape import expand_dims, normalise_axes

Axes = int | Sequence[int]


def layer_norm(
    x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None, *, axis: Axes = -1, epsilon: float = 1e-5
) -> Tensor:
    """(x - mean) / sqrt(variance + epsilon) * scale + shift, by the mean and variance over `axis`, the last by default.

    Of shape x. The variance is that of the elements (no correction) and is taken after the mean. `scale` and `shift`
    broadcast against x: (features,) for the last axis. Ba, Kiros and Hinton 2016, "Layer Normalization".

    >>> import flowgraph as fg
    >>> fg.nn.layer_norm(fg.input("x", ("batch", 64)))
    <Tensor divide: float32(batch, 64)>
    """
    x, axes = _operand("layer_norm", x, axis)
    return _scaled(_standardised(x, axes, epsilon), scale, shift, "layer_norm")


def rms_norm(x: Tensor, scale: Tensor | None = None, *, axis: Axes = -1, epsilon: float = 1e-5) -> Tensor:
    """x / sqrt(mean of squares + epsilon) * scale, the mean over `axis`, the last by default. Of shape x.

    Zhang and Sennrich 2019, "Root Mean Square Layer Normalization".

    >>> import flowgraph as fg
    >>> fg.nn.rms_norm(fg.input("x", ("batch", 64)))
    <Tensor divide: float32(batch, 64)>
    """
    x, axes = _operand("rms_norm", x, axis)
    spread = sqrt(add(mean(square(x), axes, keepdims=True), epsilon))
    return _scaled(divide(x, spread), scale, None, "rms_norm")


def batch_norm(x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None, *, epsilon: float = 1e-5) -> Tensor:
    """`layer_norm` over all axes of x (..., features) but the last: each feature by its mean and variance in the batch.

    They are the batch's at all times: no running averages are kept, so a result depends on the rows beside it in
    inference too. `BatchNorm` is the layer that keeps them. Ioffe and Szegedy 2015, "Batch Normalization".

    >>> import flowgraph as fg
    >>> fg.nn.batch_norm(fg.input("x", ("batch", 64)))
    <Tensor divide: float32(batch, 64)>
    """
    x = as_tensor(x, what="batch_norm")
    if x.rank < 2:
        raise ShapeError(
            f"batch_norm of a tensor of shape {show_shape(x.shape)}",
            where=origins.here(),
            hint="it needs examples and, as the last axis, features",
        )
    x, axes = _operand("batch_norm", x, tuple(range(x.rank - 1)))
    return _scaled(_standardised(x, axes, epsilon), scale, shift, "batch_norm")


class LayerNorm(Layer):
    """`layer_norm` over the last axis, with a learned scale and shift (features,) that begin at 1 and 0.

    >>> import flowgraph as fg
    >>> fg.nn.LayerNorm("norm", 64)(fg.input("x", ("batch", "time", 64))).shape
    (batch, time, 64)
    """

    def __init__(self, name: str, features: int, *, epsilon: float = 1e-5, dtype: str = "float32") -> None:
        self.name, self.features, self.epsilon = name, features, epsilon
        with scope(name):
            self.scale = parameter("scale", (features,), np.ones(features), dtype)
            self.shift = parameter("shift", (features,), dtype=dtype)

    @property
    def parameters(self) -> list[Tensor]:
        return [self.scale, self.shift]

    def __call__(self, x: Tensor) -> Tensor:
        """x (..., features) to the same shape."""
        x = one_tensor(self, x)
        _require_features(self, x, x.rank - 1)
        with scope(self.name):
            return layer_norm(x, self.scale, self.shift, epsilon=self.epsilon)


class BatchNorm(Layer):
    """Each feature less its mean, by its standard deviation, times a learned scale, plus a learned shift.

    In training they are the minibatch's, over all axes but `axis`: that of features (batch, features) and of channels
    (batch, channels, *sizes) by default. Where the model is used (`predict`, `evaluate`, validation, `fg.inference`),
    they are running averages, so that an example's result is its own. A step makes an average
    momentum · average + (1 - momentum) · the minibatch's; the variance is that of the elements (no correction). A
    `Trainer` does that by itself, a step of your own with `updates={..., **fg.nn.running_updates(cost)}`. Frozen
    averages (`freeze="norm/*"`) stay as they are.

    `mean` begins at 0, `variance` and `scale` at 1, `shift` at 0, all (features,). Ioffe and Szegedy 2015.

    >>> import flowgraph as fg
    >>> norm = fg.nn.BatchNorm("norm", 20)
    >>> norm(fg.input("maps", ("batch", 20, 12, 12))).shape
    (batch, 20, 12, 12)
    """

    def __init__(
        self,
        name: str,
        features: int,
        *,
        axis: int = 1,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        dtype: str = "float32",
    ) -> None:
        if not 0 <= momentum < 1:
            problem = f"the momentum of running averages is from 0 to below 1, got {momentum}"
            raise GraphError(problem, where=origins.here())
        self.name, self.features, self.axis, self.epsilon = name, features, axis, epsilon
        self.averaged = Averaged(momentum)
        with scope(name):
            self.scale = parameter("scale", (features,), np.ones(features), dtype)
            self.shift = parameter("shift", (features,), dtype=dtype)
            self.mean = parameter("mean", (features,), dtype=dtype)
            self.variance = parameter("variance", (features,), np.ones(features), dtype)

    @property
    def parameters(self) -> list[Tensor]:
        """Those that gradients move and the averages: all that a saved model needs."""
        return [self.scale, self.shift, self.mean, self.variance]

    def __call__(self, x: Tensor) -> Tensor:
        """x to the same shape. Raises ShapeError for other features, or where there is no axis beside theirs."""
        x = one_tensor(self, x)
        axis = _require_features(self, x, self.axis)
        others = tuple(k for k in range(x.rank) if k != axis)
        beside = tuple(range(1, x.rank - axis))  # axes to add behind (features,), so that it broadcasts against x

        def across(vector: Tensor) -> Tensor:
            return expand_dims(vector, beside) if beside else vector

        with scope(self.name):
            centred = subtract(x, across(self.averaged(mean(x, others), self.mean)))
            variance = self.averaged(mean(square(centred), others), self.variance)
            factor = divide(self.scale, sqrt(add(variance, self.epsilon)))
            return add(multiply(centred, across(factor)), across(self.shift))


def _require_features(layer: LayerNorm | BatchNorm, x: Tensor, axis: int) -> int:
    """The number of the features' axis."""
    what = f"{type(layer).__name__} {layer.name!r}"
    place = axis + x.rank if axis < 0 else axis
    if x.rank < 2 or not 0 <= place < x.rank or x.shape[place] != layer.features:
        raise ShapeError(
            f"{what} of {layer.features} features along axis {axis}, got {show_shape(x.shape)}",
            where=origins.here(),
            hint="examples come first; BatchNorm(..., axis=) says which axis has the features",
        )
    return place


def _operand(what: str, x: Tensor, axis: Axes) -> tuple[Tensor, tuple[int, ...]]:
    x = as_tensor(x, what=what)
    axes = tuple(sorted(normalise_axes(what, axis, x.shape)))
    if not axes:
        raise ShapeError(
            f"{what} of a tensor of shape {show_shape(x.shape)} over no axes",
            where=origins.here(),
            hint="name at least one axis, as in axis=-1",
        )
    return x, axes


def _standardised(x: Tensor, axes: tuple[int, ...], epsilon: float) -> Tensor:
    centred = subtract(x, mean(x, axes, keepdims=True))
    return divide(centred, sqrt(add(mean(square(centred), axes, keepdims=True), epsilon)))


def _scaled(x: Tensor, scale: Tensor | None, shift: Tensor | None, what: str) -> Tensor:
    """x * scale + shift, where there are such; x keeps its shape."""
    result = x
    if scale is not None:
        result = multiply(result, scale)
    if shift is not None:
        result = add(result, shift)
    if result.shape != x.shape:
        raise ShapeError(
            f"{what}: scale or shift spread a tensor of shape {show_shape(x.shape)} to {show_shape(result.shape)}",
            where=origins.here(),
            hint="they broadcast to the shape of the operand, as (features,) does",
        )
    return result
