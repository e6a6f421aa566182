"""Initialisers: how the first values of a parameter are drawn. An initialiser is called as `init(shape, generator)`."""

from __future__ import annotations

import math

import numpy as np

from flowgraph.ops.leaf import Initializer


def glorot_uniform() -> Initializer:
    """Uniform in ±sqrt(6 / (fan_in + fan_out)): keeps the variance of values and gradients from layer to layer.

    Glorot and Bengio 2010, equation 16. The last axis is the outputs, the one before it the inputs; axes further left
    (a kernel's window) count for both.
    """

    def draw(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
        window = math.prod(shape[:-2])
        fan_in, fan_out = (window * shape[-2], window * shape[-1]) if len(shape) > 1 else (math.prod(shape),) * 2
        limit = math.sqrt(6.0 / max(fan_in + fan_out, 1))
        return generator.uniform(-limit, limit, shape)

    return draw
