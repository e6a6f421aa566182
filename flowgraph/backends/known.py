"""Whether a device can be used, asked before anything is compiled for it."""

from __future__ import annotations

from typing import Any

from flowgraph.backends.select import DEVICES, first_cuda_device
from flowgraph.errors import DeviceError, listed, shown
from flowgraph.graph import origin as origins


def require_device(device: Any) -> None:
    """Raise DeviceError for what is no device, and for one that cannot be used here."""
    hint = f"use one of {listed(DEVICES)}"
    if not isinstance(device, str) and not hasattr(device, "launch"):
        raise DeviceError(f"a device is a name, got {shown(device)}", where=origins.here(), hint=hint)
    if isinstance(device, str) and device not in DEVICES:
        raise DeviceError(f"unknown device {shown(device)}", where=origins.here(), hint=hint)
    if device == "cuda":
        first_cuda_device()
