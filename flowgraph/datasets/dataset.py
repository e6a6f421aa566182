"""A data set: named arrays that agree in their first dimension, one row an example.

Comes in: arrays. Goes out: smaller data sets of the same kind. May not know where the arrays come from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, Self, TypeVar

import numpy as np
import numpy.typing as npt

from flowgraph.errors import FlowgraphError

Array = npt.NDArray[Any]
T = TypeVar("T")


class DatasetError(FlowgraphError, ValueError):
    """Arrays that do not belong together, a damaged file, or a division that cannot be made."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Named arrays of equal first dimension, read-only views of what was given.

    >>> points = Dataset({"x": np.zeros((6, 2)), "y": np.arange(6)})
    >>> train, test = points.split(seed=0, test=2)
    >>> len(train), len(test), train["x"].shape
    (4, 2, (4, 2))
    """

    arrays: Mapping[str, Array]

    def __post_init__(self) -> None:
        if not self.arrays:
            raise DatasetError("a data set needs at least one array")
        shapes = {name: np.shape(array) for name, array in self.arrays.items()}
        if any(not shape for shape in shapes.values()) or len({shape[0] for shape in shapes.values()}) > 1:
            listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise DatasetError(
                f"the arrays of a data set must have the same first dimension: {listed}",
                hint="the first dimension counts the examples",
            )
        frozen = {name: np.asanyarray(array).view() for name, array in self.arrays.items()}
        for array in frozen.values():
            array.flags.writeable = False
        object.__setattr__(self, "arrays", MappingProxyType(frozen))

    def __len__(self) -> int:
        """How many examples."""
        return int(next(iter(self.arrays.values())).shape[0])

    def __getitem__(self, name: str) -> Array:
        """One array by name; to select examples use `take`."""
        try:
            return self.arrays[name]
        except KeyError:
            known = ", ".join(self.arrays)
            raise DatasetError(f"no array {name!r} in this data set", hint=f"it has {known}") from None

    def __repr__(self) -> str:
        columns = [f"{name} {array.dtype}{list(array.shape[1:])}" for name, array in self.arrays.items()]
        return f"{type(self).__name__}({len(self)} examples: {', '.join(columns)})"

    def take(self, examples: npt.ArrayLike | slice) -> Self:
        """The examples at these indices (in this order), slice, or boolean mask."""
        chosen = examples if isinstance(examples, slice) else np.asarray(examples)
        return replace(self, arrays={name: array[chosen] for name, array in self.arrays.items()})

    def split(self, seed: int, test: float) -> tuple[Self, Self]:
        """(train, test): `test` examples, or such a fraction of all, rounded up, drawn by `seed` are held out; the same
        on every machine and NumPy.

        The same examples in the same order as in scikit-learn's `train_test_split(..., test_size=test,
        random_state=seed)`, so that results can be compared; `RandomState` because its stream never changes.
        """
        if isinstance(test, float) and 0 < test < 1:
            test = math.ceil(test * len(self))
        if not isinstance(test, (int, np.integer)) or not 0 < test < len(self):
            raise DatasetError(
                f"cannot hold out {test} of {len(self)} examples",
                hint=f"ask for 1 to {len(self) - 1} of them, or for a fraction between 0 and 1",
            )
        order = np.random.RandomState(seed).permutation(len(self))
        return self.take(order[test:]), self.take(order[:test])


class Parts(NamedTuple, Generic[T]):
    """A data set in its three fixed parts: `train, validation, test = load_brown()`."""

    train: T
    validation: T
    test: T


def by_tens(whole: Sequence[T]) -> Parts[tuple[T, ...]]:
    """Of each ten in order, the 5th for validation, the 10th for testing, the others for training.

    >>> [list(part) for part in by_tens(range(1, 13))]
    [[1, 2, 3, 4, 6, 7, 8, 9, 11, 12], [5], [10]]
    """
    train = tuple(one for place, one in enumerate(whole) if place % 10 not in (4, 9))
    return Parts(train, tuple(whole[4::10]), tuple(whole[9::10]))


def text_of(data: bytes, name: str, encoding: str = "utf-8") -> str:
    """A file's text, with lines ended by one \\n each, whatever ended them; DatasetError if it is no such text."""
    try:
        return data.decode(encoding).removeprefix("\ufeff").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DatasetError(f"this is no {encoding} text: {error.reason}", where=f"{name}, line {line}") from error


def rows_of(text: str, name: str, columns: int, separator: str | None = "\t", first: int = 1) -> list[list[str]]:
    """The fields of each line that is not empty; DatasetError, with the line's number, unless there are `columns`."""
    rows = []
    for number, line in enumerate(text.split("\n"), first):
        if line.strip():
            fields = line.split(separator)
            if len(fields) != columns:
                raise DatasetError(
                    f"{len(fields)} fields instead of {columns}: {line[:60]!r}", where=f"{name}, line {number}"
                )
            rows.append(fields)
    return rows
