"""How far predictions of numbers are off: costs of one element, for a mean to follow."""

from __future__ import annotations

from typing import Any

from flowgraph.errors import InputError, ShapeError, shown
from flowgraph.graph import origin as origins
from flowgraph.graph.size import product, show_shape
from flowgraph.graph.tensor import Tensor
from flowgraph.ops.elementwise import less_equal, multiply, subtract, where
from flowgraph.ops.functions import square
from flowgraph.ops.leaf import as_operands
from flowgraph.ops.piecewise import absolute, clip


def squared_error(x: Any, y: Any) -> Tensor:
    """(x - y)**2, elementwise, with broadcasting; fg.mean of it is the mean squared error."""
    return square(_error("squared_error", x, y))


def absolute_error(x: Any, y: Any) -> Tensor:
    """|x - y|, elementwise, with broadcasting; the gradient where they are equal is 0."""
    return absolute(_error("absolute_error", x, y))


def huber(x: Any, y: Any, delta: float = 1.0) -> Tensor:
    """(x - y)**2 / 2 up to a distance of `delta`, from there on linear with the same slope (Huber 1964); elementwise.

    Its gradient is the error clipped to [-delta, delta], so that outliers do not take over.
    """
    if not delta > 0:
        raise InputError(f"huber needs a positive delta, got {shown(delta)}", where=origins.here())
    error = _error("huber", x, y)
    near = clip(error, -delta, delta)  # the square of what is far away may overflow, and its gradient be inf * 0
    distance = absolute(error)
    linear = multiply(delta, subtract(distance, delta / 2))
    return where(less_equal(distance, delta), multiply(0.5, square(near)), linear)


def _error(what: str, x: Any, y: Any) -> Tensor:
    """x - y, which may not be a table of every prediction against every target: (batch, 1) - (batch,) would be one."""
    error = subtract(x, y)
    x, y = as_operands(what, (x, y))
    sizes = [product(shape) for shape in (x.shape, y.shape, error.shape)]
    if x.rank != y.rank and sizes[2] not in sizes[:2]:
        longer, shorter = ("first", "second") if x.rank > y.rank else ("second", "first")
        raise ShapeError(
            f"{what}: shapes {show_shape(x.shape)} and {show_shape(y.shape)} would compare everything with everything: "
            f"{show_shape(error.shape)}",
            where=origins.here(),
            hint=f"take the axis of size 1 off the {longer}: fg.squeeze; or give the {shorter} one: fg.expand_dims",
        )
    return error
