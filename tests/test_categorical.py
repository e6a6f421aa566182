"""Draws by weights: the alias table's law, frequencies, the same on every device, errors; negatives drawn in a step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import flowgraph as fg
from flowgraph.errors import DTypeError, InputError, ShapeError
from flowgraph.kernels.work import work_of
from flowgraph.ops.alias import alias_table
from tests.support.paths import PROGRAMS

WEIGHTS = [1, 0, 3, 0.5, 0, 8]
devices = pytest.mark.parametrize("device", PROGRAMS)


def drawn(weights: Any, shape: Any, device: str = "cpu", seed: int = 3, **options: Any) -> np.ndarray:
    source = fg.random.Generator(seed)
    made = fg.random.categorical(weights, shape, generator=source, **options)
    return fg.compile(outputs=made, device=PROGRAMS[device])()[0]


def chi_square(draws: np.ndarray, weights: np.ndarray) -> float:
    """Pearson's statistic, in deviations above its mean: of many classes, above 3.1 once in a thousand samples."""
    expected = weights / weights.sum() * draws.size
    likely = expected > 0
    counts = np.bincount(draws.ravel(), minlength=len(weights))
    assert len(counts) == len(weights) and not counts[~likely].any()
    free = int(likely.sum()) - 1
    found = float(((counts - expected)[likely] ** 2 / expected[likely]).sum())
    return (found - free) / max(2 * free, 1) ** 0.5


# The table


@given(st.lists(st.one_of(st.just(0.0), st.floats(1e-9, 1e9)), min_size=1, max_size=60).filter(any))
def test_columns_and_their_shares_add_up_to_the_weights(weights: list[float]) -> None:
    share, other = alias_table(np.array(weights))
    assert ((share >= 0) & (share <= 1)).all()
    total = share.astype(np.float64)
    np.add.at(total, other, 1 - share.astype(np.float64))
    np.testing.assert_allclose(total / len(share), np.array(weights) / sum(weights), rtol=1e-5, atol=1e-7)


@given(st.lists(st.one_of(st.just(0.0), st.floats(1e-300, 1e300)), min_size=1, max_size=60).filter(any))
def test_no_column_leads_to_a_weight_of_zero(weights: list[float]) -> None:
    share, other = alias_table(np.array(weights))
    given_ = np.array(weights) > 0
    assert not share[~given_].any()
    assert given_[other[share < 1]].all()


# Draws


@pytest.mark.parametrize("size", [2, 7, 1000])
def test_an_array_of_weights_is_drawn_in_its_proportions(size: int) -> None:
    weights = np.random.default_rng(size).random(size) ** 4 + 1e-3
    assert abs(chi_square(drawn(weights, (400, 1000)), weights)) < 4


def test_a_tensor_of_weights_is_drawn_row_by_row() -> None:
    weights = np.random.default_rng(1).random((3, 40)).astype(np.float32)
    weights[1, [0, 17, 39]] = 0
    found = drawn(fg.constant(weights), (60_000, 3))
    for row, column in zip(weights, found.T, strict=True):
        assert abs(chi_square(column, row.astype(np.float64))) < 4


@devices
def test_every_device_draws_the_same(device: str) -> None:
    many = np.random.default_rng(0).random(300)
    rows = fg.constant(np.random.default_rng(2).random((4, 50)))
    for weights, shape in (
        (WEIGHTS, (37, 5)),
        (many, ()),
        (rows, (6, 4)),
        (rows, None),
        (fg.constant([0.0, 2.0]), (9,)),
    ):
        np.testing.assert_array_equal(drawn(weights, shape, device), drawn(weights, shape, "reference"))


def test_draws_do_not_depend_on_the_number_of_threads() -> None:
    source = fg.random.Generator(1)
    k = fg.random.categorical(WEIGHTS, (300, 70), generator=source)
    found = []
    for threads in (1, 2, 4):
        source.seed(1)
        found.append(fg.compile(outputs=k, device="cpu", threads=threads)()[0])
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])


def test_what_has_no_weight_never_comes() -> None:
    assert set(drawn(WEIGHTS, (20_000,)).tolist()) == {0, 2, 3, 5}
    assert set(drawn(fg.constant(np.float32(WEIGHTS)), (20_000,)).tolist()) == {0, 2, 3, 5}
    assert set(drawn([0, 1e-30, 0], (1000,)).tolist()) == {1}


def test_every_step_draws_anew_and_a_seed_repeats_it() -> None:
    source = fg.random.Generator(5)
    step = fg.compile(outputs=fg.random.categorical(WEIGHTS, (50,), generator=source), device="reference")
    first, second = step()[0], step()[0]
    source.seed(5)
    assert (first != second).any() and np.array_equal(step()[0], first)


def test_the_shape_and_the_dtype_are_what_was_asked_for() -> None:
    assert fg.random.categorical(WEIGHTS).shape == ()
    assert fg.random.categorical(WEIGHTS, ("batch", 3), dtype="int64").dtype.name == "int64"
    rows = fg.softmax(fg.input("scores", ("batch", "words")))
    assert fg.random.categorical(rows).shape == rows.shape[:1]
    assert fg.random.categorical(rows, (8, *rows.shape[:1])).shape == (8, *rows.shape[:1])


def test_a_model_can_draw_by_its_own_softmax() -> None:
    scores = fg.input("scores", ("batch", "words"))
    step = fg.compile(outputs=fg.random.categorical(fg.softmax(scores)), device="cpu")
    certain = np.eye(5, 7, 2, dtype=np.float32) * 200
    np.testing.assert_array_equal(step(scores=certain)[0], certain.argmax(1))


def test_weights_get_no_gradient() -> None:
    w = fg.parameter("w", (4,), np.ones(4, np.float32))
    k = fg.random.categorical(fg.softmax(w), (6,))
    cost = fg.sum(fg.gather(fg.parameter("t", (4,), np.ones(4, np.float32)), k)) + 0 * fg.sum(w)
    (found,) = fg.compile(outputs=fg.grad(cost, w), device="reference")()
    np.testing.assert_array_equal(found, np.zeros(4))


# Negative sampling


def skipgram_step(rows: int, device: Any = "cpu", **options: Any) -> tuple[fg.Tensor, fg.Tensor, fg.Program]:
    source = fg.random.Generator(2)
    word, context = fg.input("word", ("batch",), "int32"), fg.input("context", ("batch",), "int32")
    vectors = fg.parameter("vectors", (rows, 20), fg.init.uniform(-0.1, 0.1))
    contexts = fg.parameter("contexts", (rows, 20), fg.init.uniform(-0.1, 0.1))
    negatives = fg.random.categorical(1 / np.arange(1, rows + 1), ("batch", 5), generator=source)
    candidates = fg.concatenate([fg.expand_dims(context, 1), negatives], axis=1)
    scores = fg.sum(fg.expand_dims(fg.gather(vectors, word), 1) * fg.gather(contexts, candidates), axis=-1)
    cost = fg.sum(fg.softplus(fg.where(fg.equal(fg.arange(6), 0), -scores, scores)))
    updates = fg.optim.SGD(0.1).updates([vectors, contexts], fg.grad(cost, [vectors, contexts]))
    return vectors, contexts, fg.compile(outputs=cost, updates=updates, device=device, **options)


FEEDS = {"word": np.arange(40, dtype=np.int32) % 7, "context": np.arange(40, dtype=np.int32) % 9}


def test_a_step_with_its_negatives_holds_nothing_of_the_tables_size_but_the_tables() -> None:
    vectors, contexts, step = skipgram_step(50_000)
    assert {p for p, _ in step.plan.in_place} >= {vectors, contexts} and not step.plan.copied
    large = [v for v in step.memory({"batch": 40}).values if v.bytes >= 50_000 * 20 * 4]
    assert len(large) == 2 and all(v.kind == "parameter" for v in large)


def test_what_a_step_with_its_negatives_costs_does_not_depend_on_the_vocabulary() -> None:
    def work(rows: int) -> list[tuple[int, int]]:
        step = skipgram_step(rows)[2]
        return [(w.operations, w.bytes) for w in (work_of(call, {"batch": 40}) for call in step.plan.calls)]

    assert work(2_000) == work(200_000)


@devices
def test_steps_with_their_negatives_are_the_same_on_every_device(device: str) -> None:
    found = []
    for where in (device, "reference"):
        vectors, contexts, step = skipgram_step(2_000, PROGRAMS[where])
        step.run(3, FEEDS)
        found.append((vectors.value, contexts.value))
    for mine, expected in zip(*found, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=2e-5, atol=1e-6)


def test_steps_with_their_negatives_have_the_same_bits_with_any_number_of_threads() -> None:
    found = []
    for threads in (1, 2):
        vectors, contexts, step = skipgram_step(2_000, threads=threads)
        step.run(5, FEEDS)
        found.append((vectors.value, contexts.value))
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


# Mistakes


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ([1, -1], InputError, "at least 0; number 1 of 2 is -1"),
        ([1, float("nan")], InputError, "number 1 of 2 is nan"),
        ([float("inf"), 1], InputError, "number 0 of 2 is inf"),
        ([0, 0, 0], InputError, "3 weights are all 0"),
        ([], ShapeError, r"numbers \(n,\)"),
        ([[1, 2], [3, 4]], ShapeError, r"numbers \(n,\)"),
        ([True, False], ShapeError, r"numbers \(n,\), got bool"),
        (fg.constant([1, 2]), DTypeError, "float tensor"),
        (fg.constant(1.0), DTypeError, "float tensor"),
    ],
)
def test_bad_weights_are_refused(weights: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fg.random.categorical(weights, (3,))


def test_other_mistakes_are_told_where_they_are_made() -> None:
    with pytest.raises(DTypeError, match="categorical makes integers"):
        fg.random.categorical(WEIGHTS, (3,), dtype="float32")
    with pytest.raises(ShapeError, match=r"do not broadcast to draws \(3,\)"):
        fg.random.categorical(fg.constant(np.ones((2, 4), np.float32)), (3,))
    with pytest.raises(ShapeError, match=r"do not broadcast to draws \(1,\)"):
        fg.random.categorical(fg.constant(np.ones((2, 4), np.float32)), (1,))
    with pytest.raises(InputError, match="a stream is a number"):
        fg.random.categorical(WEIGHTS, (3,), stream=-1)
