"""Parameters in a device's memory: one copy a device, shared by all its programs; all see the newest value.

A program asks for a parameter before it runs (what was written on the host, or on another device, is brought
over) and says afterwards that it has changed it (the host fetches it when somebody reads it). May not know
plans or kernels.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass

from flowgraph.backends.cuda.device import CudaDevice
from flowgraph.ops.leaf import Storage


@dataclass
class _Copy:
    address: int
    version: int = -1  # of the storage that the device's value belongs to


class DeviceParameters:
    """The parameters that one device holds."""

    def __init__(self, device: CudaDevice) -> None:
        self._device = device
        self._copies: weakref.WeakKeyDictionary[Storage, _Copy] = weakref.WeakKeyDictionary()

    def address(self, storage: Storage) -> int:
        """Where the device keeps it, for as long as the parameter lives."""
        copy = self._copies.get(storage)
        if copy is None:
            copy = self._copies[storage] = _Copy(self._device.alloc(storage.array.nbytes))
            weakref.finalize(storage, self._device.free, copy.address).atexit = False
        return copy.address

    def bring(self, storage: Storage) -> None:
        """Make the device's value the newest one."""
        copy = self._copies[storage]
        if copy.version != storage.version:
            array = storage.read()  # from another device, if that has the newest
            self._device.to_device(copy.address, array)
            copy.version = storage.version

    def changed(self, storage: Storage) -> None:
        """The device's value is the newest now; whoever reads the storage gets it from here."""
        storage.version += 1
        self._copies[storage].version = storage.version
        reference = weakref.ref(storage)

        def pull() -> None:
            alive = reference()
            assert alive is not None  # it is the storage that calls
            copy = self._copies[alive]
            if alive.version == copy.version:  # else it was written since: the host's value is newer
                self._device.to_host(copy.address, alive.array)
            alive.pull = None

        storage.pull = pull


_held: weakref.WeakKeyDictionary[CudaDevice, DeviceParameters] = weakref.WeakKeyDictionary()


def parameters_of(device: CudaDevice) -> DeviceParameters:
    """The parameters of a device: every program on it must use the same copies."""
    if device not in _held:
        _held[device] = DeviceParameters(device)
    return _held[device]
