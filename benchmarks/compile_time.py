"""How compile time grows: `python -m benchmarks.compile_time`. Chains and deep networks, stage by stage, in seconds.

Declaring includes the backward graph. Nothing is measured twice: read the curve, not the digits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import flowgraph as fg
from flowgraph.backends.cpu.executor import CpuExecutor, prepare
from flowgraph.backends.cpu.store import KernelSource, KernelStore
from flowgraph.graph.graph import Graph
from flowgraph.kernels.build import build_kernels
from flowgraph.kernels.fuse import fuse
from flowgraph.kernels.horizontal import join_side_by_side
from flowgraph.passes.pipeline import OPTIMISE, run_passes
from flowgraph.plan.plan import make_plan
from flowgraph.schedule.kind import kind_of


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
    calls = join_side_by_side(build_kernels(graph), graph.updates, kind_of)
    yield lap()
    make_plan(graph, calls)
    yield lap()
    executor = CpuExecutor(graph, calls, 1)
    yield lap()
    yield f"{len(graph.nodes())} nodes, {len(calls)} kernels, {len({c.source for c in executor.compiled})} distinct"


def slowest_kernel(graph: Graph) -> tuple[str, float]:
    """The name of the kernel that takes longest to compile to machine code from nothing, and its seconds."""
    found: dict[str, float] = {}
    with TemporaryDirectory() as folder:
        store = KernelStore(Path(folder))
        for call in build_kernels(run_passes(graph, OPTIMISE)[0]):
            made = prepare(call)
            start = perf_counter()
            store.load([KernelSource(made.loops.name, made.source, made.loops.name)])
            found[made.loops.name] = max(perf_counter() - start, found.get(made.loops.name, 0.0))
    name = max(found, key=lambda n: found[n])
    return name, found[name]


def main() -> None:
    print("| graph | declare | passes | fuse | fuse, build, join | plan | schedule, lower, print | |")
    print("|---|---|---|---|---|---|---|---|")
    for make, unit, sizes in ((chain, "nodes", (50, 250, 500, 1000, 2000)), (network, "layers", (50, 125, 250, 500))):
        for size in sizes:
            print(f"| {make.__name__}, {size} {unit} | " + " | ".join(stages(make, size)) + " |", flush=True)
    slowest_kernel(chain(4))  # numba itself is loaded and warm
    for make, size in ((chain, 100), (network, 2)):
        name, seconds = slowest_kernel(make(size))
        print(f"slowest kernel of the {make.__name__}: {name}, {seconds:.2f} s to machine code")


if __name__ == "__main__":
    main()
