"""Slices, pieces and reshapes: NumPy's semantics, and what they cost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flowgraph as fg
from flowgraph.errors import GraphError, InputError, ShapeError
from flowgraph.kernels.build import build_kernels
from flowgraph.kernels.kernel import KernelCall
from tests.support.paths import PATHS, fused, optimise


def values(tensor: fg.Tensor, **feeds: np.ndarray) -> np.ndarray:
    return fg.compile(outputs=tensor, device="reference")(**feeds)[0]


def kernels(*outputs: fg.Tensor) -> list[KernelCall]:
    return build_kernels(optimise(fg.compile(outputs=outputs, device="reference").declared))


X = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
PART = st.one_of(
    st.integers(-3, 2),
    st.builds(slice, *(st.one_of(st.none(), st.integers(-6, 6)),) * 2, st.sampled_from([None, 1, 2, -1, -2])),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(PART, min_size=1, max_size=3), st.sampled_from(["", "...", "None"]))
def test_indexing_is_numpys(parts: list, extra: str) -> None:
    key = (*parts, *({"...": [Ellipsis], "None": [None]}.get(extra, [])))
    x = fg.input("x", X.shape)
    expected = X[key]
    found = x[key]
    assert found.shape == expected.shape
    np.testing.assert_array_equal(values(found + 0.0, x=X), expected)


@pytest.mark.parametrize("time", [3, 4, 9])
def test_an_axis_of_a_named_size_is_sliced_by_ints_and_sizes(time: int) -> None:
    x, data = fg.input("x", (2, "time")), np.random.default_rng(0).random((2, time)).astype(np.float32)
    for key in (
        (slice(None), slice(1, None)), (slice(None), slice(None, -1)), (slice(None), slice(None, None, 2)),
        (slice(None), -1), (slice(None), slice(None, None, -1)), (slice(None), slice(-3, -1)), (0, slice(0, 3)),
    ):  # fmt: skip
        np.testing.assert_array_equal(values(x[key] + 0.0, x=data), data[key])


def test_data_too_short_for_a_slice_are_refused_at_its_line() -> None:
    x = fg.input("x", (2, "time"))
    with pytest.raises(InputError, match=r"a slice from 0 by 1, 5 elements, of an axis of size time.*time = 3"):
        values(x[:, :5] * 2.0, x=np.zeros((2, 3), np.float32))


def test_bad_indices_say_what_is_possible() -> None:
    x = fg.input("x", (3, "time"))
    with pytest.raises(ShapeError, match="index 3 is out of range for axis 0"):
        x[3]
    with pytest.raises(ShapeError, match="3 indices for a tensor of shape"):
        x[0, 0, 0]
    with pytest.raises(GraphError, match="an index is an int"):
        x[1.5]
    with pytest.raises(GraphError, match="a bool index has a shape that only the data tell"):
        x[x > 0.0]
    with pytest.raises(ShapeError, match="a slice backwards of axis 1"):
        x[:, 5:1:-1]


def test_integers_look_up_rows() -> None:
    x, ids = fg.input("x", (3, 4, 5)), fg.input("ids", (2,), "int32")
    rows = np.array([2, 0], np.int32)
    np.testing.assert_array_equal(values(x[ids] + 0.0, x=X, ids=rows), X[rows])


def test_joining_and_repeating_are_numpys() -> None:
    x = fg.input("x", X.shape)
    for ours, theirs in (
        (fg.concatenate([x, x], axis=-1), np.concatenate([X, X], -1)),
        (fg.stack([x, x], axis=1), np.stack([X, X], 1)),
        (fg.tile(x, (2, 1, 3)), np.tile(X, (2, 1, 3))),
        (fg.roll(x, 2, 2), np.roll(X, 2, 2)),
        (fg.pad(x, 1), np.pad(X, 1)),
        (fg.pad(x, [(0, 1), (2, 0), (0, 0)], 3.0), np.pad(X, [(0, 1), (2, 0), (0, 0)], constant_values=3)),
        (fg.moveaxis(x, 0, -1) + 0.0, np.moveaxis(X, 0, -1)),
        (fg.swapaxes(x, 0, 2) + 0.0, np.swapaxes(X, 0, 2)),
    ):
        np.testing.assert_array_equal(values(ours, x=X), theirs)
    for ours, theirs in zip(fg.split(x, [1, 3], 1), np.split(X, [1, 3], 1), strict=True):
        np.testing.assert_array_equal(values(ours + 0.0, x=X), theirs)


def test_what_does_not_fit_together_is_refused() -> None:
    x, y = fg.input("x", (3, 4)), fg.input("y", (3, 5))
    with pytest.raises(ShapeError, match=r"shapes \(3, 4\) and \(3, 5\) differ elsewhere"):
        fg.concatenate([x, y], axis=0)
    with pytest.raises(ShapeError, match="axis 1 of size 5 does not split into 2 equal parts"):
        fg.split(y, 2, axis=1)
    with pytest.raises(ShapeError, match=r"12 elements are not 10"):
        fg.reshape(x, (2, 5))
    with pytest.raises(ShapeError, match="no multiple of 5"):
        fg.reshape(x, (5, -1))


def test_the_gradient_of_splitting_in_four_is_one_kernel_that_writes_four_pieces() -> None:
    x = fg.input("x", ("batch", 4 * 17))
    i, f, o, c = fg.split(x, 4, axis=1)
    cost = fg.sum(fg.logistic(i) * fg.tanh(c) + fg.logistic(f) * fg.logistic(o))
    (dx,) = fg.grad(cost, [x])
    calls = kernels(dx)
    assert len(calls) == 1
    assert sum(len(nest.stores) for nest in calls[0].kernel.nests) == 4


def test_a_reshape_of_what_is_stored_costs_nothing() -> None:
    x = fg.input("x", ("batch", "time", 8))
    w = fg.parameter("w", (8, 17))
    flat = fg.reshape(x, (-1, 8)) @ w
    back = fg.tanh(fg.reshape(flat, (*x.shape[:2], 17)))
    calls = kernels(back)
    assert [c.kernel.buffers[0].type.shape for c in calls] == [
        (x.shape[0] * x.shape[1], 8),
        (*x.shape[:2], 17),
    ]
    assert all("//" not in str(c.kernel) and "%" not in str(c.kernel) for c in calls)


@pytest.mark.parametrize("shape", [(1,), (1, 1), (1, 1, 1)])
def test_a_reshape_of_one_element_reads_it_for_all_lanes(shape: tuple[int, ...]) -> None:
    """Compiled as declared, with no pass that finds that there is nothing to do."""
    x = fg.input("x", (1,))
    graph = fg.compile(outputs=fg.reshape(x[None] * 2, shape), device="reference").declared
    data = np.array([3.0], np.float32)
    np.testing.assert_array_equal(PATHS["cpu"](graph, {x: data}, {})[0], np.full(shape, 6.0))


def test_a_reshape_that_is_asked_for_is_a_copy() -> None:
    x = fg.input("x", (4, 6))
    graph = fg.compile(outputs=fg.reshape(x, (3, 8)), device="reference").declared
    data = np.arange(24, dtype=np.float32).reshape(4, 6)
    np.testing.assert_array_equal(fused(graph, {x: data}, {})[0], data.reshape(3, 8))


def test_a_slice_is_read_in_place_and_in_vectors() -> None:
    x = fg.input("x", ("batch", 100))
    program = fg.compile(outputs=fg.tanh(x[:, 3:90]), device="cpu")
    assert len(program.kernels) == 1
    assert "vload_f32(" in program.source() and "gather" not in program.source()
