"""Where threads must wait for one another: before a launch that touches memory an unfinished launch may still use.

Launches of a team of one all run on the first thread, one after the other, and need no barrier among themselves.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from flowgraph.errors import VerificationError


@dataclass(frozen=True)
class Span:
    """Bytes [start, stop) of a region: the arena, or one given array."""

    region: Hashable
    start: int
    stop: int

    def overlaps(self, other: Span) -> bool:
        return self.region == other.region and self.start < other.stop and other.start < self.stop


@dataclass(frozen=True)
class Access:
    """What one launch reads and writes, and how many threads run it."""

    reads: tuple[Span, ...]
    writes: tuple[Span, ...]
    team: int

    def conflicts(self, other: Access) -> bool:
        """Whether the two may not overlap in time: one writes what the other touches, on different threads."""
        if self.team == 1 and other.team == 1:
            return False
        return _meet(self.writes, other.writes) or _meet(self.writes, other.reads) or _meet(self.reads, other.writes)


def _meet(a: Sequence[Span], b: Sequence[Span]) -> bool:
    return any(x.overlaps(y) for x in a for y in b)


def place_barriers(launches: Sequence[Access]) -> list[bool]:
    """For each launch whether all threads meet before it. They always meet at the end of a step."""
    barriers: list[bool] = []
    since = 0  # the first launch after the last barrier
    for number, launch in enumerate(launches):
        wait = any(launch.conflicts(earlier) for earlier in launches[since:number])
        barriers.append(wait)
        if wait:
            since = number
    return barriers


def verify_barriers(launches: Sequence[Access], barriers: Sequence[bool]) -> None:
    """Every pair of conflicting launches is separated by a barrier; raises VerificationError otherwise."""
    epoch = 0
    epochs = []
    for wait in barriers:
        epoch += wait
        epochs.append(epoch)
    for later, launch in enumerate(launches):
        for earlier in range(later):
            if epochs[earlier] == epochs[later] and launch.conflicts(launches[earlier]):
                raise VerificationError(f"launches {earlier} and {later} may touch the same memory at the same time")
