"""What vectors of words are judged by: WordSim-353, SimLex-999, and analogies.

Comes in: lists of words. Goes out: `WordPairs` and `Analogy`s.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flowgraph.datasets.cache import read
from flowgraph.datasets.catalogue import ANALOGIES, SIMLEX999, WORDSIM353
from flowgraph.datasets.dataset import Dataset, DatasetError, rows_of, text_of


class WordPairs(Dataset):
    """`first` and `second` str (n,), `scores` float64 (n,) from 0 to 10: how near people find them, on average."""

    @property
    def first(self) -> npt.NDArray[np.str_]:
        return self["first"]

    @property
    def second(self) -> npt.NDArray[np.str_]:
        return self["second"]

    @property
    def scores(self) -> npt.NDArray[np.float64]:
        return self["scores"]


class Analogy(NamedTuple):
    """`first` is to `second` as `third` is to `fourth`; `kind` such as 'gram3-comparative'."""

    first: str
    second: str
    third: str
    fourth: str
    kind: str


def load_wordsim353(folder: str | os.PathLike[str] | None = None) -> WordPairs:
    """353 pairs by relatedness; 'tiger' and 'tiger' is one, and two pairs are in it twice."""
    return parse_pairs(read(WORDSIM353, "wordsim353.tsv", folder), "wordsim353.tsv")


def load_simlex999(folder: str | os.PathLike[str] | None = None) -> WordPairs:
    """999 pairs by similarity, which relatedness alone does not make."""
    return parse_pairs(read(SIMLEX999, "simlex999.txt", folder), "simlex999.txt")


def load_analogies(folder: str | os.PathLike[str] | None = None) -> tuple[Analogy, ...]:
    """19,544 analogies of 14 kinds."""
    return parse_analogies(read(ANALOGIES, "questions-words.txt", folder), "questions-words.txt")


def parse_pairs(data: bytes, name: str) -> WordPairs:
    """Two words and a score a line, apart by tabs; lines that begin with # say what it is."""
    text = "\n".join("" if line.startswith("#") else line for line in text_of(data, name).split("\n"))
    rows = rows_of(text, name, columns=3)
    if not rows:
        raise DatasetError("there are no pairs in it", where=name)
    first, second, scores = zip(*rows, strict=True)
    try:
        numbers = np.array(scores, dtype=np.float64)
    except ValueError as error:
        raise DatasetError(f"not all scores are numbers: {error}", where=name) from None
    if not np.isfinite(numbers).all():
        raise DatasetError("not all scores are finite", where=name)
    return WordPairs({"first": np.array(first, np.str_), "second": np.array(second, np.str_), "scores": numbers})


def parse_analogies(data: bytes, name: str) -> tuple[Analogy, ...]:
    """Four words a line; a line `: kind` before those of a kind."""
    found, kind = [], None
    for number, line in enumerate(text_of(data, name).split("\n"), 1):
        fields = line.split()
        if fields[:1] == [":"] and len(fields) == 2:
            kind = fields[1]
        elif len(fields) == 4 and kind is not None:
            first, second, third, fourth = fields
            found.append(Analogy(first, second, third, fourth, kind))
        elif fields:
            raise DatasetError(f"no kind and no four words: {line[:60]!r}", where=f"{name}, line {number}")
    return tuple(found)
