"""Which loop is innermost, and how a stored value lies in memory: as it is walked, if nobody else can see it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.compile import arrange
from flowgraph.graph.graph import Graph
from flowgraph.kernels.build import build_kernels
from flowgraph.kernels.horizontal import join_side_by_side
from flowgraph.kernels.kernel import Call, kernel_calls
from flowgraph.schedule.access import collapse
from flowgraph.schedule.cost import walk_of
from flowgraph.schedule.cpu import Tile, choose
from flowgraph.schedule.kind import kind_of
from tests.support.paths import optimise
from tests.support.random_graphs import random_case


def single(calls: Iterable[Call]) -> float:
    return sum(walk_of(call.kernel).total for call in kernel_calls(calls))


def both(*outputs: fg.Tensor) -> tuple[list[Any], list[Any]]:
    """The kernels before and after."""
    graph = optimise(Graph(outputs))
    joined = join_side_by_side(build_kernels(graph), graph.updates, kind_of)
    return joined, arrange(build_kernels(graph), graph)


def stored_shape(calls: list[Any], writer: int) -> tuple[object, ...]:
    return calls[writer].kernel.outputs[0].type.shape


def test_a_product_that_is_only_read_transposed_is_computed_transposed() -> None:
    x, w = fg.input("x", ("batch", 24)), fg.input("w", (24, 40))
    before, after = both(fg.softmax(fg.swapaxes(x @ w, 0, 1)))
    assert stored_shape(before, 0) == (x.shape[0], 40)
    assert stored_shape(after, 0) == (40, x.shape[0])
    assert isinstance(choose(collapse(after[0].kernel), (8, 2)), Tile)
    # what is left: rows of x packed in squares, instead of as many single elements as the product and its readers have
    assert single(after) < single(before) / 4


def test_a_product_that_is_read_both_ways_stays_as_it_is() -> None:
    x, w = fg.input("x", ("batch", 24)), fg.input("w", (24, 40))
    z = x @ w
    _, after = both(fg.softmax(fg.swapaxes(z, 0, 1)), fg.softmax(z), fg.log_softmax(2 * z))
    assert stored_shape(after, 0) == (x.shape[0], 40)


def test_an_output_keeps_its_order() -> None:
    x, w = fg.input("x", ("batch", 24)), fg.input("w", (24, 40))
    z = x @ w
    before, after = both(z, fg.softmax(fg.swapaxes(z, 0, 1)))
    assert [c.kernel for c in before] == [c.kernel for c in after]


def test_a_value_that_is_read_under_another_shape_keeps_its_order() -> None:
    x, w = fg.input("x", (12, 24)), fg.input("w", (24, 40))
    z = x @ w
    _, after = both(fg.softmax(fg.swapaxes(z, 0, 1)), fg.softmax(fg.reshape(z, (20, 24))))
    assert stored_shape(after, 0) == (12, 40)


def test_loops_are_turned_where_more_is_read_than_stored_out_of_order() -> None:
    x, y, z = (fg.input(name, (33, 65)) for name in "xyz")
    before, after = both(fg.swapaxes(x + y + z, 0, 1))
    assert len(before) == 1
    assert after[0].kernel.axes == before[0].kernel.axes[::-1]
    assert single(after) == single(before) / 3  # one store instead of three reads


def test_a_batched_product_stays_in_its_tile() -> None:
    x, y = fg.input("x", (6, 20, 16)), fg.input("y", (6, 24, 16))
    _, after = both(x @ fg.swapaxes(y, 1, 2))
    assert isinstance(choose(collapse(after[0].kernel), (8, 2)), Tile)


def test_what_was_in_order_is_left_alone() -> None:
    x, w = fg.input("x", ("batch", 24)), fg.input("w", (24, 40))
    before, after = both(fg.softmax(fg.tanh(x @ w)))
    assert [c.kernel for c in before] == [c.kernel for c in after]


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs_are_walked_no_worse(seed: int) -> None:
    graph = optimise(random_case(seed + 700, 25).graph)
    joined = join_side_by_side(build_kernels(graph), graph.updates, kind_of)
    assert single(arrange(build_kernels(graph), graph)) <= single(joined)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_results_are_the_same(device: str) -> None:
    from tests.support.paths import PROGRAMS

    x, w = fg.input("x", ("batch", 24)), fg.parameter("w", (24, 40), init=fg.init.normal())
    cost = fg.sum(fg.square(fg.softmax(fg.swapaxes(fg.tanh(x @ w), 0, 1))))
    (gradient,) = fg.grad(cost, [w])
    feeds = {"x": np.random.default_rng(0).normal(size=(19, 24)).astype("f4")}
    expected = fg.compile([x], [cost, gradient], device="reference")(**feeds)
    found = fg.compile([x], [cost, gradient], device=PROGRAMS[device], check=True)(**feeds)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-7)
