"""From text to arrays: tokens, vocabularies, padding, buckets of like length.

Comes in: text, tokens, ragged lists of numbers. Goes out: tokens, numbers of tokens, rectangular arrays with lengths.
May not know where the text comes from.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from flowgraph.datasets.dataset import DatasetError

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|\d+(?:[.,]\d+)*|[^\w\s]|_")
END = frozenset(".!?")
UNKNOWN, PADDING = "<unk>", "<pad>"


def words(text: str, *, lower: bool = True) -> list[str]:
    """Words, with what follows an apostrophe; numbers; and punctuation marks, each a token.

    >>> words("The Union's debt: $1,500.50, they don't say -- why?")
    ['the', "union's", 'debt', ':', '$', '1,500.50', ',', 'they', "don't", 'say', '-', '-', 'why', '?']
    """
    return WORD.findall(text.lower() if lower else text)


def sentences(tokens: Iterable[str]) -> list[list[str]]:
    """Tokens cut after each ".", "!" and "?", those of them that are words: no punctuation, no numbers; none is empty.

    A point ends a sentence whatever it stands for, so an abbreviation ends one, too.

    >>> sentences(words("To the Congress: peace! In 1790, debt."))
    [['to', 'the', 'congress', 'peace'], ['in', 'debt']]
    """
    found: list[list[str]] = [[]]
    for token in tokens:
        if token in END:
            found.append([])
        elif token[:1].isalpha():
            found[-1].append(token)
    return [sentence for sentence in found if sentence]


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Tokens with numbers from 0: `tokens` (n) in the order of their numbers, `counts` int64 (n,), how often they came.

    `unknown` is the token that stands for all others, or None: then another token is an error. Made by `of`.

    >>> vocabulary = Vocabulary.of("the cat and the dog and the sea".split(), min_count=2, unknown="<unk>")
    >>> vocabulary.tokens, vocabulary.counts.tolist()
    (('<unk>', 'the', 'and'), [3, 3, 2])
    >>> vocabulary.ids(["the", "cow"]).tolist(), vocabulary.decode([1, 2])
    ([1, 0], ['the', 'and'])
    """

    tokens: tuple[str, ...]
    counts: npt.NDArray[np.int64]
    unknown: str | None = None
    numbers: Mapping[str, int] = field(init=False, repr=False)

    def __repr__(self) -> str:
        return f"<Vocabulary of {len(self.tokens):,}: {', '.join(map(repr, self.tokens[:5]))}, ...>"

    def __post_init__(self) -> None:
        numbers = {token: number for number, token in enumerate(self.tokens)}
        if len(numbers) != len(self.tokens):
            twice = next(token for token, count in Counter(self.tokens).items() if count > 1)
            raise DatasetError(f"the token {twice!r} is in a vocabulary twice")
        if self.unknown is not None and self.unknown not in numbers:
            raise DatasetError(f"the unknown token {self.unknown!r} is not in its vocabulary")
        if np.shape(self.counts) != (len(self.tokens),):
            raise DatasetError(f"counts of shape {np.shape(self.counts)} for {len(self.tokens)} tokens")
        object.__setattr__(self, "numbers", MappingProxyType(numbers))

    @classmethod
    def of(
        cls,
        tokens: Iterable[str],
        *,
        min_count: int = 1,
        most: int | None = None,
        unknown: str | None = None,
        special: Sequence[str] = (),
    ) -> Vocabulary:
        """The tokens that come at least `min_count` times, at most the `most` frequent of them.

        Numbers: first `special` tokens (such as `PADDING`), then `unknown`, then by falling count, and by the alphabet
        where counts are equal. `unknown` counts all that were left out.
        """
        if min_count < 1 or (most is not None and most < 0):
            raise DatasetError(f"min_count {min_count} or most {most} is no count", hint="1 or more; 0 or more")
        found = Counter(tokens)
        first = [*special, *([unknown] if unknown is not None and unknown not in special else [])]
        ordered = sorted(
            (token for token, count in found.items() if count >= min_count and token not in first),
            key=lambda token: (-found[token], token),
        )[:most]
        counts = [found[token] for token in (*first, *ordered)]
        if unknown is not None:
            counts[first.index(unknown)] += found.total() - sum(counts)
        return cls((*first, *ordered), np.array(counts, dtype=np.int64), unknown)

    def __len__(self) -> int:
        return len(self.tokens)

    def __contains__(self, token: object) -> bool:
        return token in self.numbers

    def ids(self, tokens: Iterable[str]) -> npt.NDArray[np.int32]:
        """The numbers int32 (n,) of tokens; `unknown`'s for one that has none, or DatasetError without `unknown`."""
        if self.unknown is not None:
            other = self.numbers[self.unknown]
            return np.array([self.numbers.get(token, other) for token in tokens], dtype=np.int32)
        numbers = []
        for place, token in enumerate(tokens):
            number = self.numbers.get(token)
            if number is None:
                raise DatasetError(
                    f"the token {token!r}, at position {place}, is not among the {len(self)} of the vocabulary",
                    hint="make the vocabulary with unknown='<unk>', or from a text that has this token",
                )
            numbers.append(number)
        return np.array(numbers, dtype=np.int32)

    def decode(self, ids: npt.ArrayLike) -> list[str]:
        """The tokens with these numbers (n,); DatasetError for a number out of range."""
        numbers = np.asarray(ids)
        if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
            raise DatasetError(f"numbers of tokens are integers (n,), not {numbers.dtype} {numbers.shape}")
        wrong = numbers[(numbers < 0) | (numbers >= len(self))]
        if wrong.size:
            raise DatasetError(f"no token has number {wrong[0]}", hint=f"numbers are from 0 to {len(self) - 1}")
        return [self.tokens[number] for number in numbers]


def lengths_of(sequences: Sequence[Any]) -> npt.NDArray[np.int32]:
    """The lengths int32 (n,) of sequences; DatasetError if one is empty, as nothing can be read from it."""
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int32)
    if lengths.size and lengths.min() == 0:
        raise DatasetError(
            f"sequence {int(lengths.argmin())} of {len(lengths)} is empty", hint="leave out empty sequences"
        )
    return lengths


def pad(
    sequences: Sequence[npt.ArrayLike], length: int | None = None, *, value: float = 0, dtype: npt.DTypeLike = np.int32
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int32]]:
    """(padded (n, T), lengths int32 (n,)): each sequence from the left, then `value` up to T.

    T is `length`, or the length of the longest. DatasetError for no sequences, an empty one, one longer than T, or
    numbers that `dtype` cannot hold.

    >>> pad([[5, 6, 7], [8]])
    (array([[5, 6, 7],
           [8, 0, 0]], dtype=int32), array([3, 1], dtype=int32))
    """
    if len(sequences) == 0:
        raise DatasetError("there are no sequences to pad")
    lengths = lengths_of(sequences)
    longest = int(lengths.max())
    if length is not None and longest > length:
        raise DatasetError(
            f"sequence {int(lengths.argmax())} has length {longest}, more than {length}",
            hint=f"cut it: sequence[:{length}]; or pad to at least {longest}",
        )
    padded = np.full((len(sequences), longest if length is None else length), value, dtype=dtype)
    for place, (row, sequence) in enumerate(zip(padded, sequences, strict=True)):
        numbers = np.asarray(sequence)
        if numbers.ndim != 1:
            raise DatasetError(f"a sequence of shape {numbers.shape} is not one of numbers")
        kept = numbers.astype(padded.dtype)
        if padded.dtype.kind in "iu" and (kept != numbers).any():
            lost = numbers[kept != numbers][0]
            problem = f"{padded.dtype} cannot hold {lost}, of sequence {place}"
            raise DatasetError(problem, hint=f"pad(..., dtype=np.{numbers.dtype})")
        row[: len(numbers)] = kept
    return padded, lengths


def buckets(lengths: npt.ArrayLike, bounds: Sequence[int]) -> dict[int, npt.NDArray[np.int64]]:
    """Which sequences to pad to which length: bound → indices int64 (m,), in order, of those that fit no smaller one.

    Bounds that nothing falls to are left out. DatasetError for a length below 1 or above the last bound, and for
    bounds that do not rise.

    >>> buckets([3, 9, 1, 4], bounds=[4, 10])
    {4: array([0, 2, 3]), 10: array([1])}
    """
    sizes = np.asarray(lengths)
    limits = np.asarray(bounds)
    if limits.ndim != 1 or not limits.size or limits[0] < 1 or (np.diff(limits) <= 0).any():
        raise DatasetError(f"the bounds of buckets must rise from 1 or more: {list(bounds)}")
    if sizes.size and (sizes.min() < 1 or sizes.max() > limits[-1]):
        place = int(sizes.argmin() if sizes.min() < 1 else sizes.argmax())
        raise DatasetError(f"sequence {place} has length {sizes[place]}, which no bucket from 1 to {limits[-1]} holds")
    found = np.searchsorted(limits, sizes)
    return {int(limits[one]): np.flatnonzero(found == one) for one in np.unique(found)}


def shuffled_buckets(
    lengths: npt.ArrayLike, bounds: Sequence[int], size: int, seed: int | Sequence[int] = 0
) -> list[tuple[int, npt.NDArray[np.int64]]]:
    """An epoch of buckets: (bound, indices of at most `size` sequences that fit it), each sequence once, all in an
    order that follows from `seed`.

    So that short sequences are not all learned from before long ones: `size` is some minibatches. DatasetError as of
    `buckets`.

    >>> shuffled_buckets([3, 9, 1, 4], bounds=[4, 10], size=2, seed=1)
    [(10, array([1])), (4, array([0, 2])), (4, array([3]))]
    """
    if size < 1:
        raise DatasetError(f"groups of {size} sequences", hint="1 or more: some minibatches")
    rng = np.random.default_rng(seed)
    groups = []
    for bound, rows in buckets(lengths, bounds).items():
        mixed = rng.permutation(rows)
        groups += [(bound, mixed[k : k + size]) for k in range(0, len(mixed), size)]
    return [groups[k] for k in rng.permutation(len(groups))]
