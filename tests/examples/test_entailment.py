"""The entailment example on the pairs that it makes itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from examples.common import Results
from examples.entailment import FULL, main, marks, stem


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("entailment")


@pytest.fixture(scope="module")
def results(folder: Path) -> Results:
    return main(True, folder)


def test_the_network_learns_what_follows(results: Results) -> None:
    assert results["accuracy"][FULL]["mean"] > results["majority"] + 0.4
    assert results["unseen"] > 0.8
    assert np.trace(results["confusion"]) == round(results["accuracy"][FULL]["mean"] * 200)


def test_its_pictures_are_there(results: Results, folder: Path) -> None:
    assert (folder / "accuracy.svg").stat().st_size > 1000
    drawn = (folder / "alignment.svg").read_text(encoding="utf-8")
    assert all(word.lower() in drawn for word in results["aligned"][1].split())


def test_a_word_is_marked_if_the_other_sentence_has_it_or_its_stem() -> None:
    assert stem("playing") == stem("plays") == stem("played") == "play" and stem("dog") == stem("dogs")
    found = marks(["no", "dog", "running"], ["a", "dog", "runs"])
    np.testing.assert_array_equal(found, [[0, 0, 1], [1, 1, 0], [0, 1, 0]])
