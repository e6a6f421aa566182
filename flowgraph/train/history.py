"""What happened in training: a row an epoch, a loss a step. Plain data that prints as a table."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, overload

import numpy as np

from flowgraph.errors import listed

Row = Mapping[str, float]


class History:
    """Rows of numbers, one an epoch: `history[-1]["val_loss"]`; a column is `history["loss"]`.

    `losses` has the cost of every step, before its update; `interrupted` tells whether the last fit was
    stopped early; `restored` is the epoch whose parameters early stopping put back after it, if any.
    """

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.interrupted = False
        self.restored: int | None = None
        self._losses: list[np.ndarray] = []

    def to_dict(self) -> dict[str, list[float]]:
        """The table by columns; NaN where an epoch has no such value."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        return {name: [row.get(name, float("nan")) for row in self.rows] for name in names}

    def to_csv(self, path: str | Path) -> None:
        """Write the table, a line an epoch, under a line of names."""
        write_csv(self.to_dict(), path)

    def to_pandas(self) -> Any:
        """The table as a `pandas.DataFrame`, a row an epoch. Raises ImportError where pandas is not installed."""
        return as_frame(self.to_dict(), "history")

    def replace(self, rows: Sequence[Row], losses: np.ndarray) -> None:
        """Become the history that was saved."""
        self.rows[:], self._losses = rows, [np.asarray(losses, np.float64)]

    def add_losses(self, losses: list[float]) -> None:
        self._losses.append(np.asarray(losses, np.float64))

    @property
    def losses(self) -> np.ndarray:
        return np.concatenate([np.empty(0), *self._losses])

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    @overload
    def __getitem__(self, key: int) -> Row: ...
    @overload
    def __getitem__(self, key: str) -> np.ndarray: ...
    def __getitem__(self, key: int | str) -> Row | np.ndarray:
        """A row by number, or a column by name (NaN where an epoch has no such value)."""
        if isinstance(key, int):
            return self.rows[key]
        if not any(key in row for row in self.rows):
            columns = listed(self.to_dict(), most=20) if self.rows else "none, before the first epoch"
            raise KeyError(f"the history has no column {key!r}; it has {columns}")
        return np.array([row.get(key, np.nan) for row in self.rows])

    def __str__(self) -> str:
        """A table: a line an epoch."""
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        return text_table([columns, *([show(name, row.get(name)) for name in columns] for row in self.rows)])

    __repr__ = __str__


def show(name: str, value: float | None) -> str:
    """A number as tables and progress lines show it."""
    if value is None:
        return "-"
    return f"{value:.0f}" if name == "epoch" else f"{value:.3f}" if name == "seconds" else f"{value:.4f}"


def text_table(cells: Sequence[Sequence[str]]) -> str:
    """Lines of cells, aligned at the right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(f"{c:>{w}}" for c, w in zip(line, widths, strict=True)) for line in cells)


def write_csv(columns: Mapping[str, Sequence[Any]], path: str | Path) -> None:
    """Write a table, given by columns, under a line of names."""
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(columns)
        table.writerows(zip(*columns.values(), strict=True))


def as_frame(columns: Mapping[str, Sequence[Any]], what: str) -> Any:
    """A table, given by columns, as a `pandas.DataFrame`."""
    try:
        pandas = import_module("pandas")
    except ImportError as error:
        raise ImportError(f"{what}.to_pandas() needs pandas: pip install pandas; to_dict() does not") from error
    return pandas.DataFrame(columns)
