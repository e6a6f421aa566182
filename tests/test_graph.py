"""G: shapes with named sizes, nodes and their origins, rewriting, the verifier, names and the text form."""

from __future__ import annotations

import contextlib
import operator
import os
import pydoc
import threading
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import flowgraph as fg
from flowgraph.errors import FlowgraphError, ShapeError, VerificationError
from flowgraph.graph.graph import Graph, clone, rewrite, substitute, topological, verify
from flowgraph.graph.names import identifier, names
from flowgraph.graph.order import stable_order
from flowgraph.graph.origin import Origin, SourceLine, at
from flowgraph.graph.size import (
    Dim,
    Size,
    as_size,
    evaluate,
    floor_divide,
    is_name,
    named,
    names_in,
    product,
    show_shape,
)
from flowgraph.graph.tensor import Node
from flowgraph.graph.text import to_text
from flowgraph.graph.types import TensorType, as_dtype, boolean, float32
from flowgraph.ops.functions import Tanh
from tests.support.random_graphs import random_case

# Sizes: a ring, with floor division


VALUES = {"a": 6, "b": 4, "c": 1}
sizes = st.recursive(
    st.one_of(st.integers(-5, 9), st.sampled_from(["a", "b", "c"]).map(named)),
    lambda inner: st.tuples(st.sampled_from("+-*"), inner, inner).map(
        lambda t: t[1] + t[2] if t[0] == "+" else t[1] - t[2] if t[0] == "-" else t[1] * t[2]
    ),
    max_leaves=6,
)


@given(sizes, sizes, sizes)
def test_sizes_are_a_commutative_ring(p: Size, q: Size, r: Size) -> None:
    assert p + q == q + p and p * q == q * p
    assert (p + q) + r == p + (q + r) and (p * q) * r == p * (q * r)
    assert p * (q + r) == p * q + p * r
    assert p + 0 == p and p * 1 == p and p * 0 == 0 and p - p == 0


@given(sizes, sizes)
def test_a_size_evaluates_to_what_its_parts_evaluate_to(p: Size, q: Size) -> None:
    x, y = evaluate(p, VALUES), evaluate(q, VALUES)
    assert evaluate(p + q, VALUES) == x + y
    assert evaluate(p * q, VALUES) == x * y
    assert evaluate(p - q, VALUES) == x - y
    if y and q != 0:
        assert evaluate(floor_divide(p, q), VALUES) == x // y


@given(sizes, sizes)
def test_equal_sizes_hash_alike_and_print_alike(p: Size, q: Size) -> None:
    one, two = p * q + p, p * (q + 1)
    assert one == two and hash(one) == hash(two) and str(one) == str(two)


@given(sizes)
def test_a_size_without_names_is_an_int(p: Size) -> None:
    assert isinstance(p, int) == (not names_in(p))


def test_exact_division_leaves_no_trace_of_itself() -> None:
    batch = named("batch")
    assert floor_divide(batch * 6 + 12, 3) == batch * 2 + 4
    assert floor_divide(batch * 7, batch * 7) == 1
    assert evaluate(floor_divide(batch + 1, 2), {"batch": 4}) == 2
    assert names_in(floor_divide(batch, named("stride"))) == {"batch", "stride"}


def test_sizes_read_like_formulas() -> None:
    batch, time = named("batch"), named("time")
    assert str(batch * time * 2 + 3) == "2·batch·time + 3"
    assert show_shape((batch, 64)) == "(batch, 64)" and show_shape((5,)) == "(5,)" and show_shape(()) == "()"
    assert is_name(batch) == "batch" and is_name(batch * 2) is None and is_name(3) is None
    assert product([batch, 2, time]) == batch * time * 2


@pytest.mark.parametrize("wrong", [-1, 2.5, None, True, "two words", ""])
def test_what_is_no_size_is_refused(wrong: object) -> None:
    with pytest.raises(ShapeError):
        as_size(wrong)


def test_numpy_integers_are_sizes() -> None:
    assert as_size(np.int64(3)) == 3 and isinstance(as_size(np.int64(3)), int)
    assert isinstance(as_size("batch"), Dim)


# Types


def test_dtypes_are_taken_by_name_and_from_numpy() -> None:
    assert as_dtype("float32") is as_dtype(np.float32) is as_dtype(np.dtype("f4")) is float32
    for wrong in ("float16", "complex64", object, "no such thing"):
        with pytest.raises(FlowgraphError, match="is not supported"):
            as_dtype(wrong)


# Nodes and origins


def test_a_node_remembers_the_users_line_not_the_librarys() -> None:
    h = fg.tanh(fg.input("x", (3,)))
    (line,) = h.origin.lines
    assert line.file == __file__ and line.code == 'h = fg.tanh(fg.input("x", (3,)))'


@pytest.mark.parametrize("between", [contextlib.__file__, np.__file__, os.__file__, "<frozen importlib._bootstrap>"])
def test_lines_between_the_users_and_the_library_are_nobodys(between: str) -> None:
    def outer() -> fg.Tensor:
        return made_in(between)()

    first = outer.__code__.co_firstlineno
    assert outer().origin.lines == (SourceLine(__file__, first + 1),)


def test_a_package_that_was_installed_is_the_users_too() -> None:
    installed = os.path.join(os.path.dirname(os.__file__), "site-packages", "theirs", "model.py")
    for file in (installed, "/home/me/.venv/lib/python3/site-packages/mine.py", "<string>", "<ipython-input-1>"):
        assert made_in(file)().origin.lines == (SourceLine(file, 1),)


def test_where_no_line_is_the_users_the_one_that_called_the_library_is_named() -> None:
    found: list[fg.Tensor] = []
    make = compile("append(input('x', (3,)))", threading.__file__, "exec")
    thread = threading.Thread(target=exec, args=(make, {"append": found.append, "input": fg.input}))
    thread.start()
    thread.join()
    assert found[0].origin.lines == (SourceLine(threading.__file__, 1),)


def made_in(file: str) -> Callable[[], fg.Tensor]:
    """A function whose line is in this file."""
    return eval(compile("lambda: input('x', (3,))", file, "eval"), {"input": fg.input})


def test_name_scopes_nest_and_name_parameters() -> None:
    with fg.scope("encoder"), fg.scope("first"):
        w = fg.parameter("w", (3,))
    assert w.op.label == "encoder/first/w" and w.origin.scope == "encoder/first"
    assert fg.parameter("w", (3,)).op.label == "w"


def test_merged_origins_keep_every_line_once_and_in_order() -> None:
    lines = [SourceLine("model.py", k) for k in range(4)]
    one, two = Origin((lines[0], lines[1]), "s", ("a",)), Origin((lines[1], lines[2]), "t", ("b", "a"))
    assert one.merge(two) == Origin((lines[0], lines[1], lines[2]), "s", ("a", "b"))
    assert one.by("a") is one and one.by("c").passes == ("a", "c")


def test_an_origin_that_was_set_ends_with_its_block() -> None:
    given_origin = Origin((SourceLine("notes.fg", 3, text="A = tanh(Z)"),))
    x = fg.input("x", (3,))
    with at(given_origin):
        inside = fg.tanh(x)
    assert inside.origin == given_origin and str(inside.origin) == "notes.fg:3: A = tanh(Z)"
    assert fg.tanh(x).origin.lines[0].file == __file__


def test_tensors_compare_by_identity_and_have_no_truth_value() -> None:
    x, y = fg.input("x", (3,)), fg.input("x", (3,))
    assert x != y and len({x, y, x}) == 2
    with pytest.raises(FlowgraphError, match="no truth value"):
        bool(x > 0.0)
    with pytest.raises(FlowgraphError, match="cannot be iterated"):
        list(x)


def test_numpy_arrays_and_numbers_meet_tensors_on_either_side() -> None:
    x = fg.input("x", (2,))
    array = np.array([1.0, 2.0], np.float32)
    for made in (array * x, x * array, 2 * x, x * 2, 1 - x, x - 1, 1 / x, x / 2, -x, array + x):
        assert isinstance(made, fg.Tensor) and made.type == x.type
    number, matrix = np.float64(2.5), np.ones((3, 2), np.float32)
    for made in (number * x, number - x, array**x, array % x, array // x, np.multiply(array, x)):
        assert isinstance(made, fg.Tensor) and made.type == x.type
    for made in (number > x, array <= x, x < number):
        assert isinstance(made, fg.Tensor) and made.type == TensorType((2,), boolean)
    assert (matrix @ x).shape == np.matmul(matrix, x).shape == (3,)  # type: ignore[call-overload]


@pytest.mark.parametrize("sign", ["add", "sub", "mul", "truediv", "pow", "floordiv", "mod", "lt", "ge", "matmul"])
def test_what_stands_left_of_an_operator_is_its_first_operand(sign: str) -> None:
    x, function = fg.input("x", (2,)), getattr(operator, sign)
    array, fed = np.array([5.0, 2.0], np.float32), np.array([2.0, 3.0], np.float32)
    number = np.float32(7.0)
    pairs = [(array, x), (x, array)] + ([(number, x), (x, number)] if sign != "matmul" else [])
    made = fg.compile(outputs=[function(*pair) for pair in pairs], device="reference")(x=fed)
    for (left, right), value in zip(pairs, made, strict=True):
        by_hand = function(fed if left is x else left, fed if right is x else right)
        np.testing.assert_allclose(value, by_hand, rtol=1e-6)


def test_operators_say_what_they_are() -> None:
    page = pydoc.plain(pydoc.render_doc(fg.Tensor))
    for line in ("__rsub__(self, other)", "other - self, which is fg.subtract", "__abs__(self)", "with its scope"):
        assert line in page
    assert "lambda" not in page


# Graphs


def test_nodes_come_after_what_they_read() -> None:
    for seed in range(50):
        graph = random_case(seed).graph
        seen: set[Node] = set()
        for node in graph.nodes():
            assert all(t.node in seen for t in node.inputs)
            seen.add(node)
        assert {t.node for t in graph.roots} <= seen
        assert graph.nodes() == graph.nodes()


def test_a_list_of_nodes_may_be_changed_by_who_asked_for_it() -> None:
    graph = Graph((fg.tanh(fg.input("x", (3,))),))
    graph.nodes().clear()
    assert len(graph.nodes()) == 2


def test_consumers_count_every_use() -> None:
    x = fg.input("x", (3,))
    square = x * x
    readers = Graph((square,)).consumers()
    assert readers[x] == [square.node, square.node] and readers[square] == []


def test_the_walk_stops_at_what_is_given() -> None:
    x = fg.input("x", (3,))
    h = fg.tanh(x)
    assert [n.op.name for n in topological([fg.exp(h)], {h})] == ["exp"]


def test_a_rewrite_replaces_bottom_up_and_keeps_what_it_need_not_touch() -> None:
    x, y = fg.input("x", (3,)), fg.input("y", (3,))
    left, right = fg.tanh(x), fg.exp(y)
    graph = Graph((left + right,), ((fg.parameter("w", (3,)), left),))
    after = rewrite(
        graph, lambda node, inputs: (fg.relu(*inputs),) if isinstance(node.op, Tanh) else None, "swap"
    )
    assert [n.op.name for n in after.nodes()].count("relu") == 1
    assert right in {t for n in after.nodes() for t in n.outputs}
    new_left = after.outputs[0].node.inputs[0]
    assert after.updates == ((graph.updates[0][0], new_left),)
    assert new_left.origin.passes == ("swap",) and new_left.origin.lines == left.origin.lines


def test_a_label_survives_a_rewrite() -> None:
    h = fg.tanh(fg.input("x", (3,))).named("hidden")
    after = rewrite(
        Graph((h,)), lambda node, inputs: (fg.exp(*inputs),) if isinstance(node.op, Tanh) else None, "swap"
    )
    assert after.outputs[0].label == "hidden"


def test_a_substituted_tensor_is_read_from_its_replacement() -> None:
    x, other = fg.input("x", (3,)), fg.input("other", (3,))
    h = fg.tanh(x)
    after = substitute(Graph((fg.exp(h) + h,)), {h: other})
    assert [n.op.name for n in after.nodes()] == ["input", "exp", "add"]


def test_a_deep_graph_is_walked_and_rewritten_without_recursion() -> None:
    h = fg.input("x", ())
    for _ in range(5000):
        h = fg.tanh(h)
    graph = Graph((h,))
    assert len(verify(graph).nodes()) == 5001
    assert substitute(graph, {}) is graph


# The verifier


def forged(node: Node, type_: TensorType | None = None, origin: Origin | None = None) -> Graph:
    (copy,) = clone(node, node.inputs)
    if type_ is not None:
        copy.type = type_
    if origin is not None:
        copy.node.origin = origin
    return Graph((copy,))


def test_the_verifier_finds_wrong_types_missing_origins_and_wrong_updates() -> None:
    x = fg.input("x", (3,))
    h = fg.tanh(x)
    assert verify(Graph((h,)))
    with pytest.raises(VerificationError, match="after fold: tanh: inferred"):
        verify(forged(h.node, type_=TensorType((4,))), "fold")
    with pytest.raises(VerificationError, match="has no origin"):
        verify(forged(h.node, origin=Origin()))
    with pytest.raises(VerificationError, match="update of w"):
        verify(Graph((), ((fg.parameter("w", (4,)), h),)))


# Names and text


@given(st.text())
def test_every_text_becomes_an_identifier(text: str) -> None:
    assert identifier(text).isidentifier() and identifier(text).isascii()


@given(st.lists(st.sampled_from(["x", "x_1", "x 1", "x_1_1", "", "1", "lambda", "x_2"]), max_size=8))
def test_names_in_a_graph_are_unique_identifiers(labels: list[str]) -> None:
    tensors = [fg.input("same", (3,)).named(label) for label in labels] + [fg.input("same", (3,))]
    found = names(Graph(tuple(fg.tanh(t) for t in tensors)))
    assert len(set(found.values())) == len(found)
    assert all(name.isidentifier() for name in found.values())


def test_a_tensor_is_called_what_the_user_assigned_it_to() -> None:
    x = fg.input("x", ("batch", 3))
    hidden = fg.tanh(x)
    text = to_text(Graph((hidden,)))
    assert "hidden = tanh(x)" in text and "float32(batch, 3)" in text and "test_graph.py:" in text
    assert text.splitlines()[-1] == "return hidden"


def test_updates_are_printed_as_updates() -> None:
    w = fg.parameter("w", (3,))
    assert "update w <- " in to_text(Graph((), ((w, w * 0.5),)))


def test_a_graph_can_be_handed_to_networkx() -> None:
    import networkx

    x, w = fg.input("x", ("batch", 3)), fg.parameter("w", (3, 3))
    h = fg.tanh(x @ w)
    exported = Graph((h * h,)).to_networkx()
    assert [exported.nodes[k]["op"] for k in networkx.topological_sort(exported)][-2:] == ["tanh", "multiply"]
    assert exported.number_of_edges(3, 4) == 2, "both operands of h * h"
    assert networkx.dag_longest_path_length(exported) == 3
    assert "test_graph.py" in exported.nodes[3]["lines"][0]


def test_what_waits_comes_later_and_the_rest_keeps_its_order() -> None:
    assert stable_order([{2}, set(), set(), {0}]) == [1, 2, 0, 3]
    assert stable_order([]) == []
    with pytest.raises(VerificationError, match="wait for one another"):
        stable_order([{1}, {0}, set()])
