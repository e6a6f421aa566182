"""Spam by LSTM and by a bag of words, on generated mails; and what mails become."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from examples import spam
from flowgraph.datasets import DatasetError, Mail


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("spam")
    found = spam.main(True, out)
    return found | {"pictures": {path.name for path in out.iterdir()}}


def test_both_networks_know_spam_from_its_words(results: Any) -> None:
    assert results["lstm"]["mean"] > results["majority"] + 0.2
    assert results["bag_of_words"] > results["majority"] + 0.2
    assert results["pictures"] == {"curve.svg"}


def test_the_bag_of_words_says_which_words_tell(results: Any) -> None:
    assert sum(word.startswith("offer") for word in results["spam_words"]) >= 9
    assert sum(word.startswith("work") for word in results["other_words"]) >= 9


def test_a_mail_without_text_has_tokens() -> None:
    found = spam.mails([Mail("", "", True, "spam-1/1.txt"), Mail("Hi", "Free money", False, "easy-ham-1/2.txt")])
    assert found.tokens == [["<subject>", "<body>"], ["<subject>", "hi", "<body>", "free", "money"]]
    assert found.spam.tolist() == [1, 0]


def test_mails_longer_than_they_are_padded_to_are_an_error() -> None:
    ids = [np.array([1, 2, 3]), np.array([], int)]
    with pytest.raises(DatasetError, match="length 3, more than 2"):
        spam.arrays(ids, np.array([0]), 2)
    with pytest.raises(DatasetError, match="is empty"):
        spam.arrays(ids, np.array([1]), 2)
