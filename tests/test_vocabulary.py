"""The vocabulary as users call it: broadcasting, operators, special cases, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.errors import DTypeError, InputError
from flowgraph.graph.graph import Graph
from flowgraph.kernels.build import build_kernels
from tests.support.paths import optimise


def run(tensor: fg.Tensor, **feeds: np.ndarray) -> np.ndarray:
    return fg.compile(outputs=tensor, device="reference")(**feeds)[0]


X = np.array([-2.0, -0.5, 0.0, 0.5, 3.0], np.float32)


@pytest.mark.parametrize("exponent", [1, 2, 3, 5, 12, -1, -4, 0.5, 1.7, 0, 20])
def test_a_power_is_numpys(exponent: float) -> None:
    x = fg.input("x", (5,))
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(run(x**exponent, x=X), X ** np.float32(exponent), rtol=1e-6)


def test_small_whole_powers_are_products() -> None:
    x = fg.input("x", (5,))
    assert (x**2).node.op.name == (x**3).node.op.name == "multiply"
    assert (x**0.5).node.op.name == "sqrt"


def test_a_power_has_a_number_on_either_side() -> None:
    x = fg.input("x", (5, 17))
    X = np.random.default_rng(0).uniform(0.5, 2, (5, 17)).astype(np.float32)
    found = fg.compile([x], [x**1.7, 1.7**x], device="cpu")(x=X)
    np.testing.assert_allclose(found, [X**1.7, 1.7**X], rtol=1e-6)


def test_whole_powers_of_integers_are_exact() -> None:
    k, K = fg.input("k", (4,), "int32"), np.array([-7, 0, 2, 9], np.int32)
    np.testing.assert_array_equal(run(k**9, k=K), K**9)
    with pytest.raises(DTypeError):
        k**-1


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_logic_and_comparisons_nest_in_any_order(device: str) -> None:
    a, b, c = (fg.input(n, (40,), "bool") for n in "abc")
    A, B, C = (np.random.default_rng(k).random(40) < 0.5 for k in range(3))
    nested = [(a | b) & c, a | (b & c), (a ^ b) & c, (a & b) ^ (b | c), fg.equal(fg.equal(a, b), c), ~(a & b) | c]
    expected = [(A | B) & C, A | (B & C), (A ^ B) & C, (A & B) ^ (B | C), (A == B) == C, ~(A & B) | C]
    program = fg.compile([a, b, c], nested, device=device)
    np.testing.assert_array_equal(program(a=A, b=B, c=C), expected)


def test_operators_of_booleans_and_integers() -> None:
    x, k = fg.input("x", (5,)), fg.input("k", (5,), "int32")
    K = np.array([-7, -1, 0, 4, 9], np.int32)
    np.testing.assert_array_equal(run((x > 0) & ~(x >= 1) | (x <= -1), x=X), (X > 0) & ~(X >= 1) | (X <= -1))
    np.testing.assert_array_equal(run(k // 4, k=K), K // 4)
    np.testing.assert_array_equal(run(k % -4, k=K), K % -4)
    np.testing.assert_array_equal(run(abs(k), k=K), abs(K))


def test_special_values_are_told_apart() -> None:
    x, values = fg.input("x", (4,)), np.array([1.0, np.nan, np.inf, -np.inf], np.float32)
    for ours, theirs in ((fg.isnan, np.isnan), (fg.isinf, np.isinf), (fg.isfinite, np.isfinite)):
        np.testing.assert_array_equal(run(ours(x), x=values), theirs(values))


def test_clip_takes_either_bound_or_both() -> None:
    x = fg.input("x", (5,))
    for low, high in ((-1.0, 1.0), (None, 0.0), (0.0, None), (None, None)):
        np.testing.assert_array_equal(run(fg.clip(x, low, high) + 0.0, x=X), np.clip(X, low, high))


def test_equal_values_share_the_gradient_of_an_extremum() -> None:
    x, y = fg.input("x", (2,)), fg.input("y", (2,))
    total = fg.sum(fg.maximum(x, y))
    dx, dy = fg.compile(outputs=fg.grad(total, [x, y]), device="reference")(
        x=np.array([1, 2], np.float32), y=np.array([1, 3], np.float32)
    )
    np.testing.assert_array_equal([dx, dy], [[0.5, 0], [0.5, 1]])


def test_no_gradient_flows_through_a_stopped_one_and_it_costs_nothing() -> None:
    x = fg.input("x", (5,))
    cost = fg.sum(x * fg.stop_gradient(fg.tanh(x)))
    (dx,) = fg.compile(outputs=fg.grad(cost, [x]), device="reference")(x=X)
    np.testing.assert_allclose(dx, np.tanh(X), rtol=1e-6)
    graph = optimise(fg.compile(outputs=[cost], device="reference").declared)
    assert all(n.op.name != "stop_gradient" for n in graph.nodes())


def test_floats_are_not_for_logic() -> None:
    x = fg.input("x", (5,))
    with pytest.raises(DTypeError, match="and needs bool values, got float32"):
        fg.logical_and(x, x)


def test_whole_quotients_of_floats_are_numpys() -> None:
    x = fg.input("x", (5,))
    np.testing.assert_array_equal(run(x // -0.7, x=X), X // np.float32(-0.7))
    np.testing.assert_array_equal(run(x % -0.7, x=X), X % np.float32(-0.7))


# Reductions


Z = np.array([[3.0, -1.0, 3.0, 0.0], [np.nan, 1.0, 2.0, np.nan], [-np.inf, -np.inf, -np.inf, -np.inf]], np.float32)


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_the_place_of_an_extreme_is_numpys(name: str, axis: int | None) -> None:
    z = fg.input("z", ("rows", 4))
    found = run(getattr(fg, name)(z, axis), z=Z)
    expected = getattr(np, name)(Z, axis)
    assert found.dtype == expected.dtype == np.int64
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("correction", [0, 1])
@pytest.mark.parametrize("axis", [None, 0, (0, 1)])
def test_variance_and_deviation_are_numpys(axis: object, correction: int) -> None:
    z, values = fg.input("z", ("rows", 4)), np.random.default_rng(0).normal(100, 1, (50, 4)).astype(np.float32)
    for ours, theirs in ((fg.var, np.var), (fg.std, np.std)):
        expected = theirs(values.astype(np.float64), axis, ddof=correction)
        np.testing.assert_allclose(run(ours(z, axis, correction), z=values), expected, rtol=1e-4)


def test_any_and_all_of_no_elements_are_pythons() -> None:
    z = fg.input("z", ("rows",), "bool")
    assert not run(fg.any(z), z=np.zeros(0, bool)) and run(fg.all(z), z=np.zeros(0, bool))


def test_sums_of_bools_are_refused() -> None:
    with pytest.raises(DTypeError, match="sum needs numbers, got bool"):
        fg.sum(fg.input("z", (3,), "bool"))


def test_no_elements_have_no_place_of_a_maximum() -> None:
    z = fg.input("z", ("rows",))
    with pytest.raises(InputError, match="over an axis of size 0"):
        run(fg.argmax(z), z=np.zeros(0, np.float32))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the reference, at infinity
def test_logsumexp_survives_infinities() -> None:
    z = fg.input("z", (3, 2))
    values = np.array([[-np.inf, -np.inf], [1e4, 1e4], [np.inf, 0]], np.float32)
    np.testing.assert_allclose(run(fg.logsumexp(z, 1), z=values), [-np.inf, 1e4 + np.log(2), np.inf])
    (dz,) = fg.compile(outputs=fg.grad(fg.sum(fg.logsumexp(z, 1)), [z]), device="reference")(z=values)
    np.testing.assert_allclose(dz[:2], [[0, 0], [0.5, 0.5]])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_softmax_goes_along_any_axis(axis: int) -> None:
    z, values = fg.input("z", (2, 3, 4)), np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    found = run(fg.softmax(z, axis), z=values)
    np.testing.assert_allclose(found, np.exp(values) / np.exp(values).sum(axis, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(run(fg.log_softmax(z, axis), z=values), np.log(found), rtol=1e-5)


def test_softmax_of_one_vector_is_one_kernel() -> None:
    z = fg.input("z", (40,))
    assert len(build_kernels(optimise(Graph((fg.softmax(z),))))) == 1
    assert len(build_kernels(optimise(Graph((fg.softmax(fg.tanh(z)),))))) == 1


def test_a_long_vector_is_not_left_to_one_thread() -> None:
    z = fg.input("z", (1_000_000,))
    assert len(build_kernels(optimise(Graph((fg.tanh(z) - fg.max(z),))))) == 2


def test_the_logarithm_of_a_softmax_along_any_axis_is_stable() -> None:
    z, values = fg.input("z", (3, 2)), np.array([[1e4, 0], [-1e4, 0], [0, 0]], np.float32)
    np.testing.assert_array_equal(run(fg.log(fg.softmax(z, 0)), z=values)[:, 0], [0, -2e4, -1e4])


# Costs


def test_the_cross_entropy_of_a_logistic_is_stable_and_its_gradient_is_p_minus_y() -> None:
    z, y = fg.input("z", (4,)), fg.input("y", (4,))
    cost = fg.binary_cross_ent(fg.logistic(z), y)
    Z, Y = np.array([200, -200, 200, -200], np.float32), np.array([1, 0, 0, 1], np.float32)
    value, dz = fg.compile([z, y], [cost, fg.grad(fg.sum(cost), z)], device="reference")(z=Z, y=Y)
    np.testing.assert_array_equal(value, [0, 0, 200, 200])
    np.testing.assert_array_equal(dz, [0, 0, 1, -1])


def test_regression_costs() -> None:
    x, y = fg.input("x", (5,)), 0.25
    error = X - np.float32(0.25)
    np.testing.assert_allclose(run(fg.squared_error(x, y), x=X), error**2)
    np.testing.assert_allclose(run(fg.absolute_error(x, y), x=X), np.abs(error))
    (dx,) = fg.compile(outputs=fg.grad(fg.sum(fg.huber(x, y, 0.5)), [x]), device="reference")(x=X)
    np.testing.assert_allclose(dx, np.clip(error, -0.5, 0.5))
    with pytest.raises(InputError, match="positive delta"):
        fg.huber(x, y, 0)
