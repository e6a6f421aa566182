"""LeNet's work: one epoch of 16 steps, layers of 5×5 with 20 and 50 maps, pooled by 2; 500 units. Made-up data.

Goes out: `Data`, the same arrays for every contestant. Knows NumPy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.workload import Array

PIXELS, CLASSES, STEPS = 28, 10, 16
RATE = 0.01


@dataclass(frozen=True)
class Data:
    x: Array  # float32 (STEPS·batch, 1, PIXELS, PIXELS)
    y: Array  # int32 (STEPS·batch,), class numbers
    weights: tuple[Array, Array, Array, Array]  # float32 (20, 1, 5, 5), (50, 20, 5, 5), (800, 500), (500, 10)


def make(batch: int) -> Data:
    rng = np.random.default_rng(0)

    def weights(*shape: int) -> Array:
        inputs = np.prod(shape[1:] if len(shape) > 2 else shape[:1])
        return (rng.standard_normal(shape) / np.sqrt(inputs)).astype(np.float32)

    return Data(
        x=rng.standard_normal((STEPS * batch, 1, PIXELS, PIXELS)).astype(np.float32),
        y=rng.integers(0, CLASSES, STEPS * batch).astype(np.int32),
        weights=(weights(20, 1, 5, 5), weights(50, 20, 5, 5), weights(800, 500), weights(500, CLASSES)),
    )


def operations(batch: int) -> int:
    """In a step's products and convolutions; of the first layer nothing goes back to the image."""
    first, second = 24 * 24 * 20 * 25, 8 * 8 * 50 * 20 * 25
    return 2 * batch * (2 * first + 3 * (second + 800 * 500 + 500 * CLASSES))
