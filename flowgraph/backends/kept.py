"""Kept files: what was compiled once, filed under the hash of all that decided it, for the processes to come.

In: bytes and what to say about them, under a name. Out: the same bytes, or nothing. Entries are written by rename, so
a reader sees all or nothing, and sealed: behind the bytes stand a line of JSON about them and a SHA-256 of name, bytes
and line, so that one which was damaged, or belongs under another name, is not mistaken for what was asked for. That
guards against accidents; who may write into this private folder may run code as its owner anyway. The least recently
used go when all together are larger than a limit. May not know what the bytes are.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowgraph.errors import FlowgraphError, InputError

MOST_BYTES = 64 << 20       # of one entry: a kernel has some ten thousand
UNFINISHED_SECONDS = 3600   # a part this old belongs to a process that was killed
DEFAULT_LIMIT = 1 << 30


class DamagedEntryError(FlowgraphError):
    """An entry that must not be used; the message says why."""


@dataclass(frozen=True)
class KeptInfo:
    """What a folder holds: entries, and the bytes of all their files."""

    entries: int = 0
    size: int = 0


@dataclass
class _Found:
    """The files of one entry."""

    paths: list[Path]
    size: int = 0
    used: float = 0.0


class KeptFiles:
    """The entries with one suffix in one private folder, any number of processes at once."""

    def __init__(self, folder: Path, suffix: str, limit: int | None = None) -> None:
        self.folder = _private_folder(folder)   # None once nothing can be kept
        self.suffix = suffix
        self.limit = size_limit() if limit is None else limit
        # Bytes to write before the folder is looked through, which takes a while if it is large. At random, so that
        # many processes that write little do it in turn, and together as often as a single one.
        self._until_trim = secrets.randbelow(self.limit // 16 + 1)

    def read(self, name: str) -> tuple[bytes, dict[str, Any]] | None:
        """An entry and what was said about it; None if there is none. Counts as a use.

        Raises DamagedEntryError for one that is there and is not what was written under this name.
        """
        if self.folder is None:
            return None
        path = self.folder / f"{name}{self.suffix}"
        try:
            data = _read_own_file(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DamagedEntryError(f"{path} cannot be read: {error.strerror}") from error
        try:
            return unsealed(name, data)
        except DamagedEntryError as error:
            raise DamagedEntryError(f"{path} {error.problem}") from error

    def holds(self, name: str) -> bool:
        """Whether there is an entry, sound or not."""
        return self.folder is not None and (self.folder / f"{name}{self.suffix}").exists()

    def write(self, name: str, payload: bytes, about: dict[str, Any]) -> None:
        """Keep an entry, in place of what was there."""
        self._put(f"{name}{self.suffix}", sealed(name, payload, about))
        if self._until_trim <= 0:
            self.trim()
            self._until_trim = self.limit // 16

    def write_text(self, name: str, text: str) -> Path | None:
        """Keep the readable source of an entry; None if nothing can be kept."""
        return self._put(f"{name}.py", text.encode())

    def text_path(self, name: str) -> Path | None:
        """Where an entry's readable source is."""
        return None if self.folder is None else self.folder / f"{name}.py"

    def info(self) -> KeptInfo:
        found, _ = self._scan()
        entries = sum(any(path.suffix == self.suffix for path in entry.paths) for entry in found.values())
        return KeptInfo(entries, sum(entry.size for entry in found.values()))

    def trim(self) -> None:
        """Remove what has not been used for longest, to three quarters of the limit if it is exceeded, and the
        remains of processes that were killed while they wrote.

        Other processes may read and write meanwhile: whoever misses an entry makes it again.
        """
        found, unfinished = self._scan()
        for path, written in unfinished:
            if time.time() - written > UNFINISHED_SECONDS:
                _remove(path)
        size = sum(entry.size for entry in found.values())
        if size > self.limit:
            for entry in sorted(found.values(), key=lambda e: e.used):
                if size <= self.limit * 3 // 4:
                    break
                for path in entry.paths:
                    _remove(path)
                size -= entry.size

    def clear(self) -> None:
        """Remove every entry, and what was never finished."""
        found, unfinished = self._scan()
        for path in (*(p for entry in found.values() for p in entry.paths), *(p for p, _ in unfinished)):
            _remove(path)

    def _scan(self) -> tuple[dict[str, _Found], list[tuple[Path, float]]]:
        """The entries by name, and unfinished parts with the time of their last write."""
        found: dict[str, _Found] = {}
        unfinished: list[tuple[Path, float]] = []
        with suppress(FileNotFoundError):                   # the folder may vanish, as may any file in it
            for item in os.scandir(self.folder) if self.folder is not None else ():
                with suppress(FileNotFoundError):
                    status, path = item.stat(follow_symlinks=False), Path(item.path)
                    if item.name.startswith("."):
                        unfinished.append((path, status.st_mtime))
                    elif path.suffix in (self.suffix, ".py"):
                        entry = found.setdefault(path.stem, _Found([]))
                        entry.paths.append(path)
                        entry.size += status.st_size
                        entry.used = max(entry.used, status.st_mtime)
        return found, unfinished

    def _put(self, file_name: str, data: bytes) -> Path | None:
        """Write a file of the folder, all or nothing, by rename."""
        if self.folder is None:
            return None
        target, part = self.folder / file_name, self.folder / f".{file_name}.{secrets.token_hex(8)}"
        try:
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)                       # what cannot be an entry is in the way of one
            part.replace(target)
        except OSError as error:                            # full, or read-only by now
            _remove(part)
            _warn_memory_only(error)
            self.folder = None
            return None
        self._until_trim -= len(data)
        return target


def sealed(name: str, payload: bytes, about: dict[str, Any]) -> bytes:
    """An entry as kept: the payload first, since tools that read object files ignore what follows."""
    body = payload + b"\n" + json.dumps(about).encode()
    return body + b"\n" + _digest(name, body)


def unsealed(name: str, data: bytes) -> tuple[bytes, dict[str, Any]]:
    """The payload of an entry and what was said about it; DamagedEntryError unless both were written under `name`."""
    body, _, digest = data.rpartition(b"\n")
    if digest != _digest(name, body):
        raise DamagedEntryError("is not what was written, or was written under another name")
    payload, _, about = body.rpartition(b"\n")
    return payload, json.loads(about)


def _digest(name: str, body: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\0" + body).hexdigest().encode()


def _read_own_file(path: Path) -> bytes:
    """A regular file of this user's that nobody else may write; marks it as used. OSError for anything else, without
    following a link or waiting for a pipe.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "not a regular file")
        if status.st_uid != os.getuid() or status.st_mode & 0o022:
            raise OSError(0, "others may write it")
        if status.st_size > MOST_BYTES:
            raise OSError(0, f"{status.st_size} bytes are too many")
        with os.fdopen(handle, "rb", closefd=False) as file:
            data = file.read(MOST_BYTES)
        with suppress(OSError):
            os.utime(handle)
        return data
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def default_folder() -> Path:
    """$FLOWGRAPH_CACHE, or flowgraph/ in the user's cache folder."""
    chosen = os.environ.get("FLOWGRAPH_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flowgraph"


def size_limit() -> int:
    """The most bytes that a folder shall hold: $FLOWGRAPH_CACHE_LIMIT, such as 500M or 2G, or 1 GiB."""
    text = os.environ.get("FLOWGRAPH_CACHE_LIMIT", "").strip()
    if not text:
        return DEFAULT_LIMIT
    found = re.fullmatch(r"(\d+)\s*([KMG]?)", text, re.IGNORECASE)
    if found is None:
        hint = "give a number of bytes, or one followed by K, M or G"
        raise InputError(f"FLOWGRAPH_CACHE_LIMIT is {text!r}, which is no size", hint=hint)
    return int(found[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[found[2].upper()]


def _private_folder(folder: Path) -> Path | None:
    """The folder, made private to this user; None, with a warning, where nothing can be kept safely."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        if status.st_uid != os.getuid():
            raise PermissionError(f"{folder} belongs to another user, who could replace the code run here")
        if stat.S_IMODE(status.st_mode) & 0o077:
            folder.chmod(0o700)
        with tempfile.NamedTemporaryFile(dir=folder, prefix="."):
            return folder
    except OSError as error:
        _warn_memory_only(error)
        return None


def _warn_memory_only(error: OSError) -> None:
    warnings.warn(f"flowgraph keeps compiled kernels in memory only: {error}", RuntimeWarning, stacklevel=4)
