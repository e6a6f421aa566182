"""The answer selection example on the questions that it makes itself, and its parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from examples.answer_selection import Text, grammar, main, skip_gram
from examples.common import Results
from flowgraph.datasets.text import Vocabulary


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("answer_selection")


@pytest.fixture(scope="module")
def results(folder: Path) -> Results:
    return main(True, folder)


def test_the_network_ranks_what_shared_words_cannot(results: Results) -> None:
    assert results["networks"]["biLSTM, attention"]["map"] > results["overlap alone"]["map"] + 0.2


def test_its_pictures_are_there(results: Results, folder: Path) -> None:
    assert (folder / "map.svg").stat().st_size > 1000
    assert "who was the" in (folder / "attention.svg").read_text(encoding="utf-8")


def test_an_answer_is_marked_by_what_it_shares_with_the_question() -> None:
    text = Text(grammar(9, 0), [])
    ids, marks, overlap = text.answer("who built the towers ?", "Anna built a tower in <num>")
    assert len(ids) == 6 and marks.shape == (6, 3)
    np.testing.assert_array_equal(marks[:, 0] > 0, [False, True, False, True, False, False])
    np.testing.assert_array_equal(marks[:, 1:], [[1, 0], [0, 0], [0, 0], [0, 0], [0, 0], [0, 1]])
    assert overlap == pytest.approx((text.idf("built") + text.idf("tower")) / (10 + 0.2 * 6))


def test_skip_gram_puts_words_of_the_same_neighbours_side_by_side() -> None:
    draw = np.random.default_rng(0)
    groups = [["cat", "dog", "cow"], ["eats", "sleeps"], ["red", "blue", "green"], ["paint", "ink"]]
    sentences = [[str(draw.choice(groups[k])), str(draw.choice(groups[k + 1]))] for k in (0, 2) for _ in range(400)]
    vocabulary = Vocabulary.of((w for s in sentences for w in s), unknown="<unk>", special=["<pad>"])
    vectors = skip_gram(sentences, vocabulary, 8, epochs=10)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cat, dog, red = (vectors[vocabulary.numbers[word]] for word in ("cat", "dog", "red"))
    assert cat @ dog > cat @ red + 0.3
