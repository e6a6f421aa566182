"""CoNLL-2003: sentences of news with their parts of speech, chunks and named entities.

Comes in: a word a line with three tags, an empty line after a sentence. Goes out: `NewsSentence`s in three parts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
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
