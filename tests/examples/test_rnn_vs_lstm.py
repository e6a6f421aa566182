"""The two tasks of memory: what their data are, and that the LSTM learns them where they are short."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flowgraph as fg
from examples import rnn_vs_lstm as tasks


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out: Path = tmp_path_factory.mktemp("rnn_vs_lstm")
    found = tasks.main(True, out)
    return found | {"pictures": {path.name for path in out.iterdir()}}


def test_the_lstm_remembers_what_the_rnn_does_not(results: Any) -> None:
    copying, adding = results["copying"]["T40"], results["adding"]["T40"]
    assert copying["LSTM"]["of_baseline"] < 0.85 and copying["RNN"]["of_baseline"] > 0.98
    assert copying["LSTM"]["right"] > copying["RNN"]["right"] > 1 / tasks.KINDS - 0.02
    assert adding["LSTM"]["of_baseline"] < 0.05 and adding["RNN"]["of_baseline"] > 0.95
    assert adding["RNN"]["reached"] is None and 0 < adding["LSTM"]["reached"] <= 2000
    for found in (*results["copying"].values(), *results["adding"].values()):
        assert found["LSTM"]["loss"] < found["RNN"]["loss"]
    assert results["pictures"] == {"curves.svg"}


def test_to_copy_is_to_say_the_symbols_after_the_mark() -> None:
    data = tasks.copying(5, 30, np.random.default_rng(0))
    x, y = data["x"], data["y"]
    assert x.shape == y.shape == (5, 50)
    assert (x[:, :10] < 8).all() and (y[:, 40:] == x[:, :10]).all() and (y[:, :40] == tasks.BLANK).all()
    assert (np.argwhere(x == tasks.MARK)[:, 1] == 39).all() and (x[:, 10:39] == tasks.BLANK).all()


def test_to_add_is_to_add_one_marked_number_of_each_half() -> None:
    data = tasks.adding(2000, 20, np.random.default_rng(0))
    marks = data["x"][:, :, 1]
    assert (marks[:, :10].sum(axis=1) == 1).all() and (marks[:, 10:].sum(axis=1) == 1).all()
    assert data["y"] == pytest.approx((data["x"][:, :, 0] * marks).sum(axis=1))
    assert np.mean((data["y"] - 1) ** 2) == pytest.approx(tasks.baseline("adding", 20), rel=0.1)


def test_the_baseline_of_copying_is_guessing_after_the_mark() -> None:
    data = tasks.copying(4, 30, np.random.default_rng(0))
    logits = np.zeros((4, 50, 9), np.float32)
    logits[:, :40, tasks.BLANK], logits[:, 40:, tasks.BLANK] = 50, -50
    x, y = fg.input("x", (4, 50, 9)), fg.input("y", (4, 50), "int32")
    cost = fg.compile(outputs=fg.mean(fg.cross_ent_of_softmax(x, y)), device="reference")(x=logits, y=data["y"])[0]
    assert float(cost) == pytest.approx(tasks.baseline("copying", 30), rel=1e-5)
