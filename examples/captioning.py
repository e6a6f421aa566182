"""Captions: a convolutional network reads a picture, an LSTM says what it shows, word by word.

The lecture's encoder and decoder (as Vinyals and others 2015, "Show and Tell"). No photographs with captions may ship,
so pictures are composed, two things on a canvas, and described by where one lies from the other: "a boot above a bag".
In full, of Fashion-MNIST: T-shirts, pullovers, coats and shirts, which nobody tells apart reliably at 28×28 pixels, are
all called "top", and dresses are left out. `--quick` composes the digits from 0 to 4 instead: "a three left of a one".

A picture has two right captions, for the boot is above the bag where the bag is below the boot. Training shows one of
them, chosen by lot; a caption is counted as exact if it is one of the two, word for word. Things in test pictures are
from the data sets' test parts.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

import flowgraph as fg
from examples.common import Results, figure, run, save
from flowgraph.datasets import Vocabulary, pad

RELATIONS = ("above", "below", "left of", "right of")
OPPOSITE = dict(zip(RELATIONS, ("below", "above", "right of", "left of"), strict=True))
DIGITS = ("zero", "one", "two", "three", "four", *[None] * 5)
CLOTHES = ("top", "trousers", "top", None, "top", "sandal", "top", "sneaker", "bag", "boot")
START, END = "<start>", "<end>"


class Pictures(NamedTuple):
    canvas: np.ndarray  # (n, side·side)
    captions: list[str]
    others: list[str]  # the captions that begin with the other thing


def composed(images: np.ndarray, labels: np.ndarray, words: tuple[str | None, ...], count: int, seed: int) -> Pictures:
    """`count` pictures of two things of different names, each name as often as the others."""
    rng = np.random.default_rng(seed)
    names = list(dict.fromkeys(word for word in words if word))
    called = {name: np.flatnonzero([words[label] == name for label in labels]) for name in names}
    item = round(images.shape[1] ** 0.5)
    gap = item // 7  # how far a thing may be from where it belongs
    side = 2 * item + 2 * gap
    canvas = np.zeros((count, side, side), np.float32)
    captions, others = [], []
    for picture in canvas:
        relation = RELATIONS[rng.integers(4)]
        first, second = rng.choice(names, 2, replace=False)
        start, along = int(rng.integers(side - item - gap + 1)), 0  # of both, across the relation
        for name, near in ((first, relation in ("above", "left of")), (second, relation in ("below", "right of"))):
            along = int(rng.integers(gap + 1)) + (0 if near else item + gap)
            across = start + int(rng.integers(gap + 1))
            row, column = (along, across) if relation in ("above", "below") else (across, along)
            image = images[rng.choice(called[name])].reshape(item, item)
            picture[row : row + item, column : column + item] += image
        captions.append(f"a {first} {relation} a {second}")
        others.append(f"a {second} {OPPOSITE[relation]} a {first}")
    return Pictures(canvas.reshape(count, -1), captions, others)


class Captioner:
    """Convolutions with pooling, whose features are where the LSTM begins; trained on words that it is given (teacher
    forcing), used on its own.

    The convolutions have a second cost: which words the caption has (as Fang and others 2015). Without it they wait for
    a decoder that says something, and the decoder for features that mean something. (Vinyals and others took a network
    that had learned to classify.)"""

    def __init__(self, side: int, maps: tuple[int, ...], hidden: int, words: Vocabulary, turns: int) -> None:
        self.pictures = fg.input("pictures", ("batch", side * side))
        self.given = fg.input("given", ("batch", turns), dtype="int32")  # <start> and the caption
        self.wanted = fg.input("wanted", ("batch", turns), dtype="int32")  # the caption and <end>
        self.lengths = fg.input("lengths", ("batch",), dtype="int32")
        self.present = fg.input("present", ("batch", len(words)))  # 1 for every word of the caption
        x, channels = fg.reshape(self.pictures, ("batch", 1, side, side)), 1
        for k, count in enumerate(maps):
            layer = fg.nn.Conv2D(f"conv{k}", channels, count, 5 if k == 0 else 3, fg.relu, padding="same")
            x, channels, side = fg.max_pool2d(layer(x), 2), count, side // 2
        dense = fg.nn.Dense("features", channels * side**2, 2 * hidden, fg.relu, init=fg.init.he_normal())
        features = dense(fg.nn.flatten(x))
        found = fg.nn.Dense("found", 2 * hidden, len(words))(features)
        state = tuple(fg.nn.Dense(name, 2 * hidden, hidden, fg.tanh)(features) for name in ("h", "c"))
        embedding = fg.nn.Embedding("words", len(words), 32)
        lstm, says = fg.nn.LSTM("lstm", 32, hidden), fg.nn.Dense("says", hidden, len(words))

        outputs, _ = lstm(embedding(self.given), self.lengths, state=state)
        logits = says(fg.reshape(outputs, (-1, hidden)))
        errors = fg.reshape(fg.cross_ent_of_softmax(logits, fg.reshape(self.wanted, (-1,))), ("batch", turns))
        inside = fg.expand_dims(self.lengths, 1) > fg.arange(turns, "int32")
        self.costs = {
            "caption": fg.sum(fg.where(inside, errors, 0.0), axis=1),
            "words": fg.sum(fg.cross_ent_of_logistic(found, self.present), axis=1),
        }

        def turn(carry: tuple[fg.Tensor, fg.Tensor, fg.Tensor], _: None) -> tuple[tuple[fg.Tensor, ...], fg.Tensor]:
            h, c, word = carry
            h, c = lstm.turn(fg.add_bias(embedding(word) @ lstm.w_x, lstm.b), (h, c))
            word = fg.cast(fg.argmax(says(h), axis=1), "int32")  # greedy: the likeliest is what it reads next
            return (h, c, word), word

        start = fg.broadcast_to(fg.constant(int(words.ids([START])[0]), "int32"), ("batch",))
        _, said = fg.scan(turn, (*state, start), None, length=turns)
        self.said = fg.transpose(said)


def fed(pictures: Pictures, words: Vocabulary, turns: int) -> dict[str, np.ndarray]:
    """What the network is trained on."""
    ids = [words.ids([START, *caption.split(), END]) for caption in pictures.captions]
    given, lengths = pad([line[:-1] for line in ids], turns)
    wanted, _ = pad([line[1:] for line in ids], turns)
    present = np.zeros((len(ids), len(words)), np.float32)
    for row, line in zip(present, ids, strict=True):
        row[line[1:-1]] = 1
    return {"pictures": pictures.canvas, "given": given, "wanted": wanted, "lengths": lengths, "present": present}


def main(quick: bool, out: Path) -> Results:
    data = fg.datasets.load_digits().split() if quick else fg.datasets.load_fashion_mnist()
    names: tuple[str | None, ...] = DIGITS if quick else CLOTHES
    (train, test), count, rounds = data, 4000 if quick else 10_000, 5 if quick else 20
    held_out = composed(test.images, test.labels, names, 500 if quick else 4000, seed=1_000_000)
    spoken = ["a", "above", "below", "left", "right", "of", *dict.fromkeys(name for name in names if name)]
    words = Vocabulary.of(spoken, special=["<pad>", START, END])
    turns, side = 7, round(held_out.canvas.shape[1] ** 0.5)
    maps, hidden = ((24,), 64) if quick else ((16, 32, 64), 128)
    model = Captioner(side, maps, hidden, words, turns)
    optimizer = fg.optim.Adam(fg.optim.Cosine(0.003 if quick else 0.002, rounds * -(-count // 32)))
    trainer = fg.Trainer(model.costs, optimizer, device="cpu", threads=1)
    exact = []
    for number in range(rounds):  # every round of new pictures
        pictures = composed(train.images, train.labels, names, count, seed=number)
        trainer.fit(fed(pictures, words, turns), batch_size=32, progress=False)
        said = [caption_of(row, words) for row in trainer.predict(model.said, {"pictures": held_out.canvas})]
        right = [s in both for s, *both in zip(said, held_out.captions, held_out.others, strict=True)]
        exact.append(float(np.mean(right)))
        cost = trainer.history[-1]["caption"]
        print(f"round {number + 1}: cost {cost:.3f}, exact captions {exact[-1]:.4f}", flush=True)

    relation = np.array([" ".join(c.split()[2:-2]) for c in held_out.captions])
    pairs = zip(said, held_out.captions, strict=True)
    named = [set(s.split()) & set(names) == set(c.split()) & set(names) for s, c in pairs]
    wrong = np.flatnonzero(~np.array(right))[:2]
    shown = [*np.flatnonzero(right)[: 8 - len(wrong)], *wrong][:8]
    picture, axes = figure(2, 4, width=2.1, height=2.2)
    for ax, n in zip(axes.flat, shown, strict=False):
        ax.imshow(held_out.canvas[n].reshape(side, side), cmap="gray_r")
        ax.set(xticks=[], yticks=[])
        ax.set_title(said[n], fontsize=8, color="black" if right[n] else "#d1495b")
    save(picture, out / "captions.svg")
    picture, ax = figure(width=5)
    ax.plot(range(1, rounds + 1), exact)
    ax.set(xlabel=f"rounds of {count:,} pictures", ylabel="exact captions of test pictures", ylim=(0, 1))
    save(picture, out / "exact.svg")
    return {
        "exact": exact[-1],
        "rounds": exact,
        "by_relation": {r: float(np.mean(np.array(right)[relation == r])) for r in RELATIONS},
        "things_right": float(np.mean(named)),  # both named, whatever is said of where they are
        "train_pictures": rounds * count,
        "test_pictures": len(said),
        "words": len(words),
        "said": [said[n] for n in shown],
        "meant": [held_out.captions[n] for n in shown],
    }


def caption_of(row: np.ndarray, words: Vocabulary) -> str:
    """What is said before the first <end>."""
    said = words.decode(row)
    return " ".join(said[: said.index(END)] if END in said else said)


if __name__ == "__main__":
    run(main)
