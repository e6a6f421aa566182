"""JAX, one compiled step a call; parameters donated, minibatches already on the device."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.peers import jax_network
from benchmarks.peers.jax_training import by_steps
from benchmarks.workload import Data

ORDER = "given"


def build(batch: int, hidden: int, data: Data) -> Callable[[int], float]:
    return by_steps(jax_network.step, jax_network.parameters(hidden, data), data.x, data.y, batch)
