"""Reading the files that ship with the package, only if they are intact.

Comes in: a file of the package. Goes out: its bytes, unpacked. May not know what is in them.
"""

from __future__ import annotations

import gzip
import hashlib
from importlib import resources
from importlib.resources.abc import Traversable

from flowgraph.datasets.dataset import DatasetError

REMEDY = "reinstall flowgraph, or restore the file from the repository"


def shipped(name: str) -> Traversable:
    """A file of this package's data, by name."""
    return resources.files("flowgraph.datasets") / "data" / name


def read_shipped(file: Traversable, sha256: str, what: str) -> bytes:
    """What a shipped .gz holds; DatasetError if one byte of the file differs, or it cannot be read. `what` names it."""
    try:
        packed = file.read_bytes()
    except OSError as error:
        raise DatasetError(f"cannot read {what}: {error}", hint=REMEDY) from error
    found = hashlib.sha256(packed).hexdigest()
    if found != sha256:
        raise DatasetError(f"{file} is damaged: its sha256 is {found}, expected {sha256}", hint=REMEDY)
    return gzip.decompress(packed)
