"""The translation example on the gospel of Mark, and how it is scored."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from examples.common import Results
from examples.translation import bleu, dictionary, main


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("translation")


@pytest.fixture(scope="module")
def results(folder: Path) -> Results:
    return main(True, folder)


def test_the_model_learns_the_verses_it_is_shown(results: Results) -> None:
    assert results["perplexity"]["attention"] < results["perplexity"]["unigram"] / 4
    assert results["bleu"]["attention, greedy"] > results["bleu"]["word by word"] + 5


def test_its_pictures_are_there(results: Results, folder: Path) -> None:
    assert (folder / "curves.svg").stat().st_size > 1000
    assert "&lt;/s&gt;" in (folder / "attention.svg").read_text(encoding="utf-8")


def test_bleu_is_papinenis() -> None:
    """Example 2 of Papineni and others 2002 for clipping; the rest by hand."""
    the, cat = ["the"] * 7, ["the", "cat", "is", "on", "the", "mat"]
    assert bleu([the], [cat], order=1) == pytest.approx(100 * 2 / 7)
    short = cat[:3]
    assert bleu([short], [cat], order=2) == pytest.approx(100 * math.exp(1 - 6 / 3))
    assert bleu([cat], [cat]) == pytest.approx(100) and bleu([the], [cat]) == 0
    both = bleu([cat, short], [cat, cat], order=1)
    assert both == pytest.approx(100 * math.exp(1 - 12 / 9))


def test_a_dictionary_is_learned_from_sentences_that_share_words() -> None:
    verses = [(["la", "casa"], ["the", "house"]), (["la", "flor"], ["the", "flower"]), (["casa"], ["house"])]
    found = dictionary(verses)
    assert found["casa"] == "house" and found["la"] == "the" and found["flor"] == "flower"
