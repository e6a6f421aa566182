"""Steps of random graphs that multiply over labelled axes, or slide a window."""

from __future__ import annotations

from typing import Any

from flowgraph.graph.tensor import Tensor
from flowgraph.ops import convolution, einsum, shape

COVERED = {"einsum", "convolution"}


def product(g: Any) -> Tensor | None:
    """Two tensors, some axes of which are one: as batches, summed, or side by side."""
    x = g.any_float(at_least=1)
    first = "abcd"[: x.rank]
    shared = [k for k in range(x.rank) if g.random.random() < 0.6]
    if not shared:
        return None
    labels = [first[k] for k in shared]
    dims = [x.shape[k] for k in shared]
    if len(dims) < 3 and g.random.random() < 0.7:
        labels.append("z")
        dims.append(g.random.choice(g.dims))
    order = list(range(len(dims)))
    g.random.shuffle(order)
    y = g.new_float(tuple(dims[k] for k in order), -1, 1, x.dtype.name)
    second = "".join(labels[k] for k in order)
    every = list(dict.fromkeys(first + second))
    kept = [c for c in every if c not in first or c not in second or g.random.random() < 0.4]
    g.random.shuffle(kept)
    return einsum.einsum(f"{first},{second}->{''.join(kept)}", x, y)


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


STEPS = (product, product, convolve)
