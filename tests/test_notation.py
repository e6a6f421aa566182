"""The lecture's notation: what it means, where its nodes come from, and how it fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import flowgraph as fg
from flowgraph.errors import FlowgraphError, ParseError
from flowgraph.graph.graph import Graph
from flowgraph.graph.text import to_text
from flowgraph.notation import parse, parse_file
from flowgraph.notation.vocabulary import vocabulary
from flowgraph.ops import Op

# The two listings of the lecture, character for character.
SHARED = """Inputs: X,W1,B1,W2,B2
Z1a = mul(X,W1)        //\tmatrix\tmult
Z1b = add*(Z1a,B1)      //\tadd\tbias\tvec
A1 = tanh(Z1b)            //element-wise
Z2a = mul(A1,W2)\x20
Z2b = add*(Z2a,B2)\x20
A2 = tanh(Z2b)           //\telement-wise
P = softMax(A2)         //\tvec to\tvec
"""
APART = SHARED + "C = crossEntY(P)        //\tcost\tfunction\n"
TOGETHER = SHARED + "C = crossEntOfSoftMaxY(A2)\n"
SHAPES = {"X": ("batch", 64), "W1": (64, 32), "B1": (32,), "W2": (32, 10), "B2": (10,), "Y": ("batch",)}
EXAMPLES = Path(__file__).parents[1] / "examples" / "lecture"


def structure(tensors: dict[str, fg.Tensor], root: str = "C") -> str:
    return to_text(Graph((tensors[root],)), lines=False)


def in_python(cost: str) -> dict[str, fg.Tensor]:
    x, y = fg.input("X", ("batch", 64)), fg.input("Y", ("batch",), "int32")
    w1, b1 = fg.parameter("W1", (64, 32)), fg.parameter("B1", (32,))
    w2, b2 = fg.parameter("W2", (32, 10)), fg.parameter("B2", (10,))
    z1a = fg.mul(x, w1).named("Z1a")
    z1b = fg.add_bias(z1a, b1).named("Z1b")
    a1 = fg.tanh(z1b).named("A1")
    z2a = fg.mul(a1, w2).named("Z2a")
    z2b = fg.add_bias(z2a, b2).named("Z2b")
    a2 = fg.tanh(z2b).named("A2")
    p = fg.softmax(a2).named("P")
    c = fg.cross_ent(p, y) if cost == "apart" else fg.cross_ent_of_softmax(a2, y)
    return {"C": c.named("C")}


@pytest.mark.parametrize(("text", "cost"), [(APART, "apart"), (TOGETHER, "together")])
def test_a_listing_of_the_lecture_means_the_same_graph_as_python(text: str, cost: str) -> None:
    assert structure(parse(text, SHAPES)) == structure(in_python(cost))


@pytest.mark.parametrize(
    ("name", "text"), [("softmax_then_cross_ent", APART), ("cross_ent_of_softmax", TOGETHER)]
)
def test_the_example_files_hold_the_listings_verbatim(name: str, text: str) -> None:
    path = EXAMPLES / f"{name}.fg"
    assert text in path.read_text(encoding="utf-8")
    assert structure(parse_file(path)) == structure(parse(text, SHAPES))


def test_every_name_is_returned_in_the_order_of_the_text() -> None:
    names = list(parse(APART, SHAPES))
    assert names == ["X", "W1", "B1", "W2", "B2", "Z1a", "Z1b", "A1", "Z2a", "Z2b", "A2", "P", "Y", "C"]


def test_a_named_size_makes_an_input_and_any_other_shape_a_parameter() -> None:
    tensors = parse(APART, SHAPES)
    kinds = {name: t.op.name for name, t in tensors.items() if not t.node.inputs}
    assert kinds == {"X": "input", "Y": "input"} | dict.fromkeys(("W1", "B1", "W2", "B2"), "parameter")


def test_matrices_are_drawn_from_glorot_uniform_and_vectors_are_zero() -> None:
    tensors = parse(APART, SHAPES)
    w, limit = tensors["W1"].op.storage.array, np.sqrt(6 / (64 + 32))
    assert not tensors["B1"].op.storage.array.any()
    assert np.abs(w).max() <= limit and np.isclose(w.std(), limit / np.sqrt(3), rtol=0.1)


def test_a_target_is_class_numbers_or_a_distribution_by_its_shape() -> None:
    assert str(parse(APART, SHAPES)["Y"].type) == "int32(batch,)"
    assert str(parse(APART, SHAPES | {"Y": ("batch", 10)})["Y"].type) == "float32(batch, 10)"


def test_a_target_may_be_written_out_as_an_argument() -> None:
    text = APART.replace("crossEntY(P)", "crossEnt(P,Y)").replace("W2,B2\n", "W2,B2,Y\n", 1)
    assert structure(parse(text, SHAPES)) == structure(parse(APART, SHAPES))


@pytest.mark.parametrize("spelling", ["softMax", "softmax", "soft_max", "SoftMax"])
def test_capitals_and_underscores_do_not_matter_in_the_name_of_an_op(spelling: str) -> None:
    text = TOGETHER.replace("softMax", spelling)
    assert parse(text, SHAPES)["P"].op.name == "softmax"


def test_calls_nest_and_arithmetic_has_its_usual_precedence() -> None:
    x = {"X": ("batch", 4), "W": (4, 4), "B": (4,)}
    nested = parse("Inputs: X,W,B\nA = tanh(add*(mul(X,W),B))", x)["A"]
    assert [n.op.name for n in Graph((nested,)).nodes() if n.inputs] == ["mul", "add_bias", "tanh"]
    value = parse("Inputs: X\nA = 1 - 2*X/(X + 3) - -X", {"X": ("batch", 4)})["A"]
    assert value.op.name == "subtract" and value.node.inputs[1].op.name == "negative"
    inner = value.node.inputs[0]
    assert inner.op.name == "subtract" and inner.node.inputs[1].op.name == "divide"


def test_a_star_after_a_value_is_a_product() -> None:
    tensors = parse("Inputs: X,Z\nA = Z*(X+Z)", {"X": ("batch", 4), "Z": ("batch", 4)})
    assert tensors["A"].op.name == "multiply"


def test_ops_take_numbers_tuples_sizes_and_keywords() -> None:
    tensors = parse(
        "Shapes: X(batch,4)\nInputs: X\nS = sum(X, axis=0)\nM = mean(X, axis=1, keepdims=true)\n"
        "T = transpose(X, (1,0))\nE = S / size(batch)\nD = cast(X, float64)",
    )
    shown = {name: str(t.type) for name, t in tensors.items()}
    assert shown == {
        "X": "float32(batch, 4)", "S": "float32(4,)", "M": "float32(batch, 1)", "T": "float32(4, batch)",
        "E": "float32(4,)", "D": "float64(batch, 4)",
    }  # fmt: skip


def test_every_op_with_a_meaning_can_be_called_by_both_of_its_names() -> None:
    known = vocabulary()
    for name, op in Op.registry.items():
        if op.meaning() != "leaf":
            assert known[name.replace("_", "")][1] is op
            if op.display[0].isalpha():
                assert known[op.display.replace("_", "").casefold()][1] is op


def test_every_node_knows_its_line_and_column() -> None:
    tensors = parse("Inputs: X,B\n\nA = tanh(add*(X,B))", {"X": ("batch", 4), "B": (4,)}, filename="a.fg")
    places = {n.op.name: n.origin.lines[0] for n in Graph((tensors["A"],)).nodes()}
    assert {name: (p.line, p.column) for name, p in places.items()} == {
        "input": (1, 9), "parameter": (1, 11), "add_bias": (3, 10), "tanh": (3, 5)
    }  # fmt: skip
    assert str(places["tanh"]) == "a.fg:3:5: A = tanh(add*(X,B))"


@pytest.mark.parametrize(
    ("statements", "problem", "place", "advice"),
    [
        ("A = tnah(X)", "no op called `tnah`", "2:5", "did you mean tanh?"),
        ("A = crossEntOfSofMaxY(X)", "no op called `crossEntOfSofMaxY`", "2:5", "crossEntOfSoftMax"),
        ("A = tanh(Q)", "`Q` is not defined", "2:10", "define it first"),
        ("Total = sum(X)\nA = tanh(Totl)", "`Totl` is not defined", "3:10", "did you mean Total?"),
        ("A = tanh(A)", "cycle A -> A", "2:10", "break the cycle"),
        ("A = tanh(B)\nB = mul(X,A)", "cycle A -> B -> A", "2:10", "break the cycle"),
        ("A = tanh(B)\nB = tanh(C)\nC = X + A", "cycle A -> B -> C -> A", "2:10", "break the cycle"),
        ("A = tanh(B)\nB = tanh(X)", "used before it is defined in line 3", "2:10", "move its definition up"),
        ("A = tanh(X)\nA = exp(X)", "`A` is defined twice: first in line 2", "3:1", "its own name"),
        ("X = tanh(X)", "`X` is defined twice: first in line 1", "2:1", "its own name"),
        ("A = mul(X)", "mul: missing a required argument: 'y'", "2:5", "mul takes (x, y)"),
        ("A = tanh(X,X)", "tanh: too many positional arguments", "2:5", "tanh takes (x)"),
        ("A = mul(X,3)", "mul needs a tensor for `y`, got 3", "2:5", "mul takes (x, y)"),
        ("A = sum(X,axis=X)", "sum needs whole numbers for `axis`", "2:5", "sum takes (x, axis, keepdims)"),
        ("A = sum(X,axis=1.5)", "sum needs whole numbers for `axis`", "2:5", "sum takes (x, axis, keepdims)"),
        ("A = tanh(X", "expected `)`, found `end of line`", "2:11", ""),
        ("A = tanh(X))", "unexpected `)`", "2:12", "one statement a line"),
        ("A tanh(X)", "expected `=`, found `tanh`", "2:3", "A = op(B,C)"),
        ("A = ", "expected a value, found `end of line`", "2:4", "a call such as tanh(Z)"),
        ("A = 1", "`A` is not a tensor", "2:5", "computed from inputs"),
        ("A = 1e999*X", "the number 1e999 is too large", "2:5", ""),
        ("Outputs: A", "unknown header `Outputs:`", "2:1", "`Inputs:` and `Shapes:`"),
        ("Shapes: Q(batch)", "`Q`, which is no input", "2:9", "`Inputs:` line"),
        ("Shapes: X(-1)", "expected a size, found `-`", "2:11", "a size is a whole number or a name"),
        ("A = crossEntY(X)", "the target `Y`, which has no shape", "2:5", "Y(batch) for class numbers"),
        ('A = tanh(x"); import os #', "unexpected character '\"'", "2:11", "comments after //"),
        ("A = " + "(" * 5000, "nested too deeply", "2:105", "names of their own"),
        ("A = X" + "+X" * 5000, "nested too deeply", "2:203", "names of their own"),
    ],
)  # fmt: skip
def test_an_error_says_what_where_and_what_to_do(
    statements: str, problem: str, place: str, advice: str
) -> None:
    with pytest.raises(ParseError) as caught:
        parse("Inputs: X\n" + statements, {"X": ("batch", 4)}, filename="model.fg")
    message = str(caught.value)
    assert problem in message and f"at model.fg:{place}" in message and advice in message
    line = statements.splitlines()[int(place.split(":")[0]) - 2]
    assert line.strip()[:60] in message


def test_missing_shapes_are_all_named() -> None:
    with pytest.raises(ParseError, match="no shape is given for W1, B2"):
        parse(APART, {k: v for k, v in SHAPES.items() if k not in ("W1", "B2")})


def test_an_error_of_an_op_names_the_line_of_the_text() -> None:
    with pytest.raises(fg.ShapeError) as caught:
        parse(APART, SHAPES | {"W1": (63, 32)}, filename="net.fg")
    assert "at net.fg:2:7: Z1a = mul(X,W1)" in str(caught.value)
    assert "(batch, 64)" in str(caught.value) and "(63, 32)" in str(caught.value)


def test_a_file_that_is_not_text_is_a_parse_error(tmp_path: Path) -> None:
    (tmp_path / "x.fg").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ParseError, match="not UTF-8"):
        parse_file(tmp_path / "x.fg")


_WORDS = [*"XYA=(),-*/1:\n²\t", '"', "//", "0.5", "add*", "tanh", "sum", "crossEntY", "transpose", "one_hot",
          "Inputs", "Shapes", "batch", "axis"]  # fmt: skip


@given(st.lists(st.sampled_from(_WORDS), max_size=25).map(" ".join) | st.text(max_size=60))
def test_any_text_gives_tensors_or_an_error_of_ours(text: str) -> None:
    try:
        tensors = parse("Inputs: X\n" + text, {"X": ("batch", 4)})
    except FlowgraphError as error:
        assert error.where is not None
    else:
        assert all(isinstance(t, fg.Tensor) for t in tensors.values())


def test_activations_dropout_and_reductions_have_the_lectures_spelling() -> None:
    text = """
    Shapes: X(batch,4), W(4,3)
    Inputs: X,W
    A = dropOut(leakyReLU(mul(X,W), slope=0.2), 0.25)
    B = logSoftMax(softPlus(A))
    K = argMax(B, axis=1)
    C = mean(abs(softSign(B)))
    """
    found = fg.parse(text)
    names = [n.op.display for n in Graph((found["C"], found["K"])).nodes()]
    wanted = ("dropOut", "leakyReLU", "softPlus", "logSoftMax", "argMax", "abs", "softSign")
    assert all(name in names for name in wanted)
    (drop,) = (n.op for n in Graph((found["C"],)).nodes() if n.op.display == "dropOut")
    assert drop.rate == 0.25


def test_a_tensor_is_no_rate() -> None:
    with pytest.raises(ParseError, match="dropOut needs a number for `rate`"):
        fg.parse("Shapes: X(3), Y(3)\nInputs: X,Y\nA = dropOut(X, Y)")


def test_a_file_that_is_not_there_is_named_with_the_line_that_asked_for_it() -> None:
    with pytest.raises(ParseError, match=r"nowhere\.fg: No such file") as caught:
        fg.parse_file("nowhere.fg")
    assert "test_notation.py" in str(caught.value) and "it is looked for in" in str(caught.value)
