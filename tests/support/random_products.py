"""Steps of random graphs that multiply over labelled axes."""

from __future__ import annotations

from string import ascii_lowercase
from typing import Any

from flowgraph.graph.tensor import Tensor
from flowgraph.ops import einsum

COVERED = {"einsum"}


def product(g: Any) -> Tensor | None:
    """Two tensors, some axes of which are one: as batches, summed, or side by side."""
    x = g.any_float(at_least=1)
    first = ascii_lowercase[: x.rank]
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


STEPS = (product, product)
