"""How far the generated float32 functions are from the truth, over all 2**32 values. `python -m benchmarks.accuracy`

A function is evaluated by the vector code that kernels use, and beside it in float64 by the C library (whose own error
is a billionth of what is measured). The distance is counted in units of the last place of a float32 of the true value's
size; below the normal range that is the smallest denormal, and a true value that no float32 holds counts as infinity.
Prints the largest distance, where it is, and how many values were right. 20 minutes a core for all values and
functions; `--stride 41` takes 10**8 of them, evenly spread.
"""

from __future__ import annotations

import argparse
import ctypes
from time import perf_counter

import numpy as np

from flowgraph.backends.cpu.store import KernelSource, KernelStore

FUNCTIONS = ("exp", "log", "tanh", "logistic", "softplus", "erf", "sin", "cos", "log1p", "expm1")
LANES = 16
CHUNK = 1 << 20
OVERFLOW = 2.0**128 - 2.0**103  # from here on the nearest float32 is infinity

TEXT = """def accuracy_{name}(args, lo, hi):
    x, y, exact = arg(args, 0), arg(args, 1), arg(args, 2)
    for t in range(lo, hi):
        value = vload_f32(x, {lanes} * t)
        vstore_f32(y, {lanes} * t, {name}(value))
    for t in range({lanes} * lo, {lanes} * hi):
        store_f64(exact, t, {name}(to_f64(load_f32(x, t))))
"""


class Pair:
    """A function of float32 arrays: (by vectors, by the C library in float64)."""

    def __init__(self, name: str, store: KernelStore) -> None:
        entry = f"accuracy_{name}"
        (address,) = store.load([KernelSource(entry, TEXT.format(name=name, lanes=LANES), entry)])
        self._call = ctypes.CFUNCTYPE(None, *(ctypes.c_int64,) * 3)(address)

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y, exact = np.empty_like(x), np.empty(len(x), np.float64)
        words = np.array([x.ctypes.data, y.ctypes.data, exact.ctypes.data], np.int64)
        self._call(words.ctypes.data, 0, len(x) // LANES)
        return y, exact


def distance(y: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """|y - exact| in units of the last place; infinite where one of them is no number and the other is."""
    size = np.abs(exact)
    size[np.isnan(size)] = 0.0
    unit = np.ldexp(1.0, np.maximum(np.frexp(np.minimum(size, OVERFLOW))[1] - 24, -149))
    limit = np.where(size >= OVERFLOW, np.copysign(np.inf, exact), exact)
    off = np.abs(y.astype(np.float64) - limit) / unit
    same = (y == limit) | (np.isnan(y) & np.isnan(exact))
    return np.where(same, 0.0, np.where(np.isnan(off), np.inf, off))


def measure(name: str, stride: int, store: KernelStore) -> tuple[int, float, float]:
    """(values tried, largest distance, where)."""
    pair, tried, worst, place = Pair(name, store), 0, -1.0, 0.0
    for start in range(0, 1 << 32, CHUNK * stride):
        bits = np.arange(start, min(start + CHUNK * stride, 1 << 32), stride, dtype=np.uint64).astype(np.uint32)
        x = np.resize(bits, -(-len(bits) // LANES) * LANES).view(np.float32)
        y, exact = pair(x)
        off = distance(y, exact)
        k = int(np.argmax(off))
        if off[k] > worst:
            worst, place = float(off[k]), float(x[k])
        tried += len(bits)
    return tried, worst, place


def main() -> None:
    parser = argparse.ArgumentParser(prog="accuracy", description=__doc__)
    parser.add_argument("--stride", type=int, default=1, help="take every n-th bit pattern (default: all)")
    parser.add_argument("functions", nargs="*", default=FUNCTIONS)
    asked = parser.parse_args()
    np.seterr(all="ignore")
    store = KernelStore()
    print(f"{'function':10} {'values':>14} {'largest distance':>18}   at")
    for name in asked.functions:
        start = perf_counter()
        tried, worst, place = measure(name, asked.stride, store)
        print(f"{name:10} {tried:14,} {worst:14.3f} ulp   {place!r}  ({perf_counter() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
