"""A step of skip-gram with negative sampling, by the size of its vocabulary. `python -m benchmarks.skipgram`

100 dimensions, 5 negatives, two tables, plain SGD or another optimiser (`--optimizer`). What a step costs must not
depend on how many rows the tables have, only on how many it looks up; a larger table still costs cache and TLB misses.
Words are drawn as in text (Zipf: the k-th word in proportion to 1/k) or all alike, which no text is, and which is the
worst for a cache. Beside it, in the same turns, the same step written out by hand: its own ratio is the memory's.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from statistics import median
from time import perf_counter, sleep

import numpy as np

import flowgraph as fg
from benchmarks.skipgram_by_hand import ByHand
from flowgraph.backends.cpu.executor import CpuExecutor

DIMENSIONS, NEGATIVES, BATCH = 100, 5, 1024
VOCABULARIES = (20_000, 1_000_000)


OPTIMIZERS: dict[str, Callable[[], fg.optim.Optimizer]] = {
    "sgd": lambda: fg.optim.SGD(0.025),
    "adagrad": lambda: fg.optim.AdaGrad(0.05),
    "lazyadam": lambda: fg.optim.LazyAdam(0.001),
}


def trainer(words: int, threads: int | None = None, optimizer: str = "sgd") -> fg.Trainer:
    """The lecture's model: the score of a word and a context word is the product of their vectors."""
    word = fg.input("word", ("batch",), "int32")
    context = fg.input("context", ("batch", 1 + NEGATIVES), "int32")
    vectors = fg.parameter("vectors", (words, DIMENSIONS), fg.init.uniform(-0.005, 0.005))
    contexts = fg.parameter("contexts", (words, DIMENSIONS))
    scores = fg.sum(fg.expand_dims(fg.gather(vectors, word), 1) * fg.gather(contexts, context), axis=-1)
    is_pair = fg.equal(fg.arange(1 + NEGATIVES), 0)
    cost = fg.sum(fg.softplus(fg.where(is_pair, -scores, scores)), axis=-1)
    return fg.Trainer(cost, OPTIMIZERS[optimizer](), device="cpu", threads=threads)


def examples(words: int, count: int, zipf: bool) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (count, 2 + NEGATIVES)
    if zipf:
        bounds = np.cumsum(1 / np.arange(1, words + 1))
        ids = np.searchsorted(bounds, rng.random(shape) * bounds[-1])
        ids = rng.permutation(words)[ids]  # frequent words lie anywhere in the table
    else:
        ids = rng.integers(0, words, shape)
    return {"word": ids[:, 0].astype(np.int32), "context": ids[:, 1:].astype(np.int32)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="skipgram", description=__doc__)
    parser.add_argument("--turns", type=int, default=31)
    parser.add_argument("--steps", type=int, default=200, help="a turn")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="sgd")
    asked = parser.parse_args()
    threads = asked.threads or len(os.sched_getaffinity(0))
    print("                  words    µs a step      pairs/s    tables    beside       by hand")
    for zipf in (True, False):
        runs = {}
        for words in VOCABULARIES:
            data = examples(words, BATCH * asked.steps, zipf)
            runs[words] = trainer(words, threads, asked.optimizer), ByHand(words, DIMENSIONS, threads), data
        times: dict[int, list[float]] = {words: [] for words in VOCABULARIES}
        by_hand: dict[int, list[float]] = {words: [] for words in VOCABULARIES}
        for turn in range(asked.turns + 1):
            for words, (made, peer, data) in runs.items():
                sleep(0.1)
                start = perf_counter()
                made.fit(data, batch_size=BATCH, progress=False, shuffle=False)
                between = perf_counter()
                peer.run(data["word"], data["context"], BATCH)
                if turn:
                    times[words].append((between - start) / asked.steps)
                    by_hand[words].append((perf_counter() - between) / asked.steps)
        for words, (made, *_) in runs.items():
            step, peers = median(times[words]), median(by_hand[words])
            tables = 2 * words * DIMENSIONS * 4
            executor = made.program.executor
            assert isinstance(executor, CpuExecutor)
            beside = max(len(b.arena) for b in executor._bindings.values())
            first = VOCABULARIES[0]
            ratios = step / median(times[first]), peers / median(by_hand[first])
            print(
                f"{'as in text' if zipf else 'all alike':12} {words:10,} {1e6 * step:10.0f} {BATCH / step:12,.0f} "
                f"{tables / 2**20:6.0f} MB {beside / 2**20:6.1f} MB {1e6 * peers:11.0f} µs"
                + ("" if words == first else f"  {ratios[0]:.2f}x, by hand {ratios[1]:.2f}x")
            )


if __name__ == "__main__":
    main()
