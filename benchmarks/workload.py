"""The work every contestant does: one epoch of 64 steps of the lecture's network, 784–H–10, on made-up data.

    P = softMax(tanh(tanh(X·W1 + b1)·W2 + b2)),  loss = mean crossEnt,  W ← W − RATE·∂loss/∂W,  float32

Goes out: `Data`, the same arrays for every contestant. Knows NumPy only: contestants share no other package.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

PIXELS, CLASSES, STEPS = 784, 10, 64
RATE = 0.01
SIZES = ((32, 128), (128, 512))  # (batch, hidden)


@dataclass(frozen=True)
class Data:
    """`order` is the permutation that shuffling contestants read the examples in."""

    x: Array  # float32 (STEPS·batch, PIXELS)
    y: Array  # int32 (STEPS·batch,), class numbers
    w1: Array  # float32 (PIXELS, hidden)
    w2: Array  # float32 (hidden, CLASSES)
    order: Array  # int32 (STEPS·batch,)


def make(batch: int, hidden: int) -> Data:
    """Data and initial weights of one size; biases start at zero."""
    rng = np.random.RandomState(0)
    examples = STEPS * batch

    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(np.float32)

    return Data(
        x=normal(examples, PIXELS),
        y=rng.randint(0, CLASSES, examples).astype(np.int32),
        w1=normal(PIXELS, hidden) / np.float32(np.sqrt(PIXELS)),
        w2=normal(hidden, CLASSES) / np.float32(np.sqrt(hidden)),
        order=rng.permutation(examples).astype(np.int32),
    )


def operations(batch: int, hidden: int) -> int:
    """Floating-point operations in a step's products: two forward, one backward, two for the weights."""
    return 2 * batch * hidden * (2 * PIXELS + 3 * CLASSES)
