"""Metrics: numbers for people, recorded beside the cost and never differentiated."""

from __future__ import annotations

from flowgraph.errors import ShapeError
from flowgraph.graph import origin as origins
from flowgraph.graph.size import show_shape
from flowgraph.graph.tensor import Tensor
from flowgraph.ops.elementwise import cast, equal, where
from flowgraph.ops.indexing import one_hot
from flowgraph.ops.leaf import arange, as_operands, size_of
from flowgraph.ops.reduce import max, mean, min


def accuracy(predictions: Tensor, y: Tensor) -> Tensor:
    """The share of examples whose target class has the largest prediction, a scalar.

    `predictions` (..., classes) are logits or probabilities; `y` is class numbers (...,) or a distribution of
    the predictions' shape, whose largest class is the target. Of equal ones the first counts, as `argmax` has it. An
    example with a NaN among its predictions is wrong.

    >>> import flowgraph as fg
    >>> accuracy(fg.input("a", ("batch", 10)), fg.input("y", ("batch",), "int32"))
    <Tensor mean: float32()>
    """
    predictions, y = as_operands("accuracy", (predictions, y))
    expected = predictions.shape[:-1] if y.dtype.kind == "int" else predictions.shape
    if not predictions.shape or y.shape != expected:
        numbers = show_shape(predictions.shape[:-1])
        hint = f"targets are class numbers {numbers} or a distribution {show_shape(predictions.shape)}"
        if y.shape == predictions.shape:
            hint = "predictions are logits or probabilities, (batch, classes), not the classes that fg.argmax chooses"
        elif y.shape == predictions.shape[:-1]:
            hint = f"these targets are {y.dtype}; class numbers are integers: declare them with dtype='int32'"
        elif y.rank > predictions.rank:
            hint = "accuracy(predictions, targets): predictions come first"
        problem = f"accuracy of predictions {show_shape(predictions.shape)} for targets {show_shape(y.shape)}"
        raise ShapeError(problem, where=origins.here(), hint=hint)
    if y.dtype.kind == "int":
        target = one_hot(y, predictions.shape[-1], predictions.dtype)
    else:
        target = cast(_first_largest(y), predictions.dtype)
    return mean(max(where(_first_largest(predictions), target, 0.0), axis=-1))


def _first_largest(x: Tensor) -> Tensor:
    """Whether an element is the first largest one along the last axis; none is where there is a NaN."""
    classes = x.shape[-1]
    number = arange(classes, "int32")
    largest = equal(x, max(x, axis=-1, keepdims=True))
    return equal(number, min(where(largest, number, size_of(classes, "int32")), axis=-1, keepdims=True))
