"""Does one sentence follow from another? BiLSTMs, aligned by attention, and a deeper network on [u, v, |u-v|, u*v].

Of the lecture: "ANN tricks for NLP" and its example of reasoning about entailment. Data: SICK, pairs of sentences
judged neutral, entailment or contradiction, and how related they are, from 1 to 5, which is learned beside. No word
vectors come from elsewhere. Of every word the network is told, beside its embedding, whether the other sentence has the
word or its stem, and whether it negates; of a pair, the shares of such words. Three simpler networks show what each
part does. The quick mode has no SICK: it makes pairs of the same form from a small grammar, and trains one network.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import flowgraph as fg
from examples.common import Results, draw_training, draw_weights, run
from flowgraph.datasets.sick import JUDGEMENTS, SentencePairs
from flowgraph.datasets.text import Vocabulary, pad, words

NEGATIONS = {"no", "not", "nobody", "none", "nothing", "without", "never", "isn't", "aren't", "doesn't", "don't"}
LONGEST = 24  # words: the 2 % of the training pairs that have a longer sentence would make every step slower
EPOCHS, BATCH, SEEDS = 10, 32, 3  # seeds of the whole network; one of the simpler ones
NETWORKS = {  # its parts
    "bag of words": "",
    "biLSTM": "lstm",
    "biLSTM, marks": "lstm marks",
    "biLSTM, marks, attention": "lstm marks attention",
}
FULL = "biLSTM, marks, attention"
MARKS = ("first_marks", "second_marks", "shares")


class Pairs(NamedTuple):
    first: Sequence[str] | np.ndarray
    second: Sequence[str] | np.ndarray
    judgement: np.ndarray
    relatedness: np.ndarray


def stem(word: str) -> str:
    """A word without the commonest endings of English."""
    for ending in ("ing", "ies", "es", "ed", "s", "y", "e"):
        if word.endswith(ending) and len(word) >= len(ending) + 3:
            word = word.removesuffix(ending)
            break
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word


def marks(one: list[str], other: list[str]) -> np.ndarray:
    """(time, 3): whether the other sentence has the word, whether it has its stem, whether the word negates."""
    stems = set(map(stem, other))
    return np.array([[w in other, stem(w) in stems, w in NEGATIONS] for w in one], np.float32)


def arrays(pairs: Pairs, vocabulary: Vocabulary, longest: int | None = None) -> dict[str, np.ndarray]:
    """What the networks are fed, of pairs whose sentences are not longer."""
    tokens = [[words(sentence) for sentence in side] for side in (pairs.first, pairs.second)]
    lengths = np.array([[len(sentence) for sentence in side] for side in tokens]).max(axis=0)
    kept = np.flatnonzero(lengths <= (longest or lengths.max()))
    one, other = ([side[row] for row in kept] for side in tokens)
    data: dict[str, np.ndarray] = {"judgement": pairs.judgement[kept], "relatedness": pairs.relatedness[kept]}
    shares: list[Any] = []
    for name, side, against in (("first", one, other), ("second", other, one)):
        time = int(lengths[kept].max())
        found = [marks(a, b) for a, b in zip(side, against, strict=True)]
        data[name], data[f"{name}_length"] = pad([vocabulary.ids(sentence) for sentence in side], time)
        data[f"{name}_marks"] = np.stack([np.pad(m, ((0, time - len(m)), (0, 0))) for m in found])
        shares += [[m[:, 0].mean() for m in found], [m[:, 1].mean() for m in found], [m[:, 2].max() for m in found]]
    shares.append(np.not_equal(shares[2], shares[5]))
    data["shares"] = np.array(shares, np.float32).T
    return data


def network(parts: str, count: int, size: int, hidden: int, dropout: float) -> dict[str, fg.Tensor]:
    """The cost, the logits of judgements, and the weights of attention if it has any."""
    sides = ("first", "second")
    ids = fg.concatenate([fg.input(side, ("batch", "time"), "int32") for side in sides])  # one batch of all sentences
    lengths = [fg.input(f"{side}_length", ("batch",), "int32") for side in sides]
    found = fg.concatenate([fg.input(f"{side}_marks", ("batch", "time", 3)) for side in sides])
    judgement, relatedness = fg.input("judgement", ("batch",), "int32"), fg.input("relatedness", ("batch",))
    batch, all_lengths = judgement.shape[0], fg.concatenate(lengths)
    made: dict[str, fg.Tensor] = {}

    states = fg.dropout(fg.nn.Embedding("words", count, size)(ids), dropout)
    if "marks" in parts:
        states, size = fg.concatenate([states, found], axis=2), size + 3
    if "lstm" in parts:
        states, _ = fg.nn.BiLSTM("lstm", size, hidden)(states, all_lengths)
        size = 2 * hidden
    if "attention" in parts:  # each state beside what it is aligned to in the other sentence
        u, v = states[:batch], states[batch:]
        align = fg.nn.Attention("align", 2 * hidden, 2 * hidden, score="dot")
        sharp = fg.parameter("align/sharp", (), init=np.array(10.0))  # products of small states are all alike
        of_u, made["weights"] = align(sharp * u, v, lengths=lengths[1])
        of_v, _ = align(sharp * v, u, lengths=lengths[0])
        other = fg.concatenate([of_u, of_v])
        both = fg.concatenate([states, other, fg.abs(states - other), states * other, found], axis=2)
        w = fg.parameter("compare/w", (8 * hidden + 3, 2 * hidden), init=fg.init.glorot_uniform())
        states = fg.dropout(fg.relu(fg.add_bias(both @ w, fg.parameter("compare/b", (2 * hidden,)))), dropout)
    pooled = [pool(states, all_lengths) for pool in (fg.nn.max_over_time, fg.nn.mean_over_time)]

    u, v = (fg.concatenate([p[rows] for p in pooled], axis=1) for rows in (slice(batch), slice(batch, None)))
    pair = [u, v, fg.abs(u - v), u * v] + ([fg.input("shares", ("batch", 7))] if "marks" in parts else [])
    deep = fg.dropout(fg.concatenate(pair, axis=1), dropout)
    deep = fg.nn.Dense("deep", 8 * size + 7 * ("marks" in parts), 2 * hidden, fg.relu)(deep)
    deep = fg.dropout(deep, dropout)
    made["logits"] = fg.nn.Dense("judge", 2 * hidden, 3)(deep)
    related = fg.squeeze(fg.nn.Dense("relate", 2 * hidden, 1)(deep), 1) + 3.5
    off = fg.mean(fg.squared_error(related, relatedness))
    made["cost"] = fg.mean(fg.cross_ent_of_softmax(made["logits"], judgement)) + 0.2 * off
    made["accuracy"] = fg.nn.accuracy(made["logits"], judgement)
    return made


def grammar(count: int, seed: int) -> Pairs:
    """Pairs in the manner of SICK: something said in general follows; negated, it contradicts; else it is neutral."""
    kinds = {"man": "person", "woman": "person", "boy": "child", "girl": "child", "dog": "animal", "cat": "animal"}
    doing, places = ["running", "singing", "eating", "sleeping", "jumping"], ["in a park", "on a beach", "near a lake"]
    draw = np.random.default_rng(seed)
    rows = []
    for judged in map(int, draw.integers(0, 3, count)):
        who, what, where = (str(draw.choice(list(choices))) for choices in (kinds, doing, places))
        if judged == 0:
            second = f"A {kinds[who]} is {draw.choice([other for other in doing if other != what])}"
        elif judged == 1:
            second = f"A {kinds[who]} is {what}"
        else:
            second = f"There is no {who} {what} {where}"
        rows.append((f"A {who} is {what} {where}", second, judged, (3.0, 4.5, 3.6)[judged]))
    first, seconds, judgement, related = zip(*rows, strict=True)
    return Pairs(first, seconds, np.array(judgement, np.int32), np.array(related, np.float32))


def of_sick(pairs: SentencePairs) -> Pairs:
    return Pairs(pairs.first, pairs.second, pairs.entailment, pairs.relatedness)


def main(quick: bool, out: Path) -> Results:
    if quick:
        print("quick mode: pairs made from a small grammar stand for SICK")
        parts = [grammar(count, seed) for seed, count in enumerate((600, 100, 200))]
        sizes, epochs, seeds, names = (16, 16, 0.0), 4, 1, [FULL]
    else:
        parts = list(map(of_sick, fg.datasets.load_sick()))
        sizes, epochs, seeds, names = (64, 48, 0.3), EPOCHS, SEEDS, list(NETWORKS)
    train, trial, test = parts
    vocabulary = Vocabulary.of(
        (word for side in train[:2] for sentence in side for word in words(sentence)),
        min_count=2, unknown="<unk>", special=["<pad>"],
    )  # fmt: skip
    fed = [arrays(train, vocabulary, LONGEST), arrays(trial, vocabulary), arrays(test, vocabulary)]
    results: Results = {"train": len(fed[0]["judgement"]), "vocabulary": len(vocabulary), "accuracy": {}, "trial": {}}
    shares = np.bincount(test.judgement, minlength=3) / len(test.judgement)
    results["majority"] = float(shares[np.bincount(train.judgement).argmax()])

    curves: dict[str, list[list[float]]] = {}
    for name in names:
        scores, chosen = [], []
        given = [{n: a for n, a in part.items() if "marks" in NETWORKS[name] or n not in MARKS} for part in fed]
        for seed in range(seeds if name == FULL else 1):
            made = network(NETWORKS[name], len(vocabulary), *sizes)
            trainer = fg.Trainer(
                made["cost"], fg.optim.Adam(0.002 if quick else 0.001, clip_norm=5.0),
                metrics={"accuracy": made["accuracy"]}, device="cpu", seed=seed, threads=1,
            )  # fmt: skip
            best = fg.EarlyStopping("val_accuracy", patience=epochs, mode="max")  # its epoch's parameters are kept
            history = trainer.fit(given[0], epochs, BATCH, given[1], callbacks=best, progress=False)
            scores.append(trainer.evaluate(given[2])["accuracy"])
            chosen.append(max(row["val_accuracy"] for row in history))
            print(f"{name}, seed {seed}: trial {chosen[-1]:.3f}, test {scores[-1]:.3f}", flush=True)
            if seed == 0:
                curves[name] = [[row["accuracy"], row["val_accuracy"]] for row in history]
        results["accuracy"][name] = {"mean": float(np.mean(scores)), "seeds": scores}
        results["trial"][name] = float(np.mean(chosen))
    judged = trainer.predict(made["logits"], fed[2]).argmax(axis=1)
    known = {frozenset(pair) for pair in zip(train.first, train.second, strict=True)}
    unseen = [frozenset(pair) not in known for pair in zip(test.first, test.second, strict=True)]
    results["unseen"] = float((judged == test.judgement)[unseen].mean())  # by the last network, as what follows
    results["confusion"] = [[int(((test.judgement == a) & (judged == b)).sum()) for b in range(3)] for a in range(3)]
    draw_training(curves, "accuracy", out / "accuracy.svg", majority_class=results["majority"])
    follows = (test.judgement == JUDGEMENTS.index("ENTAILMENT")) & (judged == test.judgement)
    row = int(np.where(follows, fed[2]["shares"][:, 0] + fed[2]["shares"][:, 3], np.inf).argmin())  # reworded most
    results["aligned"] = [test.first[row], test.second[row]]
    weights = trainer.predict(made["weights"], {name: value[row : row + 1] for name, value in fed[2].items()})[0]
    draw_weights(words(test.first[row]), words(test.second[row]), weights, out / "alignment.svg")
    return results


if __name__ == "__main__":
    run(main)
