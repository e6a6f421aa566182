"""What the JAX contestants share that make a call for each step: parameters donated, minibatches on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.workload import Array


def descent(loss_of: Callable[..., Any], rate: float) -> Callable[..., tuple[Any, Any]]:
    """A step, not yet compiled: the parameters after one minibatch, and its loss before."""

    def step(now: Any, x: Any, y: Any) -> tuple[Any, Any]:
        loss, gradients = jax.value_and_grad(loss_of)(now, x, y)
        return jax.tree.map(lambda value, gradient: value - rate * gradient, now, gradients), loss

    return step


def by_steps(step: Callable[..., tuple[Any, Any]], now: Any, x: Array, y: Array, batch: int) -> Callable[[int], float]:
    """`run(steps)` of a contestant: one compiled step a call, through the minibatches in order."""
    compiled = jax.jit(step, donate_argnums=0)
    parts = [slice(start, start + batch) for start in range(0, len(x), batch)]
    batches = [(jnp.asarray(x[part]), jnp.asarray(y[part])) for part in parts]

    def run(steps: int) -> float:
        nonlocal now
        for index in range(steps):
            now, loss = compiled(now, *batches[index % len(batches)])
        jax.block_until_ready(now)
        return float(loss)

    return run
