"""The store of kept kernels: same text, same kernel; damaged, never run; a warm start needs no compiler."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import pytest

from flowgraph.backends.cpu.machine_code import ObjectFileError, check_symbols, undefined_symbols
from flowgraph.backends.cpu.store import KernelSource, KernelStore
from flowgraph.backends.cpu.toolchain import KernelCompileError, compile_kernel
from flowgraph.backends.kept import default_folder
from tests.support.store_attack import PRELUDE, adder, run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "kernels"


def only(folder: Path, pattern: str) -> Path:
    path, = folder.glob(pattern)
    return path


def test_a_loaded_kernel_runs_its_tasks(folder: Path) -> None:
    address, = KernelStore(folder).load([adder(3)])
    assert run(address) == [3] * 5


def test_equal_texts_share_one_kernel_whatever_their_names(folder: Path) -> None:
    store = KernelStore(folder)
    first, other, again = store.load([adder(1, "layer 1"), adder(2), adder(1, "layer 2")])
    assert first == again != other
    assert store.info().compiled == 2


def test_a_second_store_finds_what_the_first_kept(folder: Path) -> None:
    KernelStore(folder).load([adder(4)])
    store = KernelStore(folder)
    assert run(store.load([adder(4)])[0]) == [4] * 5
    assert (store.info().hits, store.info().compiled) == (1, 0)


def test_the_text_is_kept_readable(folder: Path) -> None:
    store = KernelStore(folder)
    store.load([adder(5)])
    path = store.source_path(adder(5))
    assert path is not None and path.read_text() == adder(5).text


def test_nobody_else_may_look_into_the_folder(folder: Path) -> None:
    folder.mkdir(mode=0o755)
    KernelStore(folder)
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("damage", [
    lambda data: data[:len(data) // 2],
    lambda data: b"",
    lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:],
    lambda data: data[:-1],
    lambda data: b"garbage\n{}",
    lambda data: b"garbage\n[1]",
], ids=["cut", "empty", "one bit", "trailer cut", "no hash", "not a record"])
def test_a_damaged_kernel_is_compiled_anew(folder: Path, damage) -> None:
    KernelStore(folder).load([adder(6)])
    kept = only(folder, "*.o")
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    store = KernelStore(folder)
    assert run(store.load([adder(6)])[0]) == [6] * 5
    assert (store.info().rebuilt, store.info().compiled, store.info().hits) == (1, 1, 0)
    assert KernelStore(folder).load([adder(6)]) and only(folder, "*.o").stat().st_size == len(whole)


def test_clear_forgets_the_kept_but_not_the_loaded(folder: Path) -> None:
    store = KernelStore(folder)
    address, = store.load([adder(7)])
    (folder / ".add-0.o.1.2").write_text("the rest of a write that was interrupted")
    store.clear()
    assert list(folder.iterdir()) == []
    assert store.info().kept == 0 and run(address) == [7] * 5


def test_where_nothing_can_be_kept_there_is_one_warning_and_the_kernels_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(RuntimeWarning, match="in memory only") as caught:
        store = KernelStore(tmp_path / "file" / "kernels")
        addresses = store.load([adder(8), adder(9)])
    assert len(caught) == 1
    assert [run(address) for address in addresses] == [[8] * 5, [9] * 5]


def test_a_folder_that_vanishes_costs_one_warning_and_no_kernel(folder: Path) -> None:
    store = KernelStore(folder)
    folder.rmdir()
    with pytest.warns(RuntimeWarning, match="in memory only") as caught:
        addresses = store.load([adder(13), adder(14)])
    assert len(caught) == 1 and store.info().folder is None
    assert [run(address) for address in addresses] == [[13] * 5, [14] * 5]


def test_a_folder_of_another_user_is_not_trusted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    with pytest.warns(RuntimeWarning, match="another user"):
        assert KernelStore(folder).info().folder is None


def test_the_folder_is_the_users_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.delenv("FLOWGRAPH_CACHE", raising=False)
    assert default_folder() == Path("/x/flowgraph")
    monkeypatch.setenv("FLOWGRAPH_CACHE", "/y")
    assert default_folder() == Path("/y")


@pytest.mark.parametrize("keeps", [True, False])
def test_an_error_of_the_compiler_names_the_file_and_shows_the_line(folder: Path, keeps: bool) -> None:
    wrong = KernelSource("wrong", "def wrong(args, lo, hi):\n    return args + 'a'\n", "wrong", PRELUDE)
    if not keeps:
        folder.write_text("in the way")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        store = KernelStore(folder)
        with pytest.raises(Exception, match=r"wrong-[0-9a-f]{32}(?s:.*)return args \+ 'a'"):
            store.load([wrong])


def test_a_kernel_that_may_raise_is_refused() -> None:
    step_may_be_zero = "def k(args, lo, hi):\n    for i in range(lo, hi, args):\n        pass\n"
    with pytest.raises(KernelCompileError, match="may raise"):
        compile_kernel(step_may_be_zero, "<k>", "k", "k", {})
    assert compile_kernel(step_may_be_zero.replace("hi, args", "hi, 2"), "<k>", "k", "k", {})


def test_a_kernel_that_allocates_is_refused(folder: Path) -> None:
    text = "import numpy as np\ndef k(args, lo, hi):\n    a = np.empty(hi, np.int64)\n    a[lo] = lo\n"
    with pytest.raises(Exception, match=r"a = np\.empty"):
        KernelStore(folder).load([KernelSource("k", text, "k", PRELUDE)])
    assert list(folder.glob("*.o")) == []


def test_a_kept_kernel_refers_to_no_allocator_and_not_to_python(folder: Path) -> None:
    KernelStore(folder).load([adder(10)])
    assert undefined_symbols(only(folder, "*.o").read_bytes()) == ()


@pytest.mark.parametrize("symbol", ["NRT_Allocate", "PyErr_SetNone", "flowgraph_no_such_symbol"])
def test_a_symbol_that_no_kernel_may_use_is_an_error_and_not_the_end_of_the_process(symbol: str) -> None:
    text = ("from numba import types\nfrom numba.core.typing import signature\n"
            f"outside = types.ExternalFunction({symbol!r}, signature(types.int64, types.int64))\n"
            "def k(args, lo, hi):\n    outside(lo)\n")
    object_file = compile_kernel(text, "<k>", "k", "k", {})
    assert undefined_symbols(object_file) == (symbol,)
    with pytest.raises(ObjectFileError, match=symbol):
        check_symbols(object_file)


WARM = """
import sys
from pathlib import Path
from flowgraph.backends.cpu.store import KernelSource, KernelStore
store = KernelStore(Path({folder!r}))
store.load([KernelSource("add", {text!r}, "add", {prelude!r})])
info = store.info()
print(info.hits, info.compiled, "numba" in sys.modules)
"""


def start(folder: Path, source: KernelSource) -> subprocess.Popen[str]:
    script = textwrap.dedent(WARM).format(folder=str(folder), text=source.text, prelude=source.prelude)
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)


def test_a_warm_start_does_not_import_numba(folder: Path) -> None:
    KernelStore(folder).load([adder(11)])
    assert start(folder, adder(11)).communicate(timeout=60)[0].split() == ["1", "0", "False"]


def test_a_kernel_that_calls_the_c_librarys_mathematics_loads_in_a_fresh_process(folder: Path) -> None:
    text = ("def k(args, lo, hi):\n    p = arg(args, 0)\n    for i in range(lo, hi):\n"
            "        store_f64(p, i, sin(load_f64(p, i)))\n")
    source = KernelSource("k", text, "k")
    KernelStore(folder).load([source])
    assert undefined_symbols(only(folder, "*.o").read_bytes()) == ("sin",)
    script = f"""
import ctypes
from pathlib import Path
import numpy as np
from flowgraph.backends.cpu.store import KernelSource, KernelStore
store = KernelStore(Path({str(folder)!r}))
address, = store.load([KernelSource("k", {text!r}, "k")])
x = np.linspace(-9, 9, 7)
expected = np.sin(x)
args = np.array([x.ctypes.data])
ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)(address)(args.ctypes.data, 0, 7)
print(store.info().hits, bool(np.allclose(x, expected, rtol=1e-15)))
"""
    assert subprocess.check_output([sys.executable, "-c", script], text=True, timeout=60) == "1 True\n"


def test_two_processes_may_compile_the_same_kernel_at_once(folder: Path) -> None:
    both = [start(folder, adder(12)) for _ in range(2)]
    for process in both:
        assert process.communicate(timeout=120)[0].split()[:1] in (["0"], ["1"]) and process.returncode == 0
    store = KernelStore(folder)
    assert run(store.load([adder(12)])[0]) == [12] * 5 and store.info().hits == 1
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
