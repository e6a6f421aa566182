"""Batches of sequences of unequal length, (batch, time, ...), padded at their ends: which elements there are, and
pooling over those.

`lengths` (batch,) are integers from 1 to the length of the time axis; others are an InputError when data are fed.
Without lengths, all elements count. What is padding changes nothing and has no gradient.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from flowgraph.errors import ShapeError
from flowgraph.graph import origin as origins
from flowgraph.graph.size import show_shape
from flowgraph.graph.tensor import Tensor
from flowgraph.ops.bounds import Lengths
from flowgraph.ops.classification import cross_ent_of_softmax
from flowgraph.ops.elementwise import cast, divide, less, where
from flowgraph.ops.leaf import arange, as_tensor, constant, known_shape
from flowgraph.ops.reduce import max as max_
from flowgraph.ops.reduce import mean
from flowgraph.ops.reduce import sum as sum_
from flowgraph.ops.shape import expand_dims


def sequence_mask(lengths: Tensor, time: Any) -> Tensor:
    """Which elements of padded sequences there are: bool (batch, time) of integer `lengths` (batch,).

    `time` is the size of the padded axis, a number or a name.

    >>> import flowgraph as fg
    >>> fg.nn.sequence_mask(fg.input("lengths", ("batch",), "int32"), "time")
    <Tensor less: bool(batch, time)>
    """
    lengths = as_tensor(lengths, what="sequence_mask")
    if lengths.rank != 1:
        raise ShapeError(
            f"lengths of shape {show_shape(lengths.shape)}",
            where=origins.here(),
            hint="one integer for each sequence: (batch,)",
        )
    (time,) = known_shape((time,))
    lengths = Lengths(time)(lengths)
    return less(arange(time, lengths.dtype), expand_dims(lengths, 1))


def max_over_time(x: Tensor, lengths: Tensor | None = None) -> Tensor:
    """The largest value of each feature over the elements of a sequence: (batch, time, features) to (batch, features).

    Collobert and others 2011, "Natural Language Processing (Almost) from Scratch".

    >>> import flowgraph as fg
    >>> states, lengths = fg.input("states", ("batch", "time", 64)), fg.input("lengths", ("batch",), "int32")
    >>> fg.nn.max_over_time(states, lengths)
    <Tensor max: float32(batch, 64)>
    """
    x, there = _sequences("max_over_time", x, lengths)
    if there is not None:
        x = where(there, x, constant(np.finfo(x.dtype.numpy).min, x.dtype))
    return max_(x, axis=1)


def sum_over_time(x: Tensor, lengths: Tensor | None = None) -> Tensor:
    """The sum of each feature over the elements of a sequence: (batch, time, features) to (batch, features)."""
    x, there = _sequences("sum_over_time", x, lengths)
    return sum_(x if there is None else where(there, x, 0.0), axis=1)


def mean_over_time(x: Tensor, lengths: Tensor | None = None) -> Tensor:
    """The mean of each feature over the elements of a sequence: (batch, time, features) to (batch, features)."""
    if lengths is None:
        return mean(_sequences("mean_over_time", x, None)[0], axis=1)
    return divide(sum_over_time(x, lengths), expand_dims(cast(lengths, x.dtype), 1))


def sequence_cross_ent(logits: Tensor, y: Tensor, lengths: Tensor | None = None) -> Tensor:
    """The cross-entropy of softmax(logits), a scalar: the mean over all elements of all sequences, in nats.

    logits (batch, time, classes), y int class numbers (batch, time). The exponential is the perplexity.

    >>> import flowgraph as fg
    >>> logits, y = fg.input("logits", ("batch", "time", 9)), fg.input("y", ("batch", "time"), "int32")
    >>> fg.nn.sequence_cross_ent(logits, y, fg.input("lengths", ("batch",), "int32"))
    <Tensor divide: float32()>
    """
    logits, there = _sequences("sequence_cross_ent", logits, lengths)
    each = cross_ent_of_softmax(logits, y)
    if there is None or lengths is None:
        return mean(each)
    return divide(sum_(where(there[:, :, 0], each, 0.0)), cast(sum_(lengths), each.dtype))


def _sequences(what: str, x: Any, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The sequences, and which elements there are, (batch, time, 1)."""
    x = as_tensor(x, what=what)
    if x.rank != 3 or not x.dtype.is_float:
        raise ShapeError(
            f"{what} takes floating-point (batch, time, features), got {x.type}",
            where=origins.here(),
            hint="time is the middle axis; fg.expand_dims adds one",
        )
    if lengths is None:
        return x, None
    if lengths.shape != x.shape[:1]:
        raise ShapeError(
            f"{what}: lengths of shape {show_shape(lengths.shape)} for sequences {show_shape(x.shape)}",
            where=origins.here(),
            hint=f"one integer for each sequence: {show_shape(x.shape[:1])}",
        )
    return x, expand_dims(sequence_mask(lengths, x.shape[1]), 2)
