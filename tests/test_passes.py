"""Passes: each keeps the meaning, says what it did, does it once; the laws of algebra hold for NaN and
infinity too.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import flowgraph as fg
from flowgraph.errors import VerificationError
from flowgraph.graph.graph import Graph, clone, substitute, verify
from flowgraph.ops.base import Op
from flowgraph.ops.leaf import Constant
from flowgraph.passes.algebra import simplify_algebra
from flowgraph.passes.cse import eliminate_common_subexpressions
from flowgraph.passes.expand import expand_composites
from flowgraph.passes.fold import fold_constants
from flowgraph.passes.one_hot import look_up_one_hot
from flowgraph.passes.pipeline import OPTIMISE, Pass, optimise, run_passes
from flowgraph.passes.sparse import sparse_updates
from flowgraph.passes.stabilise import stabilise
from tests.support.compare import Oracle, evaluate
from tests.support.random_graphs import random_case

CPU = optimise(blocks=True)
EACH = tuple(dict.fromkeys(CPU))
each_pass = pytest.mark.parametrize("function", EACH, ids=lambda f: f.__name__)


def ops(graph: Graph) -> list[str]:
    return [n.op.name for n in graph.nodes()]


# Properties of every pass


@each_pass
def test_a_pass_keeps_the_meaning_of_any_graph(function: Pass) -> None:
    for seed in range(150):
        case = random_case(seed)
        after = verify(function(case.graph), function.__name__)
        assert [t.type for t in after.roots] == [t.type for t in case.graph.roots]
        problem = Oracle(case.graph, case.feeds, case.sizes).mismatch(evaluate(after, case.feeds, case.sizes))
        assert not problem, f"seed {seed}: {problem}"


@each_pass
def test_a_pass_keeps_the_meaning_of_what_the_passes_before_it_made(function: Pass) -> None:
    for seed in range(60):
        case = random_case(seed)
        before, _ = run_passes(case.graph, CPU[: CPU.index(function)])
        problem = Oracle(before, case.feeds, case.sizes).mismatch(
            evaluate(function(before), case.feeds, case.sizes)
        )
        assert not problem, f"seed {seed}: {problem}"


@pytest.mark.parametrize(
    "function",
    [fold_constants, simplify_algebra, eliminate_common_subexpressions, expand_composites],
    ids=lambda f: f.__name__,
)
def test_a_second_run_finds_nothing_to_do(function: Pass) -> None:
    for seed in range(150):
        once = function(random_case(seed).graph)
        assert function(once) is once, f"seed {seed}"


@each_pass
def test_a_pass_does_not_change_the_graph_it_is_given(function: Pass) -> None:
    for seed in range(40):
        graph = random_case(seed).graph
        before = [(n, n.op, n.inputs, n.origin) for n in graph.nodes()]
        function(graph)
        assert [(n, n.op, n.inputs, n.origin) for n in Graph(graph.outputs, graph.updates).nodes()] == before


def test_every_node_made_by_a_pass_names_a_line_of_the_user() -> None:
    for seed in range(60):
        after, _ = run_passes(random_case(seed).graph, OPTIMISE)
        for node in after.nodes():
            assert node.origin.lines, node


def test_the_observer_records_each_pass_with_time_nodes_and_both_texts() -> None:
    x = fg.input("x", ("batch", 3))
    graph = Graph((fg.mean(fg.softmax(x + 0.0)),))
    after, records = run_passes(graph, OPTIMISE, check=True)
    assert [r.name for r in records] == [f.__name__ for f in OPTIMISE]
    assert records[0].before is graph and records[-1].after is after
    assert all(a.after is b.before for a, b in pairwise(records))
    for record in records:
        assert record.seconds >= 0
        assert record.nodes_before == len(record.before.nodes()) and record.nodes_after == len(
            record.after.nodes()
        )
        assert record.changed == (record.after is not record.before)
        assert ("(unchanged)" in str(record)) == (not record.changed)
    expanded = next(r for r in records if r.name == "expand_composites")
    before, _, behind = expanded.text().partition("== after expand_composites")
    assert "softMax" in before and "softMax" not in behind and "exp(" in behind


def test_the_verifier_names_the_pass_that_broke_a_graph() -> None:
    def forgets_types(graph: Graph) -> Graph:
        node = graph.outputs[0].node
        (broken,) = clone(node, [fg.input("other", (7,))])
        broken.type = graph.outputs[0].type
        return graph.with_roots([broken])

    with pytest.raises(VerificationError, match=r"after forgets_types: tanh"):
        run_passes(Graph((fg.tanh(fg.input("x", (3,))),)), [forgets_types], check=True)


# Folding


def test_what_depends_on_constants_alone_is_computed_once() -> None:
    a, b = fg.constant([1.0, 2.0]), fg.constant([3.0, 5.0])
    folded = fold_constants(Graph((fg.sum(a * b + 1.0),)))
    (node,) = folded.nodes()
    assert isinstance(node.op, Constant) and node.op.array == np.float32(15)


def test_a_broadcast_scalar_is_folded_as_a_scalar_whatever_its_shape() -> None:
    x = fg.input("x", ("batch", 3))
    half = fg.broadcast_to(fg.constant(1.0), x.shape) / 2.0
    folded = fold_constants(Graph((x * half,)))
    assert ops(folded).count("constant") == 1 and "divide" not in ops(folded)
    np.testing.assert_array_equal(
        evaluate(folded, {x: np.ones((2, 3), np.float32)}, {"batch": 2})[0], np.full((2, 3), 0.5)
    )


def test_an_array_without_elements_of_a_named_size_is_not_folded() -> None:
    x = fg.input("x", (0, "k"))
    (result,) = fg.compile(outputs=x * 2.0 + 1.0, device="cpu")(x=np.zeros((0, 5), np.float32))
    assert result.shape == (0, 5)


def test_folding_does_not_make_large_arrays_of_small_constants() -> None:
    big = fg.broadcast_to(fg.constant(2.0), (1000, 1000))
    assert fold_constants(Graph((fg.exp(big),))).nodes()[0].outputs[0].type.count == 1
    assert ops(fold_constants(Graph((fg.exp(fg.arange(5000, "float32")),)))) == ["arange", "exp"]


# Common subexpressions


def test_equal_computations_become_one_that_remembers_every_line() -> None:
    x = fg.input("x", (3,))
    a = fg.tanh(x)
    b = fg.tanh(x)
    merged = eliminate_common_subexpressions(Graph((a, b)))
    assert merged.outputs[0] is merged.outputs[1]
    lines = {line.code for line in merged.outputs[0].origin.lines}
    assert lines == {"a = fg.tanh(x)", "b = fg.tanh(x)"}
    assert len(a.origin.lines) == 1  # the declared graph keeps its own story


def test_inputs_and_parameters_are_never_merged() -> None:
    inputs = [fg.input("x", (3,)), fg.input("x", (3,))]
    parameters = [fg.parameter("w", (3,)), fg.parameter("w", (3,))]
    graph = Graph((inputs[0] + inputs[1], parameters[0] + parameters[1]))
    assert eliminate_common_subexpressions(graph) is graph


def test_equal_ops_on_other_operands_or_with_other_attributes_stay_apart() -> None:
    x, y = fg.input("x", (3, 3)), fg.input("y", (3, 3))
    graph = Graph((x - y, y - x, fg.sum(x, 0), fg.sum(x, 1), fg.constant(0.0) + x, fg.constant(-0.0) + x))
    assert len(set(eliminate_common_subexpressions(graph).outputs)) == 6


# Algebra


SPECIAL = np.array([0.0, -0.0, 1.5, -2.0, np.inf, -np.inf, np.nan, 1e-40, 3e38], np.float32)
LAWS: dict[str, Callable[[fg.Tensor], fg.Tensor]] = {
    "x - 0": lambda x: x - 0.0,
    "x * 1": lambda x: x * 1.0,
    "1 * x": lambda x: 1.0 * x,
    "x / 1": lambda x: x / 1.0,
    "-(-x)": lambda x: fg.negative(fg.negative(x)),
    "x * -1": lambda x: x * -1.0,
    "x + (-x)": lambda x: x + (-x),
    "x - (-x)": lambda x: x - (-x),
    "0 * x": lambda x: 0.0 * x,
    "x - x": lambda x: x - x,
    "x / x": lambda x: x / x,
    "x * 0 + 1": lambda x: x * 0.0 + 1.0,
}


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_algebra_holds_for_nan_infinity_and_the_sign_of_zero(law: Callable[[fg.Tensor], fg.Tensor]) -> None:
    x = fg.input("x", (len(SPECIAL),))
    graph = Graph((law(x),))
    (before,), (after,) = (evaluate(g, {x: SPECIAL}, {}) for g in (graph, simplify_algebra(graph)))
    np.testing.assert_array_equal(before, after)
    known = ~np.isnan(before)  # the sign of a NaN means nothing
    np.testing.assert_array_equal(np.signbit(before)[known], np.signbit(after)[known])


def test_adding_zero_is_left_out() -> None:
    x = fg.input("x", (3,))
    for same in (x + 0.0, 0.0 + x, x - 0.0, x * 1.0, 1.0 * x, x / 1.0, fg.negative(-x)):
        assert simplify_algebra(Graph((same,))).outputs == (x,)


@pytest.mark.parametrize("n", [1, 3, 29])
def test_a_product_with_a_reciprocal_size_is_one_division(n: int) -> None:
    x = fg.input("x", ("batch", 3))
    graph = simplify_algebra(Graph((x * (1.0 / fg.size_of("batch")),)))
    assert ops(graph).count("divide") == 1 and "multiply" not in ops(graph)
    data = np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)
    np.testing.assert_array_equal(evaluate(graph, {x: data}, {"batch": n})[0], data / np.float32(n))


@given(st.permutations(range(3)), st.permutations(range(3)))
def test_two_transposes_are_one_or_none(first: list[int], second: list[int]) -> None:
    x = fg.input("x", (2, 3, 5))
    graph = Graph((fg.transpose(fg.transpose(x, first), second),))
    after = simplify_algebra(graph)
    assert ops(after).count("transpose") <= 1
    data = np.arange(30, dtype=np.float32).reshape(2, 3, 5)
    np.testing.assert_array_equal(evaluate(after, {x: data}, {})[0], data.transpose(first).transpose(second))


# Composites, stability, sparse updates


def test_composites_expand_until_every_op_has_a_body_of_its_own() -> None:
    x, y = fg.input("x", ("batch", 4)), fg.input("y", ("batch",), "int32")
    graph = expand_composites(Graph((fg.mean(fg.cross_ent_of_softmax(x, y)), fg.softmax(x))))
    assert {n.op.meaning() for n in graph.nodes()} <= {"body", "leaf"}


def test_an_op_that_expands_to_itself_is_reported() -> None:
    from flowgraph.ops.classification import Softmax

    class Endless(Softmax):
        def expand(self, *inputs):
            return fg.tanh(self(*inputs))

    with pytest.raises(VerificationError, match="softmax still expand after 8 levels"):
        expand_composites(Graph((Endless()(fg.input("x", (3,))),)))
    assert Op.registry["softmax"] is Softmax


def test_the_log_of_a_softmax_is_exact_where_the_softmax_underflows() -> None:
    x = fg.input("x", (2, 3))
    data = np.array([[1e4, -1e4, 0.0], [0.0, 1.0, 2.0]], np.float32)
    (found,) = evaluate(stabilise(Graph((fg.log(fg.softmax(x)),))), {x: data}, {})
    np.testing.assert_allclose(found[0], [0, -2e4, -1e4])
    np.testing.assert_allclose(np.exp(found[1]).sum(), 1, rtol=1e-6)


def test_a_product_with_one_hot_rows_is_a_lookup_and_its_gradient_a_scatter() -> None:
    w = fg.parameter("w", (7, 3), np.arange(21, dtype=np.float32).reshape(7, 3))
    for shape in (("n",), ("n", 4)):
        ids = fg.input("ids", shape, "int32")
        data = np.random.default_rng(0).integers(0, 7, (5, 4)[: len(shape)]).astype(np.int32)
        h = fg.one_hot(ids, 7) @ w
        assert [n.op.name for n in look_up_one_hot(Graph((h,))).nodes()] == ["parameter", "input", "gather"]
        found, dw = fg.compile(outputs=[h, fg.grad(fg.sum(h * h), w)], device="reference", check=True)(ids=data)
        np.testing.assert_array_equal(found, w.value[data])
        expected = np.zeros((7, 3), np.float32)
        np.add.at(expected, data, 2 * w.value[data])
        np.testing.assert_array_equal(dw, expected)
        assert "scatter_add" in ops(fg.compile(outputs=fg.grad(fg.sum(h * h), w), device="reference").graph)


def test_one_hot_rows_of_numbers_that_may_be_out_of_range_are_multiplied() -> None:
    ids, w = fg.input("ids", ("n",), "int32"), fg.parameter("w", (3, 2), fg.init.normal())
    graph = Graph((fg.one_hot(ids - 1, 3) @ w,))
    assert look_up_one_hot(graph) is graph
    found = fg.compile(outputs=graph.outputs, device="reference")(ids=np.array([0, 1], np.int32))[0]
    np.testing.assert_array_equal(found, [[0, 0], w.value[0]])  # no class, a row of zeros


def test_a_gradient_by_one_hot_rows_keeps_the_product() -> None:
    ids, w = fg.input("ids", ("n",), "int32"), fg.parameter("w", (3, 2), fg.init.normal())
    rows = fg.one_hot(ids, 3)
    program = fg.compile([ids], fg.grad(fg.sum(rows @ w), rows), device="reference")
    np.testing.assert_allclose(program(ids=np.array([1], np.int32))[0], [w.value.sum(1)], rtol=1e-6)


def test_the_update_of_a_table_touches_the_rows_that_were_read() -> None:
    table, ids = fg.parameter("table", (1000, 4)), fg.input("ids", ("batch",), "int32")
    cost = fg.sum(fg.tanh(fg.gather(table, ids)))
    graph = Graph((cost,), ((table, table - 0.1 * fg.grad(cost, table)),))
    after, _ = run_passes(graph, OPTIMISE, check=True)
    new = after.updates[0][1].node
    assert new.op.name == "scatter_add" and new.inputs[0] is table
    assert not [
        n
        for n in after.nodes()
        if n.op.name != "scatter_add" and n.outputs[0].shape == (1000, 4) and n.inputs
    ]


@pytest.mark.parametrize("clipped", [False, True])
def test_a_schedules_rate_goes_into_the_scatter_and_a_norms_factor_does_not(clipped: bool) -> None:
    """A norm is of rows that are summed where they are looked up twice; a rate depends on no row."""
    table, ids = fg.parameter("table", (2000, 4)), fg.input("ids", ("batch",), "int32")
    cost = fg.sum(fg.tanh(fg.gather(table, ids)))
    rule = fg.optim.SGD(fg.optim.Cosine(0.1, 100), clip_norm=1.0 if clipped else None)
    graph = Graph((cost,), tuple(rule.updates([table], [fg.grad(cost, table)]).items()))
    after, _ = run_passes(graph, OPTIMISE, check=True)
    assert dict(after.updates)[table].op.name == "scatter_add"
    assert any(n.op.name == "first_equal" for n in after.nodes()) == clipped


def test_integer_tables_are_updated_by_whole_numbers() -> None:
    counts, ids = fg.parameter("counts", (5,), dtype="int32"), fg.input("ids", (3,), "int32")
    ones = fg.constant(np.ones(3, np.int32))
    zero = fg.constant(np.zeros(5, np.int32))
    graph = Graph((), ((counts, counts - 2 * fg.scatter_add(zero, ids, ones)),))
    after, _ = run_passes(graph, OPTIMISE, check=True)
    (found,) = evaluate(after, {ids: np.array([1, 1, 4], np.int32)}, {})
    np.testing.assert_array_equal(found, [0, -4, 0, 0, -2])


def test_an_infinite_factor_reaches_the_rows_that_were_not_read() -> None:
    table, ids = fg.parameter("table", (2,)), fg.input("ids", (1,), "int32")
    graph = Graph(
        (table - np.float32(np.inf) * fg.scatter_add(fg.constant([0.0, 0.0]), ids, fg.constant([1.0])),)
    )
    with np.errstate(invalid="ignore"):
        (found,) = evaluate(sparse_updates(graph), {ids: np.array([1], np.int32)}, {})
    assert np.isnan(found[0]) and found[1] == -np.inf  # inf * 0 is NaN, scattered or not


# Rewriting itself


def test_a_graph_that_no_rule_touches_is_the_same_object() -> None:
    graph = Graph((fg.tanh(fg.input("x", (3,))),))
    assert fold_constants(graph) is graph
    assert substitute(graph, {}) is graph
