"""SIGTERM as Ctrl-C: what is asked to end shall save first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def signals(wanted: bool) -> Iterator[None]:
    """While inside, SIGTERM raises KeyboardInterrupt, as SIGINT does; only Python's main thread can ask for that."""
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
