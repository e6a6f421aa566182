"""The Brown corpus: sentences whose words have their part of speech.

Comes in: 500 texts of word/tag. Goes out: `TaggedSentence`s in three parts, with 92 tags or the corpus's own 472.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from sys import intern
from typing import NamedTuple

from flowgraph.datasets.cache import read
from flowgraph.datasets.catalogue import BROWN
from flowgraph.datasets.dataset import DatasetError, Parts, by_tens, text_of
from flowgraph.datasets.packed import unpack

GENRES = {
    "ca": "news", "cb": "editorial", "cc": "reviews", "cd": "religion", "ce": "hobbies", "cf": "lore",
    "cg": "belles lettres", "ch": "government", "cj": "learned", "ck": "fiction", "cl": "mystery",
    "cm": "science fiction", "cn": "adventure", "cp": "romance", "cr": "humor",
}  # fmt: skip
TAGS: tuple[str, ...] = (
    "'", "''", "(", ")", "*", ",", "--", ".", ":", "``", "abl", "abn", "abx", "ap", "ap$", "at", "be", "bed", "bedz",
    "beg", "bem", "ben", "ber", "bez", "cc", "cd", "cd$", "cs", "do", "dod", "doz", "dt", "dt$", "dti", "dts", "dtx",
    "ex", "hv", "hvd", "hvg", "hvn", "hvz", "in", "jj", "jj$", "jjr", "jjs", "jjt", "md", "nil", "nn", "nn$", "nns",
    "nns$", "np", "np$", "nps", "nps$", "nr", "nr$", "nrs", "od", "pn", "pn$", "pp$", "pp$$", "ppl", "ppls", "ppo",
    "pps", "ppss", "ql", "qlp", "rb", "rb$", "rbr", "rbt", "rn", "rp", "to", "uh", "vb", "vbd", "vbg", "vbn", "vbz",
    "wdt", "wp$", "wpo", "wps", "wql", "wrb",
)  # fmt: skip
_KNOWN = frozenset(TAGS)


class TaggedSentence(NamedTuple):
    """`words` and `tags` of equal length; `text` is the file they are from, its first two letters a key of `GENRES`."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    text: str


def load_brown(
    folder: str | os.PathLike[str] | None = None, *, collapse: bool = True
) -> Parts[tuple[TaggedSentence, ...]]:
    """57,340 sentences, 1,161,192 words: 45,829 sentences to train on, 5,869 to validate, 5,642 to test.

    Of each ten of the 500 texts, in the order of their names, the 5th is for validation, the 10th for testing, so that
    no text is on both sides. With `collapse` the tags are `TAGS`, made by `collapsed`; without, the corpus's own.
    """
    texts = unpack(read(BROWN, "brown.tar", folder), "brown.tar")
    parts = by_tens([(name, content) for name, content in texts.items()])
    return Parts(*(tuple(_sentences(dict(part), collapse)) for part in parts))


def _sentences(texts: Mapping[str, bytes], collapse: bool) -> Iterator[TaggedSentence]:
    for name, content in texts.items():
        yield from parse_brown(content, name, collapse=collapse)


def parse_brown(data: bytes, name: str, *, collapse: bool = True) -> Iterator[TaggedSentence]:
    """The sentences of one text, a line each; word and tag are divided by the last slash."""
    for number, line in enumerate(text_of(data, name, "ascii").split("\n"), 1):
        pairs = [token.rpartition("/") for token in line.split()]
        if not pairs:
            continue
        tags = tuple(intern(collapsed(tag) if collapse else tag) for _, _, tag in pairs)
        for (word, _, tag), used in zip(pairs, tags, strict=True):
            if not word or not tag or (collapse and used not in _KNOWN):
                raise DatasetError(f"{word + '/' + tag!r} is no word/tag of the corpus", where=f"{name}, line {number}")
        yield TaggedSentence(tuple(intern(word) for word, _, _ in pairs), tags, name)


@cache
def collapsed(tag: str) -> str:
    """One of the 92 tags without what marks the word's use, in four steps.

    1. `fw-`, a foreign word, is taken off;
    2. of a contraction's tags, joined by `+`, the first stays;
    3. `-hl`, `-tl` and `-nc`, in a headline, a title or cited, are taken off;
    4. `*`, negated, is taken off, unless it is all: `not` itself.

    >>> [collapsed(tag) for tag in ("nn-tl", "fw-in+at-tl", "ppss+ber", "bez*", "*-hl", "---hl", "np$")]
    ['nn', 'in', 'ppss', 'bez', '*', '--', 'np$']
    """
    first = tag.removeprefix("fw-").partition("+")[0]
    base = re.sub(r"(-(hl|tl|nc))+$", "", first)
    return base.rstrip("*") or base
