"""The tagger on sentences of a small grammar, and what it is compared with."""

from __future__ import annotations

from typing import Any

import pytest

from examples import tagging


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("tagging")
    found = tagging.main(True, out)
    return found | {"pictures": {path.name for path in out.iterdir()}}


def test_words_around_tell_what_an_ambiguous_word_is(results: Any) -> None:
    assert results["words_alone"]["accuracy"] > results["most_frequent"] + 0.05


def test_new_words_are_known_by_their_looks(results: Any) -> None:
    assert results["new_words"] > 0.1
    assert results["with_looks"]["of_new_words"] > results["words_alone"]["of_new_words"] + 0.1
    assert results["with_looks"]["accuracy"] > 0.95


def test_there_are_a_curve_and_an_example(results: Any) -> None:
    assert results["pictures"] == {"curve.svg"}
    assert all("/" in word for word in results["example"])


def test_the_most_frequent_tag_is_that_of_the_word_or_of_rare_words() -> None:
    train = tagging.Sentences([["a", "run", "run"], ["run", "sea", "sky"]], [["d", "v", "n"], ["n", "n", "n"]])
    assert tagging.most_frequent(train, [["run", "a", "moon"]]) == [["n", "d", "n"]]


def test_accuracy_may_be_of_some_words() -> None:
    tags, found = [["d", "n"], ["v"]], [["d", "v"], ["v"]]
    assert tagging.accuracy(tags, found) == pytest.approx(2 / 3)
    assert tagging.accuracy(tags, found, [[False, True], [True]]) == 0.5


@pytest.mark.parametrize(("word", "expected"), [("Fulton", "Xx"), ("1,500", "9,9"), ("U.S.", "X.X."), ("co-op", "x-x")])
def test_shapes_of_words(word: str, expected: str) -> None:
    assert tagging.shape(word) == expected
