"""Metrics: numbers for people, recorded beside the cost and never differentiated."""

from __future__ import annotations

from flowgraph.errors import ShapeError
from flowgraph.graph import origin as origins
from flowgraph.graph.size import show_shape
from flowgraph.graph.tensor import Tensor
from flowgraph.ops.elementwise import cast, equal, where
from flowgraph.ops.indexing import one_hot
from flowgraph.ops.leaf import as_operands
from flowgraph.ops.reduce import max, mean


def accuracy(predictions: Tensor, y: Tensor) -> Tensor:
    """The share of examples whose target class has the largest prediction, a scalar.

    `predictions` (..., classes) are logits or probabilities; `y` is class numbers (...,) or a distribution of
    the predictions' shape, whose largest class is the target. Ties count as right: a network that says the
    same for every class has accuracy 1, where `argmax` would have picked the first. A NaN among an example's
    predictions is wrong.

    >>> import flowgraph as fg
    >>> accuracy(fg.input("a", ("batch", 10)), fg.input("y", ("batch",), "int32"))
    <Tensor mean: float32()>
    """
    predictions, y = as_operands("accuracy", (predictions, y))
    expected = predictions.shape[:-1] if y.dtype.kind == "int" else predictions.shape
    if not predictions.shape or y.shape != expected:
        raise ShapeError(
            f"accuracy of predictions {show_shape(predictions.shape)} for targets {show_shape(y.shape)}",
            where=origins.here(),
            hint=f"class numbers need shape {show_shape(predictions.shape[:-1])}, a distribution all of it",
        )
    if y.dtype.kind == "int":
        target = one_hot(y, predictions.shape[-1], predictions.dtype)
    else:
        target = cast(equal(y, max(y, axis=-1, keepdims=True)), predictions.dtype)
    largest = equal(predictions, max(predictions, axis=-1, keepdims=True))
    return mean(max(where(largest, target, 0.0), axis=-1))
