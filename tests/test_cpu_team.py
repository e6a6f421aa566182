"""The team of threads: its size, its birth and end, forks, interrupts, and callers that come at once."""

from __future__ import annotations

import _thread
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from flowgraph.backends.cpu.store import KernelSource, KernelStore
from flowgraph.backends.cpu.team import CpuRuntime, Team
from flowgraph.backends.cpu.threads import available_threads, cgroup_quota

COUNT = """
from flowgraph.backends.cpu.atomics import load, store

def kernel(args, lo, hi):
    for i in range(lo, hi):
        store(load(args, 0), 8 * i, load(load(args, 0), 8 * i) + 1)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(scope="module")
def store(folder: Path) -> KernelStore:
    return KernelStore(folder)


def runtime_of(store: KernelStore, threads: int) -> CpuRuntime:
    runtime = CpuRuntime(1, store)
    runtime.team = Team(threads, runtime.team.driver)
    return runtime


class Counter:
    """A table of one launch that counts what each of its tasks did."""

    def __init__(self, store: KernelStore, tasks: int = 64, launches: int = 1, team: int = 99) -> None:
        address, = store.load([KernelSource("count", COUNT, "kernel", "flowgraph.backends.cpu.driver")])
        self.done = np.zeros(tasks, np.int64)
        self.args = np.array([self.done.ctypes.data])
        self.table = np.array([[address, self.args.ctypes.data, tasks, team, 1, 0, tasks, 0]] * launches)

    def all_are(self, times: int) -> bool:
        return bool((self.done == times).all())


def threads_become(number: int) -> bool:
    """Does this process have so many threads born in Python, or soon? A thread that has ended goes a moment later."""
    deadline = time.monotonic() + 5
    while _thread._count() != number and time.monotonic() < deadline:
        time.sleep(0.001)
    return _thread._count() == number


def test_threads_are_at_most_what_was_asked_and_what_there_are() -> None:
    processors = len(os.sched_getaffinity(0))
    assert available_threads(1) == 1
    assert 1 <= available_threads() <= processors
    assert available_threads(10_000) == available_threads()
    with pytest.raises(ValueError, match="at least one"):
        available_threads(0)


@pytest.mark.parametrize("membership, files, quota", [
    ("0::/\n", {}, None),
    ("0::/\n", {"cpu.max": "max 100000"}, None),
    ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "250000 100000"}, 2),
    ("0::/a\n", {"a/cpu.max": "50000 100000"}, 1),
    ("0::/gone\n", {"cpu.max": "400000 100000"}, 4),
    ("4:memory:/x\n2:cpu,cpuacct:/x\n",
     {"cpu/x/cpu.cfs_quota_us": "300000", "cpu/x/cpu.cfs_period_us": "100000"}, 3),
    ("2:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
])
def test_the_containers_quota_counts(
    tmp_path: Path, membership: str, files: dict[str, str], quota: int | None
) -> None:
    (tmp_path / "membership").write_text(membership)
    for name, text in files.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(text)
    assert cgroup_quota(tmp_path / "root", tmp_path / "membership") == quota


def test_threads_start_with_the_first_wide_run_and_end_with_the_team(store: KernelStore) -> None:
    gc.collect()
    before = _thread._count()
    runtime, counter, narrow = runtime_of(store, 3), Counter(store), Counter(store, team=1)
    assert threads_become(before)
    runtime.run(narrow.table, 1)
    assert threads_become(before)
    runtime.run(counter.table, 1)
    assert threads_become(before + 2)
    del runtime
    gc.collect()
    assert threads_become(before)


def test_a_closed_team_starts_again(store: KernelStore) -> None:
    runtime, counter = runtime_of(store, 2), Counter(store)
    for times in (1, 2):
        runtime.run(counter.table, 1)
        runtime.close()
        assert counter.all_are(times)


def test_sleeping_workers_wake(store: KernelStore) -> None:
    runtime, counter = runtime_of(store, 4), Counter(store)
    for times in range(1, 21):
        runtime.run(counter.table, 1)
        time.sleep(0.002)
        assert counter.all_are(times)


def test_more_threads_than_processors_do_all_the_work(store: KernelStore) -> None:
    runtime, counter = runtime_of(store, 4), Counter(store, launches=10)
    runtime.run(counter.table, 200)
    assert counter.all_are(2000)


def test_progress_is_reported_during_a_long_run(store: KernelStore) -> None:
    runtime, counter = runtime_of(store, 2), Counter(store, tasks=10_000)
    steps: list[int] = []

    class LongEnough(Exception):
        """However fast the machine is: a run without an end that is told to end at its third report."""

    def told(done: int) -> None:
        steps.append(done)
        if len(steps) == 3:
            raise LongEnough

    with pytest.raises(LongEnough):
        runtime.run(counter.table, 10**12, on_chunk=told)
    assert steps == sorted(set(steps)) and counter.all_are(steps[-1])


def test_what_progress_raises_ends_the_run_between_steps(store: KernelStore) -> None:
    runtime, counter = runtime_of(store, 2), Counter(store, tasks=10_000)

    def stop(done: int) -> None:
        raise RuntimeError(f"stop at {done}")

    with pytest.raises(RuntimeError, match="stop at") as stopped:
        runtime.run(counter.table, 10**9, on_chunk=stop)
    assert counter.all_are(int(str(stopped.value).split()[-1]))
    runtime.run(counter.table, 1)                # and the team is as good as before


def test_callers_on_several_python_threads_take_turns(store: KernelStore) -> None:
    runtime = runtime_of(store, 2)
    counters = [Counter(store) for _ in range(4)]
    callers = [threading.Thread(target=runtime.run, args=(counter.table, 2000)) for counter in counters]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert all(counter.all_are(2000) for counter in counters)


def test_a_forked_child_has_its_own_team(store: KernelStore) -> None:
    runtime, counter = runtime_of(store, 2), Counter(store)
    runtime.run(counter.table, 10)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        runtime.run(counter.table, 10)
        os._exit(0 if counter.all_are(20) and len(os.listdir("/proc/self/task")) == 2 else 1)
    runtime.run(counter.table, 5)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert counter.all_are(15)


def test_a_fork_in_the_middle_of_a_run_leaves_parent_and_child_able_to_run(store: KernelStore) -> None:
    runtime, counter, other = runtime_of(store, 2), Counter(store, tasks=10_000), Counter(store)
    busy = threading.Thread(target=runtime.run, args=(counter.table, 20_000))
    busy.start()
    time.sleep(0.02)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        runtime.run(other.table, 10)
        os._exit(0 if other.all_are(10) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    busy.join()
    assert counter.all_are(20_000)


SCRIPT = """
import os, sys, threading, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_cpu_team import Counter, KernelStore, runtime_of
store = KernelStore(Path({folder!r}))
runtime, counter = runtime_of(store, {threads}), Counter(store, tasks=1000)
"""


INTERRUPTED = """
import signal
class Again(Exception): pass
armed = False                   # a signal may come late, through another thread
def interrupt(*_):
    if armed: raise Again
signal.signal(signal.SIGALRM, interrupt)
def interrupted(function, seconds):
    global armed
    try:
        armed = True
        signal.setitimer(signal.ITIMER_REAL, seconds)
        function()
        armed = False
    except Again:
        armed = False
"""


def script(folder: Path, threads: int, body: str, before: str = "") -> subprocess.Popen[str]:
    text = SCRIPT.format(tests=str(Path(__file__).parent), folder=str(folder), threads=threads)
    command = [sys.executable, "-c", text + before + textwrap.dedent(body)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_ctrl_c_ends_a_long_run_and_the_team_goes_on(folder: Path, store: KernelStore, threads: int) -> None:
    process = script(folder, threads, """
        runtime.run(counter.table, 1)
        print("running", flush=True)
        try:
            runtime.run(counter.table, 10**12)
        except KeyboardInterrupt:
            whole = len(set(counter.done)) == 1
            before = counter.done[0]
            runtime.run(counter.table, 7)
            print("stopped", whole and counter.all_are(before + 7))
    """)
    assert process.stdout is not None and process.stdout.readline() == "running\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert output == "stopped True\n" and process.returncode == 0


def test_many_interrupts_at_any_moment_leave_no_thread_behind(folder: Path, store: KernelStore) -> None:
    process = script(folder, 2, """
        import signal
        class Again(Exception): pass
        def interrupt(*_): raise Again
        signal.signal(signal.SIGALRM, interrupt)
        caught = 0
        for k in range(300):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0002 + 0.00001 * (k % 50))
                while True:
                    runtime.run(counter.table, 1)
            except Again:
                caught += 1
        runtime.run(counter.table, 1)
        print(caught, len(set(counter.done)))
    """)
    output, _ = process.communicate(timeout=60)
    assert output == "300 1\n" and process.returncode == 0


def test_an_interrupt_while_threads_start_is_seen_as_what_it_is(folder: Path, store: KernelStore) -> None:
    process = script(folder, 4, before=INTERRUPTED, body="""
        sys.setswitchinterval(1e-6)
        for k in range(2000):
            runtime.close()
            interrupted(lambda: runtime.run(counter.table, 1), 0.00002 + 0.000001 * (k % 200))
        runtime.run(counter.table, 1)
        print(len(set(counter.done)))
    """)
    output, _ = process.communicate(timeout=60)
    assert output == "1\n" and process.returncode == 0


def test_an_interrupt_while_a_team_closes_leaves_it_able_to_run(folder: Path, store: KernelStore) -> None:
    process = script(folder, 4, before=INTERRUPTED, body="""
        for k in range(300):
            runtime.run(counter.table, 1)
            interrupted(runtime.close, 0.00001 + 0.000001 * (k % 100))
        runtime.run(counter.table, 1)
        print(counter.all_are(301))
    """)
    output, _ = process.communicate(timeout=60)
    assert output == "True\n" and process.returncode == 0


@pytest.mark.parametrize("body", [
    "runtime.run(counter.table, 1)",
    """
    threading.Thread(target=lambda r, c: r.run(c.table, 10**9), args=(runtime, counter), daemon=True).start()
    time.sleep(0.01)
    """,
    "runtime.run(counter.table, 1); sys.exit(0)",
])
def test_the_interpreter_ends_cleanly_with_a_team_alive(folder: Path, store: KernelStore, body: str) -> None:
    process = script(folder, 3, body)
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_a_warm_start_of_the_whole_runtime_imports_no_numba(folder: Path, store: KernelStore) -> None:
    Counter(store)
    process = script(folder, 2, """
        runtime.run(counter.table, 3)
        print(counter.all_are(3), 'numba' in sys.modules)
    """)
    assert process.communicate(timeout=30)[0] == "True False\n"


LATE_WORKER = """
import os
import numpy as np
import flowgraph as fg

p, z = fg.parameter("p", (1 << 16,)), fg.parameter("z", (1 << 16,))
r = fg.parameter("r", ())
wide, other = (fg.compile(updates={t: t + 1.0}, device="cpu") for t in (p, z))
narrow = fg.compile(updates={r: r + 1.0}, device="cpu")
for program in (wide, narrow, other):
    program.run(1, {})
processor = min(os.sched_getaffinity(0))
for thread in os.listdir("/proc/self/task"):
    os.sched_setaffinity(int(thread), {processor})
for _ in range(3):
    wide.run(4000, {}, on_chunk=lambda done: narrow.run(1, {}))
    other.run(100, {})
assert (p.value == 12001).all() and (z.value == 301).all(), (np.unique(p.value), np.unique(z.value))
wide.executor.runtime.close()
"""


def test_a_run_of_one_thread_between_runs_of_many_leaves_late_workers_alone(tmp_path: Path) -> None:
    """A worker that is scheduled late still has to read whether the run before had come to its deadline."""
    environment = os.environ | {"FLOWGRAPH_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", LATE_WORKER], env=environment, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
