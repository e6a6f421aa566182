"""Philox4x32-10 for kernels, in the operations of a `Value`: vectors and scalars, CPU and CUDA alike.

Comes in: seed, step, stream and element, int64. Goes out: a number in [0, 1), the same to the bit as in
ops/random_bits.py, where the function is explained.
"""

from __future__ import annotations

from flowgraph.codegen.cpu.value import Value
from flowgraph.ops.random_bits import MULTIPLIERS, ROUNDS, STREAM_SHIFT, WEYL

LOW = 0xFFFFFFFF


def _words(seed: Value, step: Value, place: Value) -> list[Value]:
    """Four words, each in the low half of an int64."""
    k0, k1 = seed & LOW, (seed >> 32) & LOW
    c0, c1, c2, c3 = place & LOW, (place >> 32) & LOW, step & LOW, (step >> 32) & LOW
    for _ in range(ROUNDS):
        p0, p1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]  # wraps: only the bits count
        c0, c1, c2, c3 = ((p1 >> 32) & LOW) ^ c1 ^ k0, p1 & LOW, ((p0 >> 32) & LOW) ^ c3 ^ k1, p0 & LOW
        k0, k1 = (k0 + WEYL[0]) & LOW, (k1 + WEYL[1]) & LOW
    return [c0, c1, c2, c3]


def uniform(word: int, wide: bool, seed: Value, step: Value, stream: Value, element: Value) -> Value:
    """See `ops.random_bits.uniform`."""
    words = _words(seed, step, element + (stream << STREAM_SHIFT))
    if not wide:
        return (words[word] >> 8).to("i32").to("f32") * 2.0**-24
    return (((words[2 * word] >> 5) << 26) + (words[2 * word + 1] >> 6)).to("f64") * 2.0**-53


NAMES = {f"random{word}_f32": (word, False) for word in range(4)}
NAMES |= {f"random{word}_f64": (word, True) for word in range(2)}
"""What kernels may call: a word of the four as float32, or a pair of them as float64."""
