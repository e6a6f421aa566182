"""Large graphs: kernels, distinct kernels and the work of compiling, all counted; nothing here looks at a clock."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable

import numpy as np
import pytest

import flowgraph as fg
from benchmarks.compile_time import chain, network
from flowgraph.backends.cpu.executor import prepare
from flowgraph.backends.once import prepare_once
from flowgraph.graph.graph import Graph
from flowgraph.kernels import layout
from flowgraph.kernels.build import build_kernels
from flowgraph.kernels.horizontal import join_side_by_side
from flowgraph.kernels.kernel import Kernel, KernelCall
from flowgraph.passes.pipeline import OPTIMISE, run_passes
from flowgraph.plan.plan import Plan, make_plan
from flowgraph.schedule.kind import kind_of


def planned(graph: Graph) -> tuple[Graph, Plan]:
    optimised, _ = run_passes(graph, OPTIMISE)
    calls = join_side_by_side(build_kernels(optimised), optimised.updates, kind_of)
    return optimised, make_plan(optimised, calls)


def calls_made(work: Callable[[], object]) -> int:
    """How many Python functions of ours are called."""
    count = 0

    def count_one(frame, event: str, argument: object) -> None:  # type: ignore[no-untyped-def]
        nonlocal count
        count += event == "call" and "flowgraph" in frame.f_code.co_filename

    sys.setprofile(count_one)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize(("make", "short"), [(chain, 125), (network, 15)], ids=["chain", "network"])
def test_the_work_of_compiling_grows_about_linearly_with_the_graph(make: Callable[[int], Graph], short: int) -> None:
    graphs = make(short), make(4 * short)
    small, large = (calls_made(lambda graph=graph: planned(graph)) for graph in graphs)
    assert large < 4 * 1.3 * small


def test_a_chain_of_two_thousand_nodes_is_a_few_dozen_kernels() -> None:
    graph, plan = planned(chain(2000))
    assert 2000 <= len(graph.nodes()) <= 2010
    assert len(plan.calls) <= 60
    assert len({call.kernel for call in plan.calls}) <= 4


def test_a_network_of_five_hundred_layers_has_four_kernels_a_layer_and_a_handful_in_all() -> None:
    layers = 500
    _, plan = planned(network(layers))
    assert len(plan.calls) <= 4 * layers + 5
    assert len(plan.in_place) == 2 * layers
    assert len({call.kernel for call in plan.calls}) <= 8


def test_equal_layers_are_prepared_once() -> None:
    prepared: list[KernelCall] = []

    def counted(call: KernelCall):  # type: ignore[no-untyped-def]
        prepared.append(call)
        return prepare(call)

    _, plan = planned(network(300))
    made = prepare_once(plan.calls, counted)
    assert [m.call for m in made] == list(plan.calls)
    assert len(prepared) == len({m.source for m in made}) <= 8


def test_loops_of_equal_layers_are_chosen_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compiling = importlib.import_module("flowgraph.compile")  # (fg.compile is the function)
    looked_at: list[Kernel] = []

    def counted(of: Callable[..., object]) -> Callable[..., object]:
        def counting(kernel: Kernel, *more: object) -> object:
            looked_at.append(kernel)
            return of(kernel, *more)

        return counting

    places = [(compiling, "kind_of"), (compiling, "walk_of"), (layout, "_with_innermost"), (layout, "_permuted")]
    for place, name in places:
        monkeypatch.setattr(place, name, counted(getattr(place, name)))
    counts = []
    for layers in (20, 40):
        graph, _ = run_passes(network(layers), OPTIMISE)
        looked_at.clear()
        calls = compiling.arrange(build_kernels(graph), graph)
        counts.append((len(looked_at), len({call.kernel for call in calls})))
    assert counts[0] == counts[1]


def test_a_deep_network_trains() -> None:
    graph = network(60)
    step = fg.compile(graph.inputs, graph.outputs, dict(graph.updates), device="cpu")
    random = np.random.default_rng(0)
    x, y = random.standard_normal((8, 32)).astype(np.float32), random.integers(0, 32, 8).astype(np.int32)
    costs = [float(step(x=x, y=y)[0]) for _ in range(20)]
    assert costs[-1] < costs[0]
