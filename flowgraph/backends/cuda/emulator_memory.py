"""The emulated device's memory: buffers by address, and a shadow that tells which bytes belong to one.

In: sizes. Out: addresses in this process, filled with ones (float: NaN, integer: -1). May not know: kernels,
arrays.
"""

from __future__ import annotations

import ctypes
import mmap
from bisect import bisect_right

from flowgraph.errors import DeviceError

_PAGE = mmap.PAGESIZE
_ALIGNMENT = 256


def _map(nbytes: int) -> tuple[mmap.mmap, int]:
    """Address space that costs nothing until it is touched."""
    area = mmap.mmap(
        -1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
    )
    return area, ctypes.addressof(ctypes.c_char.from_buffer(area))


class GuardedMemory:
    """Buffers in one reserved region, 256 bytes or more apart; a shadow byte of ones for each byte in use."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self._region, self.base = _map(nbytes)
        self._shadow_region, self._shadow = _map(nbytes + _PAGE)
        self._free: list[tuple[int, int]] = [
            (self.base, nbytes)
        ]  # (address, bytes), ascending, never adjacent
        self.live: dict[int, int] = {}  # address -> bytes asked for

    @property
    def words(self) -> tuple[int, int, int]:
        """What the guard in adapted code needs: base, bytes, distance from an address to its shadow."""
        return self.base, self.nbytes, self._shadow - self.base

    def _mark(self, address: int, nbytes: int, value: int) -> None:
        ctypes.memset(self._shadow + address - self.base, value, nbytes)

    def alloc(self, nbytes: int) -> int:
        span = (max(nbytes, 1) + 2 * _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT  # with a red zone behind
        for k, (address, room) in enumerate(self._free):
            if room >= span:
                self._free[k : k + 1] = [(address + span, room - span)] if room > span else []
                self.live[address] = nbytes
                self._mark(address, nbytes, 255)
                ctypes.memset(address, 255, nbytes)
                return address
        raise DeviceError(f"the emulator's {self.nbytes >> 20} MiB cannot hold another {nbytes} bytes")

    def free(self, address: int) -> None:
        nbytes = self.live.pop(address, None)
        if nbytes is None:
            raise DeviceError(f"{address:#x} is not the address of a live buffer")
        self._mark(address, nbytes, 0)
        span = (max(nbytes, 1) + 2 * _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT
        k = bisect_right(self._free, (address, 0))
        self._free.insert(k, (address, span))
        for left in (k, k - 1):  # merge with the neighbours
            if 0 <= left < len(self._free) - 1 and sum(self._free[left]) == self._free[left + 1][0]:
                self._free[left : left + 2] = [
                    (self._free[left][0], self._free[left][1] + self._free[left + 1][1])
                ]

    def holds(self, address: int, nbytes: int) -> bool:
        """Whether a range lies in one live buffer."""
        return any(start <= address and address + nbytes <= start + size for start, size in self.live.items())

    def nearest(self, address: int) -> str:
        """An address in words: which buffer it is closest to."""

        def distance(item: tuple[int, int]) -> int:
            start, size = item
            return max(start - address, address - (start + size) + 1, 0)

        if not self.live:
            return f"{address:#x}; no buffer is live"
        start, size = min(self.live.items(), key=distance)
        return f"byte {address - start} of a buffer of {size} bytes"
