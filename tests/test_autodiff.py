"""The backward graph: compositions against differences, shared paths, what has no gradient, and Y - P."""

from __future__ import annotations

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.autodiff import backward
from flowgraph.errors import DTypeError, ShapeError
from flowgraph.graph.graph import Graph
from flowgraph.graph.text import to_text
from flowgraph.graph.types import TensorType
from flowgraph.ops.base import Op
from flowgraph.passes.algebra import simplify_algebra
from flowgraph.passes.cse import eliminate_common_subexpressions
from flowgraph.passes.pipeline import OPTIMISE, run_passes
from tests.support.compare import Oracle, evaluate
from tests.support.paths import PATHS
from tests.support.random_graphs import random_case

HUGE = np.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4], [0.0, 0.0, 0.0]], np.float32)
CLASSES = np.array([1, 0, 2], np.int32)


def values(tensors: list[fg.Tensor], feeds: dict[fg.Tensor, np.ndarray], **sizes: int) -> list[np.ndarray]:
    return evaluate(Graph(tuple(tensors)), feeds, sizes)


# Reverse accumulation


def test_paths_that_join_add_up() -> None:
    x = fg.input("x", (3,))
    h = fg.tanh(x)
    (dx,) = values([fg.grad(fg.sum(h * h + h + x), x)], {x: np.array([0.1, -0.5, 2.0], np.float32)})
    t = np.tanh([0.1, -0.5, 2.0])
    np.testing.assert_allclose(dx, (2 * t + 1) * (1 - t * t) + 1, rtol=1e-6)


def test_a_tensor_used_twice_by_one_op_gets_both_cotangents() -> None:
    x = fg.input("x", (2, 2))
    data = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    (dx,) = values([fg.grad(fg.sum(x @ x), x)], {x: data})
    ones = np.ones((2, 2))
    np.testing.assert_allclose(dx, ones @ data.T + data.T @ ones)


def test_a_tensor_that_the_cost_does_not_depend_on_has_gradient_zero() -> None:
    x, unused = fg.input("x", (3,)), fg.parameter("unused", (2, 5))
    (zero,) = values([fg.grad(fg.sum(x), unused)], {x: np.ones(3, np.float32)})
    np.testing.assert_array_equal(zero, np.zeros((2, 5), np.float32))


def test_the_cost_is_its_own_gradient_one() -> None:
    cost = fg.sum(fg.input("x", (3,)))
    (one,) = values([fg.grad(cost, cost)], {cost.node.inputs[0]: np.ones(3, np.float32)})
    assert one == 1 and one.shape == ()


def test_gradients_for_tensors_in_the_middle_are_total() -> None:
    """b depends on a: the gradient for a counts the way through b, in whatever order they are asked for."""
    x = fg.input("x", (2,))
    a = x * 3.0
    b = a * a
    cost = fg.sum(a + b)
    data = {x: np.array([1.0, 2.0], np.float32)}
    db, da, dx = values(fg.grad(cost, [b, a, x]), data)
    np.testing.assert_allclose(db, [1, 1])
    np.testing.assert_allclose(da, [7, 13])
    np.testing.assert_allclose(dx, [21, 39])


def test_two_tensors_of_equal_value_have_gradients_of_their_own() -> None:
    x = fg.input("x", (2,))
    a, b = x + 1.0, x + 1.0
    da, db = values(fg.grad(fg.sum(a * a * b), [a, b]), {x: np.array([1.0, 2.0], np.float32)})
    np.testing.assert_allclose(da, 2 * np.array([4.0, 9.0]))
    np.testing.assert_allclose(db, [4, 9])


def test_the_probabilities_keep_their_gradient_though_the_cost_is_rewritten() -> None:
    a, y = fg.input("a", ("batch", 3)), fg.input("y", ("batch",), "int32")
    p = fg.softmax(a)
    dp, da = fg.grad(fg.sum(fg.cross_ent(p, y)), [p, a])
    logits = np.array([[0.0, 1.0, 2.0]], np.float32)
    found_p, found_a = values([dp, da], {a: logits, y: np.array([2], np.int32)}, batch=1)
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(found_p, [[0, 0, -1 / expected[0, 2]]], rtol=1e-6)
    np.testing.assert_allclose(found_a, expected - [[0, 0, 1]], rtol=1e-5)


def test_a_constant_can_be_differentiated_for() -> None:
    k = fg.constant([1.0, 2.0])
    (dk,) = values([fg.grad(fg.sum(k * k), k)], {})
    np.testing.assert_allclose(dk, [2, 4])


@pytest.mark.parametrize("depth", [3000])
def test_a_deep_graph_needs_no_deep_stack(depth: int) -> None:
    x = h = fg.input("x", ())
    for _ in range(depth):
        h = h * 1.0 + 0.0
    (dx,) = values([backward(h, [x])[0]], {x: np.float32(2).reshape(())})
    assert dx == 1


def test_a_second_derivative_is_the_derivative_of_the_derivative() -> None:
    x = fg.input("x", (4,), "float64")
    (d2,) = values([fg.grad(fg.sum(fg.grad(fg.sum(fg.tanh(x)), x)), x)], {x: np.array([-1.0, 0.0, 0.3, 2.0])})
    t = np.tanh([-1.0, 0.0, 0.3, 2.0])
    np.testing.assert_allclose(d2, -2 * t * (1 - t * t), rtol=1e-12, atol=1e-15)


# What has no gradient


def test_only_a_scalar_has_a_gradient() -> None:
    x = fg.input("x", ("batch", 3))
    vector = fg.tanh(x)
    with pytest.raises(ShapeError) as caught:
        fg.grad(vector, x)
    message = str(caught.value)
    assert "(batch, 3)" in message and "fg.mean(cost)" in message
    assert "test_autodiff.py" in message and "vector = fg.tanh(x)" in message


def test_integers_have_no_gradient() -> None:
    y = fg.input("y", (3,), "int32")
    with pytest.raises(DTypeError, match=r"no gradient for int32\(3,\)"):
        fg.grad(fg.sum(fg.cast(y, "float32")), y)


def test_a_vjp_of_the_wrong_type_is_reported_at_the_users_line() -> None:
    class Wrong(Op):
        def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
            return types

        def vjp(self, inputs, outputs, cotangents):
            return (fg.sum(cotangents[0]),)

    x = fg.input("x", (3,))
    with pytest.raises(ShapeError, match=r"test_autodiff\.py"):
        backward(fg.sum(Wrong()(x)), [x])


# Compositions in float64, against differences


def costs() -> dict[str, tuple[fg.Tensor, dict[fg.Tensor, np.ndarray]]]:
    rng = np.random.default_rng(0)
    x, w = fg.input("x", (7, 5), "float64"), fg.input("w", (5, 4), "float64")
    b, y = fg.input("b", (4,), "float64"), fg.input("y", (7,), "int32")
    feeds = {
        x: rng.normal(size=(7, 5)),
        w: rng.normal(size=(5, 4)),
        b: rng.normal(size=4),
        y: rng.integers(0, 4, 7).astype(np.int32),
    }
    z = fg.add_bias(x @ w, b)
    return {
        "a classifier": (fg.mean(fg.cross_ent_of_softmax(fg.tanh(z), y)), feeds),
        "softmax, then cross-entropy": (fg.mean(fg.cross_ent(fg.softmax(z), y)), feeds),
        "a normalised layer": (
            fg.sum(fg.tanh((z - fg.mean(z, 1, keepdims=True)) / (1.0 + fg.sum(z * z, 1, keepdims=True)))),
            feeds,
        ),
        "attention over rows": (fg.sum(fg.softmax(z @ fg.transpose(z)) @ z * z), feeds),
        "rows looked up and compared": (fg.sum(fg.logistic(fg.sum(fg.gather(x, y) * x, 1))), feeds),
        "the largest of each row": (fg.sum(fg.max(fg.exp(z), 1)), feeds),
    }


COSTS = costs()


@pytest.mark.parametrize(("cost", "feeds"), COSTS.values(), ids=COSTS)
def test_gradients_of_compositions_agree_with_differences(
    cost: fg.Tensor, feeds: dict[fg.Tensor, np.ndarray]
) -> None:
    used = {n.outputs[0] for n in Graph((cost,)).nodes()}
    wrt = [t for t in feeds if t.dtype.is_float and t in used]
    for tensor, gradient in zip(wrt, values(fg.grad(cost, wrt), feeds), strict=True):
        for seed in range(3):
            direction = np.random.default_rng(seed).choice([-1.0, 1.0], tensor.shape)
            step = 1e-5
            (up,), (down,) = (
                values([cost], {**feeds, tensor: feeds[tensor] + s * direction}) for s in (step, -step)
            )
            assert (
                abs((up - down) / (2 * step) - (gradient * direction).sum()) <= 1e-6 * np.abs(gradient).sum()
            )


# Stability: the rewrite happens before differentiation


def listings(a: fg.Tensor, y: fg.Tensor) -> list[fg.Tensor]:
    """The lecture's two ways to write the same cost."""
    return [fg.mean(fg.cross_ent(fg.softmax(a), y)), fg.mean(fg.cross_ent_of_softmax(a, y))]


@pytest.mark.parametrize("path", [p for p in PATHS if p != "unfused"])
def test_logits_of_ten_thousand_give_finite_exact_costs_and_gradients(path: str) -> None:
    a, y = fg.input("a", ("batch", 3)), fg.input("y", ("batch",), "int32")
    for cost in listings(a, y):
        graph = Graph((cost, fg.grad(cost, a)))
        found, gradient = PATHS[path](graph, {a: HUGE, y: CLASSES}, {"batch": 3})
        log_sums = np.array([0, np.log(2), np.log(3)])
        np.testing.assert_allclose(found, np.mean(np.array([2e4, 2e4, 0]) + log_sums), rtol=3e-7)
        p = np.array([[1, 0, 0], [0, 0.5, 0.5], [1 / 3] * 3])
        np.testing.assert_allclose(gradient, (p - np.eye(3)[CLASSES]) / 3, rtol=3e-7, atol=1e-8)


def test_a_target_distribution_with_zeros_meets_probabilities_of_zero() -> None:
    a, y = fg.input("a", ("batch", 3)), fg.input("y", ("batch", 3))
    target = np.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.25, 0.5, 0.25]], np.float32)
    for cost in listings(a, y):
        graph = Graph((cost, fg.grad(cost, a)))
        value, gradient = evaluate(run_passes(graph, OPTIMISE)[0], {a: HUGE, y: target}, {"batch": 3})
        assert np.isfinite(gradient).all()
        np.testing.assert_allclose(value, (np.log(2) + np.log(3)) / 3, rtol=1e-6)


def test_both_listings_are_the_same_optimised_graph() -> None:
    a, y = fg.input("a", ("batch", 3)), fg.input("y", ("batch",), "int32")
    texts = [
        to_text(run_passes(Graph((cost, fg.grad(cost, a))), OPTIMISE)[0], lines=False).replace("cost", "")
        for cost in listings(a, y)
    ]
    assert [line.split("=", 1)[-1].split("(")[0] for line in texts[0].splitlines()] == [
        line.split("=", 1)[-1].split("(")[0] for line in texts[1].splitlines()
    ]


@pytest.mark.parametrize("listing", [0, 1])
def test_the_gradient_at_the_logits_reads_p_minus_y_over_batch(listing: int) -> None:
    a, y = fg.input("A", ("batch", 10)), fg.input("Y", ("batch",), "int32")
    da = fg.grad(listings(a, y)[listing], a)
    graph, _ = run_passes(Graph((da,)), [simplify_algebra, eliminate_common_subexpressions])
    divide = graph.outputs[0].node
    assert divide.op.name == "divide"
    difference, by = divide.inputs
    assert difference.op.name == "subtract"
    p, target = difference.node.inputs
    assert p.op.name == "softmax" and p.node.inputs == (a,)
    assert target.op.name == "one_hot" and target.node.inputs == (y,)
    while by.op.name in ("broadcast", "expand_dims"):
        by = by.node.inputs[0]
    assert by.op.name == "size" and str(by.op.size) == "batch"
    assert "log" not in to_text(graph) and "exp(" not in to_text(graph)


# Gradients of random graphs, against differences


@pytest.mark.parametrize("first", range(0, 120, 20))
def test_gradients_of_random_graphs_agree_with_differences(first: int) -> None:
    for seed in range(first, first + 20):
        case = random_case(seed)
        floats = [t for n in case.graph.nodes() for t in n.outputs if t.dtype.name == "float32"]
        if not floats:
            continue  # a graph of integers
        cost = fg.mean(floats[-1])
        wrt = [t for t in case.feeds if t.dtype.is_float and t.dtype.name == "float32"]
        feeds = {t: v.astype(np.float64) if v.dtype.kind == "f" else v for t, v in case.feeds.items()}

        def at(tensor: fg.Tensor, moved: np.ndarray, feeds=feeds, cost=cost, sizes=case.sizes) -> float:
            return float(evaluate(Graph((cost,)), {**feeds, tensor: moved}, sizes, wide=True)[0])

        gradients = evaluate(Graph(tuple(fg.grad(cost, wrt))), feeds, case.sizes, wide=True)
        for tensor, gradient in zip(wrt, gradients, strict=True):
            direction = np.random.default_rng(seed).choice([-1.0, 1.0], gradient.shape)
            step = 1e-6
            slope = (
                at(tensor, feeds[tensor] + step * direction) - at(tensor, feeds[tensor] - step * direction)
            ) / (2 * step)
            scale = np.abs(gradient).sum() + abs(at(tensor, feeds[tensor])) + 1e-5  # 1e-10: roundings / step
            assert abs(slope - (gradient * direction).sum()) <= 1e-5 * scale, (
                f"seed {seed}, d/d{tensor.label}"
            )


def test_the_oracle_of_these_tests_tells_a_wrong_gradient_from_a_right_one() -> None:
    x = fg.input("x", (3,))
    graph = Graph((fg.grad(fg.sum(fg.tanh(x)), x),))
    data = {x: np.array([0.1, 0.2, 0.3], np.float32)}
    oracle = Oracle(graph, data, {})
    right = evaluate(graph, data, {})
    assert not oracle.mismatch(right)
    assert oracle.mismatch([right[0] * np.float32(1 + 1e-5)])
