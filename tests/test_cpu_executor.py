"""The CPU backend as a whole: the same numbers as the reference, the same bits for any team, no surprises in place."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.graph.tensor import Tensor


def network(hidden: int = 40, classes: int = 10, features: int = 64) -> tuple[list[Tensor], Tensor, list[Tensor]]:
    x, y = fg.input("x", ("batch", features)), fg.input("y", ("batch",), "int32")
    rng = np.random.default_rng(3)
    w1 = fg.parameter("w1", (features, hidden), rng.normal(0, 0.2, (features, hidden)).astype("f"))
    w2 = fg.parameter("w2", (hidden, classes), rng.normal(0, 0.2, (hidden, classes)).astype("f"))
    b1, b2 = fg.parameter("b1", (hidden,)), fg.parameter("b2", (classes,))
    logits = fg.tanh(fg.add_bias(fg.tanh(fg.add_bias(x @ w1, b1)) @ w2, b2))
    return [x, y], fg.mean(fg.cross_ent_of_softmax(logits, y)), [w1, b1, w2, b2]


def train(device: str, threads: int | None, batch: int, steps: int, hidden: int = 40) -> list[np.ndarray]:
    inputs, cost, parameters = network(hidden)
    gradients = fg.grad(cost, parameters)
    updates = {p: p - 0.3 * g for p, g in zip(parameters, gradients, strict=True)}
    step = fg.compile(inputs, [cost], updates, device=device, threads=threads)
    rng = np.random.default_rng(batch)
    data = {"x": rng.standard_normal((batch, 64)).astype("f"), "y": rng.integers(0, 10, batch).astype("i")}
    (loss,) = step.run(steps, data)
    return [loss, *(p.value for p in parameters)]


@pytest.mark.parametrize("batch", [1, 29, 32, 200])
def test_training_gives_the_numbers_of_the_reference(batch: int) -> None:
    for mine, theirs in zip(train("cpu", None, batch, 10), train("reference", None, batch, 10), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize(("batch", "hidden"), [(29, 40), (256, 300)])
def test_the_bits_do_not_depend_on_the_number_of_threads(batch: int, hidden: int) -> None:
    first, *others = [train("cpu", threads, batch, 7, hidden) for threads in (1, 2, 4)]
    for other in others:
        for a, b in zip(first, other, strict=True):
            assert a.tobytes() == b.tobytes()


def test_one_compiled_program_serves_every_batch_size() -> None:
    inputs, cost, _ = network()
    program = fg.compile(inputs, [cost], device="cpu")
    before = program.executor.runtime.store.info().loaded  # type: ignore[attr-defined]
    rng = np.random.default_rng(0)
    for batch in (1, 3, 64):
        program(x=rng.standard_normal((batch, 64)).astype("f"), y=np.zeros(batch, "i"))
        if batch == 1:
            before = program.executor.runtime.store.info().loaded  # type: ignore[attr-defined]
    assert program.executor.runtime.store.info().loaded == before  # type: ignore[attr-defined]


def test_equal_layers_share_one_compiled_kernel() -> None:
    x = fg.input("x", ("batch", 48))
    layer = x
    for k in range(12):
        width = 48
        layer = fg.tanh(fg.add_bias(layer @ fg.parameter(f"w{k}", (width, width)), fg.parameter(f"b{k}", (width,))))
    program = fg.compile([x], [layer], device="cpu")
    assert len(program.kernels) == 12
    assert len(set(program.executor.addresses)) == 1  # type: ignore[attr-defined]


def test_a_parameter_fed_as_input_is_not_changed_under_the_step() -> None:
    w, x = fg.parameter("w", (4,), np.ones(4, "f")), fg.input("x", (4,))
    step = fg.compile([x], [w], {w: w + x}, device="cpu")
    step(x=w.op.storage.array)
    assert w.value.tolist() == [2, 2, 2, 2]


def test_an_output_that_is_a_parameter_is_the_value_before_the_step() -> None:
    w = fg.parameter("w", (2,), np.ones(2, "f"))
    step = fg.compile([], [w], {w: w * 2.0}, device="cpu")
    assert step()[0].tolist() == [1, 1]
    assert w.value.tolist() == [2, 2]


def test_updates_may_swap_parameters() -> None:
    a, b = fg.parameter("a", (2,), np.zeros(2, "f")), fg.parameter("b", (2,), np.ones(2, "f"))
    fg.compile([], [], {a: b, b: a}, device="cpu")()
    assert a.value.tolist() == [1, 1] and b.value.tolist() == [0, 0]


def test_outputs_belong_to_the_caller() -> None:
    x = fg.input("x", ("n",))
    program = fg.compile([x], [x * 2.0], device="cpu")
    (first,) = program(x=np.ones(3, "f"))
    program(x=np.zeros(3, "f"))
    assert first.tolist() == [2, 2, 2]


@pytest.mark.parametrize("device", ["gpu", "CPU", "cuda:0", ""])
def test_an_unknown_device_is_a_clear_error(device: str) -> None:
    x = fg.input("x", (3,))
    with pytest.raises(fg.DeviceError, match="unknown device") as error:
        fg.compile([x], [x], device=device)
    assert __file__ in str(error.value) and "'cpu'" in str(error.value)


def test_the_source_names_the_users_tensors_and_lines() -> None:
    inputs, cost, _ = network()
    text = fg.compile(inputs, [cost], device="cpu").source()
    assert "def mul_add_bias_tanh_kernel(args, lo, hi):" in text
    assert "test_cpu_executor.py:" in text and "x1 is w1, float32(64, 40)" in text


def test_hostile_names_stay_in_comments() -> None:
    name = 'x"); import os #\nimport os'
    x = fg.input(name, (3,))
    text = fg.compile([x], [fg.tanh(x)], device="cpu").source()
    code = [line for line in text.splitlines() if not line.startswith("#")]
    assert not any("import" in line for line in code)
    compile(text, "generated", "exec")


def test_long_sums_keep_their_digits() -> None:
    values = np.random.default_rng(0).random(2**22, dtype=np.float32)
    exact = values.astype(np.float64).sum()
    v, m = fg.input("v", ("n",)), fg.input("m", ("n", 1))
    program = fg.compile([v, m], [fg.sum(v), fg.sum(m, axis=0)], device="cpu")
    for found in program(v=values, m=values[:, None]):
        assert abs(float(found.reshape(())) - exact) <= 4e-6 * exact  # one after the other: 1e-3


def test_minus_zero_is_not_zero() -> None:
    x = fg.input("x", ("n", 3))
    program = fg.compile([x], [1.0 / fg.where(x > 0, 0.0, -0.0)], device="cpu")
    assert program(x=np.array([[1, -1, 2]], "f"))[0].tolist() == [[np.inf, -np.inf, np.inf]]


def test_threads_that_call_one_program_get_their_own_answers() -> None:
    x = fg.input("x", ("n", 64))
    program = fg.compile([x], [fg.sum(x * 2.0, axis=1)], device="cpu")

    def call(number: int) -> bool:
        data = np.full((50, 64), number, "f")
        return all((program(x=data)[0] == 128 * number).all() for _ in range(100))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(call, range(8)))


def test_tensors_of_many_axes_can_be_swapped() -> None:
    shape = (2,) * 9
    a, b = fg.parameter("a", shape, np.zeros(shape, "f")), fg.parameter("b", shape, np.ones(shape, "f"))
    fg.compile([], [], {a: b + 0.0 * b, b: a * 1.0 + b * 0.0}, device="cpu")()
    assert (a.value == 1).all() and (b.value == 0).all()


def test_the_rounding_of_a_product_does_not_grow_with_its_length() -> None:
    x, y = fg.input("x", (3, "k")), fg.input("y", ("k", 5))
    step = fg.compile([x, y], [x @ y], device="cpu")
    for length in (511, 512, 513, 1025, 10**6):
        a = np.random.default_rng(0).random((3, length), np.float32) + 0.1
        b = np.random.default_rng(1).random((length, 5), np.float32) + 0.1
        np.testing.assert_allclose(step(x=a, y=b)[0], a.astype(np.float64) @ b.astype(np.float64), rtol=8e-6)
