"""Pooling as users call it: shapes, padding, which element gets the gradient, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.errors import DTypeError, ShapeError
from tests.support.paths import PROGRAMS


def run(outputs: Any, device: Any = "reference", **feeds: np.ndarray) -> np.ndarray:
    return fg.compile(outputs=outputs, device=device)(**feeds)[0]


X = np.random.default_rng(0).permutation(2 * 3 * 7 * 9).reshape(2, 3, 7, 9).astype(np.float32)
devices = pytest.mark.parametrize("device", PROGRAMS.values(), ids=PROGRAMS)


@pytest.mark.parametrize(("window", "stride", "widths"), [(2, 2, 0), (3, 2, 1), (3, 1, 2), (1, 3, 0)])
@devices
def test_a_pool_combines_the_elements_of_each_window(window: int, stride: int, widths: int, device: Any) -> None:
    x = fg.input("x", X.shape)
    for form, value, combine in ((fg.max_pool2d, -np.inf, np.max), (fg.avg_pool2d, 0.0, np.mean)):
        around = np.pad(X, ((0, 0), (0, 0), *((widths, widths),) * 2), constant_values=value)
        rows, columns = ((n - window) // stride + 1 for n in around.shape[2:])
        expected = [
            [
                combine(around[:, :, i * stride : i * stride + window, j * stride : j * stride + window], (2, 3))
                for j in range(columns)
            ]
            for i in range(rows)
        ]
        found = run(form(x, window, stride, widths), device, x=X)
        np.testing.assert_allclose(found, np.moveaxis(expected, (0, 1), (2, 3)), rtol=1e-6)


def test_windows_do_not_overlap_unless_a_stride_says_so() -> None:
    x = fg.input("x", ("batch", 3, 7, 9))
    assert fg.max_pool2d(x, (2, 3)).shape[1:] == (3, 3, 3)
    assert fg.avg_pool2d(x, 3, stride=1, padding="same").shape[1:] == (3, 7, 9)
    assert fg.max_pool1d(x, 4).shape[1:] == (3, 7, 2)
    assert fg.avg_pool1d(fg.input("line", (9,)), 3, padding=(1, 0)).shape == (3,)


@devices
def test_the_first_of_the_largest_elements_gets_the_gradient(device: Any) -> None:
    x = fg.parameter("x", (4, 4), np.array([[1, 3, 0, 0], [3, 3, 0, 0], [5, 4, 7, 7], [4, 5, 8, 7]], np.float32))
    (dx,) = fg.grad(fg.sum(fg.max_pool2d(x, 2)), [x])
    np.testing.assert_array_equal(run(dx, device), [[0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]])


@devices
def test_windows_that_overlap_add_their_gradients(device: Any) -> None:
    x = fg.parameter("x", (5,), np.array([1, 9, 2, 3, 4], np.float32))
    (dx,) = fg.grad(fg.sum(fg.max_pool1d(x, 3, stride=1)), [x])
    np.testing.assert_array_equal(run(dx, device), [0, 2, 0, 0, 1])
    (mean,) = fg.grad(fg.sum(fg.avg_pool1d(x, 3, stride=1)), [x])
    np.testing.assert_allclose(run(mean, device), np.array([1, 2, 3, 2, 1]) / 3, rtol=1e-6)


@devices
def test_a_window_with_a_nan_is_nan_and_its_gradient_goes_there(device: Any) -> None:
    x = fg.parameter("x", (6,), np.array([1, np.nan, 9, 2, 3, np.nan], np.float32))
    y = fg.max_pool1d(x, 3)
    (dx,) = fg.grad(fg.sum(y), [x])
    np.testing.assert_array_equal(run(y, device), [np.nan, np.nan])
    np.testing.assert_array_equal(run(dx, device), [0, 1, 0, 0, 0, 1])


def test_what_is_added_around_is_never_the_maximum() -> None:
    x = fg.input("x", (1, 4))
    found = run(fg.max_pool1d(x, 2, stride=2, padding=1), x=np.full((1, 4), -5, np.float32))
    np.testing.assert_array_equal(found, [[-5, -5, -5]])


@pytest.mark.parametrize(
    ("make", "error", "problem"),
    [
        (lambda: fg.max_pool2d(fg.input("x", (3, 5)), 6), ShapeError, "a window of 6 elements does not fit"),
        (lambda: fg.max_pool2d(fg.input("x", (5,)), 2), ShapeError, "has no 2 axes"),
        (lambda: fg.max_pool1d(fg.input("x", (5,)), 2, padding=2), ShapeError, "padding 2 of windows"),
        (lambda: fg.avg_pool1d(fg.input("x", (5,)), 0), ShapeError, "window 0"),
        (lambda: fg.avg_pool2d(fg.input("x", (5, 5)), 2, (1, 2, 3)), ShapeError, r"stride \(1, 2, 3\)"),
        (lambda: fg.max_pool1d(fg.input("x", (5,), "int32"), 2), DTypeError, "floating-point"),
    ],
)
def test_what_does_not_fit_is_refused_where_it_is_written(make: Any, error: type[Exception], problem: str) -> None:
    with pytest.raises(error, match=problem) as caught:
        make()
    assert "test_pooling" in str(caught.value)
