"""A NaN planted in twelve places: the op, its line and the step are named each time."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.errors import NumericsError

HERE = __file__.rsplit("/", 1)[-1]
X = np.linspace(0.5, 2.0, 12, dtype=np.float32).reshape(4, 3)


def line_of(mark: str) -> int:
    """The line of this file that ends with a mark."""
    with open(__file__, encoding="utf-8") as file:
        return next(n for n, text in enumerate(file, 1) if text.rstrip().endswith(f"# {mark}"))


def blamed(run: Callable[[], Any]) -> str:
    with pytest.raises(NumericsError) as caught:
        run()
    return str(caught.value)


def program(outputs=(), updates=None, device: str = "cpu") -> fg.Program:
    return fg.compile(outputs=outputs, updates=updates, device=device, detect_anomaly=True)


def x_input() -> fg.Tensor:
    return fg.input("x", (4, 3))


def bad(place: tuple[int, int], value: float) -> np.ndarray:
    data = X.copy()
    data[place] = value
    return data


def test_1_the_data() -> None:
    text = blamed(lambda: program(fg.tanh(x_input()) * 2.0)(x=bad((2, 1), np.nan)))
    assert "the input 'x'[2, 1] is nan" in text


def test_2_a_weight() -> None:
    w = fg.parameter("w", (3, 2), np.array([[1, 2], [3, np.inf], [5, 6]], np.float32))
    text = blamed(lambda: program(x_input() @ w)(x=X))
    assert "the parameter 'w'[1, 1] is inf" in text


def test_3_the_logarithm_of_zero() -> None:
    inner = fg.log(x_input() * 2.0)  # log of zero
    text = blamed(lambda: program(fg.sum(inner))(x=bad((1, 2), 0.0)))
    assert "log made inner[1, 2] -inf" in text and f"{HERE}:{line_of('log of zero')}" in text


def test_4_zero_by_zero_in_a_fused_kernel() -> None:
    x = x_input()
    ratio = (x - 1.0) / (x - 1.0)  # zero by zero
    compiled = program(fg.tanh(ratio) * x)
    assert len(compiled.kernels) == 1
    text = blamed(lambda: compiled(x=bad((3, 0), 1.0)))
    assert "/ made ratio[3, 0] nan" in text and f"{HERE}:{line_of('zero by zero')}" in text


def test_5_an_exponential_that_overflows() -> None:
    grown = fg.exp(x_input() * 100.0)  # overflow
    text = blamed(lambda: program(grown * 0.5)(x=X))
    assert "exp made grown" in text and f"{HERE}:{line_of('overflow')}" in text


def test_6_only_on_the_way_back() -> None:
    x = x_input()
    w = fg.parameter("w", (3,), np.zeros(3, np.float32))
    root = fg.sqrt(fg.sum(w * x, axis=1))  # root of zero
    cost = fg.sum(root)
    updates = fg.optim.SGD(0.1).updates([w], [fg.grad(cost, w)])
    text = blamed(lambda: program(cost, updates)(x=X))
    assert "in the backward graph" in text and f"{HERE}:{line_of('root of zero')}" in text
    np.testing.assert_array_equal(w.value, np.zeros(3))


def test_7_one_batch_in_a_thousand() -> None:
    x = fg.input("x", ("batch", 3))
    w = fg.parameter("w", (3,), np.ones(3, np.float32))
    score = fg.log(fg.sum(x * w, axis=1) + 1.0)  # one batch
    trainer = fg.Trainer(fg.mean(score), fg.optim.SGD(1e-6), device="cpu", detect_anomaly=True)
    data = np.ones((4000, 3), np.float32)
    data[2718] = -1.0
    text = blamed(lambda: trainer.fit({"x": data}, batch_size=4, shuffle=False, progress=False))
    assert "epoch 1, step 680 of 1000 (examples 2716, 2717, 2718, 2719)" in text
    assert re.search(r"log made .*\[2\] nan", text) and f"{HERE}:{line_of('one batch')}" in text


def test_8_a_spread_of_nothing() -> None:
    x = x_input()
    centred = x - fg.mean(x, axis=0)
    scaled = centred / fg.std(x, axis=0)  # no spread
    text = blamed(lambda: program(scaled)(x=np.ones((4, 3), np.float32)))
    assert "/ made" in text and f"{HERE}:{line_of('no spread')}" in text


def test_9_the_state_of_an_optimiser() -> None:
    w = fg.parameter("w", (2,), np.ones(2, np.float32))
    rule = fg.optim.SGD(0.1, momentum=0.9)
    updates = rule.updates([w], [w * 1.0])
    velocity = next(p for p in updates if p is not w)
    velocity.value = np.array([0, np.nan], np.float32)
    text = blamed(lambda: program((), updates)())
    assert "the parameter 'optimizer/w/velocity'[1] is nan" in text


def test_10_infinity_minus_infinity() -> None:
    x = x_input()
    gone = x / 0.0 - x / 0.0  # lost
    text = blamed(lambda: program(gone)(x=X))
    assert f"{HERE}:{line_of('lost')}" in text and "/ made" in text


def test_11_a_value_that_where_does_not_choose_is_not_blamed() -> None:
    x = x_input()
    safe = fg.where(x > 0.0, fg.log(x), 0.0)
    worse = fg.sqrt(safe - 10.0)  # to blame
    data = bad((0, 0), 0.0)
    text = blamed(lambda: program(worse)(x=data))
    assert "sqrt made" in text and f"{HERE}:{line_of('to blame')}" in text
    program(safe)(x=data)  # and nothing is wrong here


def test_the_gradient_behind_where_is_blamed_on_the_op_whose_operand_was_not_chosen() -> None:
    x = x_input()
    logarithm = fg.log(x)  # not chosen
    cost = fg.sum(fg.where(x > 0.0, logarithm, 0.0))
    data = bad((0, 0), 0.0)
    text = blamed(lambda: program(fg.grad(cost, x))(x=data))
    assert "in the backward graph" in text and f"{HERE}:{line_of('not chosen')}" in text
    safe = fg.where(x > 0.0, fg.log(fg.where(x > 0.0, x, 1.0)), 0.0)
    program(fg.grad(fg.sum(safe), x))(x=data)


def test_12_a_second_derivative() -> None:
    x = fg.input("x", (3,))
    first = fg.grad(fg.sum(x**1.5), x)  # power of x
    second = fg.grad(fg.sum(first), x)
    text = blamed(lambda: program(second)(x=np.array([1, 0, 2], np.float32)))
    assert f"{HERE}:{line_of('power of x')}" in text and "in the backward graph" in text


def test_the_step_of_a_run_of_many_and_the_parameters_before_it() -> None:
    w = fg.parameter("w", (), np.float32(1.0))
    watched = program((), {w: w * 1e10})
    with pytest.raises(NumericsError) as caught:
        watched.run(10, {})
    assert caught.value.step == 3  # type: ignore[attr-defined]  # 1e40 is the fourth
    assert w.value == np.float32(1e10) ** 3


def test_a_step_without_anomaly_is_what_it_always_was() -> None:
    x = x_input()
    (watched,) = program(fg.exp(x))(x=X)
    (plain,) = fg.compile(outputs=fg.exp(x), device="cpu")(x=X)
    np.testing.assert_array_equal(watched, plain)
