"""The words that kernels are called with: addresses and sizes; in loops addresses that move.

A word that moves begins each loop with the value of another word, which may itself move with a loop around. Comes in: a
plan at fixed sizes, and where memory is. Goes out: arrays for the native driver.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from flowgraph.backends.cpu.words import Move
from flowgraph.graph.size import Size, evaluate
from flowgraph.graph.tensor import Tensor
from flowgraph.ops.leaf import aligned
from flowgraph.plan.plan import Plan
from flowgraph.plan.turns import Turning

WORD = 8  # bytes
LINE = 8  # words of a cache line, which belongs to one thread


class Arguments:
    """Words of all calls, in order; those that no kernel sees come last. Inputs have no address yet."""

    def __init__(self, plan: Plan, sizes: Mapping[str, int], address: Mapping[Tensor, int]) -> None:
        self.plan, self.sizes, self.address = plan, sizes, address
        self.starts: list[int] = []  # the first word of each call
        self.input_words: dict[Tensor, list[tuple[int, int]]] = {}  # words to fill in, and bytes from the input's start
        self._words: list[int] = []
        self._moving: list[tuple[int, Tensor]] = []
        self._hidden: list[int] = []
        self._moves: list[list[tuple[int, int, int, int]]] = [[] for _ in plan.loops]

    def add(
        self,
        buffers: Sequence[str],
        operands: Mapping[str, Tensor],
        working: Mapping[str, int],
        sizes: Sequence[Size],
    ) -> None:
        """The words of a call: its buffers' addresses, then sizes."""
        self.starts.append(len(self._words))
        for name in buffers:
            if name in working:
                self._words.append(working[name])
                continue
            tensor = operands[name]
            if self.plan.places[tensor].steps:
                self._moving.append((len(self._words), tensor))
                self._words.append(0)
            else:
                self._words.append(self._begin(tensor, len(self._words)))
        self._words += [evaluate(s, self.sizes) for s in sizes]

    def _begin(self, tensor: Tensor, word: int) -> int:
        """The address of a tensor at the first turn of all loops; of an input, none yet: where it goes is noted."""
        place = self.plan.places[tensor]
        offset = evaluate(place.start, self.sizes) * tensor.dtype.itemsize
        if place.kind == "input":
            self.input_words.setdefault(place.of, []).append((word, offset))
            return 0
        return self.address[place.of] + offset

    def copies(self, threads: int) -> np.ndarray:
        """All words, a row a thread; one row if nothing moves. To be called once, before `moves`."""
        words = list(self._words)
        for last, tensor in self._moving:
            before = len(words)
            words.append(self._begin(tensor, before))
            *outer, inner = self.plan.places[tensor].steps
            chain = [(step, len(words) + k) for k, step in enumerate(outer)] + [(inner, last)]
            words += [0] * len(outer)
            for step, word in chain:
                by = evaluate(step.by, self.sizes) * tensor.dtype.itemsize
                self._moves[step.loop].append((word, before, by, -by if step.swings else by))
                before = word
        self._counters = len(words)
        words += [0] * len(self.plan.loops)
        rows = threads if self.plan.loops else 1
        array = aligned((rows, -(-max(len(words), 1) // LINE) * LINE), np.int64)
        array[:, : len(words)] = words
        return array

    def moves(self, loop: int) -> np.ndarray:
        """The list of what a loop moves, as the driver reads it (`words.Moves`)."""
        moves = np.array(self._moves[loop], np.int64).reshape(-1, len(Move))
        moves[:, [Move.WORD, Move.BEGIN]] *= WORD
        return np.concatenate([np.array([len(moves), WORD * (self._counters + loop)], np.int64), moves.ravel()])


def row_of_calls(calls: int, loops: Sequence[Turning]) -> list[int]:
    """The row of each call in a table where each loop has a row before its first call and one behind its last."""
    return [
        k + sum(loop.first <= k for loop in loops) + sum(loop.stop <= k for loop in loops) for k in range(calls)
    ]


def loop_rows(number: int, loops: Sequence[Turning]) -> tuple[int, int]:
    """The rows of a loop's begin and end: loops are numbered in the order of their beginnings, outer ones first."""
    loop = loops[number]
    begun_before = number + sum(other.stop <= loop.first for k, other in enumerate(loops) if k < number)
    begin = loop.first + begun_before
    inside = sum(loop.first <= other.first and other.stop <= loop.stop for other in loops[number + 1 :])
    return begin, begin + 1 + (loop.stop - loop.first) + 2 * inside
