"""CoNLL-2003: sentences of news with their parts of speech, chunks and named entities.

Comes in: a word a line with three tags, an empty line after a sentence. Goes out: `NewsSentence`s in three parts.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from sys import intern
from typing import NamedTuple

from flowgraph.datasets.cache import read
from flowgraph.datasets.catalogue import CONLL2003
from flowgraph.datasets.dataset import DatasetError, Parts, text_of

ENTITIES = ("O", "B-LOC", "I-LOC", "B-MISC", "I-MISC", "B-ORG", "I-ORG", "B-PER", "I-PER")
COLUMNS = 4
DOCUMENT = "-DOCSTART-"


class NewsSentence(NamedTuple):
    """Four tuples of equal length: `words`, `pos`, `chunks`, and `entities`, which are of `ENTITIES`.

    A chunk's or entity's first word is marked B-, its others I-.
    """

    words: tuple[str, ...]
    pos: tuple[str, ...]
    chunks: tuple[str, ...]
    entities: tuple[str, ...]


def load_conll2003(folder: str | os.PathLike[str] | None = None) -> Parts[tuple[NewsSentence, ...]]:
    """14,041, 3,250 and 3,453 sentences, as its authors divided them; marks of a document's start are left out."""
    names = ("train.txt", "valid.txt", "test.txt")
    return Parts(*(tuple(parse_conll(read(CONLL2003, name, folder), name)) for name in names))


def parse_conll(data: bytes, name: str) -> Iterator[NewsSentence]:
    """The sentences of one file; DatasetError, with the line, where a line has not four fields or an unknown entity."""
    sentence: list[list[str]] = []
    for number, line in enumerate([*text_of(data, name).split("\n"), ""], 1):
        fields = [intern(field) for field in line.split()]
        if not fields:
            if sentence and sentence[0][0] != DOCUMENT:
                yield NewsSentence(*zip(*sentence, strict=True))
            sentence = []
            continue
        where = f"{name}, line {number}"
        if len(fields) != COLUMNS:
            raise DatasetError(f"{len(fields)} fields instead of {COLUMNS}: {line[:60]!r}", where=where)
        if fields[-1] not in ENTITIES:
            raise DatasetError(
                f"{fields[-1]!r} is no entity's tag", where=where, hint=f"they are {', '.join(ENTITIES)}"
            )
        sentence.append(fields)


class EntityScores(NamedTuple):
    """Shares: of the entities found, those that are right; of those there are, those that were found; their harmonic
    mean. `by_kind` has the third for each kind of entity."""

    precision: float
    recall: float
    f1: float
    by_kind: Mapping[str, float]


def entity_scores(expected: Sequence[Sequence[str]], found: Sequence[Sequence[str]]) -> EntityScores:
    """How well entities are found, of tags by sentence: one counts if its kind, first and last word are right.

    As the shared task's `conlleval` counts (Tjong Kim Sang and De Meulder 2003). DatasetError where the two differ in
    sentences or words, and for a tag of another form.

    >>> entity_scores([["B-PER", "I-PER", "O", "B-LOC"]], [["B-PER", "I-PER", "O", "O"]])
    EntityScores(precision=1.0, recall=0.5, f1=0.6666666666666666, by_kind={'LOC': 0.0, 'PER': 1.0})
    """
    if len(expected) != len(found):
        raise DatasetError(f"tags of {len(expected)} and of {len(found)} sentences")
    there: Counter[str] = Counter()
    claimed: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for number, (own, other) in enumerate(zip(expected, found, strict=True)):
        if len(own) != len(other):
            raise DatasetError(f"{len(own)} and {len(other)} tags", where=f"sentence {number}")
        ours, theirs = entities_of(own), entities_of(other)
        there.update(kind for kind, *_ in ours)
        claimed.update(kind for kind, *_ in theirs)
        right.update(kind for kind, *_ in ours & theirs)
    by_kind = {kind: _f1(right[kind], claimed[kind], there[kind]) for kind in sorted(there | claimed)}
    precision, recall = (right.total() / max(of.total(), 1) for of in (claimed, there))
    return EntityScores(precision, recall, _f1(right.total(), claimed.total(), there.total()), by_kind)


def entities_of(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """The entities of a sentence: (kind, first word, one after the last).

    I- goes on with an entity of the same kind, and begins one after anything else, as in `conlleval`.
    """
    entities = set()
    kind, start = "", 0
    for place, tag in enumerate([*tags, "O"]):
        mark, _, own = tag.partition("-")
        if not (tag == "O" or (mark in ("B", "I") and own)):
            raise DatasetError(f"{tag!r}, at word {place}, is no entity's tag", hint="O, B-kind or I-kind")
        if kind and (mark != "I" or own != kind):
            entities.add((kind, start, place))
        if mark == "B" or own != kind:
            kind, start = own, place
    return entities


def _f1(right: int, found: int, there: int) -> float:
    """2PR / (P + R), of counts; 0 where there is nothing to count."""
    return 2 * right / (found + there) if found + there else 0.0
