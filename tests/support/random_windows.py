"""Steps of random graphs that slide windows: convolution and pooling."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowgraph.graph.tensor import Tensor
from flowgraph.ops import convolution, pooling, shape

COVERED = {"convolution", "max_pool", "first_in_window", "from_chosen", "to_chosen", "sum_pool"}
MARGIN = 1e-3  # between the largest elements of a window, as elsewhere in random graphs


def convolve(g: Any) -> Tensor | None:
    """A convolution along the last axis, or the last two, of what has a batch and channels in front of these."""
    rank = g.random.choice((1, 1, 2))
    x = g.any_float(at_least=1)
    if x.rank > rank + 2:
        return None
    x = shape.expand_dims(x, range(rank + 2 - x.rank))
    channels, sizes = x.shape[1], g.counts(x.shape)[2:]
    dilation = g.random.choice((1, 1, 2))
    kernel = [g.random.randint(1, min(3, (n - 1) // dilation + 1)) for n in sizes]
    groups = g.random.choice([n for n in (1, 2, 3) if isinstance(channels, int) and channels % n == 0] or [1])
    own = channels // groups if groups > 1 else channels
    w = g.new_float((groups * g.random.choice((1, 2, 5)), own, *kernel), -1, 1, x.dtype.name)
    padding = g.random.choice(("valid", "valid", 1, [(0, 2)] * rank))
    form = (convolution.conv1d, convolution.conv2d)[rank - 1]
    return form(x, w, g.random.choice((1, 1, 2, 3)), padding, dilation, groups)


def pool(g: Any) -> Tensor | None:
    """The maxima or the means of windows; maxima only where none is tied."""
    rank = g.random.choice((1, 1, 2))
    x = g.any_float(at_least=rank)
    window = [g.random.randint(1, min(3, n)) for n in g.counts(x.shape)[x.rank - rank :]]
    stride = g.random.choice((None, None, 1, 2))
    widths = [(0, n - 1) if g.random.random() < 0.3 else (0, 0) for n in window]
    if g.random.random() < 0.4:
        average: Any = (pooling.avg_pool1d, pooling.avg_pool2d)[rank - 1]
        return average(x, window, stride, widths)
    largest: Any = (pooling.max_pool1d, pooling.max_pool2d)[rank - 1]
    made = largest(x, window, stride, widths)
    ordered = np.sort(made.op._windows(g.value(made.node.inputs[0])), -1)
    return None if ordered.shape[-1] > 1 and (ordered[..., -1] - ordered[..., -2] < MARGIN).any() else made


def choose(g: Any) -> Tensor | None:
    """An element of every window by its number."""
    x = g.any_float(at_least=1)
    window = g.random.randint(1, min(3, g.counts(x.shape)[-1]))
    op = pooling.FromChosen((window,), (g.random.choice((1, 2)),))
    (found,) = pooling.Pool.infer(op, x.type)
    return op(x, g.new_integers(found.shape, window + 1))


STEPS = (convolve, convolve, pool, pool, choose)
