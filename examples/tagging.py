"""Tagging every word of a sentence: embeddings, a BiLSTM, a softmax at each word, as in the lecture's tricks for NLP.

In full: parts of speech in the Brown corpus (`load_brown`, 92 tags), from words alone and with what a word looks like,
its last letters and its shape; beside them the tag that each word has most often. Then named entities in CoNLL-2003
(`load_conll2003`) by the same network. Quick: sentences of a small grammar, in which what an ambiguous word is depends
on the words around it, and what a new word is on its ending.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

import flowgraph as fg
from examples.common import Results, figure, run, save
from flowgraph.datasets import Vocabulary, buckets, pad, shuffled_buckets

BOUNDS = (8, 16, 24, 32, 48, 64, 128, 256)
BATCH = 32


class Sentences(NamedTuple):
    """Words and tags, a sentence a row."""

    words: Sequence[Sequence[str]]
    tags: Sequence[Sequence[str]]


def shape(word: str) -> str:
    """X for capitals, x for small letters, 9 for digits, each once where several follow one another: Xx of Fulton."""
    kinds = ("X" if c.isupper() else "x" if c.isalpha() else "9" if c.isdigit() else c for c in word)
    return "".join(kind for kind, _ in groupby(kinds))


FEATURES: dict[str, tuple[Callable[[str], str], int]] = {  # what is embedded, and in how many dimensions
    "form": (str, 100),
    "word": (str.lower, 100),
    "last_3": (lambda word: word.lower()[-3:], 32),
    "last_4": (lambda word: word.lower()[-4:], 32),
    "shape": (shape, 16),
}
Tags = Sequence[Sequence[str]]
WORDS_ALONE, WITH_LOOKS = ("form",), ("word", "last_3", "last_4", "shape")


class Tagger:
    """The network for what its training sentences have: its vocabularies are theirs, rare words are unknown ones."""

    def __init__(self, train: Sentences, features: Sequence[str], hidden: int, epochs: int, rate: float) -> None:
        self.features, self.train, self.epochs = features, train, epochs
        self.vocabularies = {
            name: Vocabulary.of(
                (FEATURES[name][0](word) for words in train.words for word in words),
                min_count=2, unknown="<unk>", special=["<pad>"],
            )
            for name in features
        }  # fmt: skip
        self.tags = Vocabulary.of(tag for tags in train.tags for tag in tags)
        lengths = fg.input("lengths", ("batch",), "int32")
        y = fg.input("y", ("batch", "time"), "int32")
        embedded = [
            fg.nn.Embedding(name, len(self.vocabularies[name]), FEATURES[name][1])(
                fg.input(name, ("batch", "time"), "int32")
            )
            for name in features
        ]
        x = fg.dropout(fg.concatenate(embedded, axis=2), 0.3)
        width = sum(FEATURES[name][1] for name in features)
        states, _ = fg.nn.BiLSTM("lstm", width, hidden)(x, lengths)
        states = fg.reshape(fg.dropout(states, 0.3), (-1, 2 * hidden))
        logits = fg.nn.Dense("tag", 2 * hidden, len(self.tags))(states)
        logits = fg.reshape(logits, (*y.shape, len(self.tags)))
        self.cost = fg.nn.sequence_cross_ent(logits, y, lengths)
        self.best = fg.argmax(logits, axis=2)
        steps = sum(-(-len(rows) // BATCH) for rows in buckets(self.lengths(train), BOUNDS).values()) * epochs
        adam = fg.optim.LazyAdam(fg.optim.Cosine(rate, steps=steps), clip_norm=5.0)
        self.trainer = fg.Trainer(self.cost, adam, device="cpu", threads=1)

    @staticmethod
    def lengths(sentences: Sentences) -> np.ndarray:
        return fg.datasets.text.lengths_of(sentences.words)

    def arrays(self, sentences: Sentences, rows: np.ndarray, bound: int) -> dict[str, np.ndarray]:
        """What the network is fed for these sentences, padded to `bound` words."""
        found = {}
        for name, vocabulary in self.vocabularies.items():
            looks = FEATURES[name][0]
            found[name], found["lengths"] = pad([vocabulary.ids(map(looks, sentences.words[k])) for k in rows], bound)
        return found

    def fit(self, held_out: Sentences) -> list[float]:
        """Train on all sentences; returns the share of right tags in `held_out` after every epoch."""
        curve, lengths = [], self.lengths(self.train)
        for epoch in range(self.epochs):
            start = time.perf_counter()
            for bound, rows in shuffled_buckets(lengths, BOUNDS, 16 * BATCH, seed=epoch):
                y, _ = pad([self.tags.ids(self.train.tags[k]) for k in rows], bound)
                data = self.arrays(self.train, rows, bound) | {"y": y}
                self.trainer.fit(data, batch_size=BATCH, progress=False)
            curve.append(accuracy(held_out.tags, self(held_out)))
            seconds = time.perf_counter() - start
            print(f"epoch {epoch + 1}: {curve[-1]:.4f} of held-out tags, {seconds:.0f} s", flush=True)
        return curve

    def __call__(self, sentences: Sentences) -> list[list[str]]:
        """The likeliest tag of every word."""
        found: list[list[str]] = [[] for _ in sentences.words]
        for bound, rows in buckets(self.lengths(sentences), BOUNDS).items():
            data = self.arrays(sentences, rows, bound)
            numbers = self.trainer.predict(self.best, data, 64)
            for row, best, length in zip(rows, numbers, data["lengths"], strict=True):
                found[row] = self.tags.decode(best[:length])
        return found


def accuracy(expected: Tags, found: Tags, which: Sequence[Sequence[bool]] | None = None) -> float:
    """The share of words, or of those in `which`, whose tag is right."""
    pairs = (zip(own, other, strict=True) for own, other in zip(expected, found, strict=True))
    right = np.array([a == b for sentence in pairs for a, b in sentence])
    return float(right.mean() if which is None else right[np.concatenate(which)].mean())


def most_frequent(train: Sentences, words: Sequence[Sequence[str]]) -> list[list[str]]:
    """Each word's most frequent tag; of a new word, that of the words that came once."""
    counts: dict[str, Counter[str]] = {}
    for sentence, tags in zip(*train, strict=True):
        for word, tag in zip(sentence, tags, strict=True):
            counts.setdefault(word, Counter())[tag] += 1
    once = Counter(next(iter(tags)) for tags in counts.values() if tags.total() == 1)
    usual = {word: tags.most_common(1)[0][0] for word, tags in counts.items()}
    return [[usual.get(word, once.most_common(1)[0][0]) for word in sentence] for sentence in words]


def grammar(count: int, seed: int) -> Sentences:
    """Sentences of a made-up language. `mor`, `tal`, ... are adjectives before a noun, else nouns. Verb and adverb come
    in either order, mostly new words: only their ends, -et and -al, tell which is which."""
    rng = np.random.default_rng(seed)
    ambiguous = ("mor", "tal", "ven", "sil", "dun", "kep")

    def stem() -> str:
        return "".join(rng.choice(list("bdfgklmnprst")) + rng.choice(list("aeiou")) for _ in range(rng.integers(1, 4)))

    def phrase() -> list[tuple[str, str]]:
        adjective = rng.choice(ambiguous) if rng.random() < 0.5 else stem() + "ic"
        noun = rng.choice(ambiguous) if rng.random() < 0.5 else stem() + "ot"
        return [("la", "det"), *([(adjective, "adj")] if rng.random() < 0.6 else []), (noun, "noun")]

    words, tags = [], []
    for _ in range(count):
        middle = [(stem() + "et", "verb"), (stem() + "al", "adv")]
        sentence = [*phrase(), *(middle if rng.random() < 0.5 else middle[::-1]), *phrase(), (".", ".")]
        words.append([str(word) for word, _ in sentence])
        tags.append([tag for _, tag in sentence])
    return Sentences(words, tags)


def main(quick: bool, out: Path) -> Results:
    if quick:
        print("sentences of a small grammar, not the Brown corpus")
        train, validation, test = grammar(800, 1), grammar(100, 2), grammar(200, 3)
        hidden, epochs, rate = 24, 3, 0.02
    else:
        train, validation, test = (
            Sentences([s.words for s in part], [s.tags for s in part]) for part in fg.datasets.load_brown()
        )
        hidden, epochs, rate = 100, 4, 0.005
    known = {word for words in train.words for word in words}
    usual = most_frequent(train, test.words)
    results: Results = {
        "most_frequent": accuracy(test.tags, usual),
        "tags": len({tag for tags in train.tags for tag in tags}),
        "words": sum(map(len, train.words)),
        "new_words": sum(word not in known for words in test.words for word in words) / sum(map(len, test.words)),
    }
    curves = {}
    for name, features in (("words_alone", WORDS_ALONE), ("with_looks", WITH_LOOKS)):
        tagger = Tagger(train, features, hidden, epochs, rate)
        curves[name] = tagger.fit(validation)
        found = tagger(test)
        new = [[word not in known for word in words] for words in test.words]
        results[name] = {"accuracy": accuracy(test.tags, found), "of_new_words": accuracy(test.tags, found, new)}
    results["example"] = [f"{w}/{t}" for w, t in zip(test.words[0], found[0], strict=True)]
    if not quick:
        results["entities"] = entities(hidden)
    draw(curves, results["most_frequent"], out / "curve.svg")
    return results


def entities(hidden: int) -> Results:
    """The same network for the named entities of CoNLL-2003."""
    train, validation, test = (
        Sentences([s.words for s in part], [s.entities for s in part]) for part in fg.datasets.load_conll2003()
    )
    tagger = Tagger(train, WITH_LOOKS, hidden, epochs=8, rate=0.004)
    tagger.fit(validation)
    found = {
        "validation": (validation.tags, tagger(validation)),
        "test": (test.tags, tagger(test)),
        "most_frequent": (test.tags, most_frequent(train, test.words)),
    }
    return {name: fg.datasets.entity_scores(*tags)._asdict() for name, tags in found.items()}


def draw(curves: dict[str, list[float]], usual: float, path: Path) -> None:
    picture, axes = figure(width=5)
    for name, curve in curves.items():
        axes.plot(range(1, len(curve) + 1), curve, "o-", label=name.replace("_", " "))
    axes.axhline(usual, color="#777777", linestyle=":", label="most frequent tag")
    axes.set(xlabel="epoch", ylabel="right tags, held out", xticks=range(1, len(curve) + 1))
    axes.legend()
    save(picture, path)


if __name__ == "__main__":
    run(main)
