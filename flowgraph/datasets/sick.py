"""SICK: pairs of sentences, how related they are, and whether one entails the other.

Comes in: tables whose lines end with \\n or \\r\\n. Goes out: `SentencePairs` in three parts.
"""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from flowgraph.datasets.cache import read
from flowgraph.datasets.catalogue import SICK
from flowgraph.datasets.dataset import Dataset, DatasetError, Parts, rows_of, text_of

HEADER = "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment"
JUDGEMENTS = ("NEUTRAL", "ENTAILMENT", "CONTRADICTION")


class SentencePairs(Dataset):
    """`first` and `second` str (n,), `relatedness` float32 (n,) from 1 to 5, `entailment` int32 (n,), `ids` int32 (n,).

    `entailment` counts `JUDGEMENTS` from 0. `seen` bool (n,) marks pairs whose two sentences, in either order, are a
    pair of the training part, too.
    """

    @property
    def first(self) -> npt.NDArray[np.str_]:
        return self["first"]

    @property
    def second(self) -> npt.NDArray[np.str_]:
        return self["second"]

    @property
    def relatedness(self) -> npt.NDArray[np.float32]:
        return self["relatedness"]

    @property
    def entailment(self) -> npt.NDArray[np.int32]:
        return self["entailment"]

    @property
    def seen(self) -> npt.NDArray[np.bool_]:
        return self["seen"]


def load_sick(folder: str | os.PathLike[str] | None = None) -> Parts[SentencePairs]:
    """4,500 pairs to train on, 500 to validate, 4,927 to test.

    49 of the test pairs are in the training part, too, and 32 more with their sentences swapped. They are kept, so that
    results compare with published ones, and marked: `test.take(~test.seen)` is without these 81.
    """
    names = ("SICK_train.txt", "SICK_trial.txt", "SICK_test_annotated.txt")
    train, trial, test = (parse_sick(read(SICK, name, folder), name) for name in names)
    return Parts(mark_seen(train, train), mark_seen(trial, train), mark_seen(test, train))


def mark_seen(pairs: SentencePairs, train: SentencePairs) -> SentencePairs:
    """The same pairs with `seen` anew; the training part has seen none of its own."""
    known = set() if pairs is train else {frozenset(pair) for pair in zip(train.first, train.second, strict=True)}
    seen = [frozenset(pair) in known for pair in zip(pairs.first, pairs.second, strict=True)]
    return SentencePairs({**pairs.arrays, "seen": np.array(seen, dtype=bool)})


def parse_sick(data: bytes, name: str) -> SentencePairs:
    """The pairs of one file, none of them marked as seen; DatasetError, with the line, for a damaged row."""
    header, _, rest = text_of(data, name).partition("\n")
    if header != HEADER:
        raise DatasetError(f"the header is {header[:80]!r}, not {HEADER!r}", where=f"{name}, line 1")
    rows = rows_of(rest, name, columns=5, first=2)
    for number, (identity, _, _, score, judgement) in enumerate(rows, 2):
        fits = identity.isascii() and identity.isdigit() and len(identity) < 10 and judgement in JUDGEMENTS
        try:
            fits = fits and 1 <= float(score) <= 5
        except ValueError:
            fits = False
        if not fits:
            raise DatasetError(
                f"no number, score from 1 to 5 or judgement: {identity!r}, {score!r}, {judgement!r}",
                where=f"{name}, line {number}",
                hint=f"judgements are {', '.join(JUDGEMENTS)}",
            )
    columns = list(zip(*rows, strict=True)) or [()] * 5
    return SentencePairs(
        {
            "ids": np.array(columns[0], dtype=np.int32),
            "first": np.array(columns[1], dtype=np.str_),
            "second": np.array(columns[2], dtype=np.str_),
            "relatedness": np.array(columns[3], dtype=np.float32),
            "entailment": np.array([JUDGEMENTS.index(judged) for judged in columns[4]], dtype=np.int32),
            "seen": np.zeros(len(rows), dtype=bool),
        }
    )
