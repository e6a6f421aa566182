"""JAX, `lax.scan` over the minibatches of an epoch: one compiled call does 64 steps."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from benchmarks.peers import jax_network
from benchmarks.workload import STEPS, Data

ORDER = "given"


def build(batch: int, hidden: int, data: Data) -> Callable[[int], float]:
    def epoch(now, x, y):  # type: ignore[no-untyped-def]
        return jax.lax.scan(lambda carry, minibatch: jax_network.step(carry, *minibatch), now, (x, y))

    compiled = jax.jit(epoch, donate_argnums=0)
    now = jax_network.parameters(hidden, data)
    x = jnp.asarray(data.x.reshape(STEPS, batch, -1))
    y = jnp.asarray(data.y.reshape(STEPS, batch))

    def run(steps: int) -> float:
        nonlocal now
        for _ in range(steps // STEPS):
            now, losses = compiled(now, x, y)
        jax.block_until_ready(now)
        return float(losses[-1])

    return run
