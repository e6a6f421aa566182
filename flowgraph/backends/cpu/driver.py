"""The native driver as a kernel source: `driver_source.py` kept and loaded like any other kernel.

In: a store. Out: the address of `enter(control, thread, started)`. May not know numba (a warm start needs none).
"""

from __future__ import annotations

from pathlib import Path

from flowgraph.backends.cpu.store import KernelSource, KernelStore


def driver_source() -> KernelSource:
    text = Path(__file__).with_name("driver_source.py").read_text(encoding="utf-8")
    return KernelSource("driver", text, "enter", prelude="flowgraph.backends.cpu.atomics")


def driver_address(store: KernelStore) -> int:
    """Compiled on the first use on a machine, then loaded in milliseconds."""
    return store.load([driver_source()])[0]
