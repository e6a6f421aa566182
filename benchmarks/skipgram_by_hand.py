"""The step of `benchmarks.skipgram` written out by hand: what it still owes to the vocabulary is the machine's memory.

One pass computes scores, their gradients and the gradient of the words' vectors while the rows are in the cache,
another adds to the rows of the contexts, a third to those of the words; rows are asked for ahead. No loss is recorded.
"""

# mypy: ignore-errors
from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, prange, set_num_threads, types
from numba.extending import intrinsic

from flowgraph.ops.leaf import aligned

FAST = {"parallel": True, "fastmath": True, "error_model": "numpy", "boundscheck": False}


@intrinsic
def prefetch(typing, table, row, column):
    """Ask for the cache line of table[row, column]."""

    def build(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        stride = builder.extract_value(array.strides, 0)
        columns = builder.mul(arguments[2], ir.Constant(ir.IntType(64), 4))
        place = builder.add(builder.mul(arguments[1], stride), columns)
        address = builder.gep(builder.bitcast(array.data, ir.IntType(8).as_pointer()), [place])
        word = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, word, word, word])
        ask = builder.module.declare_intrinsic("llvm.prefetch", [address.type], kind)
        builder.call(ask, [address, *(ir.Constant(word, k) for k in (0, 3, 1))])
        return context.get_dummy_value()

    return types.void(table, types.int64, types.int64), build


@njit(**FAST)
def steps_by_hand(vectors, contexts, word, context, batch, rate, slope, change, threads):
    dimensions, each = vectors.shape[1], context.shape[1]
    for start in range(0, len(word), batch):
        for b in prange(batch):
            later = start + min(b + 2, batch - 1)
            for k in range(0, dimensions, 16):
                prefetch(vectors, np.int64(word[later]), k)
            for j in range(each):
                for k in range(0, dimensions, 16):
                    prefetch(contexts, np.int64(context[later, j]), k)
            row = vectors[word[start + b]]
            for k in range(dimensions):
                change[b, k] = 0
            for j in range(each):
                other = contexts[context[start + b, j]]
                score = np.float32(0)
                for k in range(dimensions):
                    score += row[k] * other[k]
                sign = np.float32(-1 if j == 0 else 1)
                factor = rate / batch * sign / (1 + np.exp(-sign * score))
                slope[b, j] = factor
                for k in range(dimensions):
                    change[b, k] += factor * other[k]
        for part in prange(threads):
            first, last = part * dimensions // threads // 4 * 4, (part + 1) * dimensions // threads // 4 * 4
            for b in range(batch):
                row = vectors[word[start + b]]
                for j in range(each):
                    later = min(b * each + j + 8, batch * each - 1)
                    asked = np.int64(context[start + later // each, later % each])
                    for k in range(first, last, 16):
                        prefetch(contexts, asked, k)
                    other, factor = contexts[context[start + b, j]], slope[b, j]
                    for k in range(first, last):
                        other[k] -= factor * row[k]
        for part in prange(threads):
            first, last = part * dimensions // threads // 4 * 4, (part + 1) * dimensions // threads // 4 * 4
            for b in range(batch):
                row = vectors[word[start + b]]
                for k in range(first, last):
                    row[k] -= change[b, k]


class ByHand:
    """Two tables, and steps on them. Needs at most as many threads as numba has."""

    def __init__(self, words: int, dimensions: int, threads: int) -> None:
        set_num_threads(threads)
        self.threads = threads
        self.vectors, self.contexts = (aligned((words, dimensions), np.float32) for _ in range(2))
        self.vectors[...] = np.random.default_rng(0).uniform(-0.005, 0.005, (1, dimensions))
        self.contexts[...] = 0

    def run(self, word: np.ndarray, context: np.ndarray, batch: int) -> None:
        slope = np.empty((batch, context.shape[1]), np.float32)
        change = np.empty((batch, self.vectors.shape[1]), np.float32)
        steps_by_hand(
            self.vectors, self.contexts, word, context, batch, np.float32(0.025), slope, change, self.threads
        )
