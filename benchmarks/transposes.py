"""What walking memory across its order costs: `python -m benchmarks.transposes`. Transposed cases beside plain ones.

One thread; microseconds a step, the best of ten runs of 20 steps; every result is summed, so that it is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import numpy as np

import flowgraph as fg

Build = Callable[..., fg.Tensor]
M, N, K = 512, 512, 128


def turned(x: fg.Tensor) -> fg.Tensor:
    return fg.swapaxes(x, -1, -2)


CASES: tuple[tuple[str, Build, tuple[tuple[int, ...], ...]], ...] = (
    ("tanh(x + y)", lambda x, y: fg.tanh(x + y), ((M, N), (M, N))),
    ("tanh(x.T + y)", lambda x, y: fg.tanh(turned(x) + y), ((N, M), (M, N))),
    ("softmax(x)", lambda x: fg.square(fg.softmax(x)), ((M, N),)),
    ("softmax(x.T)", lambda x: fg.square(fg.softmax(turned(x))), ((M, N),)),
    ("softmax(x w)", lambda x, w: fg.square(fg.softmax(x @ w)), ((M, K), (K, N))),
    ("softmax((x w).T)", lambda x, w: fg.square(fg.softmax(turned(x @ w))), ((M, K), (K, N))),
    ("x w, 32 rows", lambda x, w: x @ w, ((32, N), (N, N))),
    ("x w.T, 32 rows", lambda x, w: x @ turned(w), ((32, N), (N, N))),
    ("64 products q k", lambda q, k: q @ k, ((64, 64, 64), (64, 64, 64))),
    ("64 products q k.T", lambda q, k: q @ turned(k), ((64, 64, 64), (64, 64, 64))),
)


def best(build: Build, shapes: tuple[tuple[int, ...], ...]) -> float:
    inputs = [fg.input(f"x{k}", shape) for k, shape in enumerate(shapes)]
    program = fg.compile(inputs, [fg.sum(build(*inputs))], device="cpu", threads=1)
    rng = np.random.default_rng(0)
    data = {f"x{k}": rng.random(shape, np.float32) for k, shape in enumerate(shapes)}
    program.run(20, data)

    def once() -> float:
        start = perf_counter()
        program.run(20, data)
        return (perf_counter() - start) / 20

    return min(once() for _ in range(10))


def main() -> None:
    for name, build, shapes in CASES:
        print(f"{name:<20} {1e6 * best(build, shapes):8.1f} us", flush=True)


if __name__ == "__main__":
    main()
