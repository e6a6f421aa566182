"""Offsets in the arena, for one choice of sizes: values whose lifetimes overlap do not share memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

ALIGNMENT = 64


@dataclass(frozen=True)
class Block:
    """Memory of `size` bytes needed from launch `first` to launch `last`."""

    size: int
    first: int
    last: int


# What is placed first finds room most easily: the large, the long-lived, both; or each as it comes.
ORDERS: tuple[Callable[[Block], tuple[int, ...]], ...] = (
    lambda b: (-b.size, b.first),
    lambda b: (b.first - b.last, -b.size),
    lambda b: (-b.size * (1 + b.last - b.first), b.first),
    lambda b: (b.first, -b.size),
    lambda b: (-b.last, -b.size),
    lambda b: (b.first, b.first - b.last, -b.size),
)
REPAIRS = 24  # times that what sticks out is placed first instead
FEW = 300  # blocks, up to which that is quick
SHUFFLES, VERY_FEW = 500, 40  # orders drawn at random for so few blocks, the same in every run, until
WELL = 1.05  # times the bound is reached


def pack(blocks: Sequence[Block]) -> tuple[list[int], int]:
    """Offsets for the blocks, and the size of the arena: the best of a few orders in which each block takes the lowest
    gap that fits, then of orders in which what sticks out of the last attempt comes first, then, of few blocks, of any
    orders. Done as soon as an order reaches the bound.
    """
    bound = liveness_bound(blocks)
    numbers = range(len(blocks))
    trials = [sorted(numbers, key=[rank(b) for b in blocks].__getitem__) for rank in ORDERS]
    best, order = _place(blocks, trials[0]), trials[0]
    for trial in trials[1:]:
        if best[1] == bound:
            return best
        found = _place(blocks, trial)
        if found[1] < best[1]:
            best, order = found, trial
    placed = best
    for _ in range(REPAIRS if len(blocks) <= FEW else 0):
        if best[1] == bound:
            return best
        order = _top_first(blocks, *placed, order)
        placed = _place(blocks, order)
        if placed[1] < best[1]:
            best = placed
    shuffled = Random(0)
    for _ in range(SHUFFLES if len(blocks) <= VERY_FEW else 0):
        if best[1] <= WELL * bound:
            return best
        shuffled.shuffle(order)
        best = min(best, _place(blocks, order), key=lambda placement: placement[1])
    return best


def _top_first(blocks: Sequence[Block], offsets: Sequence[int], total: int, order: Sequence[int]) -> list[int]:
    """The order with the blocks that reach the end of the arena in front."""
    top = [k for k in order if offsets[k] + aligned_size(blocks[k]) == total]
    return [*top, *(k for k in order if k not in top)]


def _place(blocks: Sequence[Block], order: Sequence[int]) -> tuple[list[int], int]:
    """Each block of the order into the lowest gap that fits among those placed before it."""
    offsets = [0] * len(blocks)
    placed: list[int] = []
    total = 0
    for k in order:
        block = blocks[k]
        size = aligned_size(block)
        rivals = sorted(
            (offsets[p], offsets[p] + aligned_size(blocks[p]))
            for p in placed
            if blocks[p].first <= block.last and block.first <= blocks[p].last
        )
        position = 0
        for start, end in rivals:
            if start - position >= size:
                break
            position = max(position, end)
        offsets[k] = position
        total = max(total, position + size)
        placed.append(k)
    return offsets, total


def aligned_size(block: Block) -> int:
    return -(-block.size // ALIGNMENT) * ALIGNMENT


def liveness_bound(blocks: Sequence[Block]) -> int:
    """The most bytes alive at any launch: no layout can be smaller, and not every set of blocks reaches it."""
    change: dict[int, int] = {}
    for block in blocks:
        change[block.first] = change.get(block.first, 0) + aligned_size(block)
        change[block.last + 1] = change.get(block.last + 1, 0) - aligned_size(block)
    alive = most = 0
    for moment in sorted(change):
        alive += change[moment]
        most = max(most, alive)
    return most
