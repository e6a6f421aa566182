"""JAX: `lax.scan` over time, the input's product taken out of it by hand, one compiled step a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.lstm_workload import CLASSES, RATE, STEPS, Data

ORDER = "given"


def loss_of(now: tuple[Any, ...], x: Any, y: Any) -> Any:
    w_x, w_h, b, v, d = now
    z = jnp.swapaxes(x, 0, 1) @ w_x + b

    def turn(state: tuple[Any, Any], z: Any) -> tuple[tuple[Any, Any], None]:
        h, c = state
        f, i, o, g = jnp.split(z + h @ w_h, 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

    zero = jnp.zeros((x.shape[0], w_h.shape[0]), x.dtype)
    (last, _), _ = jax.lax.scan(turn, (zero, zero), z)
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(last @ v + d), y[:, None], axis=1))


def build(batch: int, hidden: int, data: Data) -> Callable[[int], float]:
    def train(now, x, y):  # type: ignore[no-untyped-def]
        loss, gradients = jax.value_and_grad(loss_of)(now, x, y)
        return jax.tree.map(lambda value, gradient: value - RATE * gradient, now, gradients), loss

    step = jax.jit(train, donate_argnums=0)
    now = (*map(jnp.asarray, (data.w_x, data.w_h, data.b, data.v)), jnp.zeros(CLASSES))
    parts = [slice(k * batch, (k + 1) * batch) for k in range(STEPS)]
    batches = [(jnp.asarray(data.x[part]), jnp.asarray(data.y[part])) for part in parts]

    def run(steps: int) -> float:
        nonlocal now
        for index in range(steps):
            now, loss = step(now, *batches[index % STEPS])
        jax.block_until_ready(now)
        return float(loss)

    return run
