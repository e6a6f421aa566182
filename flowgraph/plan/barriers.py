"""Where threads must wait for one another: before a launch that touches memory an unfinished launch may still use.

Launches of a team of one all run on the first thread, one after the other, and need no barrier among themselves. The
turns of a loop follow one another like launches: what is placed for two neighbouring turns holds for all.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from flowgraph.errors import VerificationError
from flowgraph.plan.turns import Turning, in_turn

Turns = Mapping[int, int]  # the present turn of every loop around, by the loop's number


@dataclass(frozen=True)
class Span:
    """Bytes [start, stop) of a region, the arena or one given array, at the first turns of loops; `steps` are (loop,
    bytes a turn, whether it swings there and back)."""

    region: Hashable
    start: int
    stop: int
    steps: tuple[tuple[int, int, bool], ...] = ()

    def overlaps(self, other: Span) -> bool:
        return self.region == other.region and self.start < other.stop and other.start < self.stop

    def at(self, turns: Turns) -> Span:
        """The span at these turns."""
        if not self.steps:
            return self
        moved = sum(by * (turns[loop] % 2 if swings else turns[loop]) for loop, by, swings in self.steps)
        return Span(self.region, self.start + moved, self.stop + moved)


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

    def at(self, turns: Turns) -> Access:
        reads, writes = (tuple(span.at(turns) for span in spans) for spans in (self.reads, self.writes))
        return replace(self, reads=reads, writes=writes)


def _meet(a: Sequence[Span], b: Sequence[Span]) -> bool:
    return any(x.overlaps(y) for x in a for y in b)


def _walk(launches: Sequence[Access], loops: Sequence[Turning]) -> Iterator[tuple[int, Access]]:
    """Launches in order, as each is at that turn; of a loop some turns."""
    for number, at in in_turn(len(launches), loops, lambda loop: loop.seen):
        yield number, launches[number].at(at)


def place_barriers(launches: Sequence[Access], loops: Sequence[Turning] = ()) -> list[bool]:
    """For each launch whether all threads meet before it. They always meet at the end of a step."""
    barriers = [False] * len(launches)
    since: list[Access] = []  # what was done after the last barrier
    for number, launch in _walk(launches, loops):
        barriers[number] = barriers[number] or any(launch.conflicts(earlier) for earlier in since)
        if barriers[number]:
            since.clear()
        since.append(launch)
    for loop in loops:
        inside = slice(loop.first, loop.stop)
        shared = any(launch.team > 1 for launch in launches[inside])
        if loop.turns > len(loop.seen) and shared and not any(barriers[inside]):
            barriers[loop.first] = True  # turns that are not neighbours might meet
    return barriers


def verify_barriers(launches: Sequence[Access], barriers: Sequence[bool], loops: Sequence[Turning] = ()) -> None:
    """Every pair of conflicting launches is separated by a barrier; raises VerificationError otherwise."""
    since: list[tuple[int, Access]] = []
    for number, launch in _walk(launches, loops):
        if barriers[number]:
            since.clear()
        for earlier, other in since:
            if launch.conflicts(other):
                raise VerificationError(f"launches {earlier} and {number} may touch the same memory at the same time")
        since.append((number, launch))
