"""Optimisers on tables: what a step changes, holds and costs goes by the rows it looks up, not by the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.backends.cuda.emulator import EmulatedDevice
from flowgraph.kernels.work import work_of
from flowgraph.ops.indexing import ScatterAdd

ROWS, WIDTH, STEPS, RATE = 1500, 20, 20, 0.1
LOOKED_UP = 300  # the rows that steps look up are among the first of the table, most of them several times
RNG = np.random.default_rng(3)
START = RNG.normal(size=(ROWS, WIDTH))
IDS = RNG.integers(0, LOOKED_UP, (STEPS, 40, 3))
WANTED = RNG.normal(size=(STEPS, 40, 3, WIDTH))
DEVICES: dict[str, Any] = {"reference": "reference", "cpu": "cpu", "cuda": EmulatedDevice()}
Make = Callable[[], Any]


def table_and_step(make: Make, dtype: str = "float32", device: Any = "cpu", rows: int = ROWS, **options: Any) -> Any:
    """A table, the state kept for it, and a step that pulls the rows looked up towards what is wanted."""
    table = fg.parameter("table", (rows, WIDTH), START if rows == ROWS else None, dtype)
    ids, wanted = fg.input("ids", ("batch", 3), "int32"), fg.input("wanted", ("batch", 3, WIDTH), dtype)
    off = fg.gather(table, ids) - wanted
    updates = make().updates([table], fg.grad(fg.sum(off * off), [table]))
    state = [p for p in updates if p.shape == table.shape and p is not table]
    return table, state, fg.compile(updates=updates, device=device, **options)


def trained(make: Make, dtype: str = "float32", device: Any = "cpu", steps: int = STEPS, **options: Any) -> list[Any]:
    table, state, step = table_and_step(make, dtype, device, **options)
    for k in range(steps):
        step(ids=IDS[k].astype(np.int32), wanted=WANTED[k].astype(dtype))
    return [p.value for p in (table, *state)]


def gradient(w: np.ndarray, k: int) -> np.ndarray:
    g = np.zeros_like(w)
    np.add.at(g, IDS[k], 2 * (w[IDS[k]] - WANTED[k]))
    return g


def adagrad(initial: float = 0.0, clip: float = np.inf, norm: float = np.inf) -> list[np.ndarray]:
    w, s = START.copy(), np.full_like(START, initial)
    for k in range(STEPS):
        g = np.clip(gradient(w, k), -clip, clip)
        g *= min(1.0, norm / (np.sqrt((g * g).sum()) + 1e-6))
        s += g * g
        w -= RATE * g / (np.sqrt(s) + 1e-10)
    return [w, s]


def sgd(norm: float) -> list[np.ndarray]:
    w = START.copy()
    for k in range(STEPS):
        g = gradient(w, k)
        w -= RATE * g * min(1.0, norm / (np.sqrt((g * g).sum()) + 1e-6))
    return [w]


def lazy_adam(decay: float = 0.0, amsgrad: bool = False) -> list[np.ndarray]:
    """Adam in the rows looked up, nothing in the others; t counts all steps."""
    w = START.copy()
    m, v, largest = (np.zeros_like(w) for _ in range(3))
    for k in range(STEPS):
        rows = np.unique(IDS[k])
        g = gradient(w, k)[rows] + decay * w[rows]
        m[rows] = 0.9 * m[rows] + 0.1 * g
        v[rows] = 0.999 * v[rows] + 0.001 * g * g
        largest[rows] = np.maximum(largest[rows], v[rows])
        root = np.sqrt((largest if amsgrad else v)[rows] / (1 - 0.999 ** (k + 1)))
        w[rows] -= RATE * m[rows] / (1 - 0.9 ** (k + 1)) / (root + 1e-8)
    return [w, m, v, largest][: 4 if amsgrad else 3]


o = fg.optim
RULES: dict[str, tuple[Make, Callable[[], list[np.ndarray]]]] = {
    "adagrad": (lambda: o.AdaGrad(RATE), adagrad),
    "adagrad from 0.5": (lambda: o.AdaGrad(RATE, initial=0.5), lambda: adagrad(0.5)),
    "adagrad, elements clipped": (lambda: o.AdaGrad(RATE, clip_value=0.7), lambda: adagrad(clip=0.7)),
    "adagrad, norm clipped": (lambda: o.AdaGrad(RATE, clip_norm=5.0), lambda: adagrad(norm=5.0)),
    "sgd, norm clipped": (lambda: o.SGD(RATE, clip_norm=5.0), lambda: sgd(5.0)),
    "lazy adam": (lambda: o.LazyAdam(RATE), lazy_adam),
    "lazy adam, decayed": (lambda: o.LazyAdam(RATE, weight_decay=0.1), lambda: lazy_adam(decay=0.1)),
    "lazy amsgrad": (lambda: o.LazyAdam(RATE, amsgrad=True), lambda: lazy_adam(amsgrad=True)),
}
rules = pytest.mark.parametrize("name", RULES)


@rules
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 5e-5), ("float64", 1e-12)])
def test_twenty_steps_are_what_numpy_computes(name: str, dtype: str, tolerance: float) -> None:
    make, transcription = RULES[name]
    for found, expected in zip(trained(make, dtype), transcription(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@rules
@pytest.mark.parametrize("device", ["reference", "cuda"])
def test_every_device_makes_the_same_steps(name: str, device: str) -> None:
    make, _ = RULES[name]
    for found, expected in zip(trained(make, device=DEVICES[device], steps=3), trained(make, steps=3), strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)


@rules
def test_bits_do_not_depend_on_the_number_of_threads(name: str) -> None:
    one, *others = (trained(RULES[name][0], threads=n) for n in (1, 2, 4))
    for other in others:
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_adagrad_by_rows_has_the_bits_of_adagrad_on_the_whole_table() -> None:
    g = fg.input("g", (ROWS, WIDTH))  # the dense gradient, which no pass can look into
    whole = fg.parameter("whole", (ROWS, WIDTH), START)
    updates = o.AdaGrad(RATE).updates([whole], [g])
    dense = fg.compile(updates=updates, device="cpu")
    ids, wanted = fg.input("ids", ("batch", 3), "int32"), fg.input("wanted", ("batch", 3, WIDTH))
    off = fg.gather(whole, ids) - wanted
    slope = fg.compile(outputs=fg.grad(fg.sum(off * off), whole), device="cpu")
    for k in range(STEPS):
        (now,) = slope(ids=IDS[k].astype(np.int32), wanted=WANTED[k].astype(np.float32))
        dense(g=now)
    by_rows = trained(lambda: o.AdaGrad(RATE))
    squares = next(p for p in updates if p.op.label.endswith("squares"))
    assert np.array_equal(by_rows[0], whole.value) and np.array_equal(by_rows[1], squares.value)


@rules
def test_rows_that_are_not_looked_up_keep_their_bits(name: str) -> None:
    table, *state = trained(RULES[name][0])
    assert np.array_equal(table[LOOKED_UP:], START[LOOKED_UP:].astype(np.float32))
    assert (table[:LOOKED_UP] != START[:LOOKED_UP].astype(np.float32)).any(axis=1).all()
    for kept in state:
        assert len(np.unique(kept[LOOKED_UP:])) == 1


@rules
def test_nothing_of_the_tables_size_is_held_but_the_table_and_its_state(name: str) -> None:
    table, state, step = table_and_step(RULES[name][0])
    assert {p for p, _ in step.plan.in_place} >= {table, *state} and not step.plan.copied
    memory = step.memory({"batch": 40})
    large = [v for v in memory.values if v.bytes >= ROWS * WIDTH * 4]
    assert len(large) == 1 + len(state) and all(v.kind == "parameter" for v in large)


@rules
def test_what_a_step_costs_does_not_depend_on_the_size_of_the_table(name: str) -> None:
    def work(rows: int) -> list[tuple[int, int]]:
        step = table_and_step(RULES[name][0], rows=rows)[2]
        done = [work_of(call, {"batch": 40}) for call in step.plan.calls]
        return [(w.operations, w.bytes) for w in done]

    assert work(2_000) == work(500_000)


@pytest.mark.parametrize("name", ["adagrad", "lazy adam"])
def test_lookups_of_two_kinds_in_one_table_are_one_update(name: str) -> None:
    """A table that is looked up twice a step, by numbers of two dtypes: the rows of both are summed first."""
    make, transcription = RULES[name]
    table = fg.parameter("table", (ROWS, WIDTH), START, "float64")
    one, two = fg.input("one", ("batch",), "int32"), fg.input("two", ("batch", 2), "int64")
    wanted = fg.input("wanted", ("batch", 3, WIDTH), "float64")
    cost = fg.sum((fg.gather(table, one) - wanted[:, 0]) ** 2) + fg.sum((fg.gather(table, two) - wanted[:, 1:]) ** 2)
    step = fg.compile(updates=make().updates([table], [fg.grad(cost, table)]), device="cpu")
    assert max(v.bytes for v in step.memory({"batch": 40}).values if v.kind != "parameter") < ROWS * WIDTH * 4
    for k in range(STEPS):
        step(one=IDS[k, :, 0].astype(np.int32), two=IDS[k, :, 1:], wanted=WANTED[k])
    np.testing.assert_allclose(table.value, transcription()[0], rtol=1e-11)


def test_lazy_adam_of_what_is_not_looked_up_is_adam() -> None:
    """A layer's weights, and a table that scores every row, too: in one optimiser with tables that are looked up."""
    x, ids = fg.input("x", ("batch", 4)), fg.input("ids", ("batch",), "int32")
    feeds = {"x": RNG.normal(size=(7, 4)).astype(np.float32), "ids": IDS[0, :7, 0].astype(np.int32)}

    def after(make: Make) -> tuple[np.ndarray, np.ndarray]:
        table = fg.parameter("table", (ROWS, WIDTH), START)
        weights = fg.parameter("weights", (4, WIDTH), START[:4])
        scores = (fg.gather(table, ids) + x @ weights) @ fg.transpose(table)
        cost = fg.mean(fg.cross_ent_of_softmax(scores, ids))
        step = fg.compile(updates=make().updates([table, weights], fg.grad(cost, [table, weights])), device="cpu")
        step.run(3, feeds)
        return table.value, weights.value

    for lazy, dense in zip(after(lambda: o.LazyAdam(RATE)), after(lambda: o.Adam(RATE)), strict=True):
        assert np.array_equal(lazy, dense)


def test_lazy_adam_of_a_small_table_is_as_lazy() -> None:
    """Where the whole table is computed, the rows that were not looked up are still left alone."""
    table = fg.parameter("table", (9, WIDTH), START[:9])
    ids = fg.input("ids", ("batch",), "int32")
    cost = fg.sum(fg.gather(table, ids) ** 2)
    step = fg.compile(updates=o.LazyAdam(RATE).updates([table], [fg.grad(cost, table)]), device="cpu")
    for row in (2, 5, 2):
        step(ids=np.array([row, row], np.int32))
    moved = (table.value != START[:9].astype(np.float32)).any(axis=1)
    np.testing.assert_array_equal(np.flatnonzero(moved), [2, 5])
    assert not any(isinstance(new.op, ScatterAdd) for _, new in step.graph.updates)


def test_decay_moves_every_row_and_so_is_dense() -> None:
    table, _ = trained(lambda: o.AdaGrad(RATE, weight_decay=0.1), steps=1)
    assert (table != START.astype(np.float32)).all()


def test_a_small_table_is_updated_whole() -> None:
    _, _, step = table_and_step(lambda: o.AdaGrad(RATE), rows=100)
    assert not any(isinstance(new.op, ScatterAdd) for _, new in step.graph.updates)
