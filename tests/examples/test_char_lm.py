"""The character language model in its quick mode, on The Tempest; and its n-grams."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from examples import char_lm
from flowgraph.datasets import DatasetError


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("char_lm")
    found = char_lm.main(True, out)
    return found | {"pictures": {path.name for path in out.iterdir()}}


def test_it_learns_more_than_single_characters_say(results: Any) -> None:
    text = char_lm.texts(True)["train"]
    counts = np.unique(list(text), return_counts=True)[1]
    single = -np.sum(counts / len(text) * np.log(counts / len(text)))  # 3.2
    assert results["nats"]["last_part"] < single - 0.9
    assert results["pictures"] == {"curve.svg"}


def test_low_temperatures_are_less_surprising(results: Any) -> None:
    text = char_lm.texts(True)["train"]
    pairs = {text[k : k + 4] for k in range(len(text))}
    known = {
        name: np.mean([sample[k : k + 4] in pairs for k in range(len(sample) - 3)])
        for name, sample in results["samples"].items()
    }
    assert known["0_5"] > known["1"]
    assert len({len(sample) for sample in results["samples"].values()}) == 1


def test_ten_characters_copy_the_text_and_cannot_judge_another(results: Any) -> None:
    grams = results["ngrams"]
    text = char_lm.texts(True)["train"]
    pieces = {text[k : k + 11] for k in range(len(text))}
    assert all(grams["sample"][k : k + 11] in pieces for k in range(len(grams["sample"]) - 10))
    assert grams["unseen"]["last_part"] > 0.5
    costs = grams["by_order"]["last_part"]
    assert np.isfinite(costs).all() and len(costs) == 11 and grams["best"]["last_part"] == min(costs)
    assert costs[0] > costs[1] > costs[2]  # letters, pairs, triples


def test_backed_off_probabilities_add_up_to_one() -> None:
    ids = np.random.default_rng(0).integers(0, 4, 300).astype(np.int32)
    grams = char_lm.NGrams(ids, 5, order=3)
    for context in ([0, 1, 2], [4, 4, 4], [3, 3, 4]):  # seen, never seen, seen in no part
        each = [grams.probabilities(np.array([*context, c]))[0][-1, 0] for c in range(5)]
        assert sum(each) == pytest.approx(1.0)
        assert min(each) > 0


def test_probabilities_are_those_of_counts() -> None:
    ids = np.array([0, 1, 0, 1, 0, 2])
    smooth, plain = char_lm.NGrams(ids, 3, order=1).probabilities(np.array([0, 1]))
    unigram = (2 + 3 * (1 / 3)) / (6 + 3)
    assert plain.tolist() == [2 / 3]  # after 0 come 1, 1, 2
    assert smooth[:, 0] == pytest.approx([unigram, (2 + 2 * unigram) / (3 + 2)])


def test_a_stream_goes_on_where_its_last_row_ended() -> None:
    data = char_lm.as_streams(np.arange(13), 3)
    assert data["x"].tolist() == [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]]
    assert (data["y"] == data["x"] + 1).all()
    with pytest.raises(DatasetError, match="3 characters are too few for 3 streams"):
        char_lm.as_streams(np.arange(3), 3)
