"""Recurrent layers against the equations, written out in NumPy for one sequence at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.errors import InputError, ShapeError

rng = np.random.default_rng(0)


def logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def rnn(x: np.ndarray, w: np.ndarray, u: np.ndarray, b: np.ndarray, state: Any) -> Any:
    (h,) = state
    return (np.tanh(x @ w + h @ u + b),)


def lstm(x: np.ndarray, w: np.ndarray, u: np.ndarray, b: np.ndarray, state: Any) -> Any:
    h, c = state
    f, i, o, g = np.split(x @ w + h @ u + b, 4)
    c = logistic(f) * c + logistic(i) * np.tanh(g)
    return logistic(o) * np.tanh(c), c


def gru(x: np.ndarray, w: np.ndarray, u: np.ndarray, b: np.ndarray, state: Any) -> Any:
    (h,) = state
    xr, xu, xn = np.split(x @ w + b, 3)
    hr, hu, hn = np.split(h @ u, 3)
    r, keep = logistic(xr + hr), logistic(xu + hu)
    return ((1 - keep) * np.tanh(xn + r * hn) + keep * h,)


CELLS: dict[str, tuple[Any, Callable[..., Any], int]] = {
    "RNN": (fg.nn.RNN, rnn, 1), "LSTM": (fg.nn.LSTM, lstm, 2), "GRU": (fg.nn.GRU, gru, 1)
}  # fmt: skip
each_cell = pytest.mark.parametrize("name", CELLS)


def written_out(name: str, layer: Any, x: np.ndarray, lengths: Any, reverse: bool) -> tuple[np.ndarray, list[Any]]:
    _, cell, states = CELLS[name]
    weights = [p.value.astype("f8") for p in layer.parameters]
    outputs, lasts = np.zeros((*x.shape[:2], layer.hidden)), []
    for k, (sequence, length) in enumerate(zip(x, lengths, strict=True)):
        state: Any = (np.zeros(layer.hidden),) * states
        for t in reversed(range(length)) if reverse else range(length):
            state = cell(sequence[t], *weights, state)
            outputs[k, t] = state[0]
        lasts.append(state)
    return outputs, [np.stack(part) for part in zip(*lasts, strict=True)]


@each_cell
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("how", ["whole", "lengths", "checkpoint"])
def test_a_layer_computes_its_equations(name: str, reverse: bool, how: str) -> None:
    layer = CELLS[name][0]("layer", 5, 6)
    layer.b.value = rng.normal(size=layer.b.shape)
    x, lengths = fg.input("x", ("batch", "time", 5)), fg.input("lengths", ("batch",), "int32")
    data = {"x": rng.normal(size=(4, 7, 5)).astype(np.float32)}
    if how == "lengths":
        data["lengths"] = np.array([7, 1, 3, 5], np.int32)
    checkpoint = 3 if how == "checkpoint" else None
    given = lengths if how == "lengths" else None
    outputs, last = layer(x, given, reverse=reverse, checkpoint=checkpoint)
    program = fg.compile(outputs=[outputs, *last], device="cpu", check=True)
    found, *ends = program(**data)
    expected, lasts = written_out(name, layer, data["x"], data.get("lengths", [7] * 4), reverse)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    for a, b in zip(ends, lasts, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_bidirectional_layer_has_both_directions_side_by_side() -> None:
    layer = fg.nn.BiLSTM("layer", 5, 6)
    x, lengths = fg.input("x", ("batch", "time", 5)), fg.input("lengths", ("batch",), "int32")
    outputs, ((_, _), (first, _)) = layer(x, lengths)
    program = fg.compile(outputs=[outputs, first], device="cpu")
    data, long = rng.normal(size=(3, 6, 5)).astype(np.float32), np.array([6, 2, 4], np.int32)
    found, ends = program(x=data, lengths=long)
    ahead, _ = written_out("LSTM", layer.forward, data, long, False)
    back, lasts = written_out("LSTM", layer.backward, data, long, True)
    np.testing.assert_allclose(found, np.concatenate([ahead, back], axis=2), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ends, lasts[0], rtol=1e-5, atol=1e-6)
    assert len({p.label for p in layer.parameters}) == 6


def test_padding_has_no_gradient_and_changes_nothing() -> None:
    layer = fg.nn.LSTM("layer", 5, 6)
    x, lengths = fg.input("x", ("batch", "time", 5)), fg.input("lengths", ("batch",), "int32")
    outputs, (h, _) = layer(x, lengths)
    cost = fg.sum(outputs * outputs) + fg.sum(h)
    program = fg.compile(outputs=[cost, *fg.grad(cost, [x, *layer.parameters])], device="cpu")
    data, long = rng.normal(size=(3, 6, 5)).astype(np.float32), np.array([6, 2, 4], np.int32)
    noisy = data.copy()
    noisy[1, 2:], noisy[2, 4:] = 100.0, -100.0
    clean, other = program(x=data, lengths=long), program(x=noisy, lengths=long)
    for a, b in zip(clean, other, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not clean[1][1, 2:].any() and clean[1][1, :2].all()


@pytest.mark.parametrize(("length", "said"), [(8, r"lengths\[1\] = 8"), (0, r"lengths\[1\] = 0")])
def test_lengths_beyond_the_axis_and_empty_sequences_are_refused(length: int, said: str) -> None:
    x, lengths = fg.input("x", ("batch", "time", 5)), fg.input("lengths", ("batch",), "int32")
    outputs, _ = fg.nn.RNN("layer", 5, 6)(x, lengths)
    program = fg.compile(outputs=outputs, device="cpu")
    said += r" is out of range: lengths takes integers from 1 to 7(.|\n)*hint: sequences are padded to 7: leave out"
    with pytest.raises(InputError, match=said):
        program(x=np.ones((2, 7, 5), np.float32), lengths=np.array([7, length], np.int32))


def test_an_input_of_another_width_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"LSTM 'layer' takes \(batch, time, 5\), got \(batch, time, 4\)"):
        fg.nn.LSTM("layer", 5, 6)(fg.input("x", ("batch", "time", 4)))


def test_weights_begin_as_described() -> None:
    layer = fg.nn.LSTM("layer", 30, 20)
    for gate in np.split(layer.w_h.value, 4, axis=1):
        np.testing.assert_allclose(gate @ gate.T, np.eye(20), atol=1e-5)
    limit = np.sqrt(6 / 50)
    assert 0.9 * limit < np.abs(layer.w_x.value).max() < limit
    np.testing.assert_array_equal(layer.b.value, np.repeat([1, 0, 0, 0], 20))


def test_a_state_may_be_given() -> None:
    layer = fg.nn.GRU("layer", 5, 6)
    x, h = fg.input("x", ("batch", "time", 5)), fg.input("h", ("batch", 6))
    outputs, (last,) = layer(x, state=(h,))
    program = fg.compile(outputs=[outputs, last], device="cpu")
    data = rng.normal(size=(2, 6, 5)).astype(np.float32)
    whole, end = program(x=data, h=np.zeros((2, 6), np.float32))
    first, middle = program(x=data[:, :4], h=np.zeros((2, 6), np.float32))
    rest, again = program(x=data[:, 4:], h=middle)
    np.testing.assert_allclose(np.concatenate([first, rest], axis=1), whole, rtol=1e-6)
    np.testing.assert_allclose(again, end, rtol=1e-6)


def test_every_product_of_a_step_has_strides() -> None:
    """Batch first is turned into time first once: a product whose rows are found by division would crawl."""
    layer = fg.nn.LSTM("strides", 5, 4)
    states, _ = layer(fg.input("x", ("batch", "time", 5)))
    cost = fg.mean(fg.square(states))
    program = fg.compile(outputs=fg.grad(cost, layer.parameters), device="cpu")
    products = [k for k in program.kernels if "sum(x0[" in str(k) and " * " in str(k)]
    assert len(products) >= 4
    for kernel in products:
        assert "//" not in str(kernel) and "%" not in str(kernel), kernel
    assert sum("transpose" in k.name for k in program.kernels) == 1  # x, for the product and for its gradient


@each_cell
def test_a_turn_by_itself_is_that_of_the_layer(name: str) -> None:
    layer = CELLS[name][0]("layer", 5, 6)
    x = fg.input("x", ("batch", "time", 5))
    _, last = layer(x)
    by_hand = tuple(fg.broadcast_to(fg.constant(0.0), ("batch", 6)) for _ in range(CELLS[name][2]))
    for t in range(3):
        by_hand = layer.step(x[:, t], by_hand)
    data = rng.normal(size=(4, 3, 5)).astype(np.float32)
    found = fg.compile(outputs=[*by_hand, *last], device="cpu")(x=data)
    for a, b in zip(found[: len(last)], found[len(last) :], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_loops_of_a_network_are_run_once_each_way() -> None:
    """Those of the cost and those that keep more for its gradient are the same loops, also where one reads another's
    results, and where states beyond an end are made 0."""
    x, lengths = fg.input("x", ("batch", "time", 5)), fg.input("lengths", ("batch",), "int32")
    layers = [fg.nn.LSTM("first", 5, 6), fg.nn.LSTM("second", 6, 6), fg.nn.GRU("third", 6, 6)]
    states = x
    for layer in layers:
        states, _ = layer(states, lengths)
    cost = fg.sum(states * states)
    gradients = fg.grad(cost, [p for layer in layers for p in layer.parameters])
    program = fg.compile(outputs=[cost, *gradients], device="reference")
    assert [n.op.name for n in program.passes[-1].after.nodes()].count("scan") == 2 * len(layers)
