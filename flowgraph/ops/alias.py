"""Walker's alias table: a discrete distribution as one uniform column and one biased coin a draw, however many
outcomes it has.

Comes in: weights. Goes out: for each column the share of it that is its own, and whose the rest is.
"""

from __future__ import annotations

import numpy as np


def alias_table(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(share float32 (n,), other int64 (n,)) of weights float64 (n,), which are finite, not negative and not all 0.

    A draw takes a column k of n, all equally often, and then k itself with the probability share[k], else other[k];
    so each k comes in proportion to its weight. One of weight 0 never comes. Vose 1991, "A Linear Algorithm for
    Generating Random Numbers with a Given Distribution".

    >>> alias_table(np.array([1.0, 3.0]))
    (array([0.5, 1. ], dtype=float32), array([1, 1]))
    """
    n = len(weights)
    scaled = weights / weights.max()  # so that no sum overflows
    left = (scaled * (n / scaled.sum())).tolist()
    share, other = np.ones(n, np.float32), np.arange(n)
    small = [k for k in range(n) if left[k] < 1]
    large = [k for k in range(n) if left[k] >= 1]
    while small and large:
        k, giver = small.pop(), large[-1]
        share[k], other[k] = left[k], giver
        left[giver] -= 1 - left[k]
        if left[giver] < 1:
            small.append(large.pop())
    heaviest = int(weights.argmax())
    for k in small:  # rounding left these: all but full, or nothing
        if weights[k] == 0:
            share[k], other[k] = 0, heaviest
    return share, other
