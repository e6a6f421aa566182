"""The native driver: every task once, barriers that hold, and the table's words."""

from __future__ import annotations

import numpy as np
import pytest

from flowgraph.backends.cpu.driver import driver_source
from flowgraph.backends.cpu.machine_code import undefined_symbols
from flowgraph.backends.cpu.store import KernelSource, KernelStore
from flowgraph.backends.cpu.team import CpuRuntime, Team
from flowgraph.backends.cpu.words import Profile, Row

PRELUDE = "flowgraph.backends.cpu.driver"
HEAD = "from flowgraph.backends.cpu.atomics import load, store\n"

# words: 0 input, 1 output, 2 count; task i writes output[i] = sum(input) + i: any missed barrier shows
SUM = HEAD + """
def kernel(args, lo, hi):
    source, target, count = load(args, 0), load(args, 8), load(args, 16)
    for i in range(lo, hi):
        total = i
        for j in range(count):
            total += load(source, 8 * j)
        store(target, 8 * i, total & 0xFFFFFFFF)
"""
# words: 0 output; how often each task was done
COUNT = HEAD + """
def kernel(args, lo, hi):
    for i in range(lo, hi):
        store(load(args, 0), 8 * i, load(load(args, 0), 8 * i) + 1)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> KernelStore:
    return KernelStore(tmp_path_factory.mktemp("kernels"))


@pytest.fixture(scope="module", params=[1, 2, 3, 4])
def runtime(request: pytest.FixtureRequest, store: KernelStore) -> CpuRuntime:
    """Also with more threads than this machine may have processors."""
    runtime = CpuRuntime(1, store)
    runtime.team = Team(request.param, runtime.team.driver)
    return runtime


def kernel(store: KernelStore, text: str) -> int:
    return store.load([KernelSource("kernel", text, "kernel", PRELUDE)])[0]


def words(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@pytest.mark.parametrize("tasks", [0, 1, 2, 3, 7, 64, 1000])
@pytest.mark.parametrize("team", [1, 2, 3, 16])
def test_each_task_is_done_once_a_step(
    runtime: CpuRuntime, store: KernelStore, tasks: int, team: int
) -> None:
    done = np.zeros(tasks + 1, np.int64)
    args = words(done.ctypes.data)
    runtime.run(np.array([[kernel(store, COUNT), args.ctypes.data, tasks, team, 0, 0, tasks, 0]]), steps=5)
    assert list(done) == [5] * tasks + [0]


@pytest.mark.parametrize("team", [1, 2, 3, 16])
@pytest.mark.parametrize("parts", [(1, 1, 1), (5, 0, 1000, 2), (7,), (0, 0)])
def test_the_rows_of_a_launch_share_its_team(
    runtime: CpuRuntime, store: KernelStore, parts: tuple[int, ...], team: int
) -> None:
    done = [np.zeros(tasks + 1, np.int64) for tasks in parts]
    args = [words(each.ctypes.data) for each in done]
    rows = zip(args, parts, strict=True)
    address, total = kernel(store, COUNT), sum(parts)
    table = np.array([[address, a.ctypes.data, tasks, team, 0, 0, total, 0] for a, tasks in rows])
    table[:, Row.BEFORE] = np.cumsum(parts) - parts
    runtime.run(table, steps=5)
    assert [list(each) for each in done] == [[5] * tasks + [0] for tasks in parts]


def ping_pong(store: KernelStore, width: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """a -> b -> a, each from all of the other: a race in either direction changes the numbers."""
    a, b = np.arange(width, dtype=np.int64), np.zeros(width, np.int64)
    there, back = words(a.ctypes.data, b.ctypes.data, width), words(b.ctypes.data, a.ctypes.data, width)
    address = kernel(store, SUM)
    rows = ((there, 0), (back, 1))
    table = np.array([[address, args.ctypes.data, width, 99, barrier, 0, width, 0] for args, barrier in rows])
    return table, [a, b, there, back]


def test_barriers_order_launches_and_steps(runtime: CpuRuntime, store: KernelStore) -> None:
    width, steps = 8, 3000
    table, (a, b, *_) = ping_pong(store, width)
    expected_a, expected_b = a.copy(), b.copy()
    for _ in range(steps):
        expected_b = (expected_a.sum() + np.arange(width)) & 0xFFFFFFFF
        expected_a = (expected_b.sum() + np.arange(width)) & 0xFFFFFFFF
    runtime.run(table, steps)
    assert list(a) == list(expected_a) and list(b) == list(expected_b)


def test_steps_and_launches_may_be_none(runtime: CpuRuntime, store: KernelStore) -> None:
    table, (a, *_) = ping_pong(store, 4)
    runtime.run(table, steps=0)
    assert list(a) == [0, 1, 2, 3]
    runtime.run(table[:0], steps=10)
    assert list(a) == [0, 1, 2, 3]


def test_the_profile_times_each_launch_of_each_thread(runtime: CpuRuntime, store: KernelStore) -> None:
    big, small = 20_000, 1
    done = np.zeros(big, np.int64)
    args = words(done.ctypes.data)
    address = kernel(store, COUNT)
    table = np.array([[address, args.ctypes.data, tasks, 99, 1, 0, tasks, 0] for tasks in (small, big)])
    profiles = []
    for _ in range(20):
        profiles.append(runtime.new_profile(table))
        runtime.run(table, steps=10, profile=profiles[-1])
    assert all((profile >= 0).all() for profile in profiles)
    # whoever is interrupted in a launch counts that, too: the least of several runs does not
    work = np.min([profile[:, :, Profile.WORK].sum(axis=0) for profile in profiles], axis=0)
    assert work[1] > 3 * work[0] > 0 and work[2] == 0
    before = profiles[-1].copy()
    runtime.run(table, steps=5)
    assert (profiles[-1] == before).all()


def test_a_table_of_the_wrong_kind_is_refused(runtime: CpuRuntime, store: KernelStore) -> None:
    table, _ = ping_pong(store, 4)
    for wrong in (table.astype(np.int32), table[:, :4], table[0], np.asfortranarray(table)):
        with pytest.raises(ValueError, match="table must be"):
            runtime.run(wrong, 1)
    with pytest.raises(ValueError, match="profile"):
        runtime.run(table, 1, profile=np.zeros((1, 1, 2), np.int64))


def test_the_driver_needs_only_the_c_library(store: KernelStore) -> None:
    store.load([driver_source()])
    path = store.source_path(driver_source())
    assert path is not None
    needed = set(undefined_symbols(path.with_suffix(".o").read_bytes()))
    assert needed == {"clock_gettime", "sched_yield", "syscall"}
