"""Bible verses in English and Spanish, side by side.

Comes in: two modules of the SWORD project, once; then the table made of them. Goes out: `Verse`s in three parts.
"""

from __future__ import annotations

import html
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from flowgraph.datasets.cache import read
from flowgraph.datasets.catalogue import VERSES
from flowgraph.datasets.dataset import DatasetError, Parts, by_tens, rows_of, text_of
from flowgraph.datasets.shipped import read_shipped, shipped

ENGLISH, SPANISH = "engWEB2015eb", "spaRV1909eb"
# Chapters whose verses the two editions number differently; found by comparing lengths with the neighbours'.
NUMBERED_OTHERWISE = frozenset(
    {
        "Num 13", "Num 30", "Judg 14", "1Sam 24", "2Sam 20", "1Kgs 18", "1Kgs 22", "1Chr 1", "1Chr 21", "2Chr 33",
        "Job 35", "Job 38", "Job 39", "Job 40", "Hos 11", "Hos 12", "Jonah 2", "Acts 19", "2Cor 13",
    }
)  # fmt: skip
MARK = "8c7377e0460aa9025a159d8828a62c24de6e64a90193c5753ecc010e743a7546"
LONGER = 3  # at most so many times as long as the other: beyond, one side has a psalm's title, a colophon or a glossary


class Verse(NamedTuple):
    """`place` such as 'John 1:1', the text in `english` and in `spanish`."""

    place: str
    english: str
    spanish: str


def load_verses(folder: str | os.PathLike[str] | None = None) -> Parts[tuple[Verse, ...]]:
    """30,555 verses: 24,444 to train on, 3,056 to validate, 3,055 to test.

    Of each ten verses in order, the 5th is for validation and the 10th for testing. Chapters that the editions
    number differently, and verses of which one is more than three times as long as the other, are left out. 19 verses
    are word for word in the training part and in the test part, in English.
    """
    return by_tens(parse_verses(read(VERSES, "verses.tsv", folder), "verses.tsv"))


def load_mark() -> tuple[Verse, ...]:
    """The gospel of Mark, which ships with the package: 678 verses.

    >>> load_mark()[0].spanish
    'PRINCIPIO del evangelio de Jesucristo, Hijo de Dios.'
    """
    name = "mark.tsv.gz"
    return parse_verses(read_shipped(shipped(name), MARK, "the gospel of Mark"), name)


def parse_verses(data: bytes, name: str) -> tuple[Verse, ...]:
    """A verse a line: place, English, Spanish, apart by tabs."""
    return tuple(Verse(*row) for row in rows_of(text_of(data, name), name, columns=3))


def make_verses(modules: Mapping[str, bytes]) -> bytes:
    """The table of verses from the files of the two modules; takes seconds.

    DatasetError if pysword is not installed, or the modules are not these two.
    """
    try:
        from pysword.modules import SwordModules
    except ImportError:
        raise DatasetError(
            "the verses are read by pysword, which is not installed", hint="pip install 'flowgraph[data]'"
        ) from None
    with tempfile.TemporaryDirectory(prefix="flowgraph-") as scratch:
        for path, content in modules.items():
            place = Path(scratch) / path
            if not place.resolve().is_relative_to(Path(scratch).resolve()):
                raise DatasetError(f"the package has a file that lies outside of it: {path}")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        library = SwordModules(scratch)
        if not {ENGLISH, SPANISH} <= set(library.parse_modules()):
            raise DatasetError(f"the modules {ENGLISH} and {SPANISH} are not both in what was downloaded")
        english, spanish = (_quick(library.get_bible_from_module(name)) for name in (ENGLISH, SPANISH))
        pairs = list(_pairs(english, spanish))
    return "".join("\t".join(verse) + "\n" for verse in pairs).encode()


def _pairs(english: Any, spanish: Any) -> Iterator[Verse]:
    """Verses that both have, by chapter and number, in the Spanish one's order."""
    books = [book for part in spanish.get_structure().get_books().values() for book in part]
    for book in tqdm(books, "reading verses", leave=False, disable=None):
        for chapter in range(1, book.num_chapters + 1):
            if f"{book.osis_name} {chapter}" not in NUMBERED_OTHERWISE:
                asked = {"books": [book.osis_name], "chapters": [chapter], "clean": False}
                both = zip(english.get_iter(**asked), spanish.get_iter(**asked), strict=False)
                for number, (first, second) in enumerate(both, 1):
                    verse = Verse(f"{book.osis_name} {chapter}:{number}", plain(first), plain(second))
                    shorter, longer = sorted((len(verse.english), len(verse.spanish)))
                    if 0 < longer <= LONGER * shorter:
                        yield verse


def _quick(bible: Any) -> Any:
    """pysword unpacks a whole book for every verse; kept for the next one, reading takes seconds, not minutes."""
    unpack = getattr(bible, "_decompressed_text", None)  # not public: without it, the same verses slowly
    if unpack is not None:
        bible._decompressed_text = lru_cache(maxsize=4)(unpack)
    return bible


def plain(verse: str) -> str:
    """The text of a verse in OSIS: without notes, titles and marks, with single spaces.

    >>> plain('<w lemma="strong:H0430">God</w><note>In Hebrew, Elohim.</note><w>created</w> <w>it</w>. <div/>')
    'God created it.'
    """
    text = re.sub(r"<(note|title)\b[^>]*(?<!/)>.*?</\1>|<lb\b[^>]*>", " ", verse, flags=re.DOTALL)
    text = html.unescape(re.sub(r"<[^>]*>", "", text))
    return re.sub(r" (?=[,.;:!?’”)])", "", " ".join(text.split()))
