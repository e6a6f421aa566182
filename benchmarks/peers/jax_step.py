"""JAX, one compiled step a call; parameters donated, minibatches already on the device."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from benchmarks.peers import jax_network
from benchmarks.workload import STEPS, Data

ORDER = "given"


def build(batch: int, hidden: int, data: Data) -> Callable[[int], float]:
    step = jax.jit(jax_network.step, donate_argnums=0)
    now = jax_network.parameters(hidden, data)
    batches = [
        (jnp.asarray(data.x[i : i + batch]), jnp.asarray(data.y[i : i + batch]))
        for i in range(0, len(data.x), batch)
    ]

    def run(steps: int) -> float:
        nonlocal now
        for index in range(steps):
            now, loss = step(now, *batches[index % STEPS])
        jax.block_until_ready(now)
        return float(loss)

    return run
