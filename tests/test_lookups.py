"""Along an axis: lookups, running sums, sorting; NumPy's semantics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flowgraph as fg
from flowgraph.errors import InputError, ShapeError
from tests.support.paths import PROGRAMS

X = np.random.default_rng(0).permutation(60).astype(np.float32).reshape(3, 4, 5)


def values(*tensors: fg.Tensor, device: str = "reference", **feeds: np.ndarray) -> list[np.ndarray]:
    return list(fg.compile(outputs=tensors, device=device)(**feeds))


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_lookups_sums_and_sorts_along_an_axis_are_numpys(axis: int) -> None:
    x = fg.input("x", X.shape)
    ids = np.array([2, 0, 2], np.int32)
    lines = np.argsort(X, axis)
    found = values(
        fg.take(x, ids, axis),
        fg.take_along_axis(x, lines, axis),
        fg.cumulative_sum(x, axis),
        fg.sort(x, axis),
        fg.sort(x, axis, descending=True),
        fg.argsort(x, axis),
        x=X,
    )
    expected = (
        np.take(X, ids, axis),
        np.take_along_axis(X, lines, axis),
        np.cumsum(X, axis),
        np.sort(X, axis),
        -np.sort(-X, axis),
        np.argsort(X, axis),
    )
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(width=32), min_size=1, max_size=70), st.booleans())
def test_a_native_sort_is_numpys_stable_one_whatever_the_values(numbers: list[float], descending: bool) -> None:
    x = fg.input("x", ("n",))
    data = np.array(numbers, np.float32)
    (order,) = values(fg.argsort(x, descending=descending), device="cpu", x=data)
    expected = np.argsort(data, kind="stable")
    if descending:
        expected = len(data) - 1 - np.argsort(data[::-1], kind="stable")[::-1]
    np.testing.assert_array_equal(order, expected)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([0, 1, -1, 2**62, -(2**63), 2**63 - 1, *range(5, 400, 7)]), max_size=300))
def test_where_integers_come_first_is_numpys_whatever_they_are(numbers: list[int]) -> None:
    ids = fg.input("ids", ("n",), "int64")
    data = np.array(numbers, np.int64)
    (found,) = values(fg.first_equal(ids), device="cpu", ids=data)
    _, first, place = np.unique(data, return_index=True, return_inverse=True)
    np.testing.assert_array_equal(found, first[place].reshape(-1))


def test_where_integers_come_first_is_found_with_a_table_of_those_seen() -> None:
    ids, order = fg.input("ids", ("n",), "int32"), fg.input("order", ("m",), "int32")
    looked_up = fg.gather(ids, order) + 1  # computed where it is needed
    source = fg.compile(outputs=fg.first_equal(looked_up) + 1, device="cpu").source()
    assert "schedule: Seen()" in source and source.count("seen_first(") == 1


def test_the_largest_k_and_where_they_are() -> None:
    x = fg.input("x", (4, 9))
    data = np.random.default_rng(1).permutation(36).astype(np.float32).reshape(4, 9)
    largest, places = values(*fg.top_k(x, 3), x=data)
    np.testing.assert_array_equal(largest, -np.sort(-data, 1)[:, :3])
    np.testing.assert_array_equal(np.take_along_axis(data, places, 1), largest)


def test_the_gradient_of_a_sort_goes_back_to_where_the_elements_were() -> None:
    x = fg.input("x", (5,))
    weights = np.array([1, 2, 3, 4, 5], np.float32)
    (dx,) = values(*fg.grad(fg.sum(fg.sort(x) * weights), [x]), x=np.array([30, 10, 50, 20, 40], np.float32))
    np.testing.assert_array_equal(dx, [3, 1, 5, 2, 4])


def test_long_running_sums_keep_their_digits() -> None:
    x = fg.input("x", (1_000_000,))
    data = np.random.default_rng(0).random(1_000_000).astype(np.float32)
    (found,) = values(fg.cumulative_sum(x), device="cpu", x=data)
    exact = np.cumsum(data.astype(np.float64))
    assert np.abs(found / exact - 1).max() < 2e-6  # one float32 after the other: 5e-5


def test_positions_out_of_range_are_refused_when_fed() -> None:
    x, ids = fg.input("x", (3, 4)), fg.input("ids", (3, 2), "int32")
    with pytest.raises(InputError, match="take_along_axis takes integers from 0 to 3"):
        values(fg.take_along_axis(x, ids, 1), x=np.zeros((3, 4), np.float32), ids=np.full((3, 2), 4, np.int32))


def test_what_does_not_fit_is_refused_with_both_shapes() -> None:
    x, ids = fg.input("x", (3, 4)), fg.input("ids", (2, 2), "int32")
    with pytest.raises(ShapeError, match=r"shapes \(3, 4\) and \(2, 2\) differ beside axis 1"):
        fg.take_along_axis(x, ids, 1)
    with pytest.raises(ShapeError, match="cumulative_sum needs an axis"):
        fg.cumulative_sum(x)
    with pytest.raises(ShapeError, match="the 5 largest of 4 elements"):
        fg.top_k(x, 5)


def test_a_step_on_a_table_writes_into_it_and_holds_no_second_one() -> None:
    """Skip-gram by plain SGD: what it costs, and what it holds, goes by the rows it looks up."""
    table = fg.parameter("table", (50_000, 100), fg.init.normal(0.1))
    ids = fg.input("ids", ("batch", 2), "int32")
    rows = fg.gather(table, ids)
    cost = fg.mean(fg.softplus(-fg.sum(rows[:, 0] * rows[:, 1], axis=1)))
    program = fg.compile(updates=fg.optim.SGD(0.1).updates([table], fg.grad(cost, [table])), device="cpu")
    before = table.value
    program(ids=np.array([[3, 9], [3, 40_000]], np.int32))
    changed = np.flatnonzero((table.value != before).any(axis=1))
    np.testing.assert_array_equal(changed, [3, 9, 40_000])
    executor = program.executor
    assert [p for p, _ in executor.plan.in_place] == [table]  # type: ignore[attr-defined]
    (binding,) = executor._bindings.values()  # type: ignore[attr-defined]
    assert len(binding.arena) < 100 * 1024 < before.nbytes


def test_a_row_number_is_found_once_a_row_and_asked_for_ahead() -> None:
    table, ids = fg.input("table", ("rows", 100)), fg.input("ids", ("n",), "int32")
    scores = fg.sum(fg.gather(table, ids) * fg.gather(table, ids + 1), axis=1)
    source = fg.compile(outputs=scores, device="cpu").source()
    inner = source[source.index("for r in range") :]
    assert "row_0 = " in source and "load_i32" not in inner[: inner.index("hsum")]
    assert "prefetch(" in source


@pytest.mark.parametrize("device", PROGRAMS.values(), ids=PROGRAMS)
def test_a_scatter_into_rows_chosen_along_its_last_axis(device: Any) -> None:
    """The row numbers of the table it starts from differ from lane to lane; those it adds to, from step to step."""
    table, columns = fg.input("table", ("rows", 3, 40)), fg.input("columns", (35,), dtype="int64")
    ids, added = fg.input("ids", ("n",), dtype="int32"), fg.input("added", ("n", 3, 35))
    start = fg.gather(table, columns, axis=2)
    step = fg.compile([table, columns, ids, added], [fg.scatter_add(start, ids, added)], device=device, check=True)
    rng = np.random.default_rng(0)
    a, c = rng.normal(size=(6, 3, 40)).astype("f4"), rng.integers(0, 40, 35)
    i, d = rng.integers(0, 6, 9).astype("i4"), rng.normal(size=(9, 3, 35)).astype("f4")
    expected = a[:, :, c]
    np.add.at(expected, i, d)
    np.testing.assert_allclose(step(table=a, columns=c, ids=i, added=d)[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("device", PROGRAMS.values(), ids=PROGRAMS)
def test_a_table_is_updated_from_its_own_columns(device: Any) -> None:
    """The scatter starts from other elements than it overwrites, so it cannot be done in place."""
    w = fg.parameter("w", (4, 19), init=fg.init.normal())
    columns, ids = fg.input("columns", (19,), "int64"), fg.input("ids", ("n",), "int32")
    added = fg.input("added", ("n", 19))
    update = {w: fg.scatter_add(fg.gather(w, columns, axis=1), ids, added)}
    step = fg.compile([columns, ids, added], [], update, device=device, check=True)
    rng = np.random.default_rng(0)
    c, i, d = rng.permutation(19), rng.integers(0, 4, 6).astype("i4"), rng.normal(size=(6, 19)).astype("f4")
    expected = w.value[:, c]
    np.add.at(expected, i, d)
    step(columns=c, ids=i, added=d)
    np.testing.assert_allclose(w.value, expected, rtol=1e-5, atol=1e-6)


def test_a_nan_is_no_row_number() -> None:
    table, x = fg.input("table", (4, 2)), fg.input("x", (2,))
    step = fg.compile([table, x], [fg.take(table, fg.cast(x, "int32"))], device="cpu")
    rows = np.arange(8, dtype=np.float32).reshape(4, 2)
    np.testing.assert_array_equal(step(table=rows, x=np.array([0.5, 3.5], np.float32))[0], rows[[0, 3]])
    with pytest.raises(InputError, match="out of range"):
        step(table=rows, x=np.array([0.5, np.nan], np.float32))
