"""Normalisation over axes: a tensor's own mean and spread are taken out, and learned ones may be put in."""

from __future__ import annotations

from collections.abc import Sequence

from flowgraph.errors import ShapeError
from flowgraph.graph import origin as origins
from flowgraph.graph.size import show_shape
from flowgraph.graph.tensor import Tensor
from flowgraph.ops.elementwise import add, divide, multiply, subtract
from flowgraph.ops.functions import sqrt, square
from flowgraph.ops.leaf import as_tensor
from flowgraph.ops.reduce import mean
from flowgraph.ops.shape import normalise_axes

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
    inference too. Ioffe and Szegedy 2015, "Batch Normalization".

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
