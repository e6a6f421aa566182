"""Tokens, vocabularies, padding and buckets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowgraph.datasets import DatasetError
from flowgraph.datasets.text import PADDING, UNKNOWN, Vocabulary, buckets, lengths_of, pad, shuffled_buckets, words

TEXT = ["the", "cat", "and", "the", "dog", "and", "the", "sea"]
TOKENS = st.lists(st.text("abc", min_size=1, max_size=2), max_size=30)
RAGGED = st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=9), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        (" \n\t ", []),
        ("Don't stop.", ["don't", "stop", "."]),
        ("1,000.50 or 3rd", ["1,000.50", "or", "3", "rd"]),
        ("á la peña—¿No?", ["á", "la", "peña", "—", "¿", "no", "?"]),
        ("dogs' snake_case", ["dogs", "'", "snake", "_", "case"]),
    ],
)
def test_words_numbers_and_marks_are_tokens(text: str, tokens: list[str]) -> None:
    assert words(text) == tokens


def test_words_keep_their_capitals_if_asked() -> None:
    assert words("Fellow-Citizens", lower=False) == ["Fellow", "-", "Citizens"]


def test_numbers_go_by_falling_count_then_by_the_alphabet() -> None:
    vocabulary = Vocabulary.of(TEXT)
    assert vocabulary.tokens == ("the", "and", "cat", "dog", "sea")
    assert vocabulary.counts.tolist() == [3, 2, 1, 1, 1] and vocabulary.counts.dtype == np.int64
    assert len(vocabulary) == 5 and "cat" in vocabulary and "cow" not in vocabulary


def test_special_tokens_come_first_and_the_unknown_one_counts_what_was_left_out() -> None:
    vocabulary = Vocabulary.of(TEXT, min_count=2, unknown=UNKNOWN, special=[PADDING])
    assert vocabulary.tokens == (PADDING, UNKNOWN, "the", "and")
    assert vocabulary.counts.tolist() == [0, 3, 3, 2]
    assert Vocabulary.of(TEXT, special=[UNKNOWN, PADDING], unknown=UNKNOWN).tokens[:2] == (UNKNOWN, PADDING)


def test_a_vocabulary_can_be_limited_to_the_most_frequent() -> None:
    assert Vocabulary.of(TEXT, most=1).tokens == ("the",)
    assert Vocabulary.of(TEXT, most=0, unknown=UNKNOWN).counts.tolist() == [8]


def test_a_token_that_is_not_in_the_vocabulary_is_the_unknown_one_or_an_error_by_choice() -> None:
    assert Vocabulary.of(TEXT, unknown=UNKNOWN).ids(["cow", "the"]).tolist() == [0, 1]
    with pytest.raises(DatasetError, match=r"token 'cow', at position 1, is not among the 5(.|\n)*unknown='<unk>'"):
        Vocabulary.of(TEXT).ids(["the", "cow"])


@given(TOKENS)
def test_numbers_decode_to_their_tokens(tokens: list[str]) -> None:
    vocabulary = Vocabulary.of(tokens)
    ids = vocabulary.ids(tokens)
    assert ids.dtype == np.int32 and ids.shape == (len(tokens),)
    assert vocabulary.decode(ids) == tokens


@given(TOKENS, st.integers(1, 4), st.none() | st.integers(0, 5))
def test_counts_add_up_to_the_text_where_there_is_an_unknown_token(
    tokens: list[str], min_count: int, most: int | None
) -> None:
    vocabulary = Vocabulary.of(tokens, min_count=min_count, most=most, unknown=UNKNOWN)
    assert vocabulary.counts.sum() == len(tokens)
    assert np.array_equal(np.bincount(vocabulary.ids(tokens), minlength=len(vocabulary)), vocabulary.counts)


@pytest.mark.parametrize("number", [-1, 5])
def test_a_number_that_is_no_tokens_is_refused(number: int) -> None:
    with pytest.raises(DatasetError, match=rf"no token has number {number}(.|\n)*from 0 to 4"):
        Vocabulary.of(TEXT).decode([0, number])


@pytest.mark.parametrize("ids", [[0.5], [[0]]])
def test_only_a_row_of_integers_is_decoded(ids: list[object]) -> None:
    with pytest.raises(DatasetError, match="integers"):
        Vocabulary.of(TEXT).decode(ids)


@pytest.mark.parametrize("wrong", [{"min_count": 0}, {"most": -1}, {"special": ["a", "a"]}])
def test_a_vocabulary_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(DatasetError):
        Vocabulary.of(TEXT, **wrong)  # type: ignore[arg-type]


def test_a_vocabulary_made_by_hand_is_checked() -> None:
    with pytest.raises(DatasetError, match="'b' is not in its"):
        Vocabulary(("a",), np.ones(1, np.int64), "b")
    with pytest.raises(DatasetError, match=r"counts of shape \(2,\) for 1"):
        Vocabulary(("a",), np.ones(2, np.int64))


@given(RAGGED, st.integers(0, 5))
def test_padding_keeps_every_number_and_says_how_many_there_are(sequences: list[list[int]], more: int) -> None:
    longest = max(map(len, sequences))
    padded, lengths = pad(sequences, longest + more, value=-1)
    assert padded.shape == (len(sequences), longest + more) and padded.dtype == lengths.dtype == np.int32
    assert [row[:n].tolist() for row, n in zip(padded, lengths, strict=True)] == sequences
    assert all((row[n:] == -1).all() for row, n in zip(padded, lengths, strict=True))


def test_padding_takes_another_dtype() -> None:
    assert pad([[0.5], [1, 2]], value=np.nan, dtype=np.float32)[0].dtype == np.float32


@pytest.mark.parametrize(
    ("sequences", "length", "message"),
    [
        ([], None, "no sequences"),
        ([[1], [], [2]], None, "sequence 1 of 3 is empty"),
        ([[1], [1, 2, 3]], 2, r"sequence 1 has length 3, more than 2(.|\n)*sequence\[:2\]"),
        ([[[1, 2]]], None, r"shape \(1, 2\)"),
    ],
)
def test_what_cannot_be_padded_is_refused(sequences: list[list[int]], length: int | None, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        pad(sequences, length)


@given(st.lists(st.integers(1, 20), max_size=30), st.sets(st.integers(1, 19), max_size=4))
def test_every_sequence_is_in_the_smallest_bucket_that_fits(lengths: list[int], bounds: set[int]) -> None:
    rising = [*sorted(bounds), 20]
    found = buckets(lengths, rising)
    assert sorted(np.concatenate([*found.values(), np.zeros(0, int)]).tolist()) == list(range(len(lengths)))
    for bound, indices in found.items():
        assert indices.tolist() == sorted(indices) and len(indices) > 0
        assert {min(b for b in rising if b >= lengths[i]) for i in indices} == {bound}


@pytest.mark.parametrize("lengths", [[3, 0], [3, 11]])
def test_a_length_that_no_bucket_holds_is_refused(lengths: list[int]) -> None:
    with pytest.raises(DatasetError, match=f"sequence 1 has length {lengths[1]}"):
        buckets(lengths, [5, 10])


@pytest.mark.parametrize("bounds", [[], [0, 3], [3, 3], [5, 2]])
def test_bounds_that_do_not_rise_are_refused(bounds: list[int]) -> None:
    with pytest.raises(DatasetError, match="bounds of buckets must rise"):
        buckets([1], bounds)


@given(st.lists(st.integers(1, 20), max_size=30), st.integers(1, 7), st.integers(0, 3))
def test_an_epoch_of_buckets_has_every_sequence_once(lengths: list[int], size: int, seed: int) -> None:
    bounds = [5, 12, 20]
    found = shuffled_buckets(lengths, bounds, size, seed)
    assert sorted(row for _, rows in found for row in rows.tolist()) == list(range(len(lengths)))
    for bound, rows in found:
        assert 1 <= len(rows) <= size
        assert {min(b for b in bounds if b >= lengths[i]) for i in rows} == {bound}
    again = shuffled_buckets(lengths, bounds, size, seed)
    assert [(bound, rows.tolist()) for bound, rows in found] == [(bound, rows.tolist()) for bound, rows in again]


def test_epochs_of_buckets_differ_by_seed_and_groups_have_sequences() -> None:
    first, second = (shuffled_buckets([1, 2] * 20, [1, 2], 4, seed) for seed in (1, 2))
    assert [rows.tolist() for _, rows in first] != [rows.tolist() for _, rows in second]
    assert [bound for bound, _ in first] != sorted(bound for bound, _ in first)  # short and long ones in turns
    with pytest.raises(DatasetError, match="groups of 0 sequences"):
        shuffled_buckets([1], [1], 0)


def test_lengths_are_counted() -> None:
    assert lengths_of([[1, 2], [3]]).tolist() == [2, 1]
