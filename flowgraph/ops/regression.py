"""How far predictions of numbers are off: costs of one element, for a mean to follow."""

from __future__ import annotations

from typing import Any

from flowgraph.errors import InputError
from flowgraph.graph import origin as origins
from flowgraph.graph.tensor import Tensor
from flowgraph.ops.elementwise import less_equal, multiply, subtract, where
from flowgraph.ops.functions import square
from flowgraph.ops.piecewise import absolute, clip


def squared_error(x: Any, y: Any) -> Tensor:
    """(x - y)**2, elementwise, with broadcasting; fg.mean of it is the mean squared error."""
    return square(subtract(x, y))


def absolute_error(x: Any, y: Any) -> Tensor:
    """|x - y|, elementwise, with broadcasting; the gradient where they are equal is 0."""
    return absolute(subtract(x, y))


def huber(x: Any, y: Any, delta: float = 1.0) -> Tensor:
    """(x - y)**2 / 2 up to a distance of `delta`, from there on linear with the same slope (Huber 1964); elementwise.

    Its gradient is the error clipped to [-delta, delta], so that outliers do not take over.
    """
    if not delta > 0:
        raise InputError(f"huber needs a positive delta, got {delta!r}", where=origins.here())
    error = subtract(x, y)
    near = clip(error, -delta, delta)  # the square of what is far away may overflow, and its gradient be inf * 0
    distance = absolute(error)
    linear = multiply(delta, subtract(distance, delta / 2))
    return where(less_equal(distance, delta), multiply(0.5, square(near)), linear)
