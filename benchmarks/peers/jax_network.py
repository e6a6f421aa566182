"""What the three JAX contestants share: the parameters and one training step, not yet compiled."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.peers.jax_training import descent
from benchmarks.workload import CLASSES, RATE, Data

Parameters = tuple[Any, Any, Any, Any]


def parameters(hidden: int, data: Data) -> Parameters:
    return jnp.asarray(data.w1), jnp.zeros(hidden), jnp.asarray(data.w2), jnp.zeros(CLASSES)


def loss_of(now: Parameters, x: Any, y: Any) -> Any:
    w1, b1, w2, b2 = now
    logits = jnp.tanh(jnp.tanh(x @ w1 + b1) @ w2 + b2)
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1))


step = descent(loss_of, RATE)
