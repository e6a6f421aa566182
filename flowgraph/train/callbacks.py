"""What is told of a training, and may steer it: early stopping, a learning rate that follows a score.

A callback is told between native calls; it may set `trainer.learning_rate`, read and set parameters, and call
`trainer.stop()`. What it remembers goes into checkpoints by `state` and `restore`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from flowgraph.errors import GraphError, listed, shown
from flowgraph.graph import origin as origins
from flowgraph.program import whole_number
from flowgraph.train.history import History, Row
from flowgraph.train.optim.base import require

if TYPE_CHECKING:
    from flowgraph.train.trainer import Trainer


class Callback:
    """Does nothing; subclasses say what they want to be told."""

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Data were checked; nothing was trained yet."""

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None:
        """An epoch (from 1) begins or, after a resume, goes on."""

    def on_steps(self, trainer: Trainer, steps: int) -> None:
        """So many steps of this epoch are done: after every native call, not after every step."""

    def on_epoch_end(self, trainer: Trainer, row: Row) -> None:
        """The epoch's row of the history."""

    def on_fit_end(self, trainer: Trainer, history: History) -> None:
        """The fit is over, or was interrupted."""

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """What a checkpoint must keep: arrays, and what JSON can hold."""
        return {}, {}

    def restore(self, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> None:
        """Take up what `state` gave."""


def as_callbacks(given: Any) -> list[Callback]:
    """One callback or several, as a list; GraphError for what is none."""
    if given is None:
        return []
    several = isinstance(given, Iterable) and not isinstance(given, (str, bytes, Callback))
    found = list(given) if several else [given]
    for callback in found:
        if not isinstance(callback, Callback):
            name = callback.__name__ if isinstance(callback, type) else ""
            raise GraphError(
                f"a callback is an object of a class made from fg.Callback, got {shown(callback)}",
                where=origins.here(),
                hint=f"make one: {name}()" if name else "say in its method on_epoch_end(self, trainer, row) what to do",
            )
    return found


LARGE = ("acc", "auc", "f1", "precision", "recall")  # in the name of what is good if it is large


class _Watch(Callback):
    """Watches one column of the history for getting better by more than `min_delta`."""

    def __init__(self, monitor: str, patience: int, min_delta: float, mode: str) -> None:
        if mode not in ("auto", "min", "max"):
            raise GraphError(f"mode is 'auto', 'min' or 'max', got {shown(mode)}", where=origins.here())
        self.patience = whole_number(patience, "patience", least=1)
        require("min_delta", min_delta, low=0.0)
        self.monitor, self.min_delta, self.mode = monitor, min_delta, mode
        self.sign = -1.0 if mode == "max" else 1.0
        self.best, self.waited = float("inf"), 0
        self._resumed = False

    def on_fit_begin(self, trainer: Trainer) -> None:
        """A fit is judged by itself, unless it goes on with one that a checkpoint has."""
        if self.monitor not in trainer.columns:
            raise GraphError(
                f"{type(self).__name__} watches {self.monitor!r}, which the history does not have",
                where=origins.here(),
                hint=f"it has {listed(trainer.columns)}; val_... needs validation data",
            )
        if self.mode == "auto":
            self.sign = self._auto_sign(trainer)
        if not self._resumed:
            self._forget()
        self._resumed = False

    def _auto_sign(self, trainer: Trainer) -> float:
        name = self.monitor.removeprefix("val_")
        if name in trainer.cost_names or "loss" in name:
            return 1.0
        if any(part in name.lower() for part in LARGE):
            return -1.0
        raise GraphError(
            f"{type(self).__name__} watches {self.monitor!r}: is a small one good, or a large one?",
            where=origins.here(),
            hint="mode='min', or mode='max'",
        )

    def _forget(self) -> None:
        self.best, self.waited = float("inf"), 0

    def _improved(self, row: Row) -> bool:
        value = self.sign * row[self.monitor]
        if value < self.best - self.min_delta:
            self.best, self.waited = value, 0
            return True
        self.waited += 1
        return False

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return {}, {"best": self.best, "waited": self.waited}

    def restore(self, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> None:
        self.best, self.waited = about["best"], about["waited"]
        self._resumed = True


class EarlyStopping(_Watch):
    """Stops a fit after `patience` epochs without a better `monitor`; then the best epoch's parameters are put back.
    `best_epoch` says which that was.

    Put back are trained parameters, running averages, and what `updates` of the trainer change. `mode` "auto" wants
    costs, and whatever has "loss" in its name, small; accuracies, and whatever has "acc", "auc", "f1", "precision" or
    "recall" in its name, large; of any other column it must be "min" or "max".
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 5,
        min_delta: float = 0.0,
        mode: str = "auto",
        restore_best: bool = True,
    ) -> None:
        super().__init__(monitor, patience, min_delta, mode)
        self.restore_best = restore_best
        self._kept: dict[str, np.ndarray] = {}
        self.best_epoch = 0

    def _forget(self) -> None:
        super()._forget()
        self._kept, self.best_epoch = {}, 0

    def on_epoch_end(self, trainer: Trainer, row: Row) -> None:
        if self._improved(row):
            self.best_epoch = int(row["epoch"])
            if self.restore_best:
                self._kept = {w.op.label: w.value for w in trainer.model_state}
        elif self.waited >= self.patience:
            trainer.stop()

    def on_fit_end(self, trainer: Trainer, history: History) -> None:
        if not history.interrupted and self._kept:
            history.restored = self.best_epoch if 0 < self.best_epoch < history[-1]["epoch"] else None
            for w in trainer.model_state:
                if w.op.label in self._kept:
                    w.value = self._kept[w.op.label]

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return dict(self._kept), super().state()[1] | {"best_epoch": self.best_epoch}

    def restore(self, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> None:
        super().restore(arrays, about)
        self._kept, self.best_epoch = dict(arrays), about.get("best_epoch", 0)


class ReduceOnPlateau(_Watch):
    """Multiplies the learning rate by `factor` after `patience` epochs without a better `monitor`, down to `least`. It
    must be a number: GraphError, before anything is trained, for a schedule. `mode` is as of `EarlyStopping`."""

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 3,
        min_delta: float = 0.0,
        mode: str = "auto",
        least: float = 0.0,
    ) -> None:
        super().__init__(monitor, patience, min_delta, mode)
        require("factor", factor, above=0.0, below=1.0)
        require("least", least, low=0.0)
        self.factor, self.least = factor, least

    def on_fit_begin(self, trainer: Trainer) -> None:
        super().on_fit_begin(trainer)
        if trainer.optimizer.number is None:
            raise GraphError(
                "ReduceOnPlateau sets the learning rate, and this one is computed by the program",
                where=origins.here(),
                hint="give the optimiser a number",
            )

    def on_epoch_end(self, trainer: Trainer, row: Row) -> None:
        if not self._improved(row) and self.waited >= self.patience:
            rate = trainer.learning_rate
            trainer.learning_rate = min(rate, max(rate * self.factor, self.least))
            self.waited = 0
