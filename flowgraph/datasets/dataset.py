"""A data set: named arrays that agree in their first dimension, one row an example.

Comes in: arrays. Goes out: smaller data sets of the same kind. May not know where the arrays come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from flowgraph.errors import FlowgraphError

Array = npt.NDArray[Any]


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

    def split(self, seed: int, test: int) -> tuple[Self, Self]:
        """(train, test): `test` examples drawn by `seed` are held out; the same on every machine and NumPy.

        The same examples in the same order as in scikit-learn's `train_test_split(..., test_size=test,
        random_state=seed)`, so that results can be compared; `RandomState` because its stream never changes.
        """
        if not 0 < test < len(self):
            raise DatasetError(
                f"cannot hold out {test} of {len(self)} examples",
                hint=f"ask for 1 to {len(self) - 1} of them",
            )
        order = np.random.RandomState(seed).permutation(len(self))
        return self.take(order[test:]), self.take(order[:test])
