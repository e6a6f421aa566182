"""MovieLens-100k: who rated which film how, and when.

Comes in: tables with a header of typed columns. Goes out: `Ratings`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from flowgraph.datasets.cache import read
from flowgraph.datasets.catalogue import MOVIELENS
from flowgraph.datasets.dataset import DatasetError, rows_of, text_of
from flowgraph.datasets.rated import Rated

MOST = 2**31 - 1  # a user, and a time until 2038
HEADERS = {
    "ml-100k.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float",
    "ml-100k.item": "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq",
}


@dataclass(frozen=True, eq=False, repr=False)
class Ratings(Rated):
    """A rating a row: `users` and `items` int32 (n,) from 0, `ratings` float32 (n,) from 1 to 5, `times` int64 (n,).

    Times are seconds since 1970. Item i is the film `titles[i]`, of the kinds `genres[i]`, such as ('Comedy',).
    """

    titles: tuple[str, ...] = ()
    genres: tuple[tuple[str, ...], ...] = ()

    @property
    def times(self) -> npt.NDArray[np.int64]:
        return self["times"]

    def split(self, seed: int = 0, test: float = 20_000) -> tuple[Self, Self]:
        """(train, test), drawn at random: by default 80,000 and 20,000."""
        return super().split(seed, test)

    def split_latest(self, test: int = 1) -> tuple[Self, Self]:
        """(train, test): each user's `test` latest ratings are held out; of equal times, those later in the file.

        DatasetError if a user has no more than that.
        """
        order = np.lexsort((np.arange(len(self)), self.times, self.users))
        _, first, count = np.unique(self.users[order], return_index=True, return_counts=True)
        if test < 1 or int(count.min()) <= test:
            raise DatasetError(
                f"cannot hold out {test} ratings of each user", hint=f"ask for 1 to {int(count.min()) - 1}"
            )
        from_end = np.repeat(first + count, count) - np.arange(len(self))
        held = np.zeros(len(self), dtype=bool)
        held[order] = from_end <= test
        return self.take(~held), self.take(held)


def load_movielens(folder: str | os.PathLike[str] | None = None) -> Ratings:
    """100,000 ratings by 943 users of 1,682 films, in the order of the file."""
    return parse_ratings(read(MOVIELENS, "ml-100k.inter", folder), read(MOVIELENS, "ml-100k.item", folder))


def parse_ratings(ratings: bytes, items: bytes) -> Ratings:
    """`Ratings` from the contents of ml-100k.inter and ml-100k.item; DatasetError, with the line, for a damaged row."""
    films = _table(items, "ml-100k.item")
    for number, (item, *_) in enumerate(films, 1):
        if item != str(number):
            raise DatasetError(f"item {item!r} where {number} should be", where=f"ml-100k.item, line {number + 1}")
    rows = _table(ratings, "ml-100k.inter")
    try:
        table = np.array(rows, dtype=np.float64).reshape(-1, 4)
    except ValueError as error:
        raise DatasetError(f"not all ratings are numbers: {error}", where="ml-100k.inter") from None
    users, rated, stars, times = table.T
    whole = np.all(np.floor(table[:, [0, 1, 3]]) == table[:, [0, 1, 3]], axis=1)
    good = (users >= 1) & (users <= MOST) & (rated >= 1) & (rated <= len(films)) & (stars >= 1) & (stars <= 5)
    good &= whole & (np.abs(times) <= MOST)  # NaN and infinity are not good either
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        raise DatasetError(
            f"no user, none of {len(films)} items, no rating from 1 to 5 or no time: {rows[row]}",
            where=f"ml-100k.inter, line {row + 2}",
        )
    return Ratings(
        {
            "users": (users - 1).astype(np.int32),
            "items": (rated - 1).astype(np.int32),
            "ratings": stars.astype(np.float32),
            "times": times.astype(np.int64),
        },
        titles=tuple(title for _, title, _, _ in films),
        genres=tuple(tuple(kinds.split()) for _, _, _, kinds in films),
    )


def _table(data: bytes, name: str) -> list[list[str]]:
    header, _, rest = text_of(data, name).partition("\n")
    if header != HEADERS[name]:
        raise DatasetError(f"the header is {header[:80]!r}, not {HEADERS[name]!r}", where=f"{name}, line 1")
    return rows_of(rest, name, columns=4, first=2)
