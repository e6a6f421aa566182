"""What a profile costs: `python -m benchmarks.profile_cost`. The same launch table with and without, in turns.

Networks from a step of a microsecond, where reading a counter shows, to one of many. The best of the turns counts.
"""

from __future__ import annotations

from time import perf_counter

import numpy as np

import flowgraph as fg
from flowgraph.backends.cpu.executor import CpuExecutor

SIZES = ((1, 8), (8, 32), (32, 32), (32, 128), (128, 512))  # (batch, hidden)
TURNS, SECONDS = 25, 0.05


def step(hidden: int, threads: int) -> fg.Program:
    """A step of gradient descent of 64–hidden–10."""
    x, y = fg.input("x", ("batch", 64)), fg.input("y", ("batch",), "int32")
    w1, b1 = fg.parameter("w1", (64, hidden)), fg.parameter("b1", (hidden,))
    w2, b2 = fg.parameter("w2", (hidden, 10)), fg.parameter("b2", (10,))
    h = fg.tanh(fg.add_bias(x @ w1, b1))
    cost = fg.mean(fg.cross_ent_of_softmax(fg.add_bias(h @ w2, b2), y))
    parameters = [w1, b1, w2, b2]
    updates = {p: p - 0.01 * d for p, d in zip(parameters, fg.grad(cost, parameters), strict=True)}
    return fg.compile(outputs=cost, updates=updates, device="cpu", threads=threads)


def measure(batch: int, hidden: int, threads: int) -> tuple[int, float, float]:
    """Launches, and seconds a step without a profile and with one."""
    program = step(hidden, threads)
    executor = program.executor
    assert isinstance(executor, CpuExecutor)
    arrays, sizes = program.check({"x": np.ones((batch, 64), np.float32), "y": np.zeros(batch, np.int32)})

    def plain(steps: int) -> None:
        executor.run(sizes, arrays, steps, None)

    def profiled(steps: int) -> None:
        executor.profile(sizes, arrays, steps)

    best = [float("inf"), float("inf")]
    plain(100)  # compiles
    start = perf_counter()
    plain(100)
    steps = max(10, int(100 * SECONDS / (perf_counter() - start)))
    for _ in range(TURNS):
        for k, run in enumerate((plain, profiled)):
            start = perf_counter()
            run(steps)
            best[k] = min(best[k], (perf_counter() - start) / steps)
    return len(program.plan.calls), best[0], best[1]


def main() -> None:
    print("batch  hidden  threads  launches  us a step  profiled  cost")
    for threads in (1, 2):
        for batch, hidden in SIZES:
            launches, plain, profiled = measure(batch, hidden, threads)
            print(
                f"{batch:5}  {hidden:6}  {threads:7}  {launches:8}  {1e6 * plain:9.2f}  {1e6 * profiled:8.2f}"
                f"  {100 * (profiled / plain - 1):+.1f} %"
            )


if __name__ == "__main__":
    main()
