"""Optimisers against plain NumPy, twenty steps at a time."""

from __future__ import annotations

import numpy as np
import pytest

import flowgraph as fg
from tests.support.devices import DEVICES

RNG = np.random.default_rng(7)
START, X, Y = RNG.normal(size=(5, 3)), RNG.normal(size=(16, 5)), RNG.normal(size=(16, 3))
RATE, STEPS = 0.05, 20


def descend(momentum: float, nesterov: bool) -> np.ndarray:
    """20 steps of gradient descent on mean((x w - y)²), as PyTorch's documentation writes it."""
    w, v = START.copy(), np.zeros_like(START)
    for _ in range(STEPS):
        g = 2 * X.T @ (X @ w - Y) / Y.size
        v = momentum * v + g
        w = w - RATE * (g + momentum * v if nesterov else v)
    return w


def problem(optimizer, dtype: str, device: str):
    x, y = fg.input("x", ("batch", 5), dtype), fg.input("y", ("batch", 3), dtype)
    w = fg.parameter("w", (5, 3), START, dtype)
    error = x @ w - y
    cost = fg.mean(error * error)
    updates = optimizer.updates([w], fg.grad(cost, [w]))
    return w, updates, fg.compile(outputs=cost, updates=updates, device=device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd_is_what_numpy_computes(momentum, nesterov, dtype, device):
    w, _, step = problem(fg.optim.SGD(RATE, momentum, nesterov), dtype, device)
    step.run(STEPS, {"x": X.astype(dtype), "y": Y.astype(dtype)})
    found, expected = w.value, descend(momentum, nesterov)
    tolerance = 1e-6 if dtype == "float32" else 1e-13
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def test_state_is_a_parameter_in_the_scope_of_its_weight():
    optimizer = fg.optim.SGD(0.1, momentum=0.9)
    w = fg.parameter("w", (2,))
    velocity, weight = optimizer.updates([w], [2.0 * w])
    assert velocity.op.label == "optimizer/w/velocity" and weight is w


def test_without_momentum_there_is_no_state():
    w = fg.parameter("w", (2,))
    assert list(fg.optim.SGD(0.1).updates([w], [2.0 * w])) == [w]


@pytest.mark.parametrize("device", DEVICES)
def test_the_rate_can_be_set_between_steps(device):
    optimizer = fg.optim.SGD(0.5)
    w = fg.parameter("w", (1,), np.ones(1, np.float32))
    step = fg.compile(updates=optimizer.updates([w], [w * 1.0]), device=device)
    step()
    assert w.value == 0.5
    optimizer.learning_rate = 0.25
    step()
    assert (w.value, optimizer.learning_rate) == (0.375, 0.25)


@pytest.mark.parametrize("device", DEVICES)
def test_the_rate_can_be_a_tensor_that_the_program_computes(device):
    halving = fg.parameter("rate", (), np.float32(1.0))
    optimizer = fg.optim.SGD(halving * 0.5)
    w = fg.parameter("w", (1,), np.ones(1, np.float32))
    step = fg.compile(updates=optimizer.updates([w], [w * 1.0]) | {halving: halving * 0.5}, device=device)
    step.run(2, {})
    assert w.value == 0.5 * 0.75
    with pytest.raises(fg.GraphError, match="computed by the program"):
        _ = optimizer.learning_rate


@pytest.mark.parametrize("bad", [-0.1, float("nan"), float("inf")])
def test_a_rate_is_finite_and_not_negative(bad):
    with pytest.raises(fg.GraphError, match="learning rate") as caught:
        fg.optim.SGD(bad)
    assert "test_optim.py" in str(caught.value)


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(fg.GraphError, match="momentum"):
        fg.optim.SGD(0.1, momentum=1.0)
    with pytest.raises(fg.GraphError, match="nesterov needs momentum"):
        fg.optim.SGD(0.1, nesterov=True)
    with pytest.raises(fg.ShapeError, match="scalar"):
        fg.optim.SGD(fg.parameter("rates", (3,)))


def test_parameters_of_two_dtypes_have_rates_of_two_names():
    narrow, wide = fg.parameter("a", (), 1.0), fg.parameter("b", (), 1.0, "float64")
    optimizer = fg.optim.SGD(0.5)
    fg.compile(updates=optimizer.updates([narrow, wide], [narrow * 1.0, wide * 1.0]), device="reference")()
    assert (narrow.value, wide.value) == (0.5, 0.5)
