"""Layers that have no file of tests of their own."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.errors import DTypeError, GraphError, InputError, ShapeError
from flowgraph.graph.tensor import FUNCTIONS
from flowgraph.nn import UNLIKE


class TestEmbedding:
    def test_numbers_become_rows(self) -> None:
        vectors = np.arange(12, dtype=np.float32).reshape(4, 3)
        words = fg.nn.Embedding("words", 4, 3, init=vectors)
        ids = fg.input("ids", ("batch", "time"), "int32")
        (found,) = fg.compile(outputs=words(ids), device="cpu")(ids=np.array([[3, 0], [1, 3]], np.int32))
        assert np.array_equal(found, vectors[[[3, 0], [1, 3]]])

    def test_rows_begin_with_length_one(self) -> None:
        lengths = np.linalg.norm(fg.nn.Embedding("long", 500, 64).w.value, axis=1)
        assert abs(lengths.mean() - 1) < 0.02 and lengths.std() < 0.2

    def test_only_rows_that_were_read_change(self) -> None:
        words = fg.nn.Embedding("few", 1_000, 8)
        ids = fg.input("ids", ("batch",), "int32")
        before = words.w.value.copy()
        trainer = fg.Trainer(fg.mean(fg.square(words(ids))), fg.optim.SGD(0.5), device="cpu")
        trainer.fit({"ids": np.array([2, 5, 2, 7], np.int32)}, epochs=1, batch_size=4)
        changed = np.flatnonzero((words.w.value != before).any(axis=1))
        assert changed.tolist() == [2, 5, 7]

    def test_a_number_beyond_the_table_is_said(self) -> None:
        words = fg.nn.Embedding("bad", 10, 2)
        step = fg.compile(outputs=words(fg.input("ids", ("batch",), "int32")), device="cpu")
        with pytest.raises(InputError, match="10"):
            step(ids=np.array([3, 10], np.int32))

    def test_what_is_no_number_is_refused(self) -> None:
        with pytest.raises(DTypeError, match="float32"):
            fg.nn.Embedding("floats", 10, 2)(fg.input("x", ("batch",)))
        with pytest.raises(ShapeError, match="4"):
            fg.nn.Embedding("shape", 10, 2, init=np.zeros((4, 2)))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: fg.nn.Dense(64, 32, fg.tanh), r"a name is text, got 64.*a layer's name comes first"),
        (lambda: fg.nn.LSTM(16, 32, "lstm"), r"a layer's name comes first: LSTM\(name, inputs, hidden\)"),
        (lambda: fg.nn.Dense(4, 3), r"Dense: a name is text, got 4.*Dense\(name, inputs, outputs\)"),
        (lambda: fg.nn.GRU(8, 24), r"GRU: a name is text, got 8\n"),
        (lambda: fg.nn.BatchNorm(20), r"BatchNorm\(name, features\)"),
        (lambda: fg.grad(fg.sum(dense().w), dense()), "Dense 'dense' is a layer, no list.*layer.parameters"),
        (lambda: fg.save("m", dense()), "Dense 'dense' is a layer, no list.*layer.parameters"),
        (lambda: fg.Trainer(cost(), fg.optim.SGD(0.1), freeze=dense()), "Dense 'dense' is a layer"),
        (lambda: fg.nn.Embedding(100, 8, "words"), "a layer's name comes first"),
        (lambda: fg.input(("batch", 3), "x"), r"the name in fg.input is text.*fg.input\('x', \(8, 64\)\)"),
        (lambda: fg.parameter((3, 3), "w"), "the name in fg.parameter is text"),
        (lambda: dense()(fg.nn.LSTM("l", 4, 8)(sequence())), r"a tuple of 2.*outputs, \(h, c\) = lstm\(x\)"),
        (lambda: dense()(fg.nn.LSTM("l", 4, 8)(sequence())[1]), r"a tuple of 2.*outputs, \(h, c\) = lstm\(x\)"),
        (lambda: dense()(fg.nn.GRU("g", 4, 8)(sequence())), r"a tuple of 2.*outputs, \(h,\) = gru\(x\)"),
        (lambda: dense()(fg.nn.RNN("r", 4, 8)(sequence())[1]), r"a tuple of 1.*outputs, \(h,\) = gru\(x\)"),
        (lambda: dense()(fg.nn.BiLSTM("b", 4, 8)(sequence())), r"outputs, \(ahead, back\) = bilstm\(x\)"),
        (lambda: dense()((state(), logits())), "a tuple of 2.*give it one of them"),
        (lambda: fg.nn.GRU("h", 8, 8)(fg.nn.GRU("g", 4, 8)(sequence())), "GRU 'h' takes one tensor"),
        (lambda: dense()(fg.input("maps", ("batch", 8, 5, 5))), r"takes \(..., 8\), got \(batch, 8, 5, 5\).*flatten"),
        (lambda: fg.nn.LSTM("l", 8, 4)(sequence()), r'fg.nn.LSTM\("l", 8, 4\) reads vectors of 8 and has 4 outputs'),
        (lambda: fg.nn.LSTM("l", 4, 8)(sequence(), np.ones(3)), r"takes lengths as a tensor.*fed with the data"),
        (lambda: fg.nn.LSTM("l", 4, 8)(sequence(), state=(state(),)), r"a tuple of 2: \(batch, 8\), \(batch, 8\)"),
        (lambda: fg.nn.RNN("r", 4, 8)(sequence(), state=state()), "a tuple of 1"),
        (lambda: fg.cross_ent_of_softmax(logits(), fg.input("y", ("batch",))), "declare them with dtype='int32'"),
        (lambda: fg.nn.accuracy(logits(), fg.input("y", ("batch",))), "declare them with dtype='int32'"),
        (lambda: fg.nn.accuracy(fg.input("y", ("batch",), "int32"), logits()), "predictions come first"),
        (lambda: fg.nn.accuracy(fg.argmax(logits(), axis=1), classes()), r"probabilities, \(batch, classes\)"),
        (lambda: fg.nn.accuracy(logits(), fg.input("y", (3,), "int32")), r"targets are class numbers \(batch,\)"),
    ],
)
def test_a_newcomers_mistakes_are_told_what_was_meant(call: Callable[[], object], text: str) -> None:
    with pytest.raises((GraphError, ShapeError)) as caught:
        call()
    told = f"{caught.value.problem}\n{caught.value.hint}"  # without the line, which quotes the text looked for
    assert re.search(f"(?s){text}", told), told
    assert "test_layers.py" in str(caught.value)


def dense() -> fg.nn.Dense:
    return fg.nn.Dense("dense", 8, 2)


def sequence() -> fg.Tensor:
    return fg.input("x", ("batch", "time", 4))


def state() -> fg.Tensor:
    return fg.input("h", ("batch", 8))


def cost() -> fg.Tensor:
    return fg.mean(dense()(state()))


def classes() -> fg.Tensor:
    return fg.input("y", ("batch",), "int32")


def logits() -> fg.Tensor:
    return fg.input("logits", ("batch", 10))


def test_names_of_other_libraries_lead_to_those_here() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'Linear': it is called fg\.nn\.Dense here"):
        _ = fg.nn.Linear  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"no attribute 'ReLU': it is fg\.relu, a function$"):
        _ = fg.nn.ReLU  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"'Sequential': it is second\(first\(x\)\)"):
        _ = fg.nn.Sequential  # type: ignore[attr-defined]
    functions = re.findall(r"fg\.(\w+)", " ".join(UNLIKE.values()))
    assert len(functions) > 15 and all(hasattr(fg, name) for name in functions)
    with pytest.raises(AttributeError, match=r"no attribute 'Nothing'$"):
        _ = fg.nn.Nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("layer", "name", "text"),
    [
        (lambda: dense(), "weight", r"^Dense 'dense' has no attribute 'weight'; use \.w$"),
        (lambda: fg.nn.BatchNorm("norm", 8), "running_mean", r"use \.mean$"),
        (lambda: fg.nn.GRU("g", 4, 8), "weight", "; it has .*inputs, name, parameters, states, step, turn, w_h, w_x$"),
        (lambda: dense(), "__deepcopy__", "^Dense 'dense' has no attribute '__deepcopy__'$"),
    ],
)
def test_what_a_layer_has_not_leads_to_what_it_has(layer: Callable[[], object], name: str, text: str) -> None:
    with pytest.raises(AttributeError, match=text):
        getattr(layer(), name)


def test_a_layer_is_copied_and_subclassed_as_any_object() -> None:
    class Logits(fg.nn.Dense):
        def __init__(self, classes: int) -> None:
            super().__init__("logits", 8, classes)

    assert copy.copy(Logits(3)).outputs == 3
    assert list(inspect.signature(fg.nn.GRU).parameters)[:3] == ["name", "inputs", "hidden"]


def test_dense_goes_over_the_last_axis_whatever_the_rank() -> None:
    layer = fg.nn.Dense("dense", 4, 3, fg.tanh)
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    outputs = [layer(fg.input("x", ("batch", "time", 4))), layer(fg.input("row", (4,)))]
    several, one = fg.compile(outputs=outputs, device="cpu")(x=x, row=x[0, 0])
    expected = np.tanh(x @ layer.w.value)
    np.testing.assert_allclose(several, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(one, expected[0, 0], rtol=1e-5, atol=1e-6)


def test_methods_of_arrays_lead_to_functions() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'reshape'; use fg\.reshape\(x\)"):
        _ = sequence().reshape  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"no attribute 'nothing'$"):
        _ = sequence().nothing  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"no attribute 'name'; use \.label$") as caught:
        _ = sequence().name  # type: ignore[attr-defined]
    assert caught.value.obj is None  # or Python would add that `named` was meant
    functions = [hint[3:].partition("(")[0] for hint in FUNCTIONS.values() if hint.startswith("fg.")]
    assert all(hasattr(fg.nn if name.startswith("nn.") else fg, name.removeprefix("nn.")) for name in functions)


def test_a_property_of_a_layer_of_ones_own_fails_by_its_own_error() -> None:
    class Own(fg.nn.Dense):
        @property
        def depth(self) -> int:
            return self.nothing.x  # type: ignore[no-any-return]

    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = Own("o", 2, 2).depth
