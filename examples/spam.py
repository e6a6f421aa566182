"""Spam or not: a sequence is classified by an LSTM whose states are pooled by their maximum over time.

In full: SpamAssassin's mails (`load_spam`), of which only subject and body are read, and equal bodies are on one side.
The LSTM reads the first 300 tokens and the last 100. Beside it a bag of words: logistic regression by which words the
whole mail has, which is a network, too: a number for each word, looked up and added. Quick: generated mails.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import flowgraph as fg
from examples.common import Results, figure, run, save
from flowgraph.datasets import Vocabulary, buckets, pad, shuffled_buckets, words

FIRST, LAST = 300, 100  # tokens that the LSTM reads
BOUNDS = (32, 64, 128, 256, 512, 1024, 8192)
SUBJECT, BODY = "<subject>", "<body>"


class Mails(NamedTuple):
    """Tokens of each mail, and 1 where it is spam."""

    tokens: Sequence[Sequence[str]]
    spam: np.ndarray


class Classifier:
    """What training, evaluation and both networks share: padded ids of mails, in buckets of like length."""

    def __init__(self, score: fg.Tensor, seed: int, rate: float | fg.optim.Schedule) -> None:
        y = fg.input("y", ("batch",))
        self.spam = fg.greater(score, 0.0)
        right = fg.equal(self.spam, fg.greater(y, 0.5))
        self.trainer = fg.Trainer(
            fg.cross_ent_of_logistic(score, y), fg.optim.LazyAdam(rate, clip_norm=5.0),
            metrics={"accuracy": fg.cast(right, "float32")}, device="cpu", threads=1, seed=seed,
        )  # fmt: skip
        self.seed = seed

    def fit(self, ids: Sequence[np.ndarray], spam: np.ndarray, epoch: int) -> None:
        for bound, rows in shuffled_buckets(list(map(len, ids)), BOUNDS, 256, seed=(self.seed, epoch)):
            self.trainer.fit(arrays(ids, rows, bound) | {"y": spam[rows]}, batch_size=32, progress=False)

    def __call__(self, ids: Sequence[np.ndarray]) -> np.ndarray:
        """Which mails are spam."""
        found = np.zeros(len(ids), bool)
        for bound, rows in buckets(list(map(len, ids)), BOUNDS).items():
            found[rows] = self.trainer.predict(self.spam, arrays(ids, rows, bound), 64)
        return found


def arrays(ids: Sequence[np.ndarray], rows: np.ndarray, bound: int) -> dict[str, np.ndarray]:
    padded, lengths = pad([ids[k] for k in rows], bound)
    return {"ids": padded, "lengths": lengths}


def inputs() -> tuple[fg.Tensor, fg.Tensor]:
    return fg.input("ids", ("batch", "time"), "int32"), fg.input("lengths", ("batch",), "int32")


def lstm(count: int, size: int, hidden: int, seed: int, rate: fg.optim.Schedule) -> Classifier:
    """Embedding, LSTM, the maximum over time of each of its states, one unit."""
    ids, lengths = inputs()
    x = fg.dropout(fg.nn.Embedding("words", count, size)(ids), 0.3)
    states, _ = fg.nn.LSTM("lstm", size, hidden)(x, lengths)
    pooled = fg.dropout(fg.nn.max_over_time(states, lengths), 0.3)
    score = fg.nn.Dense("spam", hidden, 1)(pooled)
    return Classifier(score[:, 0], seed, rate)


def bag_of_words(count: int) -> tuple[Classifier, fg.Tensor]:
    """Logistic regression: each word of a mail adds its number, whatever the order; and those numbers."""
    ids, lengths = inputs()
    weights = fg.nn.Embedding("words", count, 1, init=fg.init.zeros())
    bias = fg.parameter("bias", ())
    score = fg.nn.sum_over_time(weights(ids), lengths)[:, 0] + bias
    return Classifier(score, seed=0, rate=0.01), weights.w


def mails(part: Sequence[fg.datasets.Mail]) -> Mails:
    tokens = [[SUBJECT, *words(mail.subject), BODY, *words(mail.body)] for mail in part]
    return Mails(tokens, np.array([mail.spam for mail in part], np.float32))


def ends(tokens: Sequence[str]) -> Sequence[str]:
    """What the LSTM reads of a mail: a long one's beginning and end."""
    return tokens if len(tokens) <= FIRST + LAST else [*tokens[:FIRST], *tokens[-LAST:]]


def generated(count: int, seed: int) -> Mails:
    """Mails of a vocabulary of 300 words and of two kinds of eight more words: spam has one kind more often."""
    rng = np.random.default_rng(seed)
    spam = rng.random(count) < 0.4
    tokens = []
    for is_spam in spam:
        usual = [f"w{k}" for k in rng.zipf(1.3, rng.integers(10, 60)) % 300]
        kinds = np.where(rng.random(8) < (0.8 if is_spam else 0.2), "offer", "work")
        telling = [f"{kind}{k}" for kind, k in zip(kinds, rng.integers(0, 20, 8), strict=True)]
        tokens.append([SUBJECT, *usual[:5], BODY, *(str(w) for w in rng.permutation(usual[5:] + telling))])
    return Mails(tokens, spam.astype(np.float32))


def main(quick: bool, out: Path) -> Results:
    if quick:
        print("generated mails, not SpamAssassin's")
        train, test = generated(600, 1), generated(300, 2)
        size, hidden, epochs, seeds, rate = 16, 16, 6, 1, 0.01
    else:
        train, test = map(mails, fg.datasets.load_spam())
        size, hidden, epochs, seeds, rate = 64, 64, 6, 3, 0.002
    vocabulary = Vocabulary.of((t for m in train.tokens for t in m), min_count=3, unknown="<unk>", special=["<pad>"])

    bag, weights = bag_of_words(len(vocabulary))
    sets = [[np.unique(vocabulary.ids(m)) for m in part.tokens] for part in (train, test)]
    for epoch in range(10):
        bag.fit(sets[0], train.spam, epoch)
    strongest = np.argsort(weights.value[:, 0])

    read = [[vocabulary.ids(ends(m)) for m in part.tokens] for part in (train, test)]
    steps = epochs * sum(-(-len(rows) // 32) for rows in buckets(list(map(len, read[0])), BOUNDS).values())
    curves = np.zeros((seeds, epochs))
    for seed in range(seeds):
        network = lstm(len(vocabulary), size, hidden, seed, fg.optim.Cosine(rate, steps=steps))
        for epoch in range(epochs):
            network.fit(read[0], train.spam, epoch)
            curves[seed, epoch] = right(network(read[1]), test.spam)
            print(f"seed {seed}, epoch {epoch + 1}: {curves[seed, epoch]:.4f} of the test mails", flush=True)

    by_words = right(bag(sets[1]), test.spam)
    draw(curves, by_words, out / "curve.svg")
    return {
        "lstm": {"mean": float(curves[:, -1].mean()), "seeds": curves[:, -1].tolist()},
        "bag_of_words": by_words,
        "majority": float(max(test.spam.mean(), 1 - test.spam.mean())),
        "mails": {"train": len(train.spam), "test": len(test.spam)},
        "vocabulary": len(vocabulary),
        "cut": float(np.mean([len(m) > FIRST + LAST for m in train.tokens])),
        "spam_words": vocabulary.decode(strongest[::-1][:12]),
        "other_words": vocabulary.decode(strongest[:12]),
    }


def right(found: np.ndarray, spam: np.ndarray) -> float:
    return float((found == (spam > 0.5)).mean())


def draw(curves: np.ndarray, by_words: float, path: Path) -> None:
    picture, axes = figure(width=5)
    for seed, curve in enumerate(curves):
        axes.plot(range(1, len(curve) + 1), curve, "o-", label=f"LSTM, seed {seed}")
    axes.axhline(by_words, color="#777777", linestyle=":", label="bag of words")
    axes.set(xlabel="epoch", ylabel="right, of the test mails", xticks=range(1, curves.shape[1] + 1))
    axes.legend()
    save(picture, path)


if __name__ == "__main__":
    run(main)
