"""One run of a program at a time: other threads wait, a run within a run is refused, a forked child starts afresh."""

from __future__ import annotations

import os
import threading
import weakref

from flowgraph.errors import FlowgraphError
from flowgraph.graph import origin as origins


class OneRun:
    """A context manager that owns what belongs to one run: the arena, the argument words, a device's memory."""

    def __init__(self) -> None:
        self._start_afresh()
        _all.add(self)

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._runner: int | None = None

    def __enter__(self) -> None:
        if self._runner == threading.get_ident():
            raise FlowgraphError(
                "this program is running: it cannot be run from its own `on_chunk` or callback",
                where=origins.here(),
                hint="run it after this run has ended, or compile another program from the same graph",
            )
        self._lock.acquire()
        self._runner = threading.get_ident()

    def __exit__(self, *_: object) -> None:
        self._runner = None
        self._lock.release()


_all: weakref.WeakSet[OneRun] = weakref.WeakSet()


def _after_fork() -> None:
    """The thread that held a lock is not in the child, and would never give it back."""
    for one in list(_all):
        one._start_afresh()


os.register_at_fork(after_in_child=_after_fork)
