"""Pictures: what is drawn and how it is told apart, in every format, whatever the user called things."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import xml.etree.ElementTree as ET
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import flowgraph as fg
from flowgraph.errors import FlowgraphError
from flowgraph.graph.graph import Graph
from flowgraph.graph.names import names
from flowgraph.graph.text import to_text
from flowgraph.graph.types import TensorType
from flowgraph.notation import parse
from flowgraph.ops import Op
from flowgraph.ops.scan import slot
from flowgraph.viz import Edge, Picture, Shown, Vertex, fold, from_graph, show, show_memory
from flowgraph.viz import svg as svg_room
from flowgraph.viz.dot import to_dot
from flowgraph.viz.mermaid import to_mermaid
from flowgraph.viz.naming import Names
from flowgraph.viz.svg import find_engine, to_svg

HOSTILE = [
    'x"); import os #',
    "</svg><script>alert(1)</script>",
    'a"]; end %% -->',
    "x\ny = 1",
    "`**&amp;#35;`",
    "\\",
    "\x00\x1b[31m",
    "\u202edrow",
    "A" * 5000,
    "<b>&</b>",
    "]]>",
    "'",
    "{a|b}",
    "🦉 ü",
]
SVG = "{http://www.w3.org/2000/svg}"

LISTING = """Inputs: X,W1,B1,W2,B2
Z1a = mul(X,W1)
Z1b = add*(Z1a,B1)
A1 = tanh(Z1b)
Z2a = mul(A1,W2)
Z2b = add*(Z2a,B2)
A2 = tanh(Z2b)
P = softMax(A2)
C = crossEntY(P)
"""
SHAPES = {"X": ("batch", 64), "W1": (64, 32), "B1": (32,), "W2": (32, 10), "B2": (10,), "Y": ("batch",)}


def network() -> tuple[dict[str, fg.Tensor], fg.Tensor]:
    tensors = parse(LISTING, SHAPES)
    return tensors, fg.mean(tensors["C"]).named("cost")


def step() -> fg.Program:
    tensors, cost = network()
    weights = [tensors[name] for name in ("W1", "B1", "W2", "B2")]
    updates = {w: w - 0.1 * dw for w, dw in zip(weights, fg.grad(cost, weights), strict=True)}
    return fg.compile(outputs=[cost], updates=updates, device="reference")


def labels(picture: Picture, **wanted: str) -> set[str]:
    """The labels of the vertices with these attributes."""
    return {v.label for v in picture.vertices if all(getattr(v, k) == value for k, value in wanted.items())}


def arrows(picture: Picture, kind: str = "flow") -> set[tuple[str, str]]:
    label = {v.id: v.label for v in picture.vertices}
    return {(label[e.source], label[e.target]) for e in picture.edges if e.kind == kind}


def texts(document: str) -> list[str]:
    """All text of an SVG but its tooltips; fails unless it is XML of nothing but shapes and text."""
    root = ET.fromstring(document)
    allowed = {SVG + tag for tag in ("svg", "title", "rect", "g", "ellipse", "text", "path", "polygon")}
    assert {e.tag for e in root.iter()} <= allowed
    assert not [a for e in root.iter() for a in e.attrib if a.startswith("on") or "href" in a]
    return [e.text or "" for e in root.iter(SVG + "text")]


# What is drawn


def test_the_listing_is_drawn_as_in_the_lecture() -> None:
    picture = from_graph(Graph((network()[0]["C"],)))
    assert [v.label for v in picture.vertices if v.is_data] == (
        ["X", "W1", "Z1a", "B1", "Z1b", "A1", "W2", "Z2a", "B2", "Z2b", "A2", "P", "Y", "C"]
    )
    assert {("X", "mul"), ("W1", "mul"), ("mul", "Z1a"), ("Z1a", "add*"), ("add*", "Z1b"), ("Z1b", "tanh"),
            ("softMax", "P"), ("P", "crossEnt"), ("Y", "crossEnt"), ("crossEnt", "C"),
            } <= arrows(picture)  # fmt: skip
    assert labels(picture, kind="input") == {"X", "Y"}
    assert labels(picture, kind="parameter") == {"W1", "B1", "W2", "B2"}
    assert labels(picture, kind="output") == {"C"}
    assert picture.phases == ("forward",)


def test_forward_backward_and_update_are_told_apart() -> None:
    picture = show(step()).picture
    assert picture.phases == ("forward", "backward", "update")
    assert {"X", "Z1b", "P", "cost", "crossEnt"} <= labels(picture, phase="forward")
    assert {"dA2", "dZ2b", "dW2", "dB2", "dA1", "dZ1b", "dW1", "dB1"} <= labels(picture, phase="backward")
    assert labels(picture, phase="update") == {f"{w} - 0.1*d{w}" for w in ("W1", "B1", "W2", "B2")}


def test_an_update_is_an_arrow_back_to_its_parameter() -> None:
    picture = show(step()).picture
    assert arrows(picture, "update") == {(f"{w} - 0.1*d{w}", w) for w in ("W1", "B1", "W2", "B2")}


def test_a_value_the_user_named_on_the_way_to_an_update_is_drawn() -> None:
    x, w, v = fg.input("x", ("batch", 4)), fg.parameter("w", (4, 4)), fg.parameter("v", (4, 4))
    cost = fg.mean(fg.tanh(x @ w))
    faster = 0.9 * v - 0.1 * fg.grad(cost, w)
    program = fg.compile(outputs=[cost], updates={v: faster, w: w + faster}, device="reference")
    picture = show(program).picture
    assert arrows(picture, "update") == {("faster", "v"), ("w + faster", "w")}
    assert {("0.9*v - 0.1*dw", "faster"), ("faster", "w + faster")} <= arrows(picture)


def test_phases_have_their_own_colours_and_clusters_in_every_format() -> None:
    shown = show(step())
    assert "subgraph cluster_forward" in shown.dot and "subgraph cluster_backward" in shown.dot
    assert "subgraph forward" in shown.mermaid and "subgraph backward" in shown.mermaid
    root = ET.fromstring(shown.svg)
    phases = {g.get("class", "").split()[-1] for g in root.iter(SVG + "g")}
    assert phases == {"forward", "backward", "update"}
    assert len({p.get("stroke") for p in root.iter(SVG + "path")}) == 3


def test_numbers_repetitions_and_transposes_are_written_into_the_boxes_that_read_them() -> None:
    picture = show(step()).picture
    written = {
        "mul(Xᵀ, dZ1b)",
        "mul(dZ2b, W2ᵀ)",
        "dA1*(1 - A1²)",
        "(softMax - one_hot)/batch",
        "W1 - 0.1*dW1",
    }
    assert written <= labels(picture, kind="op")
    assert not {"broadcast", "expand_dims", "transpose", "size"} & labels(picture)


def test_formulas_have_the_parentheses_they_need() -> None:
    x, y = fg.input("x", ("batch",)), fg.input("y", ("batch",))
    cases = {
        "x²*y": x * x * y,
        "(x - y)/(x - y/2)": (x - y) / (x - y / 2.0),
        "x - (y - 1)": x - (y - 1.0),
        "(-(x + 1))*y": -(x + 1.0) * y,
        "x/batch": x * (1.0 / fg.size_of("batch")),
    }
    for text, value in cases.items():
        assert text in labels(from_graph(Graph((value,))), kind="op")


def test_a_scope_in_a_name_is_no_division() -> None:
    layer = fg.nn.Dense("out", 1, 1)
    shown = str(show(fg.sum(layer.b / layer.w)))
    assert "(out/b)/(out/w)" in shown
    assert "(out/w)²" in str(show(fg.sum(layer.w * layer.w)))


def test_names_of_a_long_chain_are_found_in_linear_time() -> None:
    x = fg.input("x", (3,))
    for _ in range(3000):
        x = fg.tanh(x)
    found = fold.folded(Graph((x,)))
    called = Names(found)
    counted = _Counted()
    called._taken = counted
    assert len({called[t] for node in found.nodes() for t in node.outputs}) == 3001
    assert counted.asked < 10_000


class _Counted(set[str]):
    """Names that are taken; `asked` is how often somebody looked."""

    asked = 0

    def __contains__(self, name: object) -> bool:
        self.asked += 1
        return super().__contains__(name)


def test_detail_draws_every_node_and_every_value() -> None:
    graph = step().declared
    picture = from_graph(graph, detail=True)
    leaves = [n for n in graph.nodes() if not n.inputs and n.op.name != "size"]
    assert len([v for v in picture.vertices if not v.is_data]) == len(graph.nodes()) - len(leaves)
    assert len([v for v in picture.vertices if v.is_data]) == len(graph.nodes())
    reads = {(t.node, n) for n in graph.nodes() for t in n.inputs}
    writes = [n for n in graph.nodes() if n not in leaves]
    assert len(picture.edges) == len(reads) + len(writes) + len(graph.updates)


def test_what_is_not_drawn_loses_no_dependence() -> None:
    """Every input and parameter that a value depends on still reaches it along the arrows."""
    graph = step().declared
    picture = from_graph(graph)
    label = {v.id: v.label for v in picture.vertices}
    before: dict[str, set[str]] = {}
    for vertex in picture.vertices:  # producers first
        reads = {e.source for e in picture.edges if e.target == vertex.id and e.kind == "flow"}
        before[vertex.id] = reads.union(*(before[r] for r in reads), set())
    for node in graph.nodes():
        named = [t.label for t in node.outputs if t.label in label.values()]
        for name in named:
            drawn = {label[i] for v, ids in before.items() if label[v] == name for i in ids}
            wanted = {
                n.op.label for n in Graph(node.outputs).nodes() if n.op.name in ("input", "parameter")
            } - {name}
            assert wanted <= drawn, name


def test_a_tooltip_holds_the_users_line() -> None:
    picture = from_graph(Graph((parse(LISTING, SHAPES, filename="net.fg")["C"],)))
    tooltips = {v.label: v.tooltip for v in picture.vertices}
    assert tooltips["Z1b"] == "Z1b = add*(Z1a, B1)\nfloat32(batch, 32)\nnet.fg:3: Z1b = add*(Z1a,B1)"


def test_every_stage_of_a_program_can_be_drawn() -> None:
    program = step()
    assert show(program, stage="declared").picture.phases == ("forward",)
    for stage in ("declared", "backward", "optimised", "kernels"):
        assert "X" in texts(show(program, stage=stage).svg)
    with pytest.raises(fg.FlowgraphError, match="no stage 'fused'"):
        show(program, stage="fused")


def test_a_tensor_has_no_compiled_stages_and_no_misspelt_ones(tmp_path: Path) -> None:
    cost = network()[1]
    with pytest.raises(fg.FlowgraphError, match="only a compiled program has the stage 'kernels'") as caught:
        show(cost, tmp_path / "k.svg", stage="kernels")
    assert "fg.compile(" in str(caught.value) and not (tmp_path / "k.svg").exists()
    with pytest.raises(fg.FlowgraphError, match="did you mean 'kernels'"):
        show(cost, stage="kernal")
    assert labels(show(cost, stage="declared").picture, kind="output") == {"cost"}


def test_a_layer_is_drawn_by_what_it_makes() -> None:
    with pytest.raises(fg.FlowgraphError, match="cannot draw Dense") as caught:
        show(fg.nn.Dense("hidden", 4, 3))
    assert "fg.show(layer(x))" in str(caught.value)


def test_kernels_are_drawn_with_the_buffers_between_them_and_nothing_else() -> None:
    program = step()
    picture = show(program, stage="kernels").picture
    boxes = [v for v in picture.vertices if not v.is_data]
    assert [v.tooltip.splitlines()[0] for v in boxes] == [k.name for k in program.kernels]
    for box, kernel in zip(boxes, program.kernels, strict=True):
        words = box.label.removesuffix(" ...").split()
        assert kernel.name.split("_")[: len(words)] == words and len(box.label) <= 36
    next_values = {new for _, new in program.graph.updates}
    buffers = {t for c in program.calls for t in (*c.inputs, *c.outputs)} - next_values
    assert len([v for v in picture.vertices if v.is_data]) == len(buffers)
    assert {target for _, target in arrows(picture, "update")} == {"W1", "B1", "W2", "B2"}


@pytest.mark.parametrize("name", sorted(Op.registry))
@pytest.mark.parametrize("detail", [False, True])
def test_every_op_can_be_drawn(name: str, detail: bool) -> None:
    op = Op.registry[name]
    if op.meaning() == "leaf":
        value = {
            "input": fg.input("x", (3,)),
            "parameter": fg.parameter("x", (3,)),
            "constant": fg.constant(np.ones(3)),
            "slot": slot("x", TensorType((3,))),
        }[name]
    else:
        sample = op.samples()[0]
        arrays = enumerate(sample.arrays)
        value = sample.op(*(fg.input(f"x{k}", a.shape, a.dtype) for k, a in arrays))
    picture = from_graph(Graph((value,)), detail=detail)
    shown = " ".join(labels(picture, kind="op"))
    assert value.node.inputs == () or op.display in shown or (picture.frames and op.meaning() == "loop")
    assert len(texts(to_svg(picture))) >= len(picture.vertices)
    assert to_mermaid(picture).count("\n") > len(picture.vertices)


# A trainer's step


def trainer(optimizer: Any, **settings: Any) -> fg.Trainer:
    x, y = fg.input("x", ("batch", 8)), fg.input("y", ("batch",), dtype="int32")
    z = fg.nn.Dense("out", 6, 3)(fg.nn.Dense("hidden", 8, 6, fg.tanh)(x))
    each = fg.cross_ent_of_softmax(z, y)
    cost = each if settings.get("weighted") else fg.mean(each)
    metrics = {"accuracy": fg.nn.accuracy(z, y)}
    return fg.Trainer(cost, optimizer, metrics, device="reference", **settings)


WEIGHTS = ("hidden/w", "hidden/b", "out/w", "out/b")


class TestTrainers:
    def test_a_trainer_is_drawn_as_its_program(self) -> None:
        made = trainer(fg.optim.Adam())
        assert show(made).picture == show(made.program).picture
        assert show(made, stage="kernels").picture == show(made.program, stage="kernels").picture

    def test_the_model_its_gradient_and_an_update_a_parameter_are_drawn_and_nothing_else(self) -> None:
        picture = show(trainer(fg.optim.Adam())).picture
        assert labels(picture, kind="input") == {"x", "y"} and labels(picture, kind="parameter") == set(WEIGHTS)
        assert {v.note for v in picture.vertices if v.label == "x"} == {"(batch, 8)"}
        assert labels(picture, kind="output") == labels(picture, kind="output", phase="forward")
        assert labels(picture, kind="output") == {"cost", "accuracy"}
        assert labels(picture, phase="update") == {f"optimizer of {w}" for w in WEIGHTS}
        assert {v.note for v in picture.vertices if v.phase == "update"} == {"mean, squares"}
        assert arrows(picture, "update") == {(f"optimizer of {w}", w) for w in WEIGHTS}
        assert {("dout_w", "optimizer of out/w"), ("dhidden_b", "optimizer of hidden/b")} <= arrows(picture)

    def test_an_optimiser_that_keeps_nothing_is_a_formula(self) -> None:
        picture = show(trainer(fg.optim.SGD(0.1))).picture
        assert labels(picture, phase="update") == {f"{w} - learning_rate*d{w.replace('/', '_')}" for w in WEIGHTS}
        assert labels(picture, kind="parameter") == set(WEIGHTS)

    def test_a_norm_of_all_gradients_is_one_box(self) -> None:
        picture = show(trainer(fg.optim.Adam(clip_norm=1.0))).picture
        assert labels(picture, phase="update") == {"joint", *(f"optimizer of {w}" for w in WEIGHTS)}
        assert {(f"d{w.replace('/', '_')}", "joint") for w in WEIGHTS} <= arrows(picture)

    @pytest.mark.parametrize("stage", ["declared", "backward", "optimised", "kernels"])
    @pytest.mark.parametrize("settings", [{}, {"accumulate": 2}, {"weighted": True}, {"freeze": "out/*"}], ids=str)
    def test_every_stage_shows_the_model_and_none_of_the_bookkeeping(
        self, stage: str, settings: dict[str, Any]
    ) -> None:
        for rule in (fg.optim.SGD(0.1, momentum=0.9), fg.optim.AdamW(), fg.optim.LazyAdam()):
            picture = show(trainer(rule, **settings), stage=stage).picture
            given = labels(picture, kind="parameter") | labels(picture, kind="input")
            assert {"x", "y", *WEIGHTS} <= given <= {"x", "y", *WEIGHTS, "sample_weight"}

    def test_detail_shows_all(self) -> None:
        for stage in ("backward", "kernels"):
            shown = labels(show(trainer(fg.optim.Adam()), stage=stage, detail=True).picture)
            assert {"optimizer_step", "optimizer_hidden_w_mean", "sweep_loss", "order_of_examples"} <= {
                re.sub(r"\W", "_", label) for label in shown
            }

    def test_kernels_of_counters_and_records_are_one_box(self) -> None:
        program = trainer(fg.optim.Adam()).program
        picture = show(program, stage="kernels").picture
        (more,) = (v for v in picture.vertices if v.id == "more")
        count = int(more.label.split()[0])
        assert more.label == f"{count} more kernels" and count == len(more.tooltip.splitlines())
        assert len([v for v in picture.vertices if v.kind == "op"]) - 1 + count == len(program.calls)
        assert {("cost", more.label), ("accuracy", more.label)} <= arrows(picture)

    @pytest.mark.parametrize("stage", ["backward", "kernels"])
    def test_a_parameter_of_no_axes_and_a_layer_called_diagnostics_are_the_models(self, stage: str) -> None:
        x, y = fg.input("x", ("batch", 3)), fg.input("y", ("batch",))
        b = fg.parameter("b", (), np.zeros((), np.float32))
        out = fg.nn.Dense("diagnostics", 3, 1)
        cost = fg.mean(fg.square(fg.sum(out(x), axis=1) + b - y))
        watched = fg.Diagnostics({"out": out.w})
        made = fg.Trainer(cost, fg.optim.Adam(clip_norm=1.0), device="reference", diagnostics=watched)
        picture = show(made, stage=stage).picture
        assert {"diagnostics/w", "diagnostics/b", "b"} <= labels(picture, kind="parameter")
        assert {to for _, to in arrows(picture, "update")} == {"diagnostics/w", "diagnostics/b", "b"}
        reached = {edge.target for edge in picture.edges}
        assert all(edge.source in reached for edge in picture.edges if edge.kind == "update")
        assert not [v for v in picture.vertices if v.note.endswith("moments") or "(32, 1, 1)" in v.note]

    def test_what_the_update_reads_is_drawn_be_it_computed_or_given(self) -> None:
        c, rate = fg.input("c", ("batch", 3)), fg.input("rate", ())
        w = fg.parameter("w", (3,))
        made = fg.Trainer(fg.mean(c @ w), fg.optim.SGD(rate, momentum=0.9), device="reference")
        assert ("rate", "optimizer of w") in arrows(show(made).picture)

    def test_the_model_of_a_loop_stacks_nothing_for_the_gradient(self) -> None:
        words, y = fg.input("words", ("batch", "time"), "int32"), fg.input("y", ("batch",), "int32")
        _, (h, _) = fg.nn.LSTM("lstm", 4, 5)(fg.nn.Embedding("words", 9, 4)(words))
        cost = fg.mean(fg.cross_ent_of_softmax(fg.nn.Dense("out", 5, 3)(h), y))
        made = show(fg.Trainer(cost, fg.optim.SGD(0.1), device="reference"), stage="declared")
        assert len(made.picture.vertices) == len(show(cost).picture.vertices)

    def test_a_loop_that_the_gradient_runs_again_is_drawn_once(self) -> None:
        words, y = fg.input("words", ("batch", "time"), "int32"), fg.input("y", ("batch",), "int32")
        _, (h,) = fg.nn.GRU("gru", 4, 5)(fg.nn.Embedding("words", 9, 4)(words))
        out = fg.nn.Dense("out", 5, 3)
        cost = fg.mean(fg.cross_ent_of_softmax(out(h), y))
        for what in (fg.Trainer(cost, fg.optim.Adam(), device="reference"), [cost, *fg.grad(cost, [out.w])]):
            frames = show(what).picture.frames
            assert len([f for f in frames if f.phase == "forward"]) == 1
            assert "mul(scanᵀ, " in str(labels(show(what).picture)) and frames[0].label.startswith("scan = loop, ")
        assert {"gru/w_x", "gru/w_h", "gru/b"} <= labels(show(cost).picture, kind="parameter")


# Formulas


def attention() -> fg.Tensor:
    words, q = fg.input("words", ("batch", "time"), "int32"), fg.input("q", ("batch",), "int32")
    context, _ = fg.nn.Attention("att", 4, 4, score="dot")(
        fg.nn.Embedding("queries", 9, 4)(q), fg.nn.Embedding("keys", 9, 4)(words)
    )
    return fg.nn.Dense("o", 4, 3)(context)


class TestFormulas:
    def test_every_line_names_another_value_and_every_operand_is_named(self) -> None:
        assert str(show(attention())).splitlines() == [
            "gather = gather(queries/w, q)",
            "gather_1 = gather(keys/w, words)",
            "einsum = einsum[bk,btk->bt](gather, gather_1)",
            "softMax = softMax(einsum)",
            "einsum_1 = einsum[bt,btf->bf](softMax, gather_1)",
            "mul = mul(einsum_1, o/w)",
            "add_bias = add*(mul, o/b)",
        ]

    def test_a_box_whose_value_is_named_in_another_box_says_that_name(self) -> None:
        x, w = fg.input("x", ("batch", 4)), fg.parameter("w", (4, 4))
        picture = show([fg.tanh(x @ w) @ fg.transpose(fg.tanh(fg.tanh(x) @ w))]).picture
        assert "mul(tanh, tanh_2ᵀ)" in labels(picture, kind="op")
        assert {"tanh", "tanh_1", "tanh_2"} <= labels(picture, kind="op")

    def test_only_very_many_operands_are_left_out(self) -> None:
        few = fg.stack([fg.input(f"a_long_name_of_an_input_{k}", (2,)) for k in range(8)])
        many = fg.stack([fg.input(f"x{k}", (2,)) for k in range(99)])
        assert "…" not in str(show(few)) and "x0, x1, x2, … 95 more …, x98)" in str(show(many))

    def test_a_loop_shows_its_body(self) -> None:
        add = lambda a, row: (a + row, None)  # noqa: E731
        last, _ = fg.scan(add, fg.input("start", (5,)), fg.input("rows", (3, 5)))
        first, *body = str(show(last)).splitlines()
        assert first.endswith("loop of 3 turns (a=start, row=rows):") and body == ["  add = a + row", "  a next: add"]


class TestScopes:
    def test_names_are_those_that_freeze_and_load_take(self) -> None:
        cost = fg.mean(attention())
        parameters = [n.outputs[0] for n in Graph((cost,)).nodes() if n.op.name == "parameter"]
        wanted = {p.op.label for p in parameters}
        assert wanted == {"queries/w", "keys/w", "o/w", "o/b"} == labels(show(cost).picture, kind="parameter")
        program = fg.compile(outputs=cost, device="reference")
        assert wanted == labels(show(program, stage="kernels").picture, kind="parameter")


# Formats


def drawn_hostile() -> list[tuple[str, Picture]]:
    made = []
    for name in HOSTILE:
        x = fg.input(name, ("batch", 3))
        made.append((name, from_graph(Graph((fg.tanh(x).named(name + "!"),)), title=name)))
    return made


def test_no_name_breaks_out_of_dot_as_the_layout_engine_reads_it() -> None:
    engine = find_engine()
    assert engine is not None
    for name, picture in drawn_hostile():
        done = subprocess.run(
            [engine, "-Tjson0"], input=to_dot(picture), capture_output=True, encoding="utf-8", check=True
        )
        objects = json.loads(done.stdout)["objects"]
        assert sorted(o["name"] for o in objects) == sorted(v.id for v in picture.vertices), name


def test_no_name_breaks_out_of_svg_and_printable_ones_are_shown_as_written() -> None:
    for name, picture in drawn_hostile():
        shown = texts(to_svg(picture))
        if name.isprintable() and len(name) < 60:
            assert name in shown and name + "!" in shown
        assert all(t.isprintable() and len(t) <= 60 for t in shown)


def test_no_name_breaks_out_of_mermaid() -> None:
    vertex = re.compile(r'  \w+(\(\["([^"]*)"\]\)|\["([^"]*)"\]):::\w+')
    for name, picture in drawn_hostile():
        lines = to_mermaid(picture).splitlines()
        body = [line for line in lines[1:] if "-->" not in line.replace('"', "") or '"' in line]
        nodes = [line for line in body if '"' in line]
        assert len(nodes) == len(picture.vertices), name
        for line in nodes:
            match = vertex.fullmatch(line)
            assert match, line
            label = (match.group(2) or match.group(3)).replace("<br/><small>", "").replace("</small>", "")
            assert not set(label) & set('<>"`{}[]()|\\'), line
            assert not re.sub(r"#\d+;", "", label).count("#"), line


def test_no_name_breaks_out_of_the_text_form() -> None:
    for name in HOSTILE:
        x = fg.input(name, ("batch", 3))
        text = to_text(Graph((fg.tanh(x).named(name),)))
        assert len(text.splitlines()) == 3 and text.count("\n") == 3, name
        assert all(line.isprintable() for line in text.splitlines()), name


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_makes_a_well_formed_picture(label: str, note: str) -> None:
    vertices = (Vertex("a", label, "value", note=note, tooltip=note), Vertex("b", note, "op", family=label))
    picture = Picture(label, vertices, (Edge("a", "b"),))
    assert len(texts(to_svg(picture))) >= 2
    assert to_mermaid(picture).splitlines()[3].split() == ["a", "-->", "b"]


def test_a_picture_is_saved_in_the_format_of_the_suffix(tmp_path: Path) -> None:
    x = fg.input("x", ("batch", 3))
    shown = show(fg.tanh(x), tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text() == shown.svg
    assert shown.save(tmp_path / "a.dot").read_text() == shown.dot
    assert shown.save(tmp_path / "a.mmd").read_text() == shown.mermaid
    assert shown.save(tmp_path / "a.txt").read_text() == shown.text
    with pytest.raises(fg.FlowgraphError, match=r"no picture format is called '\.bmp'"):
        shown.save(tmp_path / "a.bmp")


def test_a_png_is_made_of_the_dot_as_the_error_says(tmp_path: Path) -> None:
    shown = show(step())
    with pytest.raises(fg.FlowgraphError, match=r"graphviz-pure -Tpng x\.dot -o x\.png"):
        shown.save(tmp_path / "x.png")
    shown.save(tmp_path / "x.dot")
    made = subprocess.run([str(find_engine()), "-Tpng", "x.dot"], cwd=tmp_path, capture_output=True, check=True).stdout
    assert made.startswith(b"\x89PNG")


def test_a_notebook_gets_svg_mermaid_and_text() -> None:
    shown = show(fg.tanh(fg.input("x", ("batch", 3))))
    bundle = shown._repr_mimebundle_()
    assert set(bundle) == {"image/svg+xml", "text/vnd.mermaid", "text/plain"}
    assert bundle["image/svg+xml"].startswith("<svg ")


def test_without_a_layout_engine_svg_says_what_to_install_and_text_still_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(svg_room, "find_engine", lambda: None)
    shown = show(fg.tanh(fg.input("x", ("batch", 3))))
    with pytest.raises(fg.FlowgraphError, match=r"pip install 'flowgraph\[viz\]'"):
        _ = shown.svg
    assert "flowgraph[viz]" in shown._repr_mimebundle_()["text/plain"]
    assert shown.mermaid.startswith("flowchart") and shown.dot.startswith("digraph")


def test_the_same_graph_gives_the_same_picture() -> None:
    assert show(step()).svg == show(step()).svg


def test_show_takes_tensors_sequences_and_what_parse_returns() -> None:
    tensors, cost = network()
    assert labels(show(tensors).picture, kind="output") == {"C"}
    assert labels(show([tensors["A1"], tensors["P"]]).picture, kind="output") == {"A1", "P"}
    assert labels(show(cost).picture, kind="output") == {"cost"}
    with pytest.raises(fg.FlowgraphError, match="cannot draw int"):
        show(3)


# Names


def test_a_variable_names_the_value_assigned_to_it() -> None:
    x, w = fg.input("x", ("batch", 4)), fg.parameter("w", (4, 4))
    h = fg.tanh(x @ w)
    for _ in range(2):
        h = fg.tanh(h @ w)
    called = names(Graph((h,)))
    assert [called[n.outputs[0]] for n in Graph((h,)).nodes()] == [
        "x",
        "w",
        "mul",
        "h",
        "mul_1",
        "tanh",
        "mul_2",
        "h_1",
    ]


def test_a_variables_name_outlives_the_passes_and_names_its_gradient() -> None:
    x, w = fg.input("x", ("batch", 4)), fg.parameter("w", (4, 4))
    h = x
    for _ in range(2):
        z = h @ w
        h = fg.softmax(z)
    cost = fg.mean(fg.sum(h, axis=1))
    program = fg.compile(outputs=[cost], updates={w: w - 0.1 * fg.grad(cost, w)}, device="reference")
    for stage in ("backward", "optimised"):
        shown = labels(show(program, stage=stage).picture)
        assert {"z", "z_1", "h", "h_1", "cost", "dz", "dz_1", "dw"} <= shown
    optimised = {v.label: v.tooltip for v in show(program, stage="optimised").picture.vertices}
    assert optimised["dz_1"].count("z = h @ w") or optimised["dz_1"].count("h = fg.softmax(z)")


def test_what_a_pass_left_of_a_line_does_not_take_the_variables_name() -> None:
    x, y = fg.input("x", ("batch", 4)), fg.input("y", ("batch", 4))
    total = fg.sum(fg.softmax(x * y))
    assert total.label is None
    optimised = fg.compile(outputs=[total], device="reference").graph
    assert names(optimised)[optimised.outputs[0]] == "total"


def test_a_line_that_makes_several_values_names_none_of_them() -> None:
    x = fg.input("x", ("batch", 4))
    rows = [fg.tanh(x * k) for k in (2.0, 3.0)]
    called = names(Graph(tuple(rows)))
    assert [called[r] for r in rows] == ["tanh", "tanh_1"]


@given(st.lists(st.text(max_size=8), min_size=1, max_size=12))
def test_names_are_unique_identifiers_whatever_the_labels(wanted: list[str]) -> None:
    graph = Graph(tuple(fg.input(name, ("batch",)) for name in wanted))
    called = list(names(graph).values())
    assert len(set(called)) == len(wanted)
    assert all(c.isascii() and c.isidentifier() for c in called)


# The arena


def test_the_arena_is_drawn_with_a_rectangle_a_value_inside_its_field(tmp_path):
    x, w = fg.input("x", ("batch", 5)), fg.parameter("w", (5, 3), np.ones((5, 3), np.float32))
    h = fg.tanh(x @ w)
    program = fg.compile(outputs=[fg.sum(h, axis=0)], updates={w: w - fg.transpose(x) @ h}, device="cpu")
    memory = program.memory({"batch": 7})
    path = tmp_path / "arena.svg"
    root = ET.fromstring(show_memory(memory, path).svg)
    assert path.read_text(encoding="utf-8").startswith("<svg")
    space = "{http://www.w3.org/2000/svg}"
    field = root.findall(f"{space}rect")[1].attrib
    values = [g for g in root.findall(f"{space}g") if g.find(f"{space}rect") is not None]
    assert len(values) == sum(v.offset is not None for v in memory.values) >= 2
    for g in values:
        rectangle = g.find(f"{space}rect").attrib
        for start, extent in (("x", "width"), ("y", "height")):
            first, last = float(rectangle[start]), float(rectangle[start]) + float(rectangle[extent])
            least, most = float(field[start]), float(field[start]) + float(field[extent])
            assert least - 0.2 <= first < last <= most + 0.2


def test_without_an_arena_there_is_nothing_to_draw(tmp_path):
    x = fg.input("x", (4,))
    memory = fg.compile(outputs=fg.tanh(x), device="reference").memory()
    with pytest.raises(FlowgraphError, match="no arena to draw"):
        show_memory(memory)
    native = fg.compile(outputs=fg.tanh(x), device="cpu").memory()
    with pytest.raises(FlowgraphError, match=r"drawn as \.svg"):
        show_memory(native, tmp_path / "arena.png")


def test_a_picture_is_not_written_into_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(fg.FlowgraphError, match=r"cannot write .*No such file") as caught:
        fg.show(fg.tanh(fg.input("x", (2,))), tmp_path / "none" / "x.dot")
    assert "make the folder" in str(caught.value) and "test_viz.py" in str(caught.value)


def test_the_notebook_runs_and_draws() -> None:
    """Each cell in order; what a cell ends in is shown as a notebook would."""
    cells = json.loads((Path(__file__).parent.parent / "docs" / "notebooks" / "graphs.ipynb").read_text())["cells"]
    names: dict[str, Any] = {}
    drawn = 0
    with redirect_stdout(StringIO()) as printed:
        for cell in cells:
            if cell["cell_type"] == "code":
                assert cell["outputs"] == []
                *body, last = ast.parse("".join(cell["source"])).body
                exec(compile(ast.Module(body, []), "cell", "exec"), names)
                if isinstance(last, ast.Expr):
                    value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
                    drawn += isinstance(value, Shown) and "image/svg+xml" in value._repr_mimebundle_()
                else:
                    exec(compile(ast.Module([last], []), "cell", "exec"), names)
    assert drawn == 4 and names["history"][-1]["val_accuracy"] > 0.93
    assert "def " in printed.getvalue()


def loop_picture() -> tuple[Picture, Picture]:
    x = fg.input("x", ("time", "batch", 8))
    u = fg.parameter("u", (8, 8), fg.init.glorot_uniform())

    def step(h: fg.Tensor, x: fg.Tensor) -> tuple[fg.Tensor, fg.Tensor]:
        h = fg.tanh(x + h @ u)
        return h, h

    last, _ = fg.scan(step, fg.broadcast_to(fg.constant(0.0), ("batch", 8)), x)
    cost = fg.mean(fg.square(last))
    return from_graph(Graph((cost,))), from_graph(Graph((fg.grad(cost, u),)))


class TestLoops:
    def test_a_loop_is_a_frame_around_its_body(self) -> None:
        picture, _ = loop_picture()
        (frame,) = picture.frames
        assert frame.label == "scan = loop, time turns" and frame.phase == "forward"
        inside = {v.label for v in picture.vertices if v.frame == frame.id}
        assert inside == {"h", "x", "u", "mul", "+", "tanh", "h_1"}
        (turn,) = (e for e in picture.edges if e.kind == "turn")
        assert (picture.vertex(turn.source).label, picture.vertex(turn.target).label) == ("h_1", "h")
        given = {(picture.vertex(e.source).label, picture.vertex(e.target).label) for e in picture.edges
                 if picture.vertex(e.target).kind == "slot" and e.kind == "flow"}  # fmt: skip
        assert {("x", "x"), ("u", "u")} <= given

    def test_the_gradient_has_a_loop_that_runs_backwards(self) -> None:
        _, picture = loop_picture()
        assert "loop, time turns, backwards" in [f.label for f in picture.frames if f.phase == "backward"]
        drawn = to_svg(picture)
        for frame in picture.frames:
            assert f">{frame.label}</text>" in drawn
        ET.fromstring(drawn)

    def test_loops_in_loops_are_frames_in_frames(self) -> None:
        x = fg.input("x", (3, 4, 5))
        add = lambda a, b: (a + b, None)  # noqa: E731
        outer, _ = fg.scan(lambda a, rows: (fg.scan(add, a, rows)[0], None), fg.input("a", (5,)), x)
        picture = from_graph(Graph((outer,)))
        first, second = picture.frames
        assert second.parent == first.id
        assert to_dot(picture).count("subgraph cluster_") == 2 and to_mermaid(picture).count("subgraph") == 2
        assert "loop, 4 turns" in to_svg(picture)
        assert len(from_graph(Graph((outer,)), detail=True).frames) == 2

    def test_what_stands_nowhere_is_refused(self) -> None:
        with pytest.raises(ValueError, match="stand in no frame"):
            Picture("p", (Vertex("a", "a", "op", frame="lost"),), ())
