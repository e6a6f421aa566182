"""Vectors from raw text help a tagger with few tagged sentences, most where it never saw the word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples import fine_tuning


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("fine_tuning")
    return fine_tuning.main(quick=True, out=out), out


def test_fine_tuned_vectors_are_the_best_start(found: tuple[dict[str, Any], Path]) -> None:
    row = found[0]["sentences40"]
    assert row["fine-tuned"]["mean"] > row["random"]["mean"] + 0.015
    assert row["fine-tuned"]["mean"] > 0.9 and row["frozen"]["mean"] > 0.8  # by chance 0.125


def test_words_that_no_tagged_sentence_has_are_known_from_raw_text(found: tuple[dict[str, Any], Path]) -> None:
    row = found[0]["sentences40"]
    assert 0.03 < row["unseen"] < 0.5
    for start in ("frozen", "fine-tuned"):
        assert row[start]["unseen"] > row["random"]["unseen"] + 0.06


def test_pictures_are_there(found: tuple[dict[str, Any], Path]) -> None:
    assert {p.name for p in found[1].glob("*.svg")} == {"accuracy.svg", "graph.svg"}


def test_a_window_is_around_every_word_and_stays_in_its_sentence() -> None:
    made = fine_tuning.windows([(["a", "b"], ["X", "Y"]), (["c"], ["X"])], {"a": 2, "b": 3}, {"X": 0, "Y": 1})
    np.testing.assert_array_equal(made.windows, [[0, 0, 2, 3, 0], [0, 2, 3, 0, 0], [0, 0, 1, 0, 0]])
    np.testing.assert_array_equal(made.tags, [0, 1, 0])
