"""Kernels side by side: what is joined, what is not, and that nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.backends.cuda.emulator import EmulatedDevice
from flowgraph.compile import declare
from flowgraph.kernels.build import build_kernels
from flowgraph.kernels.horizontal import join_side_by_side
from flowgraph.kernels.kernel import KernelCall
from flowgraph.ops.leaf import Leaf
from flowgraph.passes.pipeline import OPTIMISE, run_passes
from flowgraph.plan.plan import make_plan
from flowgraph.schedule.kind import kind_of
from tests.support.compare import Oracle
from tests.support.paths import optimise, run_calls
from tests.support.random_graphs import random_case


def joined(outputs=(), updates=None) -> list[KernelCall]:  # type: ignore[no-untyped-def]
    graph, _ = run_passes(declare(None, outputs, updates), OPTIMISE)
    return join_side_by_side(build_kernels(graph), graph.updates, kind_of)


def given(*shape: int | str, name: str = "x") -> fg.Tensor:
    return fg.input(name, shape)


def test_two_sums_over_the_rows_of_one_array_read_it_once() -> None:
    x = given("batch", 64)
    (call,) = joined([fg.sum(x, axis=0), fg.max(x, axis=0)])
    assert [len(n.reductions) for n in call.kernel.nests] == [2, 0]
    assert len(call.inputs) == 1 and len(call.outputs) == 2


def test_elementwise_kernels_of_one_array_become_one_and_share_what_both_compute() -> None:
    x, y = given("batch", 64), given("batch", 64, name="y")
    a, b = fg.tanh(x), fg.tanh(x) * y
    assert len(joined([a, b])) == 1
    (call,) = joined([fg.exp(x), x * y])
    assert len(call.kernel.nests) == 1 and len(call.inputs) == 2


def test_kernels_that_share_only_a_scalar_stay_apart() -> None:
    rate, a, b = given(name="rate"), fg.parameter("a", (64,)), fg.parameter("b", (64,))
    x, y = given(64), given(64, name="y")
    assert len(joined(updates={a: a - rate * x, b: b - rate * y})) == 2


def test_a_kernel_is_not_joined_with_what_waits_for_it() -> None:
    x = given("batch", 64)
    total = fg.sum(x, axis=0)
    assert len(joined([fg.sum(fg.tanh(x) * total, axis=0)])) == 3


def test_products_keep_a_kernel_to_themselves() -> None:
    x, w, v = given("batch", 64), fg.parameter("w", (64, 32)), fg.parameter("v", (64, 32))
    assert len(joined([x @ w, x @ v])) == 2


def test_sums_over_rows_and_over_columns_walk_differently_and_stay_apart() -> None:
    x = given(64, 64)
    assert len(joined([fg.sum(x, axis=0), fg.sum(x, axis=1)])) == 2


def test_a_kernel_that_a_bias_keeps_from_one_long_loop_is_not_joined_with_one_that_has_it() -> None:
    x, b = given("batch", 64), fg.parameter("b", (64,))
    assert len(joined([fg.tanh(x), x * b])) == 2


def test_updates_stay_in_their_parameters() -> None:
    w, v, x = fg.parameter("w", (64,)), fg.parameter("v", (64,)), given(64)
    graph, _ = run_passes(declare(None, [fg.exp(w)], {w: w * x, v: v - x * fg.sin(w)}), OPTIMISE)
    calls = join_side_by_side(build_kernels(graph), graph.updates, kind_of)
    plan = make_plan(graph, calls)
    assert len(plan.in_place) == 2 and not any("copy" in call.kernel.name for call in plan.calls)


def test_equal_names_stay_apart() -> None:
    x, y = given("batch", 8), given("batch", 8, name="y")
    (call,) = joined([fg.sum(x, axis=0), fg.sum(x * y, axis=0)])
    names = [r.name for n in call.kernel.nests for r in n.reductions]
    assert len(set(names)) == 2


@pytest.mark.parametrize("device", ["cpu", EmulatedDevice()], ids=["cpu", "cuda"])
def test_a_joined_kernel_computes_what_its_parts_did(device: str | EmulatedDevice) -> None:
    x, y = given("batch", 33), given("batch", 33, name="y")
    outputs = [fg.sum(x, axis=0), fg.max(x, axis=0), fg.sum(x, axis=1), fg.max(x * y, axis=1), fg.exp(x), x * y]
    step = fg.compile([x, y], outputs, device=device)
    assert len(step.kernels) == 3
    a, b = np.random.default_rng(0).standard_normal((2, 7, 33)).astype(np.float32)
    expected = [a.sum(0), a.max(0), a.sum(1), (a * b).max(1), np.exp(a), a * b]
    for found, true in zip(step(x=a, y=b), expected, strict=True):
        np.testing.assert_allclose(found, true, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(0, 400, 4))
def test_random_graphs_mean_the_same_joined_and_their_kernels_come_in_order(seed: int) -> None:
    case = random_case(seed, 20)
    graph = optimise(case.graph)
    apart = build_kernels(graph)
    calls = join_side_by_side(apart, graph.updates, kind_of)
    known = {t for n in graph.nodes() if isinstance(n.op, Leaf) for t in n.outputs}
    for call in calls:
        assert set(call.inputs) <= known
        known |= set(call.outputs)
    assert {t for c in calls for t in c.outputs} == {t for c in apart for t in c.outputs}
    assert len(make_plan(graph, calls).in_place) >= len(make_plan(graph, apart).in_place)
    found = run_calls(graph, calls, case.feeds, case.sizes)
    assert not Oracle(case.graph, case.feeds, case.sizes).mismatch(found)
