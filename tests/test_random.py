"""Random numbers: the generator's bits, distributions, states and streams, dropout in training and without it."""

from __future__ import annotations

import math

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.errors import DTypeError, GraphError, InputError
from flowgraph.graph.graph import Graph
from flowgraph.graph.types import float64
from flowgraph.kernels.build import build_kernels
from flowgraph.ops.random import AUTOMATIC, Bernoulli, RandomUniform
from flowgraph.ops.random_bits import philox
from flowgraph.passes.pipeline import OPTIMISE, run_passes
from tests.support.paths import PROGRAMS

STATE = np.array([2**40 + 17, 3], np.int64)


def draws(*tensors: fg.Tensor, device: object = "reference", threads: int | None = None) -> list[np.ndarray]:
    return fg.compile(outputs=list(tensors), device=device, threads=threads)()  # type: ignore[arg-type]


# Bits


@pytest.mark.parametrize(
    ("key", "counter", "words"),
    [
        ((0, 0), (0, 0, 0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 4, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0xA4093822, 0x299F31D0),
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_the_bits_are_those_the_authors_of_philox_published(key, counter, words) -> None:
    assert tuple(int(w) for w in philox(key, counter)) == words


@pytest.mark.parametrize("device", PROGRAMS)
def test_every_device_draws_the_same_bits(device: str) -> None:
    state = fg.input("state", (2,), "int64")
    made = [RandomUniform(s, (37, 29), word)(state) for s, word in ((0, 0), (AUTOMATIC, 3))]
    made += [RandomUniform(5, (3, 300), 1, True, float64)(state), Bernoulli(1, (50,), 0.3)(state)]
    found = fg.compile([state], made, device=PROGRAMS[device])(state=STATE)
    for tensor, array in zip(made, found, strict=True):
        np.testing.assert_array_equal(array, tensor.op.reference(STATE))


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    found = []
    for threads in (1, 2, 4):
        source = fg.random.Generator(5)
        found.append(draws(fg.random.normal((300, 70), generator=source), device="cpu", threads=threads)[0])
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


# Distributions


def distance_from_uniform(sample: np.ndarray) -> float:
    """Kolmogorov and Smirnov's statistic times the root of the count: above 1.95 once in a thousand samples."""
    ordered, n = np.sort(sample.ravel().astype(np.float64)), sample.size
    ranks = np.arange(n)
    return float(max(np.max((ranks + 1) / n - ordered), np.max(ordered - ranks / n)) * math.sqrt(n))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_uniform_numbers_are_uniform_and_normal_ones_normal(dtype: str) -> None:
    source = fg.random.Generator(11)
    u, z = draws(*(f((300, 300), dtype=dtype, generator=source) for f in (fg.random.uniform, fg.random.normal)))
    assert u.dtype == z.dtype == dtype
    assert u.min() >= 0 and u.max() < 1 and distance_from_uniform(u) < 1.95
    assert distance_from_uniform(np.vectorize(math.erf)(z / math.sqrt(2)) / 2 + 0.5) < 1.95
    n = z.size
    assert abs(z.mean()) < 4 / math.sqrt(n) and abs(z.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs((z**3).mean()) < 4 * math.sqrt(15 / n) and abs((z**4).mean() - 3) < 4 * math.sqrt(96 / n)


def test_ranges_means_and_deviations_are_what_was_asked_for() -> None:
    u, z = draws(fg.random.uniform((20_000,), -3, 5), fg.random.normal((20_000,), 10.0, 0.1))
    assert -3 <= u.min() < -2.99 and 4.99 < u.max() < 5
    assert abs(z.mean() - 10) < 0.01 and abs(z.std() - 0.1) < 0.01


def test_integers_are_all_drawn_equally_often() -> None:
    (k,) = draws(fg.random.randint(-2, 4, (60_000,), generator=fg.random.Generator(3)))
    counts = np.bincount(k + 2, minlength=6)
    assert len(counts) == 6 and ((counts - 10_000) ** 2 / 10_000).sum() < 20.5  # chi squared, once in a thousand


def test_probabilities_may_be_numbers_or_tensors() -> None:
    p = fg.constant(np.linspace(0, 1, 5, dtype=np.float32))
    fixed, varied = draws(fg.random.bernoulli(0.25, (40_000,)), fg.random.bernoulli(p, (8000, 5)))
    assert abs(fixed.mean() - 0.25) < 0.01
    np.testing.assert_allclose(varied.mean(0), [0, 0.25, 0.5, 0.75, 1], atol=0.03)


# States and streams


def test_every_step_and_every_draw_has_numbers_of_its_own() -> None:
    source = fg.random.Generator(1)
    step = fg.compile(outputs=[fg.random.uniform((50,), generator=source) for _ in range(2)], device="reference")
    found = [*step(), *step()]
    assert len({a.tobytes() for a in found}) == 4
    assert source.state.value.tolist() == [1, 2]


def test_the_default_state_is_seeded_for_all() -> None:
    step = fg.compile(outputs=fg.random.uniform((5,)), device="reference")
    fg.random.seed(42)
    first = step()[0]
    step()
    fg.random.seed(42)
    np.testing.assert_array_equal(step()[0], first)


def test_a_script_that_is_run_again_draws_the_same_numbers() -> None:
    def script() -> list[np.ndarray]:
        fg.random.seed(3)
        return draws(fg.random.normal((4,)) + fg.random.uniform((4,)), fg.random.uniform((4,)))

    for one, two in zip(script(), script(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_fixed_stream_has_the_same_numbers_in_every_program() -> None:
    source = fg.random.Generator(9)
    (alone,) = draws(fg.random.uniform((4,), generator=source, stream=7))
    source.seed(9)
    _, beside = draws(fg.random.uniform((4,), generator=source), fg.random.uniform((4,), generator=source, stream=7))
    np.testing.assert_array_equal(alone, beside)


def test_a_state_may_be_updated_by_hand() -> None:
    source = fg.random.Generator(1)
    u = fg.random.uniform((3,), generator=source)
    step = fg.compile(outputs=u, updates={source.state: source.state + 0}, device="reference")
    np.testing.assert_array_equal(step()[0], step()[0])


@pytest.mark.parametrize("device", [d for d in PROGRAMS if d != "reference"])
def test_many_steps_in_one_call_draw_what_single_steps_draw(device: str) -> None:
    source = fg.random.Generator(4)
    total = fg.parameter("total", (20,))
    updates = {total: total + fg.random.uniform((20,), generator=source)}
    many = fg.compile(updates=updates, device=PROGRAMS[device])
    many.run(5, {})
    found = total.value.copy()
    source.seed(4)
    total.value = np.zeros(20, np.float32)
    single = fg.compile(updates=updates, device="reference")
    for _ in range(5):
        single()
    np.testing.assert_array_equal(found, total.value)


# Dropout


def layer(rate: float = 0.5) -> tuple[fg.Tensor, fg.Tensor, fg.Tensor]:
    x = fg.input("x", (30, 40))
    h = fg.dropout(fg.tanh(x), rate, generator=fg.random.Generator(2))
    return x, h, fg.grad(fg.sum(h * h), x)


def test_dropout_keeps_means_and_its_gradient_has_its_mask() -> None:
    x, h, dx = layer(0.25)
    X = np.full((30, 40), 0.5, np.float32)
    value, gradient = fg.compile([x], [h, dx], device="cpu")(x=X)
    kept = value != 0
    assert abs(kept.mean() - 0.75) < 0.04
    np.testing.assert_allclose(value[kept], np.tanh(0.5) / 0.75, rtol=1e-6)
    np.testing.assert_array_equal(gradient != 0, kept)


def test_between_forward_and_backward_dropout_stores_at_most_a_byte_an_element() -> None:
    """Ten rounds of multiplications cost more than a byte written and read; a float's mask would be four."""
    x, w = fg.input("x", (64, 40)), fg.parameter("w", (40, 50))
    h = fg.dropout(fg.relu(x @ w), 0.5, generator=fg.random.Generator(2))
    cost = fg.mean(h @ fg.parameter("v", (50, 3)))
    graph, _ = run_passes(Graph((cost, fg.grad(cost, w))), OPTIMISE, check=True)
    calls = build_kernels(graph)
    written = {t for call in calls for t in call.outputs}
    assert not [t for t in written if t.op.name == "random_uniform"]
    assert len([t for t in written if t.op.name == "bernoulli"]) <= 1


def test_inference_leaves_dropout_out() -> None:
    _, h, _ = layer()
    assert fg.inference(h).op.name == "tanh"


def test_a_trainer_drops_in_training_only_and_repeats_itself() -> None:
    data = {"x": np.ones((40, 4), np.float32), "y": np.zeros(40, np.float32)}

    def fit(seed: int) -> tuple[list[float], np.ndarray, dict[str, float]]:
        x, y = fg.input("x", ("batch", 4)), fg.input("y", ("batch",))
        w = fg.parameter("w", (4,), np.ones(4, np.float32))
        prediction = fg.sum(fg.dropout(x * w, 0.5), axis=1)
        trainer = fg.Trainer(fg.mean(fg.squared_error(prediction, y)), fg.optim.SGD(0.01), seed=seed, device="cpu")
        losses = [float(v) for v in trainer.fit(data, epochs=3, batch_size=16, progress=False)["loss"]]
        predicted = trainer.predict(prediction, {"x": data["x"]})
        np.testing.assert_allclose(predicted, np.full(40, w.value.sum()), rtol=1e-5)
        return losses, w.value.copy(), trainer.evaluate(data)

    first, again, other = fit(1), fit(1), fit(2)
    assert first[0] == again[0] and first[2] == again[2]
    np.testing.assert_array_equal(first[1], again[1])
    assert first[0] != other[0]


# Mistakes


def test_mistakes_are_told_where_they_are_made() -> None:
    with pytest.raises(DTypeError, match="uniform makes floats"):
        fg.random.uniform((3,), dtype="int32")
    with pytest.raises(InputError, match="low < high"):
        fg.random.randint(3, 3)
    with pytest.raises(InputError, match="probability from 0 to 1"):
        fg.dropout(fg.input("x", (3,)), 1.5)
    with pytest.raises(InputError, match="below 1"):
        fg.dropout(fg.input("x", (3,)), 1.0)
    with pytest.raises(InputError, match="seed is an int"):
        fg.random.seed(0.5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a stream is a number from 0"):
        fg.random.uniform((3,), stream=-1)
    with pytest.raises(DTypeError, match=r"random state is int64\(2\)"):
        fg.random.uniform((3,), generator=fg.input("state", (3,), "int64"))
    with pytest.raises(GraphError, match="two parameters are called 'generator'"):
        draws(*(fg.random.uniform((3,), generator=fg.random.Generator(k)) for k in range(2)))
