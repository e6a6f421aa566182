"""Devices that tests of whole programs run on: the reference and the CPU always, CUDA where there is one."""

from __future__ import annotations

import flowgraph as fg


def has_cuda() -> bool:
    try:
        fg.compile(outputs=fg.tanh(fg.input("x", (3,))), device="cuda")
    except fg.DeviceError:
        return False
    return True


DEVICES = ["reference", "cpu", *(["cuda"] if has_cuda() else [])]
