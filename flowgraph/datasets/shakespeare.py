"""Shakespeare's plays as text, for models of characters or words.

Comes in: a text a play. Goes out: `Play`s in three parts. The five books of poems are left out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from flowgraph.datasets.cache import read
from flowgraph.datasets.catalogue import SHAKESPEARE
from flowgraph.datasets.dataset import DatasetError, Parts, text_of
from flowgraph.datasets.packed import unpack
from flowgraph.datasets.shipped import read_shipped, shipped

POEMS = ("lovers_complaint", "passionate_pilgrim", "phoenix_and_the_turtle", "rape_of_lucrece", "sonnets")
HELD_OUT = ("macbeth", "twelfth_night")  # a tragedy and a comedy, with speakers' names in full as in most plays
VALIDATION = 0.05
SUFFIX = "_gut.txt"
TEMPEST = "72c93c15fb12c334a0c8ea07d5a9431441c449c66d1d8f461ac5c2e761f2e3ba"


class Play(NamedTuple):
    """`name` as in the file's name, such as 'romeo_and_juliet'; `text` with line ends and speakers' names."""

    name: str
    text: str


def load_shakespeare(folder: str | os.PathLike[str] | None = None) -> Parts[tuple[Play, ...]]:
    """37 plays, 4,850,308 characters of 83 kinds, cut in a way that never changes.

    `train` is the first 95 % of 35 plays and `validation` the rest of each, cut where a line begins; `test` is
    Macbeth and Twelfth Night, whole. In Hamlet, King Lear and Romeo and Juliet the speakers' names are abbreviated.
    """
    return split_plays(parse_plays(unpack(read(SHAKESPEARE, "shakespeare.tar", folder), "shakespeare.tar")))


def load_tempest() -> Play:
    """The Tempest, which ships with the package: 98,439 characters.

    >>> load_tempest().text.splitlines()[0]
    'THE TEMPEST'
    """
    name = "tempest.txt.gz"
    return Play("tempest", text_of(read_shipped(shipped(name), TEMPEST, "The Tempest"), name))


def parse_plays(files: Mapping[str, bytes]) -> tuple[Play, ...]:
    """The plays among these texts, by name; line ends become one \\n."""
    named = {name.removesuffix(SUFFIX): text_of(content, name) for name, content in files.items()}
    return tuple(Play(name, text) for name, text in sorted(named.items()) if name not in POEMS)


def split_plays(plays: tuple[Play, ...]) -> Parts[tuple[Play, ...]]:
    train, validation = [], []
    for name, text in plays:
        if name not in HELD_OUT:
            cut = text.rfind("\n", 0, round(len(text) * (1 - VALIDATION))) + 1
            train.append(Play(name, text[:cut]))
            validation.append(Play(name, text[cut:]))
    test = tuple(play for play in plays if play.name in HELD_OUT)
    if len(test) != len(HELD_OUT):
        raise DatasetError(f"the plays {' and '.join(HELD_OUT)}, which are held out, are not among them")
    return Parts(tuple(train), tuple(validation), test)
