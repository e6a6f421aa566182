"""The UCI optical digits: 1,797 hand-written digits as images of 8×8 pixels.

Comes in: `data/digits.csv.gz`, 64 pixels from 0 to 16 and the digit on each line. Goes out: `Digits`.
"""

from __future__ import annotations

from importlib.resources.abc import Traversable
from typing import Self

import numpy as np
import numpy.typing as npt

from flowgraph.datasets.dataset import Dataset
from flowgraph.datasets.shipped import read_shipped, shipped

EXAMPLES, PIXELS, BRIGHTEST = 1797, 64, 16
SHA256 = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"


class Digits(Dataset):
    """`images` float32 (n, 64) from 0 to 1, an image row by row; `labels` int32 (n,) from 0 to 9."""

    @property
    def images(self) -> npt.NDArray[np.float32]:
        return self["images"]

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        return self["labels"]

    def split(self, seed: int = 0, test: float = 360) -> tuple[Self, Self]:
        """(train, test); by default the split all results in this project are stated for: 1,437 and 360."""
        return super().split(seed, test)


def load_digits() -> Digits:
    """The data set that ships with the package.

    >>> digits = load_digits()
    >>> digits
    Digits(1797 examples: images float32[64], labels int32[])
    >>> train, test = digits.split()
    >>> len(train), len(test)
    (1437, 360)
    """
    return read_digits(shipped("digits.csv.gz"))


def read_digits(file: Traversable) -> Digits:
    """The digits from a copy of the shipped file; DatasetError if one byte differs."""
    numbers = read_shipped(file, SHA256, "the digits").decode("ascii").replace("\n", ",")
    table = np.fromstring(numbers, dtype=np.float32, sep=",").reshape(EXAMPLES, PIXELS + 1)
    images, labels = table[:, :PIXELS] / np.float32(BRIGHTEST), table[:, PIXELS].astype(np.int32)
    return Digits({"images": images, "labels": labels})
