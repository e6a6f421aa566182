"""All that is state in a training, between two steps: what a checkpoint holds, as arrays and as what JSON can hold.

Knows no file (`checkpoint`) and no trainer: a trainer takes a snapshot of itself, and takes one up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flowgraph.errors import CheckpointError
from flowgraph.graph import origin as origins
from flowgraph.train.checkpoint import Arrays
from flowgraph.train.history import Row
from flowgraph.train.sweep import Log

HISTORY, SIZES, STEPS = "<history>losses", "<epoch>sizes", "<epoch of>"  # names of arrays that no parameter has


@dataclass
class Partial:
    """What is done of an epoch that is not complete."""

    examples: int
    batch_size: int
    log: Log
    counted: int = 0  # steps of the log that the history has

    def fits(self, examples: int, batch_size: int) -> bool:
        """Whether the epoch can go on with such data."""
        return (self.examples, self.batch_size) == (examples, batch_size)


@dataclass
class Snapshot:
    """A training's state. `told` is what the callbacks keep, by the names that the trainer has for them; `kinds` are
    their classes."""

    parameters: Arrays
    seed: int
    epoch: int
    rows: Sequence[Row]
    losses: np.ndarray
    learning_rate: float | None
    partial: Partial | None
    told: dict[str, tuple[Arrays, dict[str, Any]]]
    kinds: Sequence[str]
    stopped: bool
    settings: dict[str, Any] = field(default_factory=dict)  # what it was asked for: numbers and text by name

    def pack(self) -> tuple[Arrays, dict[str, Any]]:
        """The arrays by name, and what goes with them."""
        arrays = self.parameters | {HISTORY: self.losses}
        about: dict[str, Any] = {
            "seed": self.seed,
            "epoch": self.epoch,
            "rows": list(self.rows),
            "learning_rate": self.learning_rate,
            "partial": None,
            "told": {part: own for part, (_, own) in self.told.items()},
            "kinds": list(self.kinds),
            "stopped": self.stopped,
            "settings": self.settings,
        }
        if self.partial is not None:
            about["partial"] = {"examples": self.partial.examples, "batch_size": self.partial.batch_size}
            arrays[SIZES] = np.array(self.partial.log.sizes, np.int64)
            arrays |= {STEPS + n: np.array(steps, np.float64) for n, steps in self.partial.log.values.items()}
        for part, (own, _) in self.told.items():
            arrays |= {f"<{part}>{name}": array for name, array in own.items()}
        return arrays, about

    @staticmethod
    def unpack(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any], path: str | Path) -> Snapshot:
        """What `pack` was given; CheckpointError for what `pack` did not make. `path` is where it is from."""

        def named(prefix: str) -> Arrays:
            return {n.removeprefix(prefix): array for n, array in arrays.items() if n.startswith(prefix)}

        try:
            partial, cut = None, about["partial"]
            if cut is not None:
                log = Log(arrays[SIZES].tolist(), {name: steps.tolist() for name, steps in named(STEPS).items()})
                partial = Partial(cut["examples"], cut["batch_size"], log, counted=len(log.sizes))
            return Snapshot(
                parameters={name: array for name, array in arrays.items() if not name.startswith("<")},
                seed=about["seed"],
                epoch=int(about["epoch"]),
                rows=[dict(row) for row in about["rows"]],
                losses=arrays[HISTORY],
                learning_rate=about["learning_rate"],
                partial=partial,
                told={part: (named(f"<{part}>"), own) for part, own in dict(about["told"]).items()},
                kinds=list(about["kinds"]),
                stopped=bool(about["stopped"]),
                settings=dict(about.get("settings", {})),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(
                f"{path} holds no state of a trainer",
                where=origins.here(),
                hint="fg.load(file, parameters) takes up parameters alone",
            ) from error


def differences(settings: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What a training was asked for and what is asked now, where these are not the same."""
    return {name: (settings[name], now[name]) for name in now if settings.get(name, now[name]) != now[name]}
