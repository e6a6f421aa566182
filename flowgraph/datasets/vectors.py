"""Vectors of words, and what they are worth: neighbours, agreement with people's judgements, analogies.

Comes in: a vocabulary and a matrix, trained or read. Goes out: words and scores. May not know how they were trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flowgraph.datasets.dataset import DatasetError
from flowgraph.datasets.similarity import Analogy, WordPairs
from flowgraph.datasets.text import Vocabulary

CHUNK = 512  # analogies at a time: their similarities to all words are a matrix


class Judged(NamedTuple):
    """A `score`, and how many of the questions, `covered`, have all their words in the vocabulary."""

    score: float
    covered: int


@dataclass(frozen=True, eq=False)
class WordVectors:
    """A vector for each word of a vocabulary: `array` (n, dimensions). Similarity is the cosine.

    A word that the vocabulary lacks is looked up in small letters.

    >>> vocabulary = Vocabulary.of("a a a b b c".split())
    >>> vectors = WordVectors(vocabulary, np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]))
    >>> [word for word, _ in vectors.nearest("a", 2)], round(vectors.similarity("A", "c"), 3)
    (['b', 'c'], 0.0)
    """

    vocabulary: Vocabulary
    array: npt.NDArray[np.floating]

    def __post_init__(self) -> None:
        if np.ndim(self.array) != 2 or len(self.array) != len(self.vocabulary):
            raise DatasetError(f"vectors of shape {np.shape(self.array)} for {len(self.vocabulary)} words")
        if not np.isfinite(self.array).all():
            raise DatasetError("not all vectors are finite")

    @cached_property
    def units(self) -> npt.NDArray[np.floating]:
        """The vectors with length 1; one of zeros stays as it is."""
        lengths = np.linalg.norm(self.array, axis=1, keepdims=True)
        return np.asarray(self.array) / np.where(lengths > 0, lengths, 1)

    def __contains__(self, word: str) -> bool:
        return word in self.vocabulary or word.lower() in self.vocabulary

    def number(self, word: str) -> int:
        """A word's row; DatasetError if it has none."""
        if word not in self:
            raise DatasetError(f"the word {word!r} is not among the {len(self.vocabulary)} of the vocabulary")
        numbers = self.vocabulary.numbers
        return numbers[word] if word in numbers else numbers[word.lower()]

    def similarity(self, first: str, second: str) -> float:
        """The cosine of two words' vectors."""
        return float(self.units[self.number(first)] @ self.units[self.number(second)])

    def nearest(self, word: str, most: int = 10) -> list[tuple[str, float]]:
        """The words most similar to one, with their cosines, the most similar first."""
        return self._best(self.units[self.number(word)], [self.number(word)], most)

    def analogy(self, first: str, second: str, third: str, most: int = 1) -> list[tuple[str, float]]:
        """`first` is to `second` as `third` is to what? The words nearest to second - first + third, of unit vectors,
        but for these three (Mikolov, Yih and Zweig 2013)."""
        a, b, c = (self.number(word) for word in (first, second, third))
        wanted = self.units[b] - self.units[a] + self.units[c]
        return self._best(wanted / max(float(np.linalg.norm(wanted)), np.finfo(np.float32).tiny), [a, b, c], most)

    def judge_pairs(self, pairs: WordPairs) -> Judged:
        """Spearman's correlation of cosines with people's scores, over the pairs whose words are both there."""
        rows = zip(pairs.first.tolist(), pairs.second.tolist(), pairs.scores.tolist(), strict=True)
        known = [(a, b, score) for a, b, score in rows if a in self and b in self]
        found = [self.similarity(a, b) for a, b, _ in known]
        return Judged(spearman(found, [score for *_, score in known]), len(known))

    def judge_analogies(self, analogies: Iterable[Analogy]) -> Judged:
        """The share of analogies whose fourth word comes first, over those whose words are all there."""
        known = [a for a in analogies if all(word in self for word in a[:4])]
        if not known:
            raise DatasetError("no analogy has all its words in the vocabulary")
        numbers = np.array([[self.number(word) for word in a[:4]] for a in known])
        right = 0
        for start in range(0, len(numbers), CHUNK):
            a, b, c, d = numbers[start : start + CHUNK].T
            scores = (self.units[b] - self.units[a] + self.units[c]) @ self.units.T
            for given in (a, b, c):
                scores[np.arange(len(a)), given] = -np.inf
            right += int((scores.argmax(axis=1) == d).sum())
        return Judged(right / len(known), len(known))

    def _best(self, wanted: npt.NDArray[np.floating], given: Sequence[int], most: int) -> list[tuple[str, float]]:
        scores = self.units @ wanted
        order = [k for k in np.argsort(-scores, kind="stable").tolist() if k not in given]
        return [(self.vocabulary.tokens[k], float(scores[k])) for k in order[:most]]


def spearman(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Spearman's rank correlation of two rows of numbers (n,); equal numbers share the mean of their ranks.

    DatasetError for fewer than two numbers, NaN, or a row of equal numbers, which has no correlation.

    >>> spearman([1, 2, 3, 4], [1, 10, 100, 90])
    0.8
    """
    one, two = (np.asarray(a, dtype=np.float64) for a in (first, second))
    if one.ndim != 1 or one.shape != two.shape or len(one) < 2:
        raise DatasetError(f"a rank correlation is of two rows of n numbers, n at least 2: {one.shape}, {two.shape}")
    if np.isnan(one).any() or np.isnan(two).any():
        raise DatasetError("NaN has no rank")
    ranks = [_ranks(a) - (len(a) - 1) / 2 for a in (one, two)]
    lengths = [float(r @ r) for r in ranks]
    if not all(lengths):
        raise DatasetError("numbers that are all equal have no rank correlation")
    return float(ranks[0] @ ranks[1] / np.sqrt(lengths[0] * lengths[1]))


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """From 0; of equal values the mean of the places they take."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts + 1) / 2)[place]
