"""Gradient accumulation: an update after every so many minibatches, by the mean of their gradients.

It is part of the step: gradients are added up in parameters of their own, and what the optimiser would write is written
where the group is full. What is left when an epoch ends is not lost: the group goes on in the next.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flowgraph.graph.origin import scope
from flowgraph.graph.tensor import Tensor
from flowgraph.ops.elementwise import add, divide, equal, where
from flowgraph.ops.leaf import parameter
from flowgraph.ops.logic import remainder
from flowgraph.train.optim.base import Optimizer, made_for, state


def accumulated(
    optimizer: Optimizer, parameters: Sequence[Tensor], gradients: Sequence[Tensor], group: int
) -> dict[Tensor, Tensor]:
    """The optimiser's updates every `group` steps; the sums of gradients in between."""
    with made_for(parameters[0]):
        with scope("optimizer"):
            count = parameter("accumulated", (), np.zeros((), np.int64), "int64")
        made = remainder(add(count, 1), group)
        is_full = equal(made, 0)
    new: dict[Tensor, Tensor] = {count: made}
    means = []
    for w, g in zip(parameters, gradients, strict=True):
        with made_for(w):
            so_far = state("gradient", w)
            total = add(so_far, g)
            new[so_far] = where(is_full, 0.0, total)
            means.append(divide(total, float(group)))
    for target, value in optimizer.updates(parameters, means).items():
        with made_for(target):
            new[target] = where(is_full, value, target)
    return new
