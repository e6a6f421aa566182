"""Optimisers against plain NumPy, twenty steps at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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


# Every rule against its paper, as NumPy writes it

Rule = Callable[[np.ndarray, np.ndarray, int, dict], np.ndarray]


def adagrad(w, g, t, s, rate=RATE, epsilon=1e-10):
    s["squares"] = s.get("squares", 0) + g * g
    return w - rate * g / (np.sqrt(s["squares"]) + epsilon)


def rmsprop(w, g, t, s, alpha=0.9, momentum=0.0, centered=False):
    s["squares"] = alpha * s.get("squares", 0) + (1 - alpha) * g * g
    spread = s["squares"]
    if centered:
        s["mean"] = alpha * s.get("mean", 0) + (1 - alpha) * g
        spread = spread - s["mean"] ** 2
    s["v"] = momentum * s.get("v", 0) + g / (np.sqrt(spread) + 1e-8)
    return w - RATE * s["v"]


def adam(w, g, t, s, decay=0.0, decoupled=0.0, amsgrad=False, b1=0.9, b2=0.999):
    w, g = w * (1 - RATE * decoupled), g + decay * w
    s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0) + (1 - b2) * g * g
    s["largest"] = np.maximum(s.get("largest", 0), s["v"])
    v = s["largest"] if amsgrad else s["v"]
    return w - RATE * (s["m"] / (1 - b1**t)) / (np.sqrt(v) / np.sqrt(1 - b2**t) + 1e-8)


def clipped_by_norm(w, g, t, s, limit=0.05):
    return w - RATE * g * min(1.0, limit / (np.sqrt((g * g).sum()) + 1e-6))


o = fg.optim
RULES: dict[str, tuple[Callable[[], Any], Rule]] = {
    "adagrad": (lambda: o.AdaGrad(RATE), adagrad),
    "rmsprop": (lambda: o.RMSProp(RATE, alpha=0.9), rmsprop),
    "rmsprop, centred, with momentum": (
        lambda: o.RMSProp(RATE, alpha=0.9, momentum=0.8, centered=True),
        lambda w, g, t, s: rmsprop(w, g, t, s, momentum=0.8, centered=True),
    ),
    "adam": (lambda: o.Adam(RATE), adam),
    "adam, decayed": (lambda: o.Adam(RATE, weight_decay=0.1), lambda w, g, t, s: adam(w, g, t, s, decay=0.1)),
    "amsgrad": (lambda: o.Adam(RATE, amsgrad=True), lambda w, g, t, s: adam(w, g, t, s, amsgrad=True)),
    "adamw": (lambda: o.AdamW(RATE, weight_decay=0.1), lambda w, g, t, s: adam(w, g, t, s, decoupled=0.1)),
    "sgd, decayed": (lambda: o.SGD(RATE, weight_decay=0.1), lambda w, g, t, s: w - RATE * (g + 0.1 * w)),
    "sgd, elements clipped": (
        lambda: o.SGD(RATE, clip_value=0.02), lambda w, g, t, s: w - RATE * np.clip(g, -0.02, 0.02)
    ),
    "sgd, norm clipped": (lambda: o.SGD(RATE, clip_norm=0.05), clipped_by_norm),
    "sgd, a schedule": (
        lambda: o.SGD(o.Exponential(RATE, 0.5, every=5)), lambda w, g, t, s: w - RATE * 0.5 ** ((t - 1) / 5) * g
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_what_its_paper_says(name: str, dtype: str) -> None:
    make, rule = RULES[name]
    w, _, step = problem(make(), dtype, "cpu")
    step.run(STEPS, {"x": X.astype(dtype), "y": Y.astype(dtype)})
    expected, kept = START.copy(), {}
    for t in range(1, STEPS + 1):
        expected = rule(expected, 2 * X.T @ (X @ expected - Y) / Y.size, t, kept)
    tolerance = 3e-5 if dtype == "float32" else (1e-12 if "schedule" not in name else 1e-8)
    assert np.abs(w.value - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("name", RULES)
def test_the_update_of_a_parameter_is_one_kernel(name: str) -> None:
    """Beside the gradient, and what is one number for all parameters: rates, norms, counts."""
    make, _ = RULES[name]
    g = fg.input("g", (400, 300))
    w = fg.parameter("w", (400, 300))
    program = fg.compile(updates=make().updates([w], [g]), device="reference")
    assert sum(k.axes != () for k in program.kernels) == 1


SCHEDULES: dict[str, tuple[Any, Callable[[int], float]]] = {
    "constant": (o.Constant(0.1), lambda t: 0.1),
    "step decay": (o.StepDecay(0.1, every=30, factor=0.5), lambda t: 0.1 * 0.5 ** (t // 30)),
    "exponential": (o.Exponential(0.1, 0.9, every=10), lambda t: 0.1 * 0.9 ** (t / 10)),
    "polynomial": (o.Polynomial(0.1, 50, 0.01, 2.0), lambda t: 0.01 + 0.09 * max(1 - t / 50, 0) ** 2),
    "cosine": (o.Cosine(0.1, 50, 0.01), lambda t: 0.01 + 0.045 * (1 + np.cos(np.pi * min(t / 50, 1)))),
    "warm-up": (
        o.Warmup(10, o.StepDecay(0.1, every=20)),
        lambda t: 0.1 * (t + 1) / 10 if t < 10 else 0.1 * 0.1 ** ((t - 10) // 20),
    ),
    "warm-up to a number": (o.Warmup(10, 0.1), lambda t: 0.1 * min((t + 1) / 10, 1)),
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_followed_by_many_native_steps_as_by_its_formula(name: str) -> None:
    schedule, formula = SCHEDULES[name]
    w = fg.parameter("w", (1,))
    optimizer = o.SGD(schedule)
    program = fg.compile(updates=optimizer.updates([w], [fg.constant([-1.0])]), device="cpu")
    for steps, before in ((7, 0), (60, 7)):
        program.run(steps, {})
        expected = sum(formula(t) for t in range(before + steps))
        assert abs(w.value[0] - expected) < 1e-5 * expected
    assert abs(optimizer.learning_rate - formula(67)) < 1e-6
    assert abs(schedule.value(35) - formula(35)) < 1e-6


def test_one_cycle_rises_to_its_peak_and_falls_to_nearly_nothing() -> None:
    cycle = o.OneCycle(0.1, 100)
    rates = [cycle.value(t) for t in range(100)]
    assert np.argmax(rates) == 29 and abs(max(rates) - 0.1) < 1e-7
    assert abs(rates[0] - 0.004) < 1e-7 and rates[-1] < 1e-6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: o.Adam(betas=(0.9, 1.0)), r"betas\[1\] is at least 0 and below 1, got 1.0"),
        (lambda: o.SGD(0.1, weight_decay=-1.0), "weight_decay is at least 0, got -1.0"),
        (lambda: o.SGD(0.1, clip_norm=0.0), "clip_norm is above 0, got 0.0"),
        (lambda: o.RMSProp(float("nan")), "a learning rate is a finite number"),
        (lambda: o.Cosine(0.1, 0), "Cosine: steps is at least 1, got 0"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(make, message: str) -> None:
    with pytest.raises(fg.GraphError, match=message):
        make()
