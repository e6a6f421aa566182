"""What the three JAX contestants share: the parameters and one training step, not yet compiled."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.workload import CLASSES, RATE, Data

Parameters = tuple[Any, Any, Any, Any]


def parameters(hidden: int, data: Data) -> Parameters:
    return jnp.asarray(data.w1), jnp.zeros(hidden), jnp.asarray(data.w2), jnp.zeros(CLASSES)


def loss_of(now: Parameters, x: Any, y: Any) -> Any:
    w1, b1, w2, b2 = now
    logits = jnp.tanh(jnp.tanh(x @ w1 + b1) @ w2 + b2)
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1))


def step(now: Parameters, x: Any, y: Any) -> tuple[Parameters, Any]:
    """The parameters after one minibatch, and its loss before."""
    loss, gradients = jax.value_and_grad(loss_of)(now, x, y)
    return jax.tree.map(lambda value, gradient: value - RATE * gradient, now, gradients), loss
