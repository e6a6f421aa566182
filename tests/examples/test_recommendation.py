"""The example of recommendation: what is read helps, and nothing is read that is not there yet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import flowgraph as fg
from examples.common import Results
from examples.recommendation import TransNet, documents, main


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Path]:
    out = tmp_path_factory.mktemp("recommendation")
    return main(True, out), out


def test_reading_reviews_beats_the_mean_and_the_review_itself_beats_all(found: tuple[Results, Path]) -> None:
    made = found[0]["made_reviews"]
    assert made["transnet"] < 0.95 * made["mean"]
    assert made["biases"] < made["mean"]
    assert made["target"] < made["transnet"]


def test_costs_are_drawn(found: tuple[Results, Path]) -> None:
    assert 1_000 < (found[1] / "costs.svg").stat().st_size < 100_000
    assert not (found[1] / "reviews.jsonl").exists()


def test_a_document_is_of_the_others_reviews_and_only_of_those_for_training() -> None:
    ids = [np.array([n, n]) for n in range(1, 6)]
    users = np.array([0, 0, 1, 0, 1])
    found = documents(ids, users, train=np.array([0, 1, 2]), long=3)
    assert found.tolist() == [[2, 2, 0], [1, 1, 0], [0, 0, 0], [1, 1, 2], [3, 3, 0]]


def test_each_part_is_trained_by_its_own_cost_alone() -> None:
    model = TransNet(12, 6, 5, 4, 3, 3.5)
    reads = {
        "target": ["words/", "target/"],
        "transform": ["words/", "users/", "items/", "transform/"],
        "source": ["source/"],
    }
    rng = np.random.default_rng(0)
    lengths = {"user": 6, "item": 6, "review": 5}
    data = {name: rng.integers(1, 12, (8, size)).astype("i4") for name, size in lengths.items()}
    data["rating"] = rng.integers(1, 6, 8).astype("f4")
    inputs = [model.user, model.item, model.review, model.rating]
    for name, cost in model.costs.items():
        nodes = fg.Graph((cost,)).nodes()
        all_of = [n.outputs[0] for n in nodes if n.op.name == "parameter" and n.outputs[0].dtype.is_float]
        used = [x for x in inputs if any(n.outputs[0] is x for n in nodes)]
        gradients = fg.grad(fg.mean(fg.inference(cost)), all_of)
        values = fg.compile(used, gradients, device="reference")(**{x.op.label: data[x.op.label] for x in used})
        moved = {p.op.label for p, g in zip(all_of, values, strict=True) if np.abs(g).max() > 0}
        assert moved, name
        assert all(any(label.startswith(prefix) for prefix in reads[name]) for label in moved), (name, moved)


def test_the_prediction_needs_no_review_of_what_is_predicted() -> None:
    model = TransNet(12, 6, 5, 4, 3, 3.5)
    inputs = {n.op.label for n in fg.Graph((model.predicted,)).nodes() if n.op.name == "input"}
    assert inputs == {"user", "item"}
