"""JAX, `lax.scan` over an epoch in shuffled order: each step first gathers its minibatch's rows."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from benchmarks.peers import jax_network
from benchmarks.workload import STEPS, Data

ORDER = "shuffled"


def build(batch: int, hidden: int, data: Data) -> Callable[[int], float]:
    def epoch(now, x, y, order):  # type: ignore[no-untyped-def]
        # "clip" lets XLA drop the check of each row number, as flowgraph does: a permutation is in range
        def step(carry, rows):  # type: ignore[no-untyped-def]
            return jax_network.step(carry, x.at[rows].get(mode="clip"), y.at[rows].get(mode="clip"))

        return jax.lax.scan(step, now, order)

    compiled = jax.jit(epoch, donate_argnums=0)
    now = jax_network.parameters(hidden, data)
    x, y = jnp.asarray(data.x), jnp.asarray(data.y)
    order = jnp.asarray(data.order.reshape(STEPS, batch))

    def run(steps: int) -> float:
        nonlocal now
        for _ in range(steps // STEPS):
            now, losses = compiled(now, x, y, order)
        jax.block_until_ready(now)
        return float(losses[-1])

    return run
