"""Reviews: who rated what how, and in which words. A file of your own, a JSON object a line.

Comes in: a file of lines such as {"user": "ann", "item": "b1", "rating": 4, "text": "Good soup."}. Goes out: `Reviews`.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flowgraph.datasets.cache import MissingDataError
from flowgraph.datasets.dataset import DatasetError, text_of
from flowgraph.datasets.rated import Rated

FIELDS = ("user", "item", "rating", "text")


@dataclass(frozen=True, eq=False, repr=False)
class Reviews(Rated):
    """A review a row: `users` and `items` int32 (n,) from 0, `ratings` float32 (n,), `texts` (n,) of str.

    User u is called `user_names[u]` in the file, item i `item_names[i]`; numbers are in the order of first mention.
    """

    user_names: tuple[str, ...] = ()
    item_names: tuple[str, ...] = ()

    @property
    def texts(self) -> npt.NDArray[np.object_]:
        return self["texts"]


def load_reviews(path: str | os.PathLike[str], fields: Mapping[str, str] | None = None) -> Reviews:
    """The reviews of a file, plain or compressed by gzip, in its order.

    `fields` says what the file calls user, item, rating or text where it has other words for them:
    `{"user": "reviewerID", "item": "asin", "rating": "overall", "text": "reviewText"}`. Other fields are passed over.
    MissingDataError if there is no such file; DatasetError, with the line, for a damaged one.
    """
    path = Path(path).expanduser()
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise MissingDataError(
            f"there are no reviews: no file {path}",
            hint='a file with a line such as {"user": "ann", "item": "b1", "rating": 4, "text": "Good soup."} for each',
        ) from None
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}") from error
    return parse_reviews(data, str(path), fields)


def parse_reviews(data: bytes, name: str = "reviews", fields: Mapping[str, str] | None = None) -> Reviews:
    """`Reviews` from the contents of a file; its name is for errors."""
    called = {field: field for field in FIELDS} | dict(fields or {})
    if others := set(called) - set(FIELDS):
        raise DatasetError(f"fields names {min(others)!r}, which is none of {', '.join(FIELDS)}")
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise DatasetError(f"cannot decompress it: {error}", where=name) from error
    rows = [
        _review(line, called, f"{name}, line {number}")
        for number, line in enumerate(text_of(data, name).split("\n"), 1)
        if line.strip()
    ]
    if not rows:
        raise DatasetError("there is no review in it", where=name)
    users, items, ratings, texts = zip(*rows, strict=True)
    numbers = [{who: number for number, who in enumerate(dict.fromkeys(names))} for names in (users, items)]
    words = np.empty(len(rows), dtype=object)
    words[:] = texts
    return Reviews(
        {
            "users": np.array([numbers[0][user] for user in users], np.int32),
            "items": np.array([numbers[1][item] for item in items], np.int32),
            "ratings": np.array(ratings, np.float32),
            "texts": words,
        },
        user_names=tuple(numbers[0]),
        item_names=tuple(numbers[1]),
    )


def _review(line: str, called: Mapping[str, str], where: str) -> tuple[str, str, float, str]:
    """User, item, rating and text of one line; names that are numbers become text."""
    try:
        row: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise DatasetError(f"this is no JSON: {error.msg} at column {error.colno}", where=where) from error
    if not isinstance(row, dict):
        raise DatasetError(f"a review is a JSON object, got {line[:60]!r}", where=where)
    for field in FIELDS:
        if called[field] not in row:
            hint = f"it has {', '.join(row) or 'no fields'}; fields={{{field!r}: ...}} says what {field!r} is called"
            raise DatasetError(f"a review without {called[field]!r}", where=where, hint=hint)
    user, item, rating, text = (row[called[field]] for field in FIELDS)
    for field, value in (("user", user), ("item", item)):
        if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
            raise DatasetError(f"{called[field]!r} is a name or a number, got {value!r}", where=where)
    if isinstance(rating, bool) or not isinstance(rating, (int, float)) or not math.isfinite(rating):
        raise DatasetError(f"{called['rating']!r} is a finite number, got {rating!r}", where=where)
    if not isinstance(text, str):
        raise DatasetError(f"{called['text']!r} is a text, got {text!r}", where=where)
    return str(user), str(item), float(rating), text
