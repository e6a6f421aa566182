"""GloVe: word vectors whose products are the logarithms of how often words come near each other.

The lecture's GloVe: weighted least squares on a table of co-occurrences, with a bias for each word as either side, by
AdaGrad. The same addresses as in `word2vec`, in windows of 10 words; what the vectors are worth is measured alike. The
quick mode reads the same invented language.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import flowgraph as fg
from examples.common import Results, figure, run, save
from examples.word2vec import Corpus, invented, state_of_the_union, summary
from flowgraph.datasets import WordPairs, WordVectors, cooccurrences

DIMENSIONS, WINDOW, BATCH, EPOCHS, SEEDS = 100, 10, 256, 15, 5
MOST, ALPHA = 10.0, 0.75  # counts from `MOST` on weigh 1, smaller ones (count / MOST) ** ALPHA; its authors' 0.75
# AdaGrad as in the authors' program, whose rate of 0.05 is in its sums of squares as well: they begin at 1 / 0.05 ** 2.
RATE, INITIAL = 1.0, 400.0


def glove(words: int) -> tuple[fg.Tensor, fg.Tensor, fg.Tensor]:
    """(vectors, vectors as contexts, cost of each cell): f(x) (w_i · w_j + b_i + b_j - log x)²."""
    row, column = (fg.input(name, ("batch",), dtype="int32") for name in ("row", "column"))
    count = fg.input("count", ("batch",))
    small = fg.init.uniform(-0.5 / DIMENSIONS, 0.5 / DIMENSIONS)
    vectors, contexts = (fg.parameter(name, (words, DIMENSIONS), small) for name in ("vectors", "contexts"))
    biases, context_biases = (fg.parameter(name, (words,)) for name in ("biases", "context_biases"))
    product = fg.sum(fg.gather(vectors, row) * fg.gather(contexts, column), axis=-1)
    error = product + fg.gather(biases, row) + fg.gather(context_biases, column) - fg.log(count)
    return vectors, contexts, fg.minimum((count / MOST) ** ALPHA, 1.0) * fg.square(error)


def fit(corpus: Corpus, data: dict[str, np.ndarray], pairs: WordPairs, seed: int) -> tuple[WordVectors, Results]:
    """The sums of each word's two vectors; the cost and the rank correlation by epoch, the number of pairs it covers,
    and the correlation of the vectors as words alone."""
    vectors, contexts, cost = glove(len(corpus.vocabulary))
    rule = fg.optim.AdaGrad(RATE, initial=INITIAL)
    trainer = fg.Trainer(fg.sum(cost) / 2, rule, {"cost": cost}, device="cpu", seed=seed, threads=1)
    found: Results = {"cost": [], "scores": []}
    for epoch in range(EPOCHS):
        found["cost"].append(trainer.fit(data, batch_size=BATCH, progress=False)[-1]["cost"])
        summed = WordVectors(corpus.vocabulary, vectors.value + contexts.value)
        score, found["covered"] = summed.judge_pairs(pairs)
        found["scores"].append(score)
        shown = f"cost {found['cost'][-1]:.4f}, rank correlation {score:.4f}"
        print(f"seed {seed}, epoch {epoch + 1}: {shown}", flush=True)
    found["words_alone"] = WordVectors(corpus.vocabulary, vectors.value).judge_pairs(pairs).score
    return summed, found


def main(quick: bool, out: Path) -> Results:
    sentences, pairs = invented() if quick else state_of_the_union()
    corpus = Corpus(sentences)
    rows, columns, counts = cooccurrences(corpus.ids, 3 if quick else WINDOW)
    results: Results = {"words": len(corpus.vocabulary), "cells": len(counts)}
    results["filled"] = len(counts) / len(corpus.vocabulary) ** 2
    print(f"{len(counts)} cells of {len(corpus.vocabulary)}² are not 0", flush=True)
    data = {"row": rows, "column": columns, "count": counts}
    fits = [fit(corpus, data, pairs, seed) for seed in range(2 if quick else SEEDS)]
    summed, found = fits[-1][0], [one for _, one in fits]
    results |= {"epochs": EPOCHS, "cost": found[-1]["cost"], "covered": found[-1]["covered"]}
    results["scores"] = [one["scores"] for one in found]
    results["score"] = summary([one["scores"][-1] for one in found])
    results["words_alone"] = summary([one["words_alone"] for one in found])
    shown = ["a0", "b0"] if quick else ["war", "england", "money", "farmers", "president", "january"]
    results["neighbours"] = {word: ", ".join(near for near, _ in summed.nearest(word, 8)) for word in shown}
    picture, (left, right) = figure(columns=2)
    epochs = range(1, EPOCHS + 1)
    left.plot(epochs, results["cost"], marker="o", markersize=3)
    left.set(xlabel="epoch", ylabel="cost of a cell", yscale="log")
    right.plot(epochs, np.transpose(results["scores"]), color="C1", linewidth=0.8)
    right.set(xlabel="epoch", ylabel="rank correlation")
    save(picture, out / "training.svg")
    draw_weights(counts, out)
    fg.show(glove(len(corpus.vocabulary))[-1], out / "graph.svg")
    return results


def draw_weights(counts: np.ndarray, out: Path) -> None:
    """What a cell weighs by its count, and how many cells have which count."""
    picture, axes = figure()
    x = np.linspace(0, 3 * MOST, 200)
    axes.plot(x, np.minimum((x / MOST) ** ALPHA, 1.0))
    axes.set(xlabel="count", ylabel="weight")
    share = axes.twinx()
    share.hist(counts[counts < 3 * MOST], bins=60, color="C5", alpha=0.4)
    share.set(ylabel="cells", yscale="log")
    save(picture, out / "weights.svg")


if __name__ == "__main__":
    run(main)
