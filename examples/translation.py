"""Spanish verses into English: an encoder, a decoder, and attention between them.

Of the lecture: LSTMs for other sequence tasks, "seq2seq, encoder/decoder". Data: the verses of two editions of the
Bible that are at most 20 words and marks long. The same model without attention, which must put a whole verse into one
state, is trained beside it; a unigram model of English and a word-by-word translation (IBM model 1) are the baselines.
The quick mode takes the gospel of Mark, which is too little to translate anything new, and shows that the model learns
it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

import flowgraph as fg
from examples.common import Results, draw_training, draw_weights, run
from flowgraph.datasets.text import Vocabulary, pad, words
from flowgraph.datasets.verses import Verse

SPECIAL = ("<pad>", "<s>", "</s>")
PAD, BEGIN, END = range(3)
Pair = tuple[list[str], list[str]]  # Spanish, English


def pairs(verses: Sequence[Verse], longest: int) -> list[Pair]:
    """The words of verses that are short in both languages."""
    both = ((words(verse.spanish), words(verse.english)) for verse in verses)
    return [(s, e) for s, e in both if len(s) <= longest and len(e) <= longest]


def vocabulary(sentences: Sequence[list[str]], min_count: int) -> Vocabulary:
    every = (word for sentence in sentences for word in sentence)
    return Vocabulary.of(every, min_count=min_count, unknown="<unk>", special=SPECIAL)


def arrays(part: Sequence[Pair], spanish: Vocabulary, english: Vocabulary) -> dict[str, np.ndarray]:
    """What the network is fed: the English is told from its beginning on, and asked to its end."""
    source, source_lengths = pad([spanish.ids(s) for s, _ in part])
    ids = [english.ids(e) for _, e in part]
    target, lengths = pad([[BEGIN, *row] for row in ids])
    following, _ = pad([[*row, END] for row in ids])
    told = {"source": source, "source_lengths": source_lengths, "target": target}
    return {**told, "following": following, "lengths": lengths}


def bleu(candidates: Sequence[Sequence[str]], references: Sequence[Sequence[str]], order: int = 4) -> float:
    """Corpus BLEU with one reference each, from 0 to 100 (Papineni and others 2002), not smoothed.

    exp(min(0, 1 - r/c)) times the geometric mean of the precisions of 1-grams to `order`-grams, each n-gram counted at
    most as often as the reference has it; c and r are the lengths of all candidates and of all references.

    >>> round(bleu(["the cat sat on the mat".split()], ["the cat sat on a mat".split()]), 2)
    53.73
    """
    found, possible = np.zeros(order), np.zeros(order)
    for candidate, reference in zip(candidates, references, strict=True):
        for n in range(1, order + 1):
            mine, theirs = (Counter(zip(*(s[k:] for k in range(n)), strict=False)) for s in (candidate, reference))
            found[n - 1] += (mine & theirs).total()
            possible[n - 1] += mine.total()
    if not found.all():
        return 0.0
    shorter = min(0.0, 1 - sum(map(len, references)) / sum(map(len, candidates)))
    return 100 * math.exp(shorter + np.log(found / possible).mean())


def dictionary(part: Sequence[Pair], rounds: int = 8) -> dict[str, str]:
    """The likeliest English word for each Spanish one, by IBM model 1 (Brown and others 1993): EM over alignments."""
    chance: dict[str, Counter[str]] = {}
    for turn in range(rounds):
        counts: dict[str, Counter[str]] = {}
        for spanish, english in part:
            for e in english:
                given = [chance[s][e] if turn else 1.0 for s in (*spanish, "<null>")]
                total = sum(given)
                for s, share in zip((*spanish, "<null>"), given, strict=True):
                    counts.setdefault(s, Counter())[e] += share / total  # type: ignore[assignment]
        chance = {s: Counter({e: n / row.total() for e, n in row.items()}) for s, row in counts.items()}
    return {s: row.most_common(1)[0][0] for s, row in chance.items()}


def until_end(ids: np.ndarray, english: Vocabulary) -> list[list[str]]:
    """Words of each row up to its end."""
    return [english.decode(row[: row.tolist().index(END)] if END in row else row) for row in ids]


class Said(fg.Callback):
    """A line each epoch."""

    def on_epoch_end(self, trainer: fg.Trainer, row: Mapping[str, float]) -> None:
        print(" ".join(f"{name} {value:.3f}" for name, value in row.items()), flush=True)


def main(quick: bool, out: Path) -> Results:
    if quick:
        train = trial = test = pairs(fg.datasets.load_mark(), 14)
        size, hidden, dropout, min_count, epochs, batch, names = 32, 48, 0.0, 1, 25, 8, ["attention"]
    else:
        train, trial, test = (pairs(part, 20) for part in fg.datasets.load_verses())
        size, hidden, dropout, min_count, epochs, batch, names = 96, 160, 0.3, 3, 30, 32, ["no attention", "attention"]
    spanish, english = (vocabulary([pair[side] for pair in train], min_count) for side in (0, 1))
    fed = [arrays(part, spanish, english) for part in (train, trial, test)]
    references = [e for _, e in test]
    most = max(map(len, references)) + 2
    results: Results = {
        "pairs": [len(train), len(trial), len(test)], "words": [len(spanish), len(english)],
        "perplexity": {"unigram": unigram(fed[0], fed[2], len(english))}, "bleu": {},
    }  # fmt: skip
    known = dictionary(train)
    results["bleu"]["word by word"] = bleu([[known.get(s, s) for s in source] for source, _ in test], references)

    source, target, following = (
        fg.input(name, ("batch", time), "int32")
        for name, time in (("source", "s"), ("target", "t"), ("following", "t"))
    )
    source_lengths, lengths = (fg.input(name, ("batch",), "int32") for name in ("source_lengths", "lengths"))
    asked = {name: fed[2][name] for name in ("source", "source_lengths")}
    curves = {}
    for name in names:
        score = "additive" if name == "attention" else None
        model = fg.nn.EncoderDecoder(
            "translate", len(spanish), len(english), size, hidden, attention=score, dropout=dropout
        )
        cost = fg.nn.sequence_cross_ent(model(source, source_lengths, target), following, lengths)
        trainer = fg.Trainer(cost, fg.optim.Adam(0.005 if quick else 0.002, clip_norm=5.0), device="cpu", threads=1)
        best = fg.EarlyStopping(patience=epochs)  # the parameters of the epoch with the least cost on the trial part
        history = trainer.fit(fed[0], epochs, batch, fed[1], callbacks=[best, Said()], progress=False)
        curves[name] = [[row["loss"], row["val_loss"]] for row in history]
        results["perplexity"][name] = math.exp(trainer.evaluate(fed[2], batch_size=64)["loss"])
        search = {"begin": BEGIN, "end": END, "most": most}
        greedy, weights = model.greedy(source, source_lengths, **search)
        written = until_end(trainer.predict(greedy, asked, 64), english)
        results["bleu"][f"{name}, greedy"] = bleu(written, references)
        if not quick:
            beam, _ = model.beam(source, source_lengths, **search, width=4)
            written = until_end(trainer.predict(beam, asked, 64), english)
            results["bleu"][f"{name}, beam of 4"] = bleu(written, references)
        print(name, results["perplexity"][name], results["bleu"], flush=True)
    results["examples"] = [
        {"spanish": " ".join(s), "english": " ".join(e), "written": " ".join(w)}
        for (s, e), w in list(zip(test, written, strict=True))[:: max(1, len(test) // 8)]
    ]
    draw_training(curves, "nats a word", out / "curves.svg")
    assert weights is not None
    chosen = max(range(min(len(test), 64)), key=lambda row: bleu(written[row : row + 1], references[row : row + 1], 2))
    row = {name: value[chosen : chosen + 1] for name, value in asked.items()}
    shown = trainer.predict(weights, row)[0]
    (words_written,) = until_end(trainer.predict(greedy, row), english)
    draw_weights([*words_written, "</s>"], test[chosen][0], shown, out / "attention.svg")
    return results


def unigram(train: dict[str, np.ndarray], test: dict[str, np.ndarray], count: int) -> float:
    """The perplexity of words drawn by how often they come, each once more than it does."""
    there = [np.arange(part["following"].shape[1]) < part["lengths"][:, None] for part in (train, test)]
    counts = np.bincount(train["following"][there[0]], minlength=count) + 1.0
    return float(np.exp(-np.log(counts / counts.sum())[test["following"][there[1]]].mean()))


if __name__ == "__main__":
    run(main)
