"""Attention, pooling over time and the ops they are made of, against the equations in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.errors import DTypeError, GraphError, InputError, ShapeError
from flowgraph.graph.tensor import Tensor
from tests.support.gradients import assert_parameters_have_gradients
from tests.test_registry import assert_gradients

rng = np.random.default_rng(0)
LENGTHS = np.array([7, 1, 3], np.int32)


def run(outputs: list[Tensor], device: str = "reference", **feeds: np.ndarray) -> list[np.ndarray]:
    return fg.compile(outputs=outputs, device=device)(**feeds)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


# Ops


def test_a_masked_softmax_is_the_softmax_of_what_the_mask_leaves() -> None:
    x, mask = fg.input("x", ("rows", 9)), fg.input("mask", ("rows", 9), "bool")
    values, shown = rng.normal(size=(20, 9)).astype(np.float32), rng.random((20, 9)) < 0.5
    shown[3], shown[4] = False, True
    (found,) = run([fg.masked_softmax(x, mask)], x=values, mask=shown)
    assert not found[~shown].any() and not found[3].any()
    for row, value, there in zip(found, values, shown, strict=True):
        if there.any():
            np.testing.assert_allclose(row[there], softmax(value[there]), rtol=1e-6)


def test_what_is_masked_has_no_gradient_even_if_it_is_no_number() -> None:
    x, mask = fg.input("x", (2, 4)), fg.constant(np.array([[True, True, False, True], [False] * 4]))
    cost = fg.sum(fg.masked_softmax(x, mask) * fg.constant([1.0, 2.0, np.nan, 5.0]))
    values = np.array([[1, 2, np.nan, 0], [np.inf, np.nan, 1, 2]], np.float32)
    (found,) = run([fg.grad(cost, x)], x=np.where(np.isnan(values), 3e38, values))
    p = softmax(np.array([1.0, 2, 0]))
    g = np.array([1.0, 2, 5])
    np.testing.assert_allclose(found[0, [0, 1, 3]], p * (g - (g * p).sum()), rtol=1e-5)
    assert found[0, 2] == 0 and not found[1].any()


def test_a_mask_broadcasts_to_what_it_masks_and_not_the_other_way_round() -> None:
    scores, there = fg.input("scores", (3, 5, 4)), fg.input("there", (3, 1, 4), "bool")
    assert fg.masked_softmax(scores, there).shape == (3, 5, 4)
    with pytest.raises(ShapeError, match=r"masked_softmax of \(4,\) under a mask of \(3, 1, 4\)"):
        fg.masked_softmax(fg.input("x", (4,)), there)
    with pytest.raises(DTypeError, match="needs a bool mask, got float32"):
        fg.masked_softmax(scores, scores)


@pytest.mark.parametrize("axis", [0, -1])
def test_the_cosine_similarity_is_the_cosine(axis: int) -> None:
    x, y = fg.input("x", (5, 6)), fg.input("y", (1, 6) if axis else (5, 1))
    a, b = rng.normal(size=x.shape).astype("f4"), rng.normal(size=y.shape).astype("f4")
    (found,) = run([fg.cosine_similarity(x, y, axis=axis)], x=a, y=b)
    expected = (a * b).sum(axis) / (np.linalg.norm(a, axis=axis) * np.linalg.norm(b, axis=axis))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_cosine_similarity_to_nothing_is_zero_and_has_a_gradient() -> None:
    x, y = fg.input("x", (2, 3)), fg.constant([1.0, 2.0, 2.0])
    similarity = fg.cosine_similarity(x, y)
    found, dx = run([similarity, fg.grad(fg.sum(similarity), x)], x=np.array([[0, 0, 0], [2, 4, 4]], np.float32))
    np.testing.assert_allclose(found, [0, 1], rtol=1e-6)
    assert np.isfinite(dx).all()
    with pytest.raises(InputError, match=r"epsilon=0"):
        fg.cosine_similarity(x, y, epsilon=0)


def test_gradients_of_similarity_and_attention_are_those_of_finite_differences() -> None:
    x, y = fg.input("x", (3, 4), "float64"), fg.input("y", (3, 4), "float64")
    feeds = {x: rng.normal(size=(3, 4)), y: rng.normal(size=(3, 4))}
    assert_gradients(fg.sum(fg.cosine_similarity(x, y)), feeds, [x, y])
    query, keys = fg.input("q", (3, 5), "float64"), fg.input("k", (3, 7, 4), "float64")
    feeds = {query: rng.normal(size=(3, 5)), keys: rng.normal(size=(3, 7, 4))}
    layer = fg.nn.Attention("layer", 5, 4, 6, dtype="float64")
    context, weights = layer(query, keys, lengths=fg.constant(LENGTHS))
    cost = fg.sum(context * context) + fg.sum(weights * weights)
    assert_gradients(cost, feeds, [query, keys])
    assert_parameters_have_gradients(cost, layer.parameters, **{t.label: array for t, array in feeds.items()})


# Pooling over time


@pytest.mark.parametrize("with_lengths", [False, True])
@pytest.mark.parametrize("name", ["max", "sum", "mean"])
def test_pooling_over_time_leaves_out_padding(name: str, with_lengths: bool) -> None:
    x, lengths = fg.input("x", ("batch", "time", 5)), fg.input("lengths", ("batch",), "int32")
    values = rng.normal(size=(3, 7, 5)).astype(np.float32) - 3
    pooled = getattr(fg.nn, f"{name}_over_time")(x, lengths if with_lengths else None)
    feeds = {"x": values, **({"lengths": LENGTHS} if with_lengths else {})}
    found, dx = run([pooled, fg.grad(fg.sum(pooled), x)], **feeds)
    for row, length in enumerate(LENGTHS if with_lengths else [7] * 3):
        expected = getattr(np, name)(values[row, :length], axis=0)
        np.testing.assert_allclose(found[row], expected, rtol=1e-5)
        assert not dx[row, length:].any() and dx[row, :length].any()


def test_the_cross_entropy_of_sequences_is_the_mean_over_their_elements() -> None:
    logits, y = fg.input("logits", ("batch", "time", 4)), fg.input("y", ("batch", "time"), "int32")
    lengths = fg.input("lengths", ("batch",), "int32")
    a, t = rng.normal(size=(3, 7, 4)).astype("f4"), rng.integers(0, 4, (3, 7)).astype("i4")
    each = np.array([[-np.log(softmax(a[b, k])[t[b, k]]) for k in range(7)] for b in range(3)])
    costs = [fg.nn.sequence_cross_ent(logits, y, n) for n in (lengths, None)]
    found = run(costs, logits=a, y=t, lengths=LENGTHS)
    expected = sum(each[row, :length].sum() for row, length in enumerate(LENGTHS)) / LENGTHS.sum()
    np.testing.assert_allclose(found, [expected, each.mean()], rtol=1e-5)


def test_lengths_that_do_not_fit_are_refused() -> None:
    x, lengths = fg.input("x", ("batch", "time", 5)), fg.input("lengths", ("batch",), "int32")
    with pytest.raises(ShapeError, match=r"lengths of shape \(other,\) for sequences \(batch, time, 5\)"):
        fg.nn.max_over_time(x, fg.input("n", ("other",), "int32"))
    with pytest.raises(ShapeError, match=r"takes floating-point \(batch, time, features\), got float32\(batch, 5\)"):
        fg.nn.sum_over_time(x[:, 0], lengths)
    with pytest.raises(ShapeError, match=r"lengths of shape \(batch, time\)"):
        fg.nn.sequence_mask(fg.input("n", ("batch", "time"), "int32"), 7)
    program = fg.compile(outputs=fg.nn.mean_over_time(x, lengths), device="reference")
    with pytest.raises(InputError, match=r"lengths\[1\] = 8 is out of range: lengths takes integers from 1 to 7"):
        program(x=np.zeros((3, 7, 5), np.float32), lengths=np.array([7, 8, 1], np.int32))


# Attention


def written_out(layer: fg.nn.Attention, query: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """The scores of one query for the keys (time, width) of one sequence."""
    weights = [p.value.astype("f8") for p in layer.parameters]
    if layer.score == "additive":
        w_q, w_k, b, v = weights
        return np.array([v @ np.tanh(query @ w_q + key @ w_k + b) for key in keys])
    if layer.score == "general":
        query = query @ weights[0]
    scale = np.sqrt(len(query)) if layer.score == "scaled_dot" else 1
    return np.array([query @ key for key in keys]) / scale


@pytest.mark.parametrize("steps", [None, 4])
@pytest.mark.parametrize("score", ["additive", "dot", "scaled_dot", "general"])
def test_attention_computes_its_equations(score: str, steps: int | None) -> None:
    widths = (6, 6) if "dot" in score else (5, 6)
    layer = fg.nn.Attention("layer", *widths, 8 if score == "additive" else None, score)
    query = fg.input("query", ("batch", *([steps] if steps else []), widths[0]))
    keys, values = fg.input("keys", ("batch", "time", widths[1])), fg.input("values", ("batch", "time", 3))
    lengths = fg.input("lengths", ("batch",), "int32")
    context, weights = layer(query, keys, values, lengths=lengths)
    q = rng.normal(size=(3, *([steps] if steps else []), widths[0])).astype("f4")
    k, v = rng.normal(size=(3, 7, widths[1])).astype("f4"), rng.normal(size=(3, 7, 3)).astype("f4")
    device = "cpu" if score == "additive" else "reference"
    found, given = run([context, weights], device, query=q, keys=k, values=v, lengths=LENGTHS)
    for row, n in enumerate(LENGTHS):
        for step in np.ndindex(q.shape[1:-1]):
            p = softmax(written_out(layer, q[(row, *step)], k[row, :n]))
            np.testing.assert_allclose(given[(row, *step)], np.pad(p, (0, 7 - n)), rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(found[(row, *step)], p @ v[row, :n], rtol=1e-4, atol=1e-5)


def test_attention_without_lengths_goes_to_every_key_and_with_a_mask_to_some() -> None:
    query, keys = fg.input("query", (3, 2, 4)), fg.input("keys", (3, 5, 4))
    mask = fg.input("mask", (3, 2, 5), "bool")
    layer = fg.nn.Attention("layer", 4, 4, score="scaled_dot")
    q, k, shown = rng.normal(size=(3, 2, 4)), rng.normal(size=(3, 5, 4)), rng.random((3, 2, 5)) < 0.5
    shown[1, 0] = False
    lengths = fg.constant(np.array([5, 2, 4], np.int32))
    outputs = [layer(query, keys)[1], *layer(query, keys, lengths=lengths, mask=mask)]
    every, context, some = run(outputs, query=q.astype("f4"), keys=k.astype("f4"), mask=shown)
    np.testing.assert_allclose(every.sum(-1), 1, rtol=1e-6)
    both = shown & (np.arange(5) < np.array([5, 2, 4])[:, None, None])
    np.testing.assert_array_equal(some > 0, both)
    assert not some[1, 0].any() and not context[1, 0].any()


def test_what_attention_cannot_do_is_said() -> None:
    with pytest.raises(GraphError, match=r"cannot score by 'cosine'(.|\n)*one of additive, dot, scaled_dot, general"):
        fg.nn.Attention("layer", 4, 4, score="cosine")
    with pytest.raises(ShapeError, match="queries of width 4 by keys of width 6 with 'dot'"):
        fg.nn.Attention("layer", 4, 6, score="dot")
    with pytest.raises(GraphError, match="needs the width of its hidden layer"):
        fg.nn.Attention("layer", 4, 6)
    layer = fg.nn.Attention("layer", 4, 6, score="general")
    keys = fg.input("keys", ("batch", "time", 6))
    for query in (fg.input("q", ("batch", 5)), fg.input("q", ("other", 4)), fg.input("q", (4,))):
        with pytest.raises(ShapeError, match=r"attention 'layer' of a query \(.*\) and keys \(batch, time, 6\)"):
            layer(query, keys)
    with pytest.raises(ShapeError, match=r"values \(batch, other, 3\) for keys \(batch, time, 6\)"):
        layer(fg.input("q", ("batch", 4)), keys, fg.input("values", ("batch", "other", 3)))
