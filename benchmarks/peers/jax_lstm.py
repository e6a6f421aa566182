"""JAX: `lax.scan` over time, the input's product taken out of it by hand, one compiled step a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.lstm_workload import CLASSES, RATE, Data
from benchmarks.peers.jax_training import by_steps, descent

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
    now = (*map(jnp.asarray, (data.w_x, data.w_h, data.b, data.v)), jnp.zeros(CLASSES))
    return by_steps(descent(loss_of, RATE), now, data.x, data.y, batch)
