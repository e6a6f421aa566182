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


@dataclass(eq=False)
class _Copy:
    """A parameter in device memory, which is given back when nobody holds this any more."""

    address: int
    version: int = -1  # of the storage that the device's value belongs to


class DeviceParameters:
    """The parameters that one device holds."""

    def __init__(self, device: CudaDevice) -> None:
        self._device = device
        self._copies: weakref.WeakKeyDictionary[Storage, _Copy] = weakref.WeakKeyDictionary()

    def address(self, storage: Storage) -> int:
        """Where the device keeps it, for as long as the parameter and this object live."""
        copy = self._copies.get(storage)
        if copy is None:
            copy = self._copies[storage] = _Copy(self._device.alloc(storage.array.nbytes))
            weakref.finalize(copy, self._device.free, copy.address).atexit = False
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


_held: weakref.WeakKeyDictionary[CudaDevice, weakref.ref[DeviceParameters]] = weakref.WeakKeyDictionary()


def parameters_of(device: CudaDevice) -> DeviceParameters:
    """The parameters of a device: every program on it must use the same copies.

    They live as long as a program of the device, or a parameter whose newest value is there.
    """
    reference = _held.get(device)
    found = reference() if reference is not None else None
    if found is None:
        found = DeviceParameters(device)
        _held[device] = weakref.ref(found)
    return found
