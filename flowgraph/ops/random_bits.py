"""Philox4x32-10 (Salmon and others, SC 2011) in NumPy: random bits as a function of where they are wanted.

    bits = philox(key = seed, counter = (element + 2**40 * stream, step))

so the same place has the same bits in any order, on any device, and again in a backward pass. Kernels compute the
same function (codegen/philox.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)  # what the key grows by each round: golden ratio, square root of 3
ROUNDS = 10
STREAM_SHIFT = 40  # elements below it, streams above: 2**40 of the ones, 2**24 of the others
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def philox(key: tuple[Any, Any], counter: tuple[Any, Any, Any, Any]) -> list[np.ndarray]:
    """The four 32-bit words, as uint64, of a key of two words and a counter of four; arrays broadcast."""
    k0, k1 = (np.asarray(k, np.uint64) for k in key)
    c0, c1, c2, c3 = (np.asarray(c, np.uint64) for c in counter)
    for _ in range(ROUNDS):
        p0, p1 = c0 * np.uint64(MULTIPLIERS[0]), c2 * np.uint64(MULTIPLIERS[1])
        c0, c1, c2, c3 = (p1 >> _HALF) ^ c1 ^ k0, p1 & _LOW, (p0 >> _HALF) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + np.uint64(WEYL[0])) & _LOW, (k1 + np.uint64(WEYL[1])) & _LOW
    return [c0, c1, c2, c3]


def uniform(seed: Any, step: Any, stream: Any, element: Any, word: int, wide: bool) -> np.ndarray:
    """Numbers in [0, 1): a float32 of 24 bits from one of four words, or, if wide, a float64 of 53 bits from one of
    two pairs of them. Seeds, steps, streams and elements are int64 arrays that broadcast.
    """
    with np.errstate(over="ignore"):
        seed, step, stream, element = (np.asarray(a, np.int64).astype(np.uint64) for a in (seed, step, stream, element))
        place = element + (stream << np.uint64(STREAM_SHIFT))
        words = philox((seed & _LOW, seed >> _HALF), (place & _LOW, place >> _HALF, step & _LOW, step >> _HALF))
    if not wide:
        return (words[word] >> np.uint64(8)).astype(np.float32) * np.float32(2**-24)
    high, low = words[2 * word] >> np.uint64(5), words[2 * word + 1] >> np.uint64(6)
    return ((high << np.uint64(26)) + low).astype(np.float64) * 2**-53
