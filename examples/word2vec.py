"""Word vectors from raw text: skip-gram, with a softmax over the whole vocabulary and with negative sampling.

The lecture's word2vec: a word's row of a table must tell which words stand near it. All addresses on the State of the
Union (1.8 million words) are read 5 and 15 times over, by 5 seeds each; what the vectors are worth is Spearman's
correlation of their cosines with how related people find 353 pairs of words. Negative examples are drawn inside of the
native step. The quick mode reads an invented language of word classes, and knows which words belong together.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

import flowgraph as fg
from examples.common import Results, figure, run, save
from flowgraph.datasets import Vocabulary, WordPairs, WordVectors, keep_probabilities, skipgram_pairs

DIMENSIONS, WINDOW, NEGATIVES, MIN_COUNT, BATCH = 100, 5, 5, 5, 64
LAST = 6000  # sentences that the softmax over all words has time for: the newest
RATE, END = 0.025, 0.0001  # the learning rate falls from, to: gensim's
GENSIM = Path(__file__).with_name("word2vec.gensim.json")  # what gensim reaches: benchmarks/word2vec_gensim.py


def state_of_the_union() -> tuple[list[list[str]], WordPairs]:
    """All addresses as sentences, and the pairs of words to judge by."""
    addresses = sorted((a for part in fg.datasets.load_sotu() for a in part), key=lambda address: address.year)
    return [s for a in addresses for s in fg.datasets.sentences(a.tokens)], fg.datasets.load_wordsim353()


def invented(classes: int = 8, words: int = 12, count: int = 4000, seed: int = 0) -> tuple[list[list[str]], WordPairs]:
    """Sentences of a language in which each class of words is followed by one of two classes; `k3` is word 3 of class
    k. Words of one class belong together, others do not.
    """
    rng = np.random.default_rng(seed)
    follows = np.stack([rng.permutation(classes)[:2] for _ in range(classes)])
    kinds = [rng.integers(classes, size=count)]
    for _ in range(7):
        kinds.append(follows[kinds[-1], rng.integers(2, size=count)])
    which = np.minimum(rng.geometric(0.2, (count, 8)) - 1, words - 1)
    names = np.array([[f"{chr(97 + k)}{w}" for w in range(words)] for k in range(classes)])
    ends = rng.integers([classes, words], size=(2, 400, 2))
    first, second = (names[kind, word] for kind, word in ends.transpose(0, 2, 1))
    alike = (ends[0, :, 0] == ends[1, :, 0]).astype(np.float64)
    found = names[np.stack(kinds, 1), which].tolist()
    return found, WordPairs({"first": first, "second": second, "scores": alike})


class Corpus:
    """Sentences as numbers of the words that come `MIN_COUNT` times or more."""

    def __init__(self, sentences: list[list[str]]) -> None:
        self.vocabulary = Vocabulary.of((word for s in sentences for word in s), min_count=MIN_COUNT)
        known = ([word for word in s if word in self.vocabulary] for s in sentences)
        self.ids = [self.vocabulary.ids(s) for s in known if s]
        self.keep = keep_probabilities(self.vocabulary.counts)

    def pairs(self, seed: int, epoch: int) -> dict[str, Any]:
        """An epoch's words and contexts."""
        words, contexts = skipgram_pairs(self.ids, WINDOW, seed=(seed, epoch), keep=self.keep)
        return {"word": words, "context": contexts}


def tables(words: int) -> tuple[fg.Tensor, fg.Tensor, fg.Tensor, fg.Tensor]:
    """Numbers of words and of contexts, and a vector for each as either."""
    word, context = (fg.input(name, ("batch",), dtype="int32") for name in ("word", "context"))
    vectors = fg.parameter("vectors", (words, DIMENSIONS), fg.init.uniform(-1 / DIMENSIONS, 1 / DIMENSIONS))
    return word, context, vectors, fg.parameter("contexts", (words, DIMENSIONS))


def with_softmax(counts: np.ndarray) -> tuple[fg.Tensor, fg.Tensor]:
    """(vectors, cost of each pair): the context among all words."""
    word, context, vectors, contexts = tables(len(counts))
    scores = fg.matmul(fg.gather(vectors, word), fg.transpose(contexts))
    return vectors, fg.cross_ent_of_softmax(scores, context)


def with_negatives(counts: np.ndarray) -> tuple[fg.Tensor, fg.Tensor]:
    """(vectors, cost of each pair): the context against words drawn by count ** 0.75 (Mikolov and others 2013)."""
    word, context, vectors, contexts = tables(len(counts))
    pair = fg.expand_dims(context, 1)
    drawn = fg.random.categorical(counts**0.75, ("batch", NEGATIVES))
    candidates = fg.concatenate([pair, drawn], axis=1)
    scores = fg.sum(fg.expand_dims(fg.gather(vectors, word), 1) * fg.gather(contexts, candidates), axis=-1)
    is_pair = fg.equal(fg.arange(1 + NEGATIVES), 0)
    costs = fg.softplus(fg.where(is_pair, -scores, scores))
    by_chance = fg.logical_xor(is_pair, fg.equal(candidates, pair))  # the context itself was drawn: no negative
    return vectors, fg.sum(fg.where(by_chance, 0.0, costs), axis=-1)


def trainer(cost: fg.Tensor, steps: int, seed: int, rate: float = RATE) -> fg.Trainer:
    """A batch's costs are added up, so that each pair moves its vectors as if it were alone; a mean moves them less."""
    falling = fg.optim.Polynomial(rate, steps, end=END)
    return fg.Trainer(fg.sum(cost), fg.optim.SGD(falling), {"cost": cost}, device="cpu", threads=1, seed=seed)


def skipgram(corpus: Corpus, epochs: int, seed: int, shuffle: bool = False) -> tuple[WordVectors, list[float]]:
    """Trained vectors, and the mean cost of a pair in each epoch. Pairs come in the order of the text."""
    vectors, cost = with_negatives(corpus.vocabulary.counts)
    data = corpus.pairs(seed, 0)
    steps = epochs * len(data["word"]) // BATCH
    made = trainer(cost, steps, seed)
    for epoch in range(epochs):
        made.fit(data, batch_size=BATCH, shuffle=shuffle, progress=False)
        data = corpus.pairs(seed, epoch + 1) if epoch + 1 < epochs else {}
    return WordVectors(corpus.vocabulary, vectors.value), [row["cost"] for row in made.history]


def both_costs(corpus: Corpus, judged: WordPairs, epochs: int) -> Results:
    """A short training with each of the two costs: how long it takes, once compiled, and how far it comes."""
    data, counts = corpus.pairs(0, 0), corpus.vocabulary.counts
    shares = counts * corpus.keep / (counts @ corpus.keep)
    entropy = -float(shares @ np.log(shares))  # the cost of a softmax that knows how often words come, and nothing else
    found: Results = {"words": len(counts), "pairs": len(data["word"]), "epochs": epochs, "entropy": entropy}
    batch = 4 * BATCH  # a product with a whole table is the faster the more rows it has
    for name, model, rate in (("softmax", with_softmax, 0.1), ("negatives", with_negatives, RATE)):
        vectors, cost = model(counts)
        made = trainer(cost, epochs * len(data["word"]) // batch, 0, rate)
        made.fit({k: a[:batch] for k, a in data.items()}, batch_size=batch, progress=False)
        start = time.perf_counter()
        costs = [row["cost"] for row in made.fit(data, epochs, batch_size=batch, progress=False)][1:]
        seconds = time.perf_counter() - start
        score = WordVectors(corpus.vocabulary, vectors.value).judge_pairs(judged)
        found[name] = {"cost": costs, "seconds": seconds, **score._asdict()}
        print(f"{name}: cost {costs[-1]:.3f} after {seconds:.1f} s, rank correlation {score.score:.3f}", flush=True)
    found["times"] = found["softmax"]["seconds"] / found["negatives"]["seconds"]
    return found


def summary(scores: list[float]) -> Results:
    """The mean of some seeds, and its standard error."""
    error = float(np.std(scores, ddof=1) / len(scores) ** 0.5) if len(scores) > 1 else 0.0
    return {"mean": float(np.mean(scores)), "error": error, "seeds": [round(s, 4) for s in scores]}


def main(quick: bool, out: Path) -> Results:
    sentences, pairs = invented() if quick else state_of_the_union()
    corpus = Corpus(sentences)
    tokens = Counter(word for s in sentences for word in s).total()
    results: Results = {"sentences": len(sentences), "tokens": tokens, "words": len(corpus.vocabulary)}
    results["pairs"] = len(corpus.pairs(0, 0)["word"])
    print(f"{tokens} words of text, {len(corpus.vocabulary)} different ones, {results['pairs']} pairs an epoch")
    results["both"] = both_costs(corpus, pairs, 10) if quick else both_costs(Corpus(sentences[-LAST:]), pairs, 2)
    curves = {}
    trainings = [("quick", 20, 1)] if quick else [("epochs5", 5, 5), ("shuffled5", 5, 5), ("epochs15", 15, 5)]
    for name, epochs, seeds in trainings:
        scores = []
        for seed in range(seeds):
            start = time.perf_counter()
            vectors, curves[name] = skipgram(corpus, epochs, seed, shuffle="shuffled" in name)
            score, results["covered"] = vectors.judge_pairs(pairs)
            scores.append(score)
            seconds = time.perf_counter() - start
            print(f"{name}, seed {seed}: rank correlation {score:.4f} after {seconds:.0f} s", flush=True)
        results[name] = {**summary(scores), "cost": curves[name]}
    shown = ["a0", "b0"] if quick else ["war", "england", "money", "farmers", "president", "january"]
    results["neighbours"] = {word: ", ".join(near for near, _ in vectors.nearest(word, 8)) for word in shown}
    if not quick:
        score, covered = vectors.judge_analogies(fg.datasets.load_analogies())
        results["analogies"] = {"score": score, "covered": covered}
        for epochs, scores in json.loads(GENSIM.read_text())["scores"].items():
            ours, theirs = results[f"epochs{epochs}"], summary(scores)
            ours |= {"gensim": theirs, "pooled": float(np.hypot(ours["error"], theirs["error"]))}
    draw(curves, vectors, quick, out)
    return results


MAP = {
    "months": "january february march april june july august september october november december",
    "nations": "spain france england britain russia germany japan china mexico cuba italy",
    "numbers": "two three four five six seven eight nine ten twenty thirty",
    "money": "money dollars tax taxes debt bonds treasury revenue currency gold silver",
}


def draw(curves: dict[str, list[float]], vectors: WordVectors, quick: bool, out: Path) -> None:
    """The cost by epoch; and some words in the two directions in which they differ most (principal components)."""
    picture, axes = figure()
    for name, costs in curves.items():
        label = f"{len(costs)} epochs" + (", shuffled" if "shuffled" in name else "")
        axes.plot(range(1, len(costs) + 1), costs, marker="o", markersize=3, label=label)
    axes.set(xlabel="epoch", ylabel="cost of a pair")
    axes.legend(frameon=False)
    save(picture, out / "cost.svg")
    groups = {k: " ".join(f"{k}{w}" for w in range(8)) for k in "abcd"} if quick else MAP
    words = [(word, group) for group, listed in groups.items() for word in listed.split() if word in vectors]
    units = np.stack([vectors.units[vectors.number(word)] for word, _ in words])
    _, _, directions = np.linalg.svd(units - units.mean(0), full_matrices=False)
    places = (units - units.mean(0)) @ directions[:2].T
    picture, axes = figure(width=6.4, height=5.2)
    axes.scatter(*places.T, s=0)
    for (word, group), (x, y) in zip(words, places, strict=True):
        axes.text(x, y, word, color=f"C{list(groups).index(group)}", fontsize=8, ha="center", va="center")
    axes.set(xticks=[], yticks=[])
    save(picture, out / "map.svg")
    fg.show(with_negatives(vectors.vocabulary.counts)[1], out / "graph.svg")


if __name__ == "__main__":
    run(main)
