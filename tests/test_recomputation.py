"""What the forward pass keeps for the backward pass: a value costs memory unless it is cheaper to compute again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.compile import declare
from flowgraph.kernels.build import build_kernels
from flowgraph.passes.pipeline import OPTIMISE, run_passes

Activation = Callable[[fg.Tensor], fg.Tensor]
U = fg.input("u", ("batch", 32))

KEPT: dict[str, tuple[Activation, int]] = {
    # one array of the layer's size: what the next product reads
    "tanh": (fg.tanh, 1),
    "relu": (fg.relu, 1),
    "logistic": (fg.logistic, 1),
    "a mask by comparison": (lambda a: fg.where(U > 0.5, a * 2.0, 0.0), 1),
    # and one more, from which the rest is computed again: the product itself, or what is dear to compute
    "a chain of choices": (lambda a: fg.where(a > 1.0, a, fg.where(a < -1.0, -a, a * 0.5)), 2),
    "gelu": (fg.gelu, 2),
}


@pytest.mark.parametrize(("activation", "arrays"), KEPT.values(), ids=KEPT)
def test_a_layer_keeps_no_more_for_the_way_back_than_it_must(activation: Activation, arrays: int) -> None:
    x, w, v = fg.input("x", ("batch", 64)), fg.parameter("w", (64, 32)), fg.parameter("v", (32, 16))
    cost = fg.mean(fg.square(activation(x @ w) @ v))
    updates = {p: p - 0.1 * g for p, g in zip((w, v), fg.grad(cost, [w, v]), strict=True)}
    graph, _ = run_passes(declare(None, [cost], updates), OPTIMISE)
    (first,) = [c for c in build_kernels(graph) if x in c.inputs and w in c.inputs and w.shape != c.outputs[0].shape]
    assert len(first.outputs) == arrays
    assert all(t.dtype.is_float for t in first.outputs), "a mask is computed again, not stored"


def test_the_derivative_of_relu_from_its_value_is_the_one_from_its_argument() -> None:
    x = fg.input("x", (6,))
    step = fg.compile([x], [fg.grad(fg.sum(fg.relu(x)), x)], device="reference")
    (found,) = step(x=np.array([0.0, -0.0, 2.0, -2.0, np.inf, np.nan], np.float32))
    assert found.tolist() == [0, 0, 1, 0, 1, 0]
