"""Progress for people: on a terminal a bar an epoch, anywhere else one line at the end. Goes to stderr.

tqdm is imported only when there is a bar to draw.
"""

from __future__ import annotations

import sys
from typing import Any

from flowgraph.train.history import History, Row, show


class Progress:
    """Told of epochs and steps; silent unless `enabled`."""

    def __init__(self, enabled: bool, last_epoch: int) -> None:
        self.enabled, self.last = enabled, last_epoch
        self.bar: Any = None

    def begin(self, epoch: int, steps: int) -> None:
        if self.enabled and sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=steps, desc=f"epoch {epoch}/{self.last}", unit="step", dynamic_ncols=True)

    def advance(self, steps: int) -> None:
        """So many steps of this epoch are done."""
        if self.bar is not None:
            self.bar.update(steps - self.bar.n)

    def end(self, row: Row | None) -> None:
        """The epoch is over; without a row it was cut short."""
        if self.bar is not None:
            self.bar.set_postfix_str(summary(row) if row else "stopped", refresh=True)
            self.bar.close()
            self.bar = None

    def finish(self, history: History, first: int, seconds: float) -> None:
        """The fit is over: one line, whatever the terminal."""
        if not self.enabled:
            return
        count = len(history) - first
        what = "interrupted after" if history.interrupted else "trained"
        values = f": {summary(history[-1])}" if count else ""
        print(f"{what} {count} epoch{'s' * (count != 1)} in {seconds:.2f} s{values}", file=sys.stderr)


def summary(row: Row) -> str:
    """loss 0.1234, accuracy 0.9876"""
    return ", ".join(
        f"{name} {show(name, value)}" for name, value in row.items() if name not in ("epoch", "seconds")
    )
