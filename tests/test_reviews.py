"""Reviews from a file of JSON lines: what is read, and what is said of a file that is missing or damaged."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from examples.made.reviews import write_reviews
from flowgraph.datasets import DatasetError, MissingDataError, load_reviews
from flowgraph.datasets.reviews import parse_reviews

GOOD = (
    '{"user": "ann", "item": "b1", "rating": 4, "text": "Good soup."}\n'
    "\n"
    '{"user": 7, "item": "b2", "rating": 2.5, "text": "Café fermé", "votes": 3}\n'
    '{"user": "ann", "item": "b2", "rating": 5, "text": ""}'
)


def test_users_and_items_are_numbered_as_they_come(tmp_path: Path) -> None:
    for name, data in (("a.jsonl", GOOD.encode()), ("a.jsonl.gz", gzip.compress(GOOD.encode()))):
        (tmp_path / name).write_bytes(data)
        reviews = load_reviews(tmp_path / name)
        assert reviews.users.tolist() == [0, 1, 0] and reviews.user_names == ("ann", "7")
        assert reviews.items.tolist() == [0, 1, 1] and reviews.item_names == ("b1", "b2")
        assert reviews.ratings.dtype == np.float32 and reviews.ratings.tolist() == [4, 2.5, 5]
        assert reviews.texts.tolist() == ["Good soup.", "Café fermé", ""]
        assert reviews.take([2]).texts.tolist() == [""]


def test_fields_may_have_other_names() -> None:
    line = b'{"reviewerID": "x", "asin": "y", "overall": 1.0, "reviewText": "Never again."}'
    fields = {"user": "reviewerID", "item": "asin", "rating": "overall", "text": "reviewText"}
    assert parse_reviews(line, fields=fields).texts.tolist() == ["Never again."]
    with pytest.raises(DatasetError, match="'stars', which is none of user, item"):
        parse_reviews(line, fields={"stars": "overall"})


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"user": "ann"', "this is no JSON"),
        ('["ann", "b1", 4, "Good"]', "a review is a JSON object"),
        ('{"user": "ann", "item": "b1", "rating": 4}', "a review without 'text'"),
        ('{"user": "ann", "item": "b1", "rating": "4", "text": ""}', "'rating' is a finite number, got '4'"),
        ('{"user": "ann", "item": "b1", "rating": NaN, "text": ""}', "'rating' is a finite number"),
        ('{"user": "ann", "item": "b1", "rating": true, "text": ""}', "'rating' is a finite number"),
        ('{"user": null, "item": "b1", "rating": 4, "text": ""}', "'user' is a name or a number"),
        ('{"user": "ann", "item": "", "rating": 4, "text": ""}', "'item' is a name or a number"),
        ('{"user": "ann", "item": "b1", "rating": 4, "text": 3}', "'text' is a text"),
    ],
)
def test_a_damaged_line_is_named(line: str, problem: str) -> None:
    with pytest.raises(DatasetError, match=problem) as error:
        parse_reviews(f"{GOOD}\n{line}\n".encode(), "mine.jsonl")
    assert error.value.where == "mine.jsonl, line 5"


def test_no_file_and_none_that_can_be_read(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"no file .*none\.jsonl") as missing:
        load_reviews(tmp_path / "none.jsonl")
    assert '"rating": 4' in str(missing.value.hint)
    with pytest.raises(DatasetError, match="cannot read"):
        load_reviews(tmp_path)
    with pytest.raises(DatasetError, match="no review"):
        parse_reviews(b"\n\n")
    with pytest.raises(DatasetError, match="cannot decompress"):
        parse_reviews(gzip.compress(GOOD.encode())[:-9])
    with pytest.raises(DatasetError, match="no utf-8 text"):
        parse_reviews(b"\xff\xfe{}")


def test_made_reviews_are_the_same_for_the_same_seed_and_tell_of_tastes(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a", "b", "c")]
    for file, seed in zip(files, (0, 0, 1), strict=True):
        write_reviews(file, 30, 20, 10, seed)
    assert files[0].read_bytes() == files[1].read_bytes() != files[2].read_bytes()
    reviews = load_reviews(files[0])
    assert len(reviews) == 300 and len(reviews.user_names) == 30
    assert len({(u, i) for u, i in zip(reviews.users, reviews.items, strict=True)}) == 300
    assert set(reviews.ratings.tolist()) <= {1, 2, 3, 4, 5}
    praised = np.array(["superb" in t or "excellent" in t or "wonderful" in t for t in reviews.texts])
    assert reviews.ratings[praised].mean() > reviews.ratings[~praised].mean() + 0.3
