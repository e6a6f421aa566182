"""Word vectors in a downstream task: plugged in and left alone, plugged in and trained further, or drawn at random.

The lecture's "fine tune": vectors from skip-gram on raw text (the addresses on the State of the Union and the Brown
corpus's training texts) become the first layer of a tagger, which names the part of speech of the word in the middle of
five. Tagged sentences are few, raw text is plenty, so it counts what is known of words that no tagged sentence has. The
quick mode reads the invented language of `word2vec`, whose tags are its classes of words.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

import flowgraph as fg
from examples.common import Results, figure, run, save
from examples.word2vec import Corpus, invented, skipgram, state_of_the_union, summary

AROUND, HIDDEN, BATCH = 2, 128, 64  # words to each side; units; windows a step
SPECIAL = ("<pad>", "<unk>")
STARTS = {"random": (False, True), "frozen": (True, False), "fine-tuned": (True, True)}  # (skip-gram's?, trained?)


class Tagged(NamedTuple):
    """Windows int32 (n, 5) of words with a tag int32 (n,) for each one's middle."""

    windows: np.ndarray
    tags: np.ndarray


class Task(NamedTuple):
    """Raw text to learn vectors from; tagged sentences [(words, tags)] to train, validate and test on; how many tagged
    sentences to train on."""

    text: list[list[str]]
    train: list[tuple[list[str], list[str]]]
    validation: list[tuple[list[str], list[str]]]
    test: list[tuple[list[str], list[str]]]
    sizes: tuple[int, ...]


def brown() -> Task:
    """A tag for each word, in small letters; the sentences to train on in an order of their own (genres follow)."""
    parts = [[([w.lower() for w in s.words], list(s.tags)) for s in part] for part in fg.datasets.load_brown()]
    train, validation, test = parts
    order = np.random.default_rng(0).permutation(len(train))
    text = [*state_of_the_union()[0], *(words for words, _ in train)]
    return Task(text, [train[k] for k in order], validation[::5], test, (100, 300, 1000, 3000))


def tagged_invention() -> Task:
    """The invented language, in which a word's first letter is its class."""
    sentences = [(words, [word[0] for word in words]) for words in invented(words=40, count=6000)[0]]
    return Task([words for words, _ in sentences], sentences[:200], sentences[200:400], sentences[400:900], (40,))


def windows(sentences: list[tuple[list[str], list[str]]], words: dict[str, int], tags: dict[str, int]) -> Tagged:
    """A window around every word; a sentence is padded at both ends."""
    rows, middle = [], []
    for tokens, named in sentences:
        ids = [0] * AROUND + [words.get(token, 1) for token in tokens] + [0] * AROUND
        rows.append(np.lib.stride_tricks.sliding_window_view(np.array(ids, np.int32), 2 * AROUND + 1))
        middle += [tags[tag] for tag in named]
    return Tagged(np.concatenate(rows), np.array(middle, np.int32))


def tagger(start: np.ndarray, tags: int) -> tuple[fg.Tensor, fg.Tensor, fg.Tensor]:
    """(scores, cost, accuracy): the vectors of a window side by side, a layer, and a softmax over the tags."""
    x = fg.input("words", ("batch", 2 * AROUND + 1), dtype="int32")
    y = fg.input("tag", ("batch",), dtype="int32")
    vectors = fg.parameter("vectors", start.shape, start)
    width = (2 * AROUND + 1) * start.shape[1]
    side_by_side = fg.reshape(fg.gather(vectors, x), ("batch", width))
    hidden = fg.nn.Dense("hidden", width, HIDDEN, fg.tanh)(side_by_side)
    scores = fg.nn.Dense("scores", HIDDEN, tags)(fg.dropout(hidden, 0.3))
    return scores, fg.cross_ent_of_softmax(scores, y), fg.nn.accuracy(scores, y)


def tagged(start: np.ndarray, tunable: bool, task: tuple[Tagged, Tagged, Tagged], tags: int, seed: int) -> np.ndarray:
    """Which words of the last set a tagger is right about, as it was when it did best on the second."""
    data, held_out, test = ({"words": some.windows, "tag": some.tags} for some in task)
    scores, cost, accuracy = tagger(start, tags)
    rule, freeze = fg.optim.LazyAdam(0.001), () if tunable else "vectors"
    trainer = fg.Trainer(cost, rule, {"accuracy": accuracy}, device="cpu", threads=1, seed=seed, freeze=freeze)
    best = fg.EarlyStopping("val_accuracy", patience=3)
    trainer.fit(data, epochs=30, batch_size=BATCH, validation=held_out, callbacks=best, progress=False)
    return trainer.predict(scores, {"words": test["words"]}).argmax(axis=1) == test["tag"]


def main(quick: bool, out: Path) -> Results:
    task = tagged_invention() if quick else brown()
    corpus = Corpus(task.text)
    raw, costs = skipgram(corpus, 5, seed=0)
    print(f"vectors of {len(corpus.vocabulary)} words, cost of a pair {costs[-1]:.3f}", flush=True)
    words = {word: number for number, word in enumerate((*SPECIAL, *corpus.vocabulary.tokens))}
    names = {tag for part in (task.train, task.validation, task.test) for _, tags in part for tag in tags}
    tags = {tag: number for number, tag in enumerate(sorted(names))}
    learned = np.concatenate([np.zeros((len(SPECIAL), raw.array.shape[1])), raw.array]).astype(np.float32)
    held_out, test = windows(task.validation, words, tags), windows(task.test, words, tags)
    results: Results = {"words": len(words), "tags": len(tags), "test": len(test.tags)}
    for size in task.sizes:
        data = windows(task.train[:size], words, tags)
        unseen = ~np.isin(test.windows[:, AROUND], data.windows[:, AROUND])
        row: Results = {"tokens": len(data.tags), "unseen": float(unseen.mean())}
        for name, (pretrained, tunable) in STARTS.items():
            scores, of_unseen = [], []
            for seed in range(1 if quick else 3):
                drawn = np.random.default_rng(seed).normal(0, learned.std(), learned.shape).astype(np.float32)
                right = tagged(learned if pretrained else drawn, tunable, (data, held_out, test), len(tags), seed)
                scores.append(float(right.mean()))
                of_unseen.append(float(right[unseen].mean()))
            row[name] = {**summary(scores), "unseen": float(np.mean(of_unseen))}
            print(f"{size} sentences, {name}: {row[name]['mean']:.4f}, new words {row[name]['unseen']:.4f}", flush=True)
        results[f"sentences{size}"] = row
    draw(results, task.sizes, out)
    fg.show(tagger(learned, len(tags))[1], out / "graph.svg")
    return results


def draw(results: Results, sizes: tuple[int, ...], out: Path) -> None:
    """Accuracy by how many tagged sentences there are: of all words, and of those that none of them has."""
    picture, axes = figure(columns=2, sharey=True)
    for k, (axis, what) in enumerate(zip(axes, ("all words", "words in no tagged sentence"), strict=True)):
        for name in STARTS:
            rows = [results[f"sentences{size}"][name] for size in sizes]
            axis.plot(sizes, [row["unseen" if k else "mean"] for row in rows], marker="o", markersize=3, label=name)
        axis.set(xlabel="tagged sentences", xscale="log", title=what)
    axes[0].set(ylabel="accuracy")
    axes[1].legend(frameon=False)
    save(picture, out / "accuracy.svg")


if __name__ == "__main__":
    run(main)
