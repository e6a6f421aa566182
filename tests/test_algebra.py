"""Every rule of algebra keeps the law it states, on special and on random values; what would not hold is not done."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.graph.graph import Graph, verify
from flowgraph.passes.algebra import RULES, Law, Rule, apply_rules, simplify_algebra
from flowgraph.passes.pipeline import OPTIMISE, run_passes
from tests.support.compare import evaluate

SPECIAL = np.array([0.0, -0.0, 1.5, -2.0, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 3e38], np.float32)
PAIRS = tuple(a.ravel() for a in np.meshgrid(SPECIAL, SPECIAL))
NUMBERS = np.random.default_rng(0).standard_normal((2, 400)).astype(np.float32) * np.float32(10)
X, Y = (np.concatenate([p, r]) for p, r in zip(PAIRS, NUMBERS, strict=True))
FLAGS = np.random.default_rng(1).random(X.size) < 0.5
ROUNDING = np.finfo(np.float32).eps

each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda r: r.text)


def both_sides(rule: Rule, scalar: float = 3.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The example as written, as this rule alone rewrites it, and in float64."""
    x, y, s, c = leaves = (
        fg.input("x", X.shape), fg.input("y", X.shape), fg.input("s", ()), fg.input("c", X.shape, "bool"),
    )  # fmt: skip
    feeds = dict(zip(leaves, (X, Y, np.float32(scalar), FLAGS), strict=True))
    graph = Graph((rule.example(x, y, s, c),))
    after = verify(apply_rules(graph, (rule,)), rule.text)
    assert after is not graph, "the rule does not match its own example"
    with np.errstate(all="ignore"):
        (left,), (right,) = (evaluate(g, feeds, {}) for g in (graph, after))
        wide = evaluate_wide(graph, feeds)
    return left, right, wide


def evaluate_wide(graph: Graph, feeds: dict[fg.Tensor, np.ndarray]) -> np.ndarray:
    """The graph's one output with every operation in float64."""
    values: dict[fg.Tensor, np.ndarray] = {}
    for node in graph.nodes():
        (tensor,) = node.outputs
        array = feeds[tensor] if tensor in feeds else node.op.reference(*(values[t] for t in node.inputs))
        values[tensor] = array.astype(np.float64) if array.dtype.kind == "f" else array
    return values[graph.outputs[0]]


@each_rule
def test_a_rule_keeps_its_law(rule: Rule) -> None:
    scalars = (3.0, 0.0, -0.0, np.inf, np.nan, 0.1) if rule.law is Law.ROUNDS_LESS else (3.0,)
    for scalar in scalars:
        left, right, wide = both_sides(rule, scalar)
        if rule.law is Law.ROUNDS_LESS:
            with np.errstate(over="ignore"):
                np.testing.assert_array_equal(right, wide.astype(np.float32))
            usual = np.isfinite(left) & np.isfinite(right) & (np.abs(right) > 1e-30)
            np.testing.assert_allclose(left[usual], right[usual], rtol=8 * ROUNDING)
        else:
            np.testing.assert_array_equal(left, right)
        if rule.law is Law.EXACT:
            known = ~np.isnan(left) if left.dtype.kind == "f" else np.ones(left.shape, bool)
            np.testing.assert_array_equal(np.signbit(left[known]), np.signbit(right[known]))


def test_the_table_states_each_law_once() -> None:
    texts = [rule.text for rule in RULES]
    assert len(set(texts)) == len(texts)


KEPT: dict[str, Callable[[fg.Tensor], fg.Tensor]] = {
    "0 * x": lambda x: 0.0 * x,
    "x - x": lambda x: x - x,
    "x / x": lambda x: x / x,
    "log(exp(x))": lambda x: fg.log(fg.exp(x)),
    "x / 3": lambda x: x / 3.0,
    "x / 2**-149": lambda x: x / 1e-45,
    "x - (-0)": lambda x: x - fg.constant(-0.0),
    "cast to int and back": lambda x: fg.cast(fg.cast(x, "int32"), "float32"),
}


@pytest.mark.parametrize("expression", KEPT.values(), ids=KEPT)
def test_what_fails_for_some_value_is_left_as_it_is(expression: Callable[[fg.Tensor], fg.Tensor]) -> None:
    graph = Graph((expression(fg.input("x", (3,))),))
    assert simplify_algebra(graph) is graph


def test_a_sum_over_a_named_axis_is_kept_since_the_axis_may_be_empty() -> None:
    x = fg.input("x", (3,))
    graph = Graph((fg.sum(fg.broadcast_to(x, ("batch", 3)), axis=0),))
    assert simplify_algebra(graph) is graph  # none of n infinities is 0, and 0 * inf is NaN


@pytest.mark.parametrize(
    ("source", "middle", "target", "left"),
    [
        ("int32", "int64", "int32", []),
        ("int32", "float64", "int32", []),
        ("bool", "float32", "int64", ["cast"]),
        ("float32", "float64", "int32", ["cast"]),
        ("int32", "float32", "int32", ["cast", "cast"]),
        ("float64", "float32", "float64", ["cast", "cast"]),
        ("int64", "int32", "int64", ["cast", "cast"]),
    ],
)
def test_a_chain_of_casts_is_shortened_where_the_middle_holds_every_value(
    source: str, middle: str, target: str, left: list[str]
) -> None:
    x = fg.input("x", (3,), source)
    graph = simplify_algebra(Graph((fg.cast(fg.cast(x, middle), target),)))
    assert [n.op.name for n in graph.nodes() if n.inputs] == left


def test_rules_apply_to_what_rules_make() -> None:
    x, y = fg.input("x", (3,)), fg.input("y", (3,))
    graph = simplify_algebra(Graph((fg.negative(fg.negative(-x) * 1.0) + -(-y - 0.0),)))
    assert [n.op.name for n in graph.nodes() if n.inputs] == ["subtract"]


def test_the_sign_of_a_gradient_is_part_of_its_factor() -> None:
    w = fg.parameter("w", (3,))
    graph, _ = run_passes(Graph((), ((w, w - 0.1 * fg.grad(fg.sum(-w * 3.0), w)),)), OPTIMISE)
    assert "negative" not in [n.op.name for n in graph.nodes()]
