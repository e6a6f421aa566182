"""Skip-gram learns which words of an invented language belong together, with either cost, in one native step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples import word2vec
from flowgraph.ops.indexing import ScatterAdd


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("word2vec")
    return word2vec.main(quick=True, out=out), out


def test_words_of_one_class_come_to_have_similar_vectors(found: tuple[dict[str, Any], Path]) -> None:
    """A perfect ranking of pairs that are alike (about one in eight) or not has a rank correlation of about 0.57."""
    results, _ = found
    assert results["covered"] == 400
    assert results["quick"]["mean"] > 0.42
    for word, near in results["neighbours"].items():
        assert sum(other[0] == word[0] for other in near.split(", ")[:4]) >= 2  # one in eight by chance


def test_both_costs_learn_more_than_how_often_words_come(found: tuple[dict[str, Any], Path]) -> None:
    both = found[0]["both"]
    assert both["softmax"]["cost"][-1] < both["entropy"] - 0.1
    assert both["softmax"]["score"] > 0.3 and both["negatives"]["score"] > 0.3
    assert both["negatives"]["cost"][-1] < both["negatives"]["cost"][0] - 0.3


def test_pictures_and_curves_are_there(found: tuple[dict[str, Any], Path]) -> None:
    results, out = found
    assert {p.name for p in out.glob("*.svg")} == {"cost.svg", "map.svg", "graph.svg"}
    assert len(results["quick"]["cost"]) == 20


def test_negatives_are_drawn_in_a_step_that_touches_only_rows_it_looks_up() -> None:
    trainer = word2vec.trainer(word2vec.with_negatives(np.arange(1, 5001))[1], 100, seed=0)
    assert set(trainer._training.declared) == {"word", "context"}
    for table in trainer.parameters:
        assert isinstance(dict(trainer.program.graph.updates)[table].op, ScatterAdd)
    held = trainer.program.memory({"batch": 64, "examples": 64, "ordered": 64}).values
    assert [v.kind for v in held if v.bytes >= 5000 * word2vec.DIMENSIONS * 4] == ["parameter"] * 2


def test_the_invented_language_is_the_same_every_time() -> None:
    one, two = word2vec.invented(), word2vec.invented()
    assert one[0] == two[0] and np.array_equal(one[1].first, two[1].first)
