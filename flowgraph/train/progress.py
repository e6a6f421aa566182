"""Progress for people: on a terminal a bar an epoch, anywhere else one line at the end. Goes to stderr.

tqdm is imported only when there is a bar to draw.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Protocol

from flowgraph.errors import InputError, shown
from flowgraph.graph import origin as origins
from flowgraph.train.history import History, Row, show


class Progress(Protocol):
    """What a fit reports, to whoever wants to show it. An object may also have `resuming(path, epochs, steps)`, called
    where a fit goes on from a checkpoint after so many whole epochs and steps of the next; and `compiling(kernels)`,
    called before the first epoch if so many kernels must be compiled first, a fraction of a second each."""

    def begin(self, epoch: int, last: int, steps: int) -> None:
        """An epoch of so many steps begins."""

    def advance(self, steps: int) -> None:
        """So many steps of this epoch are done: called after every native call, not after every step."""

    def end(self, row: Row | None) -> None:
        """The epoch is over; without a row it was cut short."""

    def finish(self, history: History, epochs: int, seconds: float) -> None:
        """The fit is over after so many whole epochs."""


class Silence:
    """Shows nothing."""

    def begin(self, epoch: int, last: int, steps: int) -> None: ...
    def advance(self, steps: int) -> None: ...
    def end(self, row: Row | None) -> None: ...
    def finish(self, history: History, epochs: int, seconds: float) -> None: ...


class Bars:
    """A bar an epoch where stderr is a terminal, and a summary at the end in any case."""

    def __init__(self) -> None:
        self.bar: Any = None

    def resuming(self, path: Path, epochs: int, steps: int) -> None:
        place = f"epoch {epochs}" + (f" and {steps} steps" if steps else "")
        print(f"going on from {path}, after {place}", file=sys.stderr)

    def compiling(self, kernels: int) -> None:
        which = "a kernel" if kernels == 1 else f"{kernels} kernels"
        print(f"compiling {which}", file=sys.stderr)

    def begin(self, epoch: int, last: int, steps: int) -> None:
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=steps, desc=f"epoch {epoch}/{last}", unit="step", dynamic_ncols=True)

    def advance(self, steps: int) -> None:
        if self.bar is not None:
            self.bar.update(steps - self.bar.n)

    def end(self, row: Row | None) -> None:
        if self.bar is not None:
            self.bar.set_postfix_str(summary(row) if row else "stopped")
            self.bar.close()
            self.bar = None

    def finish(self, history: History, epochs: int, seconds: float) -> None:
        what = "interrupted after" if history.interrupted else "trained"
        values = f": {summary(history[-1])}" if epochs else ""
        if not epochs and len(history) and not history.interrupted:
            values = f": it is at epoch {len(history)} already"
        back = f"; epoch {history.restored}'s parameters were put back" if history.restored else ""
        print(f"{what} {epochs} epoch{'s' * (epochs != 1)} in {seconds:.2f} s{values}{back}", file=sys.stderr)


def as_progress(given: Any) -> Progress:
    """What a fit reports to: True is a terminal, False nobody."""
    if isinstance(given, bool):
        return Bars() if given else Silence()
    if isinstance(given, type) or not all(hasattr(given, name) for name in ("begin", "advance", "end", "finish")):
        raise InputError(
            f"progress is True, False, or an object with begin, advance, end and finish, got {shown(given)}",
            where=origins.here(),
        )
    told: Progress = given
    return told


def summary(row: Row) -> str:
    """loss 0.1234, accuracy 0.9876"""
    kept = {name: value for name, value in row.items() if name not in ("epoch", "seconds")}
    return ", ".join(f"{name} {show(name, value)}" for name, value in kept.items())
