"""TREC-QA: questions, candidate sentences for each, and which of them answer.

Comes in: tables of question, label, sentence. Goes out: `Question`s in three parts, and how rankings are scored.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from flowgraph.datasets.cache import read
from flowgraph.datasets.catalogue import TRECQA
from flowgraph.datasets.dataset import DatasetError, Parts, text_of

HEADER = ["qtext", "label", "atext"]


@dataclass(frozen=True, eq=False)
class Question:
    """`text`, the candidate sentences `answers`, and `labels` int32 (n,): 1 where a candidate answers, else 0.

    Words and punctuation marks are apart by spaces already; numbers are `<num>`.
    """

    text: str
    answers: tuple[str, ...]
    labels: npt.NDArray[np.int32]

    @property
    def mixed(self) -> bool:
        """Whether it has right and wrong candidates, so that a ranking can be better or worse."""
        return bool(0 < self.labels.sum() < len(self.labels))


def load_trecqa(folder: str | os.PathLike[str] | None = None, *, mixed: bool = True) -> Parts[tuple[Question, ...]]:
    """78 questions to train on, 65 to validate, 68 to test, with 4,619, 1,117 and 1,442 candidates.

    Results are stated for questions that have right and wrong candidates, 68 of the 95 test questions (21 have only
    right ones, 6 only wrong ones); with `mixed=False` all are given.
    """
    names = ("train.csv", "dev.csv", "test.csv")
    parts = (parse_trecqa(read(TRECQA, name, folder), name) for name in names)
    return Parts(*(tuple(question for question in part if question.mixed or not mixed) for part in parts))


def parse_trecqa(data: bytes, name: str) -> tuple[Question, ...]:
    """The questions of one table; rows of one question follow one another."""
    rows = csv.reader(io.StringIO(text_of(data, name), newline=""), strict=True)
    found = []
    try:
        header = next(rows, [])
        if header != HEADER:
            raise DatasetError(
                f"the header is {','.join(header)[:80]!r}, not {','.join(HEADER)!r}", where=f"{name}, line 1"
            )
        for row in rows:
            if len(row) != len(HEADER) or row[1] not in ("0", "1"):
                raise DatasetError(
                    f"no question, label 0 or 1, and answer: {row}", where=f"{name}, line {rows.line_num}"
                )
            found.append(row)
    except csv.Error as error:
        raise DatasetError(f"the table is damaged: {error}", where=f"{name}, line {rows.line_num}") from error
    questions = []
    for text, group in groupby(found, key=lambda row: row[0]):
        candidates = list(group)
        labels = np.array([row[1] for row in candidates], dtype=np.int32)
        questions.append(Question(text, tuple(row[2] for row in candidates), labels))
    return tuple(questions)


def rank_scores(questions: Sequence[Question], scores: Sequence[npt.ArrayLike]) -> tuple[float, float]:
    """(MAP, MRR) of scores (n,) for the candidates of each question, the higher the better.

    Mean average precision and mean reciprocal rank over the questions that are `mixed`. Among equal scores wrong
    candidates come first, so that a constant gains nothing. DatasetError if scores do not fit the candidates.

    >>> question = Question("who?", ("a", "b", "c"), np.array([0, 1, 1], np.int32))
    >>> rank_scores([question], [[0.9, 0.5, 0.1]])  # ranks 2 and 3
    (0.5833333333333333, 0.5)
    """
    if len(questions) != len(scores):
        raise DatasetError(f"scores of {len(scores)} questions for {len(questions)}")
    precisions, reciprocals = [], []
    for number, (question, scored) in enumerate(zip(questions, scores, strict=True)):
        values = np.asarray(scored, dtype=np.float64)
        if values.shape != question.labels.shape or np.isnan(values).any():
            raise DatasetError(
                f"question {number} has scores of shape {values.shape}, some of them NaN perhaps, for "
                f"{len(question.labels)} candidates"
            )
        if question.mixed:
            order = np.lexsort((question.labels, -values))
            ranks = np.flatnonzero(question.labels[order]) + 1
            precisions.append(float(np.mean(np.arange(1, len(ranks) + 1) / ranks)))
            reciprocals.append(1.0 / float(ranks[0]))
    if not precisions:
        raise DatasetError("no question has right and wrong candidates, so nothing can be scored")
    return float(np.mean(precisions)), float(np.mean(reciprocals))
