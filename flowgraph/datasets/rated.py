"""Who rated what, and how: what data sets of ratings share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flowgraph.datasets.dataset import Dataset


@dataclass(frozen=True, eq=False, repr=False)
class Rated(Dataset):
    """A rating a row: `users` and `items` int32 (n,) from 0, `ratings` float32 (n,)."""

    @property
    def users(self) -> npt.NDArray[np.int32]:
        return self["users"]

    @property
    def items(self) -> npt.NDArray[np.int32]:
        return self["items"]

    @property
    def ratings(self) -> npt.NDArray[np.float32]:
        return self["ratings"]
