"""The addresses on the State of the Union, 1790 to 2021.

Comes in: a text an address, named by year, president and party. Goes out: `Address`es, with their words.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from flowgraph.datasets.cache import read
from flowgraph.datasets.catalogue import SOTU
from flowgraph.datasets.dataset import DatasetError, Parts, by_tens, text_of
from flowgraph.datasets.packed import unpack
from flowgraph.datasets.text import words

PARTIES = {
    "d": "Democratic", "dr": "Democratic-Republican", "f": "Federalist", "n": "none", "nu": "National Union",
    "r": "Republican", "w": "Whig", "wd": "Whig, later Democratic",
}  # fmt: skip


@dataclass(frozen=True)
class Address:
    """One address: `year`, `president` as in 'george_washington', `party` one of `PARTIES`, `text`."""

    year: int
    president: str
    party: str
    text: str

    @cached_property
    def tokens(self) -> list[str]:
        """Words in small letters, numbers, and punctuation marks, each a token; see `text.words`."""
        return words(self.text)


def load_sotu(folder: str | os.PathLike[str] | None = None) -> Parts[tuple[Address, ...]]:
    """233 addresses in the order of years.

    Every tenth of them is for validation (the 5th, the 15th, …) and every tenth for testing (the 10th, the 20th, …).
    """
    return by_tens(parse_addresses(unpack(read(SOTU, "sotu.tar", folder), "sotu.tar")))


def parse_addresses(files: Mapping[str, bytes]) -> tuple[Address, ...]:
    """Addresses from files named as 1790_george_washington_n.txt."""
    found = []
    for name, content in sorted(files.items()):
        named = re.fullmatch(r"(\d{4})_(\w+)_([a-z]+)\.txt", name)
        if named is None or named[3] not in PARTIES:
            raise DatasetError("the name is not YEAR_PRESIDENT_PARTY.txt", where=name)
        found.append(Address(int(named[1]), named[2], named[3], text_of(content, name)))
    return tuple(found)
