"""The store of kept kernels: source text in, native addresses out, compiled once per machine and text.

A kept kernel is two files (see `backends.kept`): `<entry>-<key>.py`, the text a person reads (and tracebacks name),
and `<entry>-<key>.o`, the sealed object file. The key is the content: text, the files that compile it, versions,
processor. A damaged entry is compiled anew. A hit does not import numba. May not know what the kernels compute, or
when they run.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import json
import linecache
import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import llvmlite

from flowgraph.backends.cpu import machine_code
from flowgraph.backends.cpu.machine_code import Loader, ObjectFileError
from flowgraph.backends.kept import DamagedEntryError, KeptFiles, default_folder


@dataclass(frozen=True)
class KernelSource:
    """One native function void(int64 args, int64 lo, int64 hi) as text.

    `name` is for people; two sources with equal text and entry are the same kernel. `prelude` names a
    module with `namespace_for(text)`, the names that the text may use, and `PRELUDE_VERSION`, which changes
    when their meaning does. Importing it must not import numba; asking it for names may.
    """

    name: str
    text: str
    entry: str
    prelude: str = "flowgraph.codegen.cpu_prelude"


@dataclass(frozen=True)
class StoreInfo:
    """What is kept, and what this store has done so far in this process."""

    folder: Path | None             # None: kept in memory only
    kept: int = 0                   # kernels in the folder
    kept_bytes: int = 0             # of all their files
    limit: int = 0                  # the most they may have
    loaded: int = 0                 # kernels in this process's memory
    hits: int = 0                   # of these, found in the folder
    compiled: int = 0               # of these, compiled here
    rebuilt: int = 0                # of the compiled, how many because the kept entry was damaged
    compile_seconds: float = 0.0


# One lock for all stores: the compiler below has but one, too. A fork waits for it, so that no child inherits a lock
# that nobody will release, or a loader in the middle of its work.
_LOCK = threading.RLock()
os.register_at_fork(before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_LOCK.release)


class KernelStore:
    """Kernels by content, in one private folder and in this process's memory.

    Addresses stay valid for the life of the process, whatever happens to the store or its folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._loader = Loader()
        self._addresses: dict[str, int] = {}
        self._kept = KeptFiles(default_folder() if folder is None else Path(folder), ".o")
        self._done = StoreInfo(self._kept.folder)

    def load(self, sources: Sequence[KernelSource]) -> list[int]:
        """The native address of each source, in order; equal sources share one."""
        with _LOCK:
            return [self._address(source) for source in sources]

    def missing(self, sources: Sequence[KernelSource]) -> int:
        """How many different kernels of these `load` would have to compile."""
        return sum(not (s in self._addresses or self._kept.holds(s)) for s in {_stem(source) for source in sources})

    @property
    def done(self) -> StoreInfo:
        """What `info` counts of this process, without a look at the folder."""
        return self._done

    def info(self) -> StoreInfo:
        kept = self._kept.info()
        return replace(self._done, folder=self._kept.folder, kept=kept.entries, kept_bytes=kept.size,
                       limit=self._kept.limit, loaded=len(self._addresses))

    def clear(self) -> None:
        """Forget every kept kernel. What is loaded stays loaded."""
        self._kept.clear()

    def source_path(self, source: KernelSource) -> Path | None:
        """The readable file of a kernel; None if this store keeps nothing on disk."""
        return self._kept.text_path(_stem(source))

    def _address(self, source: KernelSource) -> int:
        stem = _stem(source)
        if stem not in self._addresses:
            self._addresses[stem] = self._load_kept(stem) or self._compile(source, stem)
        return self._addresses[stem]

    def _load_kept(self, stem: str) -> int | None:
        try:
            found = self._kept.read(stem)
            if found is None:
                return None
            address = self._loader.load(found[0], _symbol(stem))
        except (DamagedEntryError, ObjectFileError):
            self._count(rebuilt=1)
            return None
        self._count(hits=1)
        return address

    def _compile(self, source: KernelSource, stem: str) -> int:
        from flowgraph.backends.cpu.toolchain import compile_kernel

        started = time.perf_counter()
        path: Path | str | None = self._kept.write_text(stem, source.text)
        if path is None:                        # tracebacks shall show the line all the same
            path = f"<{stem}>"
            linecache.cache[path] = (len(source.text), None, source.text.splitlines(keepends=True), path)
        prelude = importlib.import_module(source.prelude)
        names, lower = prelude.namespace_for(source.text), getattr(prelude, "lower", None)
        object_file = compile_kernel(source.text, path, source.entry, _symbol(stem), names, lower)
        address = self._loader.load(object_file, _symbol(stem))
        about = {"name": source.name, "entry": source.entry, "made_by": _environment()[1:]}
        self._kept.write(stem, object_file, about)
        self._count(compiled=1, seconds=time.perf_counter() - started)
        return address

    def _count(self, rebuilt: int = 0, hits: int = 0, compiled: int = 0, seconds: float = 0.0) -> None:
        done = self._done
        self._done = replace(
            done, rebuilt=done.rebuilt + rebuilt, hits=done.hits + hits, compiled=done.compiled + compiled,
            compile_seconds=done.compile_seconds + seconds)


def _stem(source: KernelSource) -> str:
    prelude = importlib.import_module(source.prelude).PRELUDE_VERSION
    content = json.dumps([source.text, source.entry, prelude, _environment()])
    return f"{source.entry}-{_hash(content.encode())[:32]}"


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _symbol(stem: str) -> str:
    return "flowgraph_" + stem.replace("-", "_")


@functools.cache
def _environment() -> tuple[str, ...]:
    """All else that decides the machine code: the toolchain's own text, versions, the processor."""
    files = [Path(__file__).with_name(name) for name in ("toolchain.py", "machine_code.py")]
    own = _hash(b"\0".join(file.read_bytes() for file in files))
    # numba's version without importing it; importlib.metadata would cost more than loading ten kernels.
    numba = importlib.util.find_spec("numba")
    if numba is None or numba.origin is None:
        raise ModuleNotFoundError("the CPU backend needs numba to compile kernels", name="numba")
    version = _hash(Path(numba.origin).with_name("_version.py").read_bytes())
    host = machine_code.host()
    return (own, version, llvmlite.__version__, sys.version.split()[0], host.triple, host.cpu, host.features)
