"""How compile time grows: `python -m benchmarks.compile_time`. Chains and deep networks, stage by stage, in seconds.

Declaring includes the backward graph. Stages are measured once: read the curve, not the digits. Of the kernels, what
seems slow is measured three times.
"""

from __future__ import annotations

import gc
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Iterator
from itertools import chain as chain_iterables
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import flowgraph as fg
from flowgraph.backends.cpu.executor import Compiled, CpuExecutor, planned
from flowgraph.backends.cpu.store import KernelSource, KernelStore
from flowgraph.compile import arrange
from flowgraph.graph.graph import Graph
from flowgraph.kernels.build import build_kernels
from flowgraph.kernels.fuse import fuse
from flowgraph.ops.base import Op
from flowgraph.passes.pipeline import OPTIMISE, run_passes
from flowgraph.plan.plan import make_plan
from tests.support.random_graphs import random_case


def chain(length: int) -> Graph:
    """tanh(h * w) again and again: `length` nodes and a few."""
    x, w = fg.input("x", ("batch", 8)), fg.parameter("w", (8,))
    h = x
    for _ in range(length // 2):
        h = fg.tanh(h * w)
    return Graph((fg.mean(h),), (), (x,))


def network(layers: int) -> Graph:
    """A step of gradient descent through so many equal layers of 32 units."""
    x, y = fg.input("x", ("batch", 32)), fg.input("y", ("batch",), "int32")
    h, parameters = x, list[fg.Tensor]()
    for k in range(layers):
        w, b = fg.parameter(f"w{k}", (32, 32)), fg.parameter(f"b{k}", (32,))
        parameters += [w, b]
        h = fg.tanh(fg.add_bias(h @ w, b))
    cost = fg.mean(fg.cross_ent_of_softmax(h, y))
    gradients = fg.grad(cost, parameters)
    return Graph((cost,), tuple((p, p - 0.1 * g) for p, g in zip(parameters, gradients, strict=True)), (x, y))


def stages(make: Callable[[int], Graph], size: int) -> Iterator[str]:
    """The cells of one row of the table."""
    start = perf_counter()

    def lap() -> str:
        nonlocal start
        before, start = start, perf_counter()
        return f"{start - before:.2f}"

    declared = make(size)
    yield lap()
    graph, _ = run_passes(declared, OPTIMISE)
    yield lap()
    fuse(graph)
    yield lap()
    calls = arrange(build_kernels(graph), graph)
    yield lap()
    make_plan(graph, calls)
    yield lap()
    executor = CpuExecutor(graph, calls, 1)
    yield lap()
    yield f"{len(graph.nodes())} nodes, {len(calls)} kernels, {len({c.source for c in executor.compiled})} distinct"


def programs(count: int) -> Iterator[tuple[str, Graph]]:
    """Each op of the vocabulary by its samples, then random graphs of 60 drawn ops."""
    for name, op in Op.registry.items():
        for sample in () if op.meaning() == "leaf" else op.samples():
            yield name, Graph((sample.op(*(fg.input(f"x{k}", a.shape, a.dtype) for k, a in enumerate(sample.arrays))),))
    for seed in range(count):
        yield f"random graph {seed}", random_case(40_000 + seed, 60).graph


AGAIN = 0.3  # seconds: what took longer is compiled twice more, and the least counts


def kernel_times(graphs: Iterable[tuple[str, Graph]]) -> list[tuple[float, int, str, str]]:
    """Of every distinct kernel, slowest first: seconds from source to machine code, lines of source, name, graph."""
    found: dict[str, tuple[float, int, str, str]] = {}

    def seconds(made: Compiled) -> float:
        with TemporaryDirectory() as folder:
            gc.collect()
            gc.freeze()  # what thousands of kernels left behind, no user's process has
            start = perf_counter()
            KernelStore(Path(folder)).load([KernelSource(made.loops.name, made.source, made.loops.name)])
            return perf_counter() - start

    for where, declared in graphs:
        graph = run_passes(declared, OPTIMISE)[0]
        for made in planned(graph, arrange(build_kernels(graph), graph))[1]:
            if made.source not in found:
                least = seconds(made)
                if least > AGAIN:
                    least = min(least, seconds(made), seconds(made))
                found[made.source] = least, made.source.count("\n"), made.loops.name, where
    return sorted(found.values(), reverse=True)


def main() -> None:
    parser = ArgumentParser(prog="compile_time", description=__doc__)
    parser.add_argument("--graphs", type=int, default=100, help="random graphs whose kernels are timed, too")
    asked = parser.parse_args()
    print("| graph | declare | passes | fuse | fuse, build, join, order | plan | schedule, lower, print | |")
    print("|---|---|---|---|---|---|---|---|")
    for make, unit, sizes in ((chain, "nodes", (50, 250, 500, 1000, 2000)), (network, "layers", (50, 125, 250, 500))):
        for size in sizes:
            print(f"| {make.__name__}, {size} {unit} | " + " | ".join(stages(make, size)) + " |", flush=True)
    kernel_times([("", chain(4))])  # numba itself is loaded and warm
    own = (("chain", chain(100)), ("network", network(2)))
    times = kernel_times(chain_iterables(own, programs(asked.graphs)))
    print(f"{len(times)} distinct kernels to machine code: median {median(t for t, *_ in times):.3f} s; the slowest:")
    for seconds, lines, kernel, where in times[:10]:
        print(f"  {seconds:.2f} s, {lines} lines: {kernel} of {where}")


if __name__ == "__main__":
    main()
