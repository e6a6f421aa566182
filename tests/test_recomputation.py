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


def stored(*outputs: fg.Tensor) -> int:
    """How many values are stored besides the outputs."""
    graph, _ = run_passes(declare(None, list(outputs), None), OPTIMISE)
    return sum(len(c.outputs) for c in build_kernels(graph)) - len(outputs)


def test_a_sum_of_many_arrays_is_stored_where_reading_them_again_would_cost_more() -> None:
    many = [fg.input(f"a{k}", ("batch", 32)) for k in range(5)]
    total = many[0] + many[1] + many[2] + many[3] + many[4]
    products = [total @ fg.parameter(f"w{k}", (32, 8)) for k in range(1)]  # a product reads arrays: it is stored anyway
    rows = [fg.sum(total, axis=0), fg.max(total, axis=1), fg.cumulative_sum(total, axis=0)]
    assert stored(*products, *rows) == 1
    assert stored(*rows) == 1  # three kernels would read five arrays each


def test_what_is_made_of_rows_and_numbers_is_computed_again() -> None:
    x, bias = fg.input("x", ("batch", 32)), fg.parameter("bias", (32,))
    shifted = 2.0 * x + bias
    assert stored(fg.sum(shifted, axis=0), fg.max(shifted, axis=1), fg.cumulative_sum(shifted, axis=0)) == 0


def step(cost: fg.Tensor, *tables: fg.Tensor) -> fg.Program:
    updates = fg.optim.SGD(0.1).updates(tables, fg.grad(cost, tables))
    return fg.compile(updates=updates, device="cpu")


def test_an_outer_product_is_not_stored_but_its_small_factor() -> None:
    """Skip-gram: the gradient of the rows looked up is one number a row, times another row."""
    vectors, contexts = (fg.parameter(name, (500, 100), fg.init.normal(0.1)) for name in ("vectors", "contexts"))
    word, context = fg.input("word", ("batch",), "int32"), fg.input("context", ("batch", 6), "int32")
    scores = fg.sum(fg.expand_dims(fg.gather(vectors, word), 1) * fg.gather(contexts, context), axis=-1)
    program = step(fg.sum(fg.softplus(scores)), vectors, contexts)
    kept = [t for call in program.plan.calls for t in call.outputs if program.plan.places[t].kind == "arena"]
    assert sorted(t.rank for t in kept) == [2, 2]  # a number for every score; the gradient of `vectors`, summed
    assert {p.label for p, _ in program.plan.in_place} == {"vectors", "contexts"}
    rng = np.random.default_rng(0)
    data = {"word": rng.integers(0, 500, 40).astype("i4"), "context": rng.integers(0, 500, (40, 6)).astype("i4")}
    v, c = vectors.value.astype("f8"), contexts.value.astype("f8")
    factor = 1 / (1 + np.exp(-np.einsum("bd,bnd->bn", v[data["word"]], c[data["context"]])))
    dv, dc = np.zeros_like(v), np.zeros_like(c)
    np.add.at(dv, data["word"], np.einsum("bn,bnd->bd", factor, c[data["context"]]))
    np.add.at(dc, data["context"], factor[..., None] * v[data["word"]][:, None])
    program(**data)
    np.testing.assert_allclose(vectors.value, v - 0.1 * dv, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(contexts.value, c - 0.1 * dc, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tables", [1, 2])
def test_tables_whose_gradients_need_one_another_stay_in_place(tables: int) -> None:
    """Each one's new rows could be computed from the other's old ones where they are written; both cannot."""
    made = [fg.parameter(f"t{k}", (300, 64), fg.init.normal(0.1)) for k in range(tables)]
    a, b = fg.input("a", ("batch",), "int32"), fg.input("b", ("batch",), "int32")
    cost = fg.sum(fg.softplus(fg.sum(fg.gather(made[0], a) * fg.gather(made[-1], b), axis=-1)))
    program = step(cost, *made)
    assert len(program.plan.in_place) == tables, "no table is copied"
    before = [t.value.astype("f8") for t in made]
    ids = {name: np.random.default_rng(k).integers(0, 300, 50).astype("i4") for k, name in enumerate("ab")}
    left, right = before[0][ids["a"]], before[-1][ids["b"]]
    factor = 1 / (1 + np.exp(-(left * right).sum(1, keepdims=True)))
    expected = [x.copy() for x in before]
    np.subtract.at(expected[0], ids["a"], 0.1 * factor * right)
    np.subtract.at(expected[-1], ids["b"], 0.1 * factor * left)
    program(**ids)
    for table, value in zip(made, expected, strict=True):
        np.testing.assert_allclose(table.value, value, rtol=1e-5, atol=1e-6)


def test_a_value_that_is_repeated_along_an_axis_is_stored() -> None:
    """Computed again it would be at every row of its reader."""
    x, v = fg.input("x", (256, 2048)), fg.parameter("v", (2048,))
    chain = fg.maximum((v * 1.1 + 0.3) * 3.1, v * 0.5) + 0.3
    assert stored(fg.sum(x * chain, axis=1)) == 1


@pytest.mark.parametrize("view", ["transpose", "flip", "gather"])
def test_a_parameter_that_is_read_at_other_points_stays_in_place(view: str) -> None:
    rows = fg.input("rows", (64,), "int32")
    a = fg.parameter("a", (64, 64), fg.init.normal(1.0))
    seen = {"transpose": fg.transpose(a), "flip": fg.flip(a, 0), "gather": fg.gather(a, rows)}[view]
    moved = seen * 2.0 + 1.0
    x, d = fg.input("x", ("batch", 64)), fg.input("d", ("batch", 64))
    updates = {a: a - 0.1 * (fg.transpose(x) @ d) - 0.1 * moved}
    program = fg.compile(outputs=[fg.sum(moved, axis=1)], updates=updates, device="cpu")
    assert [p.label for p, _ in program.plan.in_place] == ["a"]


def test_what_a_running_sum_that_updates_a_parameter_reads_is_stored_or_not_but_is_right() -> None:
    x, w = fg.input("x", (5,)), fg.parameter("w", (5,), np.arange(5))
    program = fg.compile(updates={w: fg.cumulative_sum(x - w)}, device="cpu", check=True)
    program(x=np.ones(5, np.float32))
    np.testing.assert_array_equal(w.value, np.cumsum(1.0 - np.arange(5)))
