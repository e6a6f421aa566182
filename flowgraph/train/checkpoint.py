"""Checkpoints: arrays and what a person may read about them, in one file that is whole or not there.

A file is safetensors (arrays by name) with JSON in its metadata: a format number, a SHA-256 of everything else in the
file, and the caller's own. It is written beside its place, synced, renamed, and the folder synced: a crash at any
moment leaves the old file or the new one. Reading never executes anything, and allocates no more than the file's size.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flowgraph.errors import CheckpointError, InputError, listed, shown
from flowgraph.graph import origin as origins
from flowgraph.program import whole_number

FORMAT = 3
Arrays = dict[str, np.ndarray]


def write(path: str | Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Write a checkpoint in place of what was there, all or nothing. `about` is what JSON can hold.

    Raises CheckpointError where the file cannot be written, or `about` is more than JSON can hold; what was there
    before is then still there.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save

    target = Path(path)
    kept = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()}
    try:
        text = json.dumps(about)
    except (TypeError, ValueError) as error:
        problem = f"cannot write {target}: JSON cannot hold what goes with the arrays: {error}"
        hint = "a callback's state() gives arrays, and a dict of numbers, text, lists and dicts of Python's own"
        raise CheckpointError(problem, where=origins.here(), hint=hint) from error
    metadata = {"format": str(FORMAT), "about": text, "sha256": _digest(kept, text)}
    part = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        content = save(kept, metadata)
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
        _sync_folder(target.parent)
    except OSError as error:
        with suppress(OSError):  # the folder itself may be what is wrong
            part.unlink()
        hint = "" if target.parent.is_dir() else f"make the folder {target.parent} first"
        problem = f"cannot write {target}: {error.strerror or error}"
        raise CheckpointError(problem, where=origins.here(), hint=hint) from error
    except SafetensorError as error:
        raise CheckpointError(f"cannot write {target}: {error}", where=origins.here()) from error


def read(path: str | Path) -> tuple[Arrays, dict[str, Any]]:
    """The arrays of a checkpoint and what was said about them.

    Raises CheckpointError for a file that is not there, not whole, changed since it was written, or of another format.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    target = Path(path)
    data = _bytes(target)
    try:
        metadata = _metadata(data)
        arrays = load(data)
        written, text, expected = metadata["format"], metadata["about"], metadata["sha256"]
        about = json.loads(text)
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _bad(target, "it is not a whole checkpoint") from error
    if written != str(FORMAT):
        raise _bad(target, f"it has format {written}, this version reads {FORMAT}")
    if _digest(arrays, text) != expected:
        raise _bad(target, "its content is not what was written")
    if not isinstance(about, dict):
        raise _bad(target, "it is not a whole checkpoint")
    return arrays, about


def read_arrays(path: str | Path) -> Arrays:
    """The arrays of any safetensors file; one that `write` made is checked as `read` does."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    target = Path(path)
    data = _bytes(target)
    try:
        made_here = bool({"sha256", "about"} & set(_metadata(data)))  # one of these names may be what is damaged
    except (ValueError, KeyError, TypeError, RecursionError):
        made_here = False
    if made_here:
        return read(target)[0]
    try:
        return dict(load(data))
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _bad(target, "it is not a whole safetensors file of types that NumPy has") from error


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        near = [p.name for p in sorted(path.parent.glob("*.safetensors"))] if path.parent.is_dir() else []
        raise CheckpointError(
            f"cannot read {path}: {error.strerror}",
            where=origins.here(),
            hint=f"{path.parent} has {listed(near, 5)}" if near else "give the file that fg.save or trainer.save wrote",
        ) from error


def _bad(path: Path, why: str) -> CheckpointError:
    hint = "use an older one, or begin anew; it may be what fg.save or trainer.save wrote, or another safetensors file"
    return CheckpointError(f"{path} cannot be used: {why}", where=origins.here(), hint=hint)


def _metadata(data: bytes) -> dict[str, str]:
    length = int.from_bytes(data[:8], "little")
    if not 0 < length <= len(data) - 8:
        raise ValueError("no header")
    found = json.loads(data[8 : 8 + length])["__metadata__"]
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise ValueError("no metadata")
    return found


def _digest(arrays: Mapping[str, np.ndarray], about: str) -> str:
    """SHA-256 of names, types, shapes, bytes, and the text."""
    digest = hashlib.sha256(about.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(repr((name, array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return process != os.getpid()  # our own are finished


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def as_checkpoints(given: Any) -> Checkpoints | None:
    """Where a fit is saved to, if anywhere."""
    if given is None or isinstance(given, Checkpoints):
        return given
    if not isinstance(given, (str, os.PathLike)):
        raise InputError(
            f"checkpoint is a folder or a fg.Checkpoints, got {shown(given)}",
            where=origins.here(),
            hint='checkpoint="runs/first", or fg.Checkpoints("runs/first", steps=1000)',
        )
    return Checkpoints(Path(given))


def restore(
    targets: Mapping[str, Any],
    arrays: Arrays,
    path: str | Path,
    hint: str = "declare the model, its names and its optimiser as they were when it was saved",
) -> None:
    """Assign arrays to parameters by name: all of them, or none and a CheckpointError that says what differs.

    `targets` are parameters' storages by name.
    """
    missing, unknown = sorted(set(targets) - set(arrays)), sorted(set(arrays) - set(targets))
    if missing or unknown:
        parts = [f"it lacks {listed(missing, 5)}"] if missing else []
        parts += [f"it has {listed(unknown, 5)}, which is unknown here"] if unknown else []
        problem = f"{path} is of another model: {'; '.join(parts)}"
        raise CheckpointError(problem, where=origins.here(), hint=hint)
    for name, storage in targets.items():
        array = arrays[name]
        if array.shape != storage.shape or array.dtype != storage.dtype.numpy:
            raise CheckpointError(
                f"{path} is of another model: {name!r} is {array.dtype}{array.shape}, "
                f"here {storage.dtype}{storage.shape}",
                where=origins.here(),
            )
    for name, storage in targets.items():
        storage.write(arrays[name])


@dataclass(frozen=True)
class Checkpoints:
    """A folder of checkpoints: the newest `keep` of one training.

    `steps` is how often one is written within an epoch, at least (a native call makes many steps); by default one is
    written after every epoch. Ctrl-C and SIGTERM write one more.
    """

    folder: str | Path
    steps: int | None = None
    keep: int = 2

    def __post_init__(self) -> None:
        whole_number(self.keep, "keep", least=1)
        if self.steps is not None:
            whole_number(self.steps, "steps", least=1)

    def files(self) -> list[Path]:
        """What there is, newest first."""
        found = [p for p in Path(self.folder).glob("*.safetensors") if re.fullmatch(r"\d{8}-\d{8}", p.stem)]
        return sorted(found, reverse=True)

    def prepare(self) -> None:
        """Make the folder; CheckpointError, before anything is trained, if nothing can be written there."""
        folder = Path(self.folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise CheckpointError(
                f"cannot write checkpoints to {folder}: {error.strerror}",
                where=origins.here(),
                hint="give a folder that can be made, or written to",
            ) from error

    def save(self, epoch: int, step: int, arrays: Arrays, about: Mapping[str, Any]) -> Path:
        """Write the checkpoint of an epoch and a step in it; of those up to it only the newest `keep` stay."""
        path = Path(self.folder) / f"{epoch:08d}-{step:08d}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, arrays, about)
        for old in [each for each in self.files() if each.name <= path.name][self.keep :]:
            old.unlink(missing_ok=True)
        for part in path.parent.glob(".*.safetensors.*"):  # what was never finished, by processes that are gone
            if part.suffix[1:].isdigit() and not _is_alive(int(part.suffix[1:])):
                part.unlink(missing_ok=True)
        return path

    def require_none_after(self, epoch: int, step: int) -> None:
        """CheckpointError if there are checkpoints of a training that is further than this one: it has not gone on from
        them, and who resumes would take them for its own."""
        newest = next(iter(self.files()), None)
        if newest is not None and newest.stem > f"{epoch:08d}-{step:08d}":
            raise CheckpointError(
                f"{self.folder} holds checkpoints up to {newest.name}, of a training further than this one, which is "
                f"at epoch {epoch}, step {step}, and did not begin from them",
                where=origins.here(),
                hint="use another folder; or make a new Trainer, which goes on from the newest checkpoint there",
            )

    def newest(self) -> tuple[Path, Arrays, dict[str, Any]] | None:
        """The newest one that is whole; a damaged one is passed over with a warning. None if there is none.

        Raises CheckpointError if there are some, and all are damaged.
        """
        problem: CheckpointError | None = None
        for path in self.files():
            try:
                return path, *read(path)
            except CheckpointError as error:
                origins.warn(f"{error}; trying the one before")
                problem = error
        if problem is not None:
            raise problem
        return None
