"""Sentences, pairs of near words, counts of them; vectors of words and what they are worth."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowgraph.datasets import (
    DatasetError,
    Vocabulary,
    WordPairs,
    WordVectors,
    cooccurrences,
    keep_probabilities,
    sentences,
    skipgram_pairs,
    spearman,
)
from flowgraph.datasets.similarity import Analogy

texts = st.lists(st.lists(st.integers(0, 6), max_size=9), min_size=1, max_size=6).filter(any)

# Sentences


def test_sentences_end_at_points_and_hold_words_alone() -> None:
    tokens = ["we", ",", "the", "people", ".", ".", "1790", "!", "don't", "?"]
    assert sentences(tokens) == [["we", "the", "people"], ["don't"]]
    assert sentences([]) == []


# Frequent words


def test_rare_words_are_kept_and_frequent_ones_by_word2vecs_formula() -> None:
    kept = keep_probabilities([99_000, 1000, 10, 0], threshold=1e-2)
    share = 99_000 / 100_010
    assert kept[0] == pytest.approx((np.sqrt(share / 1e-2) + 1) * 1e-2 / share)
    assert kept[1:].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("counts", "threshold"), [([], 1e-3), ([0, 0], 1e-3), ([[1]], 1e-3), ([1, -1], 1e-3), ([1], 0)]
)
def test_counts_that_make_no_sense_are_refused(counts: list[int], threshold: float) -> None:
    with pytest.raises(DatasetError):
        keep_probabilities(counts, threshold)


# Pairs


@given(texts, st.integers(0, 9))
def test_pairs_are_of_near_words_of_one_sentence(text: list[list[int]], seed: int) -> None:
    """Every pair that a window of 1 has is there, no pair more often than a window of 3 has it."""
    words, contexts = skipgram_pairs(text, 3, seed=seed)
    assert words.dtype == contexts.dtype == np.int32
    found = Counter(zip(words.tolist(), contexts.tolist(), strict=True))

    def within(window: int) -> Counter[tuple[int, int]]:
        near = (
            (s[i], s[j])
            for s in text
            for i in range(len(s))
            for j in range(max(i - window, 0), min(i + window + 1, len(s)))
            if i != j
        )
        return Counter(near)

    assert within(1) <= found <= within(3)


def test_nearer_words_come_more_often() -> None:
    """Of a window of 4, a word at distance d is reached with the probability (5 - d) / 4."""
    text = [np.arange(10)] * 5000
    words, contexts = skipgram_pairs(text, 4, seed=0)
    first = Counter(contexts[words == 0].tolist())
    assert first[1] == 5000
    for distance in (2, 3, 4):
        assert abs(first[distance] / 5000 - (5 - distance) / 4) < 0.03
    assert set(first) == {1, 2, 3, 4}


def test_words_left_out_close_up() -> None:
    words, contexts = skipgram_pairs([[0, 1, 2]] * 3, 1, seed=0, keep=[1, 0, 1])
    assert Counter(zip(words.tolist(), contexts.tolist(), strict=True)) == {(0, 2): 3, (2, 0): 3}
    frequent = skipgram_pairs([[0, 1]] * 4000, 1, seed=1, keep=[0.25, 1])[0]
    assert abs(len(frequent) / 8000 - 0.25) < 0.04


def test_a_seed_repeats_its_pairs_and_epochs_differ() -> None:
    text = [np.arange(50)]
    first, again, other = (skipgram_pairs(text, 5, seed=(1, epoch))[1] for epoch in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize("make", [lambda text, **more: skipgram_pairs(text, seed=0, **more), cooccurrences])
def test_sentences_that_are_none_are_refused(make) -> None:
    for text, message in (
        ([], "no tokens"),
        ([[]], "no tokens"),
        ([[0, -1]], "sentence 0"),
        ([[1], [0.5]], "sentence 1"),
        ([["a"]], "sentence 0"),
        ([[[1]]], "sentence 0"),
    ):
        with pytest.raises(DatasetError, match=message):
            make(text)
    with pytest.raises(DatasetError, match="window of 0"):
        make([[1, 2]], window=0)


def test_probabilities_must_cover_all_words() -> None:
    with pytest.raises(DatasetError, match="numbers up to 2"):
        skipgram_pairs([[0, 2]], seed=0, keep=[1, 1])


# Counts


@given(texts, st.integers(1, 4))
def test_cooccurrences_count_one_over_the_distance_in_both_orders(text: list[list[int]], window: int) -> None:
    expected = np.zeros((7, 7))
    for s in text:
        for i in range(len(s)):
            for j in range(max(i - window, 0), min(i + window + 1, len(s))):
                if i != j:
                    expected[s[i], s[j]] += 1 / abs(i - j)
    rows, columns, counts = cooccurrences(text, window)
    found = np.zeros((7, 7))
    found[rows, columns] = counts
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert len(counts) == np.count_nonzero(expected)
    assert (np.diff(rows.astype(np.int64) * 7 + columns) > 0).all()


# Rank correlation


def test_equal_numbers_share_the_mean_of_their_ranks() -> None:
    """SciPy 1.17: spearmanr([1, 2, 2, 3, 9, 5], [2, 1, 1, 7, 7, 3]).statistic."""
    assert spearman([1, 2, 2, 3, 9, 5], [2, 1, 1, 7, 7, 3]) == pytest.approx(0.7164977208318385)


@given(st.lists(st.integers(-9, 9), min_size=2, max_size=30).filter(lambda a: len(set(a)) > 1))
def test_what_rises_with_it_correlates_fully(values: list[int]) -> None:
    cubes = [v**3 for v in values]
    assert spearman(values, cubes) == pytest.approx(1)
    assert spearman(values, [-v for v in cubes]) == pytest.approx(-1)


@pytest.mark.parametrize(("one", "two"), [([1], [1]), ([1, 2], [1, 2, 3]), ([1, 1], [1, 2]), ([1, np.nan], [1, 2])])
def test_what_has_no_rank_correlation_is_refused(one: list[float], two: list[float]) -> None:
    with pytest.raises(DatasetError):
        spearman(one, two)


# Vectors


def plane() -> WordVectors:
    """Kings and men, queens and women, and a word far from them, in small letters."""
    rows = {"man": (1, 0, 0), "woman": (1, 1, 0), "king": (1, 0, 1), "queen": (1, 1, 1), "sea": (-3, 0, -0.1)}
    vocabulary = Vocabulary(tuple(rows), np.ones(5, np.int64))
    return WordVectors(vocabulary, np.array(list(rows.values()), np.float32))


def test_neighbours_come_by_their_cosines() -> None:
    near = plane().nearest("man", 9)
    assert [word for word, _ in near][:2] == ["woman", "king"] and near[-1][0] == "sea" and len(near) == 4
    assert near[0][1] == pytest.approx(2**-0.5)
    assert plane().nearest("Man", 1) == plane().nearest("man", 1)


def test_an_analogy_is_answered_by_none_of_its_own_words() -> None:
    assert plane().analogy("man", "king", "woman")[0][0] == "queen"
    asked = [
        Analogy("man", "king", "woman", "queen", "k"),
        Analogy("man", "woman", "king", "sea", "k"),
        Analogy("man", "woman", "king", "lake", "k"),
    ]
    assert plane().judge_analogies(asked) == (0.5, 2)
    with pytest.raises(DatasetError, match="no analogy"):
        plane().judge_analogies(asked[2:])


def test_pairs_are_judged_where_both_words_are_known() -> None:
    pairs = WordPairs({
        "first": np.array(["Man", "man", "man", "lake"]),
        "second": np.array(["woman", "sea", "queen", "sea"]),
        "scores": np.array([9.0, 1.0, 8.0, 5.0]),
    })  # fmt: skip
    assert plane().judge_pairs(pairs) == (1, 3)


def test_a_vector_of_zeros_is_near_nothing() -> None:
    vectors = WordVectors(Vocabulary(("a", "b"), np.ones(2, np.int64)), np.array([[0.0, 0.0], [1.0, 2.0]]))
    assert vectors.similarity("a", "b") == 0


def test_vectors_that_do_not_fit_and_words_that_are_unknown_are_refused() -> None:
    vocabulary = plane().vocabulary
    for array, message in (
        (np.zeros((4, 2)), "5 words"),
        (np.zeros(5), "5 words"),
        (np.full((5, 2), np.nan), "finite"),
    ):
        with pytest.raises(DatasetError, match=message):
            WordVectors(vocabulary, array)
    with pytest.raises(DatasetError, match="'lake' is not among the 5"):
        plane().nearest("lake")
