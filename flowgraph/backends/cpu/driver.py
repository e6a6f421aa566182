"""The native driver as a kernel source: `driver_source.py`, compiled, kept and loaded like any other kernel.

In: a store. Out: the address of `enter`. Also what that source needs of a prelude: a version, and no names,
since it imports its own. May not import numba: a warm start needs none.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from flowgraph.backends.cpu.store import KernelSource, KernelStore

_HERE = Path(__file__).parent

_FILES = (_HERE / "atomics.py", _HERE / "words.py")

PRELUDE_VERSION = hashlib.sha256(b"\0".join(file.read_bytes() for file in _FILES)).hexdigest()


def namespace_for(text: str) -> dict[str, object]:
    """No names: the driver's source imports what it uses."""
    return {}


def driver_source() -> KernelSource:
    text = (_HERE / "driver_source.py").read_text(encoding="utf-8")
    return KernelSource("driver", text, "enter", prelude=__name__)


def driver_address(store: KernelStore) -> int:
    """Compiled on the first use on a machine, then loaded in milliseconds."""
    return store.load([driver_source()])[0]
