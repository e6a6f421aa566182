"""Kept files under attack: what is damaged, foreign, contended or too much is made anew, refused or removed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.backends.cpu import executor, machine_code
from flowgraph.backends.cpu.driver import driver_source
from flowgraph.backends.cpu.store import KernelStore
from flowgraph.backends.cpu.team import CpuRuntime
from flowgraph.backends.kept import DamagedEntryError, KeptFiles, size_limit
from flowgraph.cli import main
from flowgraph.errors import InputError
from tests.support.store_attack import ATTACKS, adder

ROOT = Path(__file__).parents[1]


def python(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    """A process of Python in the root of the project."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT, env={**os.environ, **environment}, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finished(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


# Damage


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept") / "pristine"
    KernelStore(folder).load([adder(1), adder(2)])
    return folder


@pytest.mark.parametrize("kind", sorted(ATTACKS))
def test_a_kernel_that_was_tampered_with_is_made_anew_and_never_run(kind: str, pristine: Path, tmp_path: Path) -> None:
    attack = python("-m", "tests.support.store_attack", kind, 125, pristine, tmp_path)
    assert finished(attack) == "survived 125\n"


def test_an_entry_under_another_name_is_refused(tmp_path: Path) -> None:
    kept = KeptFiles(tmp_path, ".o")
    kept.write("one", b"content", {"n": 1})
    assert kept.read("one") == (b"content", {"n": 1}) and kept.read("two") is None
    (tmp_path / "two.o").write_bytes((tmp_path / "one.o").read_bytes())
    with pytest.raises(DamagedEntryError, match=r"two\.o is not what was written, or was written under another name"):
        kept.read("two")


# Several processes

PROGRAM = """
import sys
import numpy as np
import flowgraph as fg
x, w = fg.input("x", ("batch", 5)), fg.parameter("w", (5, 3), np.linspace(-1, 1, 15, dtype=np.float32).reshape(5, 3))
step = fg.compile(outputs=fg.softmax(x @ w), device="cpu")
print(step(x=np.ones((2, 5), np.float32))[0].tobytes().hex(), "numba" in sys.modules)
"""


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The store that eight processes filled at once, and what they printed."""
    folder = tmp_path_factory.mktemp("raced") / "store"
    racers = [python("-c", PROGRAM, FLOWGRAPH_CACHE=str(folder)) for _ in range(8)]
    return folder, [finished(each) for each in racers]


def test_eight_processes_may_fill_an_empty_store_at_once(raced: tuple[Path, list[str]]) -> None:
    folder, printed = raced
    assert len({line.split()[0] for line in printed}) == 1
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    kept = KeptFiles(folder, ".o")
    entries = [path.stem for path in folder.glob("*.o")]
    assert len(entries) >= 3 and all(kept.read(name) for name in entries)


def test_a_warm_program_does_not_import_numba(raced: tuple[Path, list[str]]) -> None:
    folder, printed = raced
    bits, numba = finished(python("-c", PROGRAM, FLOWGRAPH_CACHE=str(folder))).split()
    assert bits == printed[0].split()[0] and numba == "False"


FORK = """
import os, signal, sys, threading, time
from pathlib import Path
from types import SimpleNamespace
from tests.support.store_attack import adder, run
from flowgraph.backends.cpu.store import KernelStore

store, other, begun = KernelStore(Path(sys.argv[1])), KernelStore(Path(sys.argv[2])), threading.Event()

def slow(*_):
    begun.set()
    time.sleep(0.5)
    raise RuntimeError("made to fail")

def load():
    try:
        other.load([adder(1)])
    except RuntimeError:
        pass

sys.modules["flowgraph.backends.cpu.toolchain"] = SimpleNamespace(compile_kernel=slow)
loading = threading.Thread(target=load)
loading.start()
begun.wait()
child = os.fork()
if child == 0:
    signal.alarm(20)
    os._exit(0 if run(store.load([adder(1)])[0]) == [1] * 5 else 1)
loading.join()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), run(store.load([adder(2)])[0]))
"""


def test_a_fork_while_another_thread_loads_leaves_no_lock_behind(pristine: Path, tmp_path: Path) -> None:
    assert finished(python("-W", "ignore", "-c", FORK, pristine, tmp_path / "empty")) == "0 [2, 2, 2, 2, 2]\n"


# The limit


def test_the_least_recently_used_go_when_the_limit_is_exceeded(tmp_path: Path) -> None:
    kept = KeptFiles(tmp_path, ".o", limit=10_000)
    for number in range(9):
        kept.write_text(f"entry{number}", "text")
        kept.write(f"entry{number}", bytes(1000), {})
        for path in tmp_path.glob(f"entry{number}.*"):
            os.utime(path, (number, number))
    assert kept.read("entry0") is not None                      # a use
    kept.write("last", bytes(1000), {})
    kept.trim()
    names = {path.stem for path in tmp_path.iterdir()}
    assert {"entry0", "entry8", "last"} <= names and not {"entry1", "entry2"} & names
    assert kept.info().size <= 7_500 and not list(tmp_path.glob("entry1.*"))


def test_writing_alone_keeps_a_folder_near_its_limit(tmp_path: Path) -> None:
    kept = KeptFiles(tmp_path, ".o", limit=50_000)
    for number in range(200):
        kept.write(f"entry{number}", bytes(1000), {})
    assert 20_000 < kept.info().size < 50_000 * 17 / 16 + 2_000 and kept.read("entry199") is not None


CONTEND = """
import random, sys
from pathlib import Path
from flowgraph.backends.kept import KeptFiles
kept, dice = KeptFiles(Path(sys.argv[1]), ".o", limit=8_000), random.Random(int(sys.argv[2]))
for _ in range(150):
    name = f"entry{dice.randrange(20)}"
    found = kept.read(name)
    if found is None:
        kept.write_text(name, name)
        kept.write(name, name.encode() * 100, {})
    else:
        assert found[0] == name.encode() * 100
print(kept.folder is not None)
"""


def test_trimming_while_others_read_and_write_costs_nobody_a_kernel(tmp_path: Path) -> None:
    processes = [python("-W", "error", "-c", CONTEND, tmp_path, seed) for seed in range(4)]
    assert [finished(each) for each in processes] == ["True\n"] * 4


def test_what_a_killed_process_left_is_removed_after_an_hour(tmp_path: Path) -> None:
    for name, age in (("old", 4000), ("new", 10)):
        (tmp_path / f".{name}.o.0123").write_bytes(b"half")
        os.utime(tmp_path / f".{name}.o.0123", (time.time() - age,) * 2)
    KeptFiles(tmp_path, ".o").trim()
    assert [path.name for path in tmp_path.iterdir()] == [".new.o.0123"]


@pytest.mark.parametrize(("text", "size"), [("", 1 << 30), ("1000", 1000), ("500M", 500 << 20), ("2 g", 2 << 30)])
def test_the_limit_is_the_users_choice(text: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWGRAPH_CACHE_LIMIT", text)
    assert size_limit() == size


@pytest.mark.parametrize("text", ["much", "-1", "1.5G", "1T"])
def test_a_limit_that_is_no_size_says_so(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWGRAPH_CACHE_LIMIT", text)
    with pytest.raises(InputError, match="is no size"):
        size_limit()


def test_the_doctor_shows_the_store_and_clears_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLOWGRAPH_CACHE", str(tmp_path))
    KeptFiles(tmp_path, ".o").write("one", bytes(2_000_000), {})
    KeptFiles(tmp_path / "cuda", ".cubin").write("two", bytes(1000), {})
    assert main(["doctor"]) == 0
    assert f"1 in {tmp_path}, 2.0 MB of at most 1074" in capsys.readouterr().out
    assert main(["doctor", "--clear-cache"]) == 0
    assert f"kept kernels: 2.0 MB in {tmp_path}" in capsys.readouterr().out
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


# What native code asks for


def test_kernels_ask_the_process_for_mathematics_and_memory_blocks_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = CpuRuntime(2, KernelStore(tmp_path))
    monkeypatch.setattr(executor, "shared_runtime", lambda threads: runtime)
    wide, labels = fg.input("x", ("batch", 9), "float64"), fg.input("y", ("batch",), "int32")
    w = fg.parameter("w", (9, 4), fg.init.glorot_uniform(), dtype="float64")
    cost = fg.mean(fg.cross_ent_of_softmax(fg.tanh(fg.dropout(wide, 0.5)) @ w, labels))
    functions = [fg.exp(wide), fg.log(wide * wide + 1.0), fg.sin(wide), fg.sqrt(wide * wide), fg.sort(wide, axis=1)]
    outputs = [fg.sum(each) for each in functions]
    updates = fg.optim.Adam(0.1).updates([w], [fg.grad(cost, w)])
    step = fg.compile(outputs=[cost, *outputs], updates=updates, device="cpu")
    step(x=np.ones((3, 9)), y=np.zeros(3, np.int32))
    driver = KernelStore(tmp_path).source_path(driver_source())
    asked: dict[bool, set[str]] = {False: set(), True: set()}
    for path in tmp_path.glob("*.o"):
        asked[path.stem == getattr(driver, "stem", "")].update(machine_code.undefined_symbols(path.read_bytes()))
    assert asked[False] and asked[False] <= machine_code.MATHEMATICS | machine_code.MEMORY
    assert asked[True] <= machine_code.DRIVER | machine_code.MEMORY
