"""Offsets in the arena, for one choice of sizes: values whose lifetimes overlap do not share memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ALIGNMENT = 64


@dataclass(frozen=True)
class Block:
    """Memory of `size` bytes needed from launch `first` to launch `last`."""

    size: int
    first: int
    last: int


def pack(blocks: Sequence[Block]) -> tuple[list[int], int]:
    """Offsets for the blocks, and the size of the arena: largest first, each into the lowest gap that fits."""
    offsets = [0] * len(blocks)
    placed: list[int] = []
    total = 0
    for k in sorted(range(len(blocks)), key=lambda k: (-blocks[k].size, blocks[k].first)):
        block = blocks[k]
        size = -(-block.size // ALIGNMENT) * ALIGNMENT
        rivals = sorted(
            (offsets[p], offsets[p] + -(-blocks[p].size // ALIGNMENT) * ALIGNMENT)
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


def liveness_bound(blocks: Sequence[Block]) -> int:
    """The most bytes alive at any launch: no layout can be smaller."""
    moments = {b.first for b in blocks}
    return max(
        (sum(-(-b.size // ALIGNMENT) * ALIGNMENT for b in blocks if b.first <= m <= b.last) for m in moments), default=0
    )
