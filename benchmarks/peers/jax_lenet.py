"""JAX on LeNet: one compiled step a call; parameters donated, minibatches already on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.lenet_workload import RATE, Data
from benchmarks.peers.jax_training import by_steps, descent

ORDER = "given"


def pooled(x: Any, w: Any, b: Any) -> Any:
    made = jax.nn.relu(jax.lax.conv(x, w, (1, 1), "VALID") + b[:, None, None])
    return jax.lax.reduce_window(made, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")


def loss_of(now: tuple[Any, ...], x: Any, y: Any) -> Any:
    (w1, b1), (w2, b2), (w3, b3), (w4, b4) = now
    h = pooled(pooled(x, w1, b1), w2, b2).reshape(x.shape[0], -1)
    logits = jax.nn.relu(h @ w3 + b3) @ w4 + b4
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1))


def build(batch: int, data: Data) -> Callable[[int], float]:
    counts = [w.shape[0] if w.ndim == 4 else w.shape[1] for w in data.weights]
    now = tuple((jnp.asarray(w), jnp.zeros(n)) for w, n in zip(data.weights, counts, strict=True))
    return by_steps(descent(loss_of, RATE), now, data.x, data.y, batch)
