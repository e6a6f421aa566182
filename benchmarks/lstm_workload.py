"""An LSTM's work: one epoch of 8 steps over sequences of 64, the last state classified, on made-up data.

    f, i, o, g = logistic, logistic, logistic, tanh of x·Wx + h·Wh + b
    c ← f·c + i·g,  h ← o·tanh(c),  loss = mean crossEnt of softMax(h·V + d)

Goes out: `Data`, the same arrays for every contestant; the gates stand side by side as f, i, o, g. Knows NumPy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.workload import Array

TIME, INPUTS, CLASSES, STEPS = 64, 128, 10, 8
RATE = 0.01


@dataclass(frozen=True)
class Data:
    x: Array  # float32 (STEPS·batch, TIME, INPUTS)
    y: Array  # int32 (STEPS·batch,), class numbers
    w_x: Array  # float32 (INPUTS, 4·hidden)
    w_h: Array  # float32 (hidden, 4·hidden)
    b: Array  # float32 (4·hidden,): 1 for the forget gate, 0 for the others
    v: Array  # float32 (hidden, CLASSES); its bias begins at 0


def make(batch: int, hidden: int) -> Data:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(np.float32)

    return Data(
        x=normal(STEPS * batch, TIME, INPUTS),
        y=rng.integers(0, CLASSES, STEPS * batch).astype(np.int32),
        w_x=normal(INPUTS, 4 * hidden) / np.float32(np.sqrt(INPUTS)),
        w_h=normal(hidden, 4 * hidden) / np.float32(np.sqrt(hidden)),
        b=np.repeat(np.array([1, 0, 0, 0], np.float32), hidden),
        v=normal(hidden, CLASSES) / np.float32(np.sqrt(hidden)),
    )


def operations(batch: int, hidden: int) -> int:
    """In a step's products: of the input forward and for its weights, of the state also backward."""
    return 2 * batch * TIME * 4 * hidden * (2 * INPUTS + 3 * hidden) + 6 * batch * hidden * CLASSES
