"""The store of kept kernels: source text in, native addresses out, compiled once per machine and text.

A kept kernel is two files: `<entry>-<key>.py`, the text a person reads (and tracebacks name), and
`<entry>-<key>.o`, the object file with one line of JSON behind it (tools that read ELF ignore what follows
the object). The key is the content: text, the files that compile it, versions, processor. Entries are
written by rename, so a reader sees all or nothing, and are verified before use; a damaged one is compiled
anew. A hit does not import numba. May not know what the kernels compute, or when they run.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import json
import linecache
import os
import stat
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import llvmlite

from flowgraph.backends.cpu import machine_code
from flowgraph.backends.cpu.machine_code import Loader, ObjectFileError


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
    kept_bytes: int = 0
    loaded: int = 0                 # kernels in this process's memory
    hits: int = 0                   # of these, found in the folder
    compiled: int = 0               # of these, compiled here
    rebuilt: int = 0                # of the compiled, how many because the kept entry was damaged
    compile_seconds: float = 0.0


def default_folder() -> Path:
    """$FLOWGRAPH_CACHE, or flowgraph/ in the user's cache folder."""
    chosen = os.environ.get("FLOWGRAPH_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flowgraph"


class KernelStore:
    """Kernels by content, in one private folder and in this process's memory.

    Addresses stay valid for the life of the process, whatever happens to the store or its folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._lock = threading.RLock()
        self._loader = Loader()
        self._addresses: dict[str, int] = {}
        self._folder = _private_folder(default_folder() if folder is None else Path(folder))
        self._done = StoreInfo(self._folder)

    def load(self, sources: Sequence[KernelSource]) -> list[int]:
        """The native address of each source, in order; equal sources share one."""
        with self._lock:
            return [self._address(source) for source in sources]

    def info(self) -> StoreInfo:
        objects = [] if self._folder is None else list(self._folder.glob("*.o"))
        return replace(self._done, folder=self._folder, kept=len(objects), loaded=len(self._addresses),
                       kept_bytes=sum(path.stat().st_size for path in objects))

    def clear(self) -> None:
        """Forget every kept kernel. What is loaded stays loaded."""
        if self._folder is not None:
            for pattern in ("*.o", "*.py", ".*.o.*", ".*.py.*"):        # the last two: parts never finished
                for path in self._folder.glob(pattern):
                    path.unlink(missing_ok=True)

    def source_path(self, source: KernelSource) -> Path | None:
        """The readable file of a kernel; None if this store keeps nothing on disk."""
        return None if self._folder is None else self._folder / f"{_stem(source)}.py"

    def _address(self, source: KernelSource) -> int:
        stem = _stem(source)
        if stem not in self._addresses:
            self._addresses[stem] = self._load_kept(stem) or self._compile(source, stem)
        return self._addresses[stem]

    def _load_kept(self, stem: str) -> int | None:
        if self._folder is None:
            return None
        try:
            data = (self._folder / f"{stem}.o").read_bytes()
        except FileNotFoundError:
            return None
        try:
            address = self._loader.load(_verified_object(data), _symbol(stem))
        except ObjectFileError:
            self._count(rebuilt=1)
            return None
        self._count(hits=1)
        return address

    def _compile(self, source: KernelSource, stem: str) -> int:
        from flowgraph.backends.cpu.toolchain import compile_kernel

        started = time.perf_counter()
        path = self._keep(f"{stem}.py", source.text.encode())
        if path is None:                        # tracebacks shall show the line all the same
            path = f"<{stem}>"
            linecache.cache[path] = (len(source.text), None, source.text.splitlines(keepends=True), path)
        prelude = importlib.import_module(source.prelude)
        names, lower = prelude.namespace_for(source.text), getattr(prelude, "lower", None)
        object_file = compile_kernel(source.text, path, source.entry, _symbol(stem), names, lower)
        address = self._loader.load(object_file, _symbol(stem))
        self._keep(f"{stem}.o", _with_trailer(object_file, source))
        self._count(compiled=1, seconds=time.perf_counter() - started)
        return address

    def _keep(self, name: str, data: bytes) -> str | None:
        """Write a file of the folder, all or nothing, by rename; its path, or None if nothing can be kept."""
        if self._folder is None:
            return None
        part = self._folder / f".{name}.{os.getpid()}.{threading.get_ident()}"
        try:
            part.write_bytes(data)
            part.replace(self._folder / name)
        except OSError as error:                # full, or read-only by now
            _warn_memory_only(error)
            self._folder = None
            return None
        return str(self._folder / name)

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


def _with_trailer(object_file: bytes, source: KernelSource) -> bytes:
    """The object file as kept: the trailer is what the object is checked against before it runs."""
    trailer = {"name": source.name, "entry": source.entry, "sha256": _hash(object_file),
               "made_by": _environment()[1:]}
    return object_file + b"\n" + json.dumps(trailer).encode()


def _verified_object(kept: bytes) -> bytes:
    object_file, _, trailer = kept.rpartition(b"\n")
    try:
        expected = json.loads(trailer)["sha256"]
    except (ValueError, TypeError, KeyError) as error:
        raise ObjectFileError("a kept kernel without a readable trailer") from error
    if _hash(object_file) != expected:
        raise ObjectFileError("a kept kernel whose object file is not the one that was written")
    return object_file


def _private_folder(folder: Path) -> Path | None:
    """The folder, made private to this user; None, with a warning, where kernels cannot be kept safely."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        if status.st_uid != os.getuid():
            raise PermissionError(f"{folder} belongs to another user, who could replace the code run here")
        if stat.S_IMODE(status.st_mode) & 0o077:
            folder.chmod(0o700)
        with tempfile.NamedTemporaryFile(dir=folder):
            return folder
    except OSError as error:
        _warn_memory_only(error)
        return None


def _warn_memory_only(error: OSError) -> None:
    warnings.warn(f"flowgraph keeps compiled kernels in memory only: {error}", RuntimeWarning, stacklevel=4)
