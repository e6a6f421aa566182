"""Norms and normalisation: against NumPy, few kernels, and gradients that stay finite."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.errors import InputError, ShapeError

X = np.random.default_rng(0).normal(2, 3, (9, 37)).astype(np.float32)
SCALE = np.linspace(0.5, 2, 37, dtype=np.float32)
SHIFT = np.linspace(-1, 1, 37, dtype=np.float32)


def standardised(x: np.ndarray, axis: int) -> np.ndarray:
    x = x.astype(np.float64)
    return (x - x.mean(axis, keepdims=True)) / np.sqrt(x.var(axis, keepdims=True) + 1e-5)


def operands() -> tuple[fg.Tensor, fg.Tensor, fg.Tensor]:
    return fg.input("x", ("batch", 37)), fg.parameter("scale", (37,), SCALE), fg.parameter("shift", (37,), SHIFT)


Make = Callable[[fg.Tensor, fg.Tensor, fg.Tensor], fg.Tensor]
MAKERS: dict[str, tuple[Make, np.ndarray]] = {
    "layer_norm": (lambda x, a, b: fg.nn.layer_norm(x, a, b), standardised(X, 1) * SCALE + SHIFT),
    "rms_norm": (lambda x, a, b: fg.nn.rms_norm(x, a), X / np.sqrt(np.mean(np.square(X), 1, keepdims=True)) * SCALE),
    "batch_norm": (lambda x, a, b: fg.nn.batch_norm(x, a, b), standardised(X, 0) * SCALE + SHIFT),
}  # fmt: skip


@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize("name", MAKERS)
def test_a_normalisation_is_its_equation(name: str, device: str) -> None:
    make, expected = MAKERS[name]
    x, scale, shift = operands()
    found = fg.compile([x], [make(x, scale, shift)], device=device)(x=X)[0]
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("name", "most"), [("layer_norm", 1), ("rms_norm", 1), ("batch_norm", 4)])
def test_a_normalisation_of_rows_is_one_kernel_that_of_columns_few(name: str, most: int) -> None:
    x, scale, shift = operands()
    program = fg.compile([x], [MAKERS[name][0](x, scale, shift)], device="cpu")
    assert len(program.kernels) <= most


@pytest.mark.parametrize(("name", "most"), [("layer_norm", 3), ("rms_norm", 2), ("batch_norm", 10)])
def test_a_normalisation_and_its_gradients_are_few_kernels(name: str, most: int) -> None:
    x, scale, shift = operands()
    target = fg.input("target", ("batch", 37))
    cost = fg.sum(MAKERS[name][0](x, scale, shift) * target)
    wanted = [x, scale] if name == "rms_norm" else [x, scale, shift]
    program = fg.compile([x, target], fg.grad(cost, wanted), device="cpu")
    assert len(program.kernels) <= most


def test_a_batch_norm_takes_every_axis_but_the_last_as_the_batch() -> None:
    x = fg.input("x", (3, 3, 37))
    found = fg.compile([x], [fg.nn.batch_norm(x)], device="reference")(x=X.reshape(3, 3, 37))[0]
    np.testing.assert_allclose(found.reshape(9, 37), standardised(X, 0), rtol=2e-5, atol=2e-5)


def test_what_is_constant_is_normalised_to_zero() -> None:
    x = fg.input("x", (2, 5))
    found = fg.compile([x], [fg.nn.layer_norm(x)], device="reference")(x=np.full((2, 5), 7, np.float32))[0]
    np.testing.assert_array_equal(found, 0)


@pytest.mark.parametrize("order", [1, 2, np.inf])
@pytest.mark.parametrize("axis", [None, 0, -1, (0, 1)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_a_norm_is_numpys(order: float, axis: int | tuple[int, ...] | None, keepdims: bool) -> None:
    x = fg.input("x", (9, 37))
    found = fg.compile([x], [fg.norm(x, order, axis, keepdims)], device="reference")(x=X)[0]
    expected = np.linalg.vector_norm(X, axis=axis, keepdims=keepdims, ord=order)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_the_gradient_of_the_norm_of_zeros_is_zero_and_elsewhere_the_direction(device: str) -> None:
    x = fg.input("x", (2, 3))
    given = np.array([[0, 0, 0], [2, 3, 6]], np.float32)
    found = fg.compile([x], [fg.grad(fg.sum(fg.norm(x, axis=1)), x)], device=device)(x=given)[0]
    np.testing.assert_allclose(found, given / np.array([[1], [7]], np.float32), rtol=1e-6)


def test_a_norm_of_rows_is_one_kernel() -> None:
    x = fg.input("x", ("batch", 37))
    assert len(fg.compile([x], [x / fg.norm(x, axis=1, keepdims=True)], device="cpu").kernels) == 1


def test_what_does_not_fit_says_why() -> None:
    x = fg.input("x", ("batch", 37))
    with pytest.raises(ShapeError, match="layer_norm: scale or shift spread"):
        fg.nn.layer_norm(x, fg.parameter("s", (2, 1, 37)))
    with pytest.raises(ShapeError, match=r"layer_norm of a tensor .* over no axes"):
        fg.nn.layer_norm(x, axis=())
    with pytest.raises(ShapeError, match="batch_norm of a tensor"):
        fg.nn.batch_norm(fg.input("v", (37,)))
    with pytest.raises(InputError, match="norm of order 3"):
        fg.norm(x, 3)
