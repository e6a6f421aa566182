"""The folder that data sets are kept in: finding a file, and reading it only if it is the expected one.

Comes in: an entry of the catalogue and a file's name. Goes out: the file's bytes, or an error that says how to get it.
May not know how files are got, nor what is in them.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from flowgraph.datasets.catalogue import Entry, File
from flowgraph.datasets.dataset import DatasetError

VARIABLE = "FLOWGRAPH_DATA"


class MissingDataError(DatasetError):
    """A data set that is not on this machine; the hint says how to get it."""


def data_folder() -> Path:
    """Where data sets are kept, a folder each: $FLOWGRAPH_DATA, or flowgraph/data in the user's cache folder."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flowgraph" / "data"


def place_of(entry: Entry, folder: str | os.PathLike[str] | None = None) -> Path:
    """The folder that holds, or would hold, the files of this data set."""
    return data_folder() / entry.name if folder is None else Path(folder).expanduser()


def read(entry: Entry, name: str, folder: str | os.PathLike[str] | None = None) -> bytes:
    """The bytes of one file of a data set, from its place in the cache or from `folder`.

    MissingDataError if the file is not there; DatasetError if it cannot be read, or is not byte for byte the one
    that results in this project are stated for.
    """
    file = entry.file(name)
    path = place_of(entry, folder) / name
    try:
        found = path.read_bytes()
    except FileNotFoundError:
        raise MissingDataError(
            f"the data set {entry.name!r} is not here: there is no {path}", hint=how_to_get(entry)
        ) from None
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}", hint=how_to_get(entry)) from error
    verify(found, file, str(path), hint=f"remove the file, then: {how_to_get(entry)}")
    return found


def verify(found: bytes, file: File, where: str, hint: str) -> None:
    """DatasetError, with what differs, unless these are the bytes of this file."""
    if len(found) != file.size:
        raise DatasetError(f"{where} is damaged: it has {len(found)} bytes, expected {file.size}", hint=hint)
    digest = hashlib.sha256(found).hexdigest()
    if digest != file.sha256:
        raise DatasetError(f"{where} is damaged: its sha256 is {digest}, expected {file.sha256}", hint=hint)


def state_of(entry: Entry, folder: str | os.PathLike[str] | None = None) -> str:
    """'here', 'missing', 'partial' or 'damaged'; sizes are compared, contents only when a file is read."""
    place = place_of(entry, folder)
    found = [path.stat().st_size if path.is_file() else None for path in (place / file.name for file in entry.files)]
    if all(size is None for size in found):
        return "missing"
    if None in found:
        return "partial"
    return "here" if found == [file.size for file in entry.files] else "damaged"


def how_to_get(entry: Entry) -> str:
    """What to run; for a machine without network or client, what to run elsewhere and where its result goes."""
    command = f"flowgraph data get {entry.name}"
    files = ", ".join(file.name for file in entry.files)
    if not entry.archives:
        return (
            f"{entry.origin}; then run `{command} --from FOLDER` with the folder that holds {files}, "
            f"or put them into {place_of(entry)}"
        )
    elsewhere = "; ".join(f"`{' '.join(archive.command)}`" for archive in entry.archives)
    what = "FILE" if len(entry.archives) == 1 else "FOLDER"
    return f"run `{command}`; or, on a machine with network, {elsewhere}, and here `{command} --from {what}`"
