"""The team: threads that rest inside the native driver and run tables of launches with their caller.

In: a table (one row of `words.Row` a launch), how many steps, what to patch between steps. Out: the table's effect,
the same for every number of threads as long as each kernel's tasks are independent. May not know what the kernels
compute. The workers are Python threads only by birth: they stay in native code, without the GIL, until the team ends.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from flowgraph.backends.cpu.driver import driver_address
from flowgraph.backends.cpu.store import KernelStore
from flowgraph.backends.cpu.words import CALLER, CONTROL_WORDS, STOP, WORKER, Control, Patch, Profile, Row

Words = npt.NDArray[np.int64]

CALL_NANOSECONDS = 50_000_000       # a native call begins no step after this, so that Ctrl-C and progress get a turn
CACHE_LINE = 64
NO_PATCHES = np.zeros((0, len(Patch)), np.int64)

_Enter = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)     # releases the GIL


def available_threads(asked: int | None = None) -> int:
    """The threads that can really run at once: min(asked, this process's processors, the container's quota)."""
    if asked is not None and asked < 1:
        raise ValueError(f"at least one thread is needed, not {asked}")
    limits = [len(os.sched_getaffinity(0)), _quota(), asked]
    return max(1, min(limit for limit in limits if limit is not None))


def _quota(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int | None:
    """Whole processors that control groups grant to this process; None without a limit."""
    try:
        lines = [line.split(":", 2) for line in membership.read_text().splitlines()]
    except OSError:
        return None                 # no control groups here
    granted = []
    for _, controllers, path in lines:
        if controllers == "" or "cpu" in controllers.split(","):
            base = root if controllers == "" else root / "cpu"
            group = base / path.lstrip("/")
            for folder in (group, *group.parents):
                granted += _quota_of(folder)
                if folder == base:
                    break
    return max(1, min(granted)) if granted else None


def _quota_of(folder: Path) -> list[int]:
    """The limit of one control group, version 2 or 1: nothing or one number."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
    except OSError:
        return []                   # this group does not limit processors
    return [] if quota in ("max", "-1") else [int(quota) // int(period)]


class Team:
    """`threads` threads, the caller's one of them. The others start with the first run that wants them, stop when the
    team is closed or collected, and do not survive a fork: the child's next run starts its own."""

    def __init__(self, threads: int, driver: int) -> None:
        self.threads, self.driver = threads, driver
        self._enter = _Enter(driver)
        self._forget_threads()
        _teams.add(self)

    def run(self, table: Words, steps: int, patches: Words = NO_PATCHES, profile: Words | None = None) -> int:
        """One native call: up to `steps` steps, none begun more than 50 ms after the first; how many were done.

        Only one run uses the team at a time; a second caller waits.
        """
        wide = bool(table[:, Row.TEAM].max(initial=1) > 1) and self.threads > 1
        with self._lock:
            if wide:
                self._start()
            control = self._control
            control[Control.TABLE], control[Control.LAUNCHES] = table.ctypes.data, len(table)
            control[Control.PATCHES], control[Control.PATCH_COUNT] = patches.ctypes.data, len(patches)
            control[Control.STEPS], control[Control.DONE] = steps, 0
            control[Control.THREADS] = self.threads if wide else 1
            control[Control.PROFILE] = 0 if profile is None else profile.ctypes.data
            control[Control.DEADLINE] = time.monotonic_ns() + CALL_NANOSECONDS
            # Nothing above has woken anybody, and this returns only when everybody is done: an interrupt between two
            # of these lines leaves nobody behind.
            self._enter(control.ctypes.data, CALLER, 0)
            return int(control[Control.DONE])

    def close(self) -> None:
        """End the workers. A later run starts new ones."""
        with self._lock:
            if self._stop is not None:
                self._stop()
            self._forget_threads()

    def _start(self) -> None:
        """Have enough workers. An interrupt may leave one uncounted; whoever comes too many leaves at once."""
        if self._stop is None:
            self._stop = weakref.finalize(self, _end_workers, self._enter, self._control, self._workers)
            self._stop.atexit = False       # the end of the process needs no goodbye, and must not wait for a run
        while len(self._workers) < self.threads - 1:
            worker = threading.Thread(target=_serve, args=(self._enter, self._control, self.threads), daemon=True,
                                      name=f"flowgraph-{len(self._workers) + 1}")
            worker.start()
            self._workers.append(worker)

    def _forget_threads(self) -> None:
        """Begin anew, without a word to threads that may not exist any more."""
        self._lock = threading.Lock()
        self._control = _aligned_words(CONTROL_WORDS)
        self._workers: list[threading.Thread] = []
        self._stop: weakref.finalize[..., Team] | None = None

    def _after_fork(self) -> None:
        if self._stop is not None:
            self._stop.detach()
        self._forget_threads()


_teams: weakref.WeakSet[Team] = weakref.WeakSet()


def _after_fork() -> None:
    for team in list(_teams):
        team._after_fork()


os.register_at_fork(after_in_child=_after_fork)


def _serve(enter: Callable[[int, int, int], None], control: Words, threads: int) -> None:
    """A worker's whole life; its frame keeps the control block in memory."""
    enter(control.ctypes.data, WORKER, threads)


def _end_workers(enter: Callable[[int, int, int], None], control: Words, workers: list[threading.Thread]) -> None:
    """Called when no run can be under way: by `close`, or because nobody holds the team any more."""
    control[Control.STEPS], control[Control.THREADS] = STOP, 2
    enter(control.ctypes.data, CALLER, 0)
    for worker in workers:
        worker.join()


def _aligned_words(count: int) -> Words:
    """Zeroed words that begin a cache line, so that the control block's distances mean what they say."""
    words = np.zeros(count + CACHE_LINE // 8, np.int64)
    skip = -words.ctypes.data % CACHE_LINE // 8
    return words[skip:skip + count]


class CpuRuntime:
    """The store of kernels and a team: all that is needed to run tables on this machine's processors."""

    def __init__(self, threads: int | None = None, store: KernelStore | None = None) -> None:
        self.store = KernelStore() if store is None else store
        self.team = Team(available_threads(threads), driver_address(self.store))

    @property
    def threads(self) -> int:
        return self.team.threads

    def run(self, table: Words, steps: int = 1, patches: Words = NO_PATCHES,
            on_chunk: Callable[[int], None] | None = None, profile: Words | None = None) -> None:
        """Run the table `steps` times, `patches` applied after each time.

        table: (launches, len(Row)); patches: (patches, len(Patch)); both int64 and C-contiguous.
        on_chunk: called between native calls, at least about every 50 ms unless one step takes longer, with the
        number of steps done so far. Whatever it raises, or a KeyboardInterrupt, ends the run between two steps.
        profile: from `new_profile`, added to.
        """
        _check_words("table", table, len(Row))
        _check_words("patches", patches, len(Patch))
        if profile is not None and profile.shape != (self.threads, len(table) + 1, len(Profile)):
            raise ValueError(f"a profile of {profile.shape} does not fit {len(table)} launches on {self.threads} threads")
        done = 0
        while done < steps:
            done += self.team.run(table, steps - done, patches, profile)
            if on_chunk is not None:
                on_chunk(done)

    def new_profile(self, table: Words) -> Words:
        """Zeroed nanoseconds by [thread, launch, Profile]; the last launch stands for the end of a step."""
        return np.zeros((self.threads, len(table) + 1, len(Profile)), np.int64)

    def close(self) -> None:
        """End the team's threads; the next run starts new ones."""
        self.team.close()


def _check_words(name: str, words: Words, width: int) -> None:
    if words.dtype != np.int64 or words.ndim != 2 or words.shape[1] != width or not words.flags.c_contiguous:
        raise ValueError(f"{name} must be C-contiguous int64 of shape (n, {width}), not {words.dtype} {words.shape}")
