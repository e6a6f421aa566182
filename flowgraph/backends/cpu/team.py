"""The team: threads that rest inside the native driver and run tables of launches together with their caller.

In: a table (one row of `words.Row` a launch), how many steps. Out: the table's
effect, the same for every number of threads as long as each kernel's tasks are independent. May not know what
the kernels compute. The workers are Python threads only by birth: they stay in native code, without the GIL,
until the team ends.
"""

from __future__ import annotations

import _thread
import ctypes
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from flowgraph.backends.cpu.driver import driver_address
from flowgraph.backends.cpu.store import KernelStore
from flowgraph.backends.cpu.threads import available_threads
from flowgraph.backends.cpu.words import (
    CALLER,
    CONTROL_WORDS,
    STOP,
    WORKER,
    Control,
    Profile,
    Row,
)

Words = npt.NDArray[np.int64]
ControlBlock: TypeAlias = "ctypes.Array[ctypes.c_int64]"
Enter = Callable[[int, int, int], None]

CALL_NANOSECONDS = 50_000_000       # a native call begins no step after this: Ctrl-C and progress get a turn
CACHE_LINE = 64

_NativeEnter = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)   # releases the GIL


class Tape:
    """A table with its profile, checked once, to be run many times.

    table: (launches, len(Row)); profile: (threads, launches + 1, len(Profile)); both int64, C-contiguous, kept and
    not copied: rows may be changed between runs, but for their TEAM.
    """

    def __init__(self, table: Words, profile: Words | None = None) -> None:
        _check_words("table", table, (len(table), len(Row)))
        if profile is not None:
            _check_words("profile", profile, (len(profile), len(table) + 1, len(Profile)))
        self.table, self.profile = table, profile
        self.team = int(table[:, Row.TEAM].max(initial=1))
        self.addresses = [0 if words is None else words.ctypes.data for words in (table, profile)]
        self.ticks = self.nanoseconds = 0  # of all runs with a profile

    def seconds(self) -> npt.NDArray[np.float64]:
        """The profile in seconds: (threads, launches + 1, len(Profile)). Zeros before the first run."""
        if self.profile is None:
            raise ValueError("a tape without a profile has no times")
        return self.profile.astype(np.float64) * (1e-9 * self.nanoseconds / max(self.ticks, 1))


class Team:
    """`threads` threads, the caller's one of them. The others start with the first run that wants them,
    stop when the team is closed or collected, and do not survive a fork: the child's next run starts its
    own."""

    def __init__(self, threads: int, driver: int) -> None:
        self.threads, self.driver = threads, driver
        self._enter = _NativeEnter(driver)
        self._lock, self._crew = threading.Lock(), _Crew()
        _teams.add(self)

    def run(self, tape: Tape, steps: int) -> int:
        """One native call: up to `steps` steps, none begun more than 50 ms after the first; how many were
        done.

        Only one run uses the team at a time; a second caller waits.
        """
        wide = self.threads > 1 and tape.team > 1
        if tape.profile is not None and len(tape.profile) < self.threads:
            raise ValueError(f"a profile for {len(tape.profile)} threads, but the team has {self.threads}")
        with self._lock:
            crew = self._crew
            if wide:
                self._start(crew)
            control = crew.control
            control[Control.TABLE], control[Control.PROFILE] = tape.addresses
            control[Control.LAUNCHES] = len(tape.table)
            control[Control.STEPS], control[Control.DONE] = steps, 0
            control[Control.THREADS] = self.threads if wide else 1
            control[Control.DEADLINE] = time.monotonic_ns() + CALL_NANOSECONDS
            # Nothing above has woken anybody, and this returns only when everybody is done: an interrupt
            # between two of these lines leaves nobody behind.
            self._enter(crew.address, CALLER, 0)
            if tape.profile is not None:
                tape.ticks += control[Control.TICKS]
                tape.nanoseconds += control[Control.NANOSECONDS]
            return control[Control.DONE]

    def close(self) -> None:
        """End the workers. A later run starts new ones."""
        with self._lock:
            crew = self._crew
            self._crew = _Crew()    # first: an interrupt while the old workers end must leave nothing half forgotten
            if crew.stop is not None:
                crew.stop()

    def _start(self, crew: _Crew) -> None:
        """Have enough workers. An interrupt may leave one uncounted; whoever comes too many leaves at
        once."""
        if crew.stop is None:
            crew.stop = weakref.finalize(self, _end_workers, self._enter, crew.control, crew.workers)
            crew.stop.atexit = False        # the end of the process must not wait for a run
        while len(crew.workers) < self.threads - 1:
            ended = threading.Lock()
            ended.acquire()
            # Thread.start waits in Python for the new thread, and an interrupt there can become a RuntimeError.
            _thread.start_new_thread(_serve, (self._enter, crew.control, self.threads, ended))
            crew.workers.append(ended)

    def _after_fork(self) -> None:
        """Begin anew, without a word to threads that do not exist any more."""
        if self._crew.stop is not None:
            self._crew.stop.detach()
        self._lock, self._crew = threading.Lock(), _Crew()


class _Crew:
    """A team's threads but the caller's, and the words they share with it."""

    def __init__(self) -> None:
        self.control = _control_block()
        self.address = ctypes.addressof(self.control)
        self.workers: list[threading.Lock] = []                     # each held until its worker has ended
        self.stop: weakref.finalize[..., Team] | None = None        # ends the workers; None while there are none


_teams: weakref.WeakSet[Team] = weakref.WeakSet()


def _after_fork() -> None:
    for team in list(_teams):
        team._after_fork()


os.register_at_fork(after_in_child=_after_fork)


def _serve(enter: Enter, control: ControlBlock, threads: int, ended: threading.Lock) -> None:
    """A worker's whole life; its frame keeps the control block in memory."""
    try:
        enter(ctypes.addressof(control), WORKER, threads)
    finally:
        ended.release()


def _end_workers(enter: Enter, control: ControlBlock, workers: list[threading.Lock]) -> None:
    """Called when no run can be under way: by `close`, or because nobody holds the team any more."""
    control[Control.STEPS], control[Control.THREADS] = STOP, 2
    enter(ctypes.addressof(control), CALLER, 0)
    for ended in workers:
        ended.acquire()


def _control_block() -> ControlBlock:
    """Zeroed words that begin a cache line, so that the distances within the block mean what they say."""
    room = bytearray(8 * CONTROL_WORDS + CACHE_LINE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(room))
    return (ctypes.c_int64 * CONTROL_WORDS).from_buffer(room, -start % CACHE_LINE)


def _check_words(name: str, words: Words, shape: tuple[int, ...]) -> None:
    if words.dtype != np.int64 or words.shape != shape or not words.flags.c_contiguous:
        given = f"{words.dtype} {words.shape}"
        raise ValueError(f"{name} must be C-contiguous int64 of shape {shape}, not {given}")


class CpuRuntime:
    """`runtime.store.load(sources)` gives addresses for tables, `runtime.run(table, steps)` runs them.

    threads: how many at most; None for as many as this process may use.
    store: shared with other runtimes if given, else the user's own in the cache folder.
    """

    def __init__(self, threads: int | None = None, store: KernelStore | None = None) -> None:
        self.store = KernelStore() if store is None else store
        self.team = Team(available_threads(threads), driver_address(self.store))

    @property
    def threads(self) -> int:
        return self.team.threads

    def run(self, table: Words, steps: int = 1,
            on_chunk: Callable[[int], None] | None = None, profile: Words | None = None) -> None:
        """Run the launches of `table`, `steps` times.

        table: (launches, len(Row)), int64, C-contiguous, not copied.
        profile: from `new_profile`, added to. on_chunk: see `run_tape`.
        """
        self.run_tape(Tape(table, profile), steps, on_chunk)

    def run_tape(self, tape: Tape, steps: int = 1, on_chunk: Callable[[int], None] | None = None) -> None:
        """`run` for a table that was checked before: less to do for who runs one step at a time.

        on_chunk: called between native calls, about every 50 ms (after every step, if one takes longer),
        with the number of steps done so far. What it raises, or a KeyboardInterrupt, ends the run between
        two steps.
        """
        done = 0
        while done < steps:
            done += self.team.run(tape, steps - done)
            if on_chunk is not None:
                on_chunk(done)

    def new_profile(self, table: Words) -> Words:
        """Zeroed ticks by [thread, launch, Profile]; one launch more stands for the end of a step."""
        return np.zeros((self.threads, len(table) + 1, len(Profile)), np.int64)

    def close(self) -> None:
        """End the team's threads; the next run starts new ones."""
        self.team.close()
