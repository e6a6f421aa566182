"""The one order of things that wait for one another, for whoever must order something: groups, launches."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence

from flowgraph.errors import VerificationError


def stable_order(waits: Sequence[Collection[int]]) -> list[int]:
    """Numbers 0, 1, ..., each after those in `waits[number]`, as close to their own order as that allows.

    Raises VerificationError for a cycle.
    """
    waiting = [len(w) for w in waits]
    followers: list[list[int]] = [[] for _ in waits]
    for number, earlier in enumerate(waits):
        for before in earlier:
            followers[before].append(number)
    ready = [number for number, count in enumerate(waiting) if count == 0]  # ascending, so a heap
    order: list[int] = []
    while ready:
        number = heapq.heappop(ready)
        order.append(number)
        for follower in followers[number]:
            waiting[follower] -= 1
            if waiting[follower] == 0:
                heapq.heappush(ready, follower)
    if len(order) < len(waits):
        stuck = [number for number, count in enumerate(waiting) if count]
        raise VerificationError(f"{stuck} wait for one another")
    return order


def reaches(after: Sequence[Collection[int]], start: int, goal: int) -> bool:
    """Whether `goal` waits for `start`, directly or not."""
    stack, seen = [goal], set()
    while stack:
        k = stack.pop()
        if k == start:
            return True
        if k not in seen:
            seen.add(k)
            stack.extend(after[k])
    return False
