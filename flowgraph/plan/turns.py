"""The turns of loops: which launches a step makes, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Turning:
    """A loop: the launches from `first` to before `stop` are made `turns` times. Loops are numbered from outside in."""

    first: int
    stop: int
    turns: int

    @property
    def seen(self) -> list[int]:
        """The turns that are looked at: neighbours at the beginning and at the end, of both parities."""
        return sorted({t for t in (0, 1, 2, self.turns - 3, self.turns - 2, self.turns - 1) if 0 <= t < self.turns})


def in_turn(
    launches: int, loops: Sequence[Turning], seen: Callable[[Turning], Iterable[int]] = lambda loop: range(loop.turns)
) -> Iterator[tuple[int, dict[int, int]]]:
    """The launches that a step makes, in order, each with the present turn of every loop around it; of a loop those
    turns that are to be seen."""

    def walk(number: int, stop: int, at: dict[int, int], outside: int) -> Iterator[tuple[int, dict[int, int]]]:
        while number < stop:
            inner = range(outside, len(loops))
            loop = next((k for k in inner if loops[k].first == number < loops[k].stop), None)
            if loop is None:
                yield number, at
                number += 1
                continue
            for turn in seen(loops[loop]):
                yield from walk(number, loops[loop].stop, {**at, loop: turn}, loop + 1)
            number = loops[loop].stop

    return walk(0, launches, {}, 0)
