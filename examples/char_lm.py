"""A language model of characters: the lecture's LSTM that writes Shakespeare, and what counting ten characters does.

In full: 37 plays (`load_shakespeare`). It learns the first 95 % of 35 of them; it is judged by the rest of each, and by
two plays that it never saw. Quick: The Tempest alone, its first 95 % and the rest.

Beside it Yoav Goldberg's answer to the lecture's examples: the ten last characters, looked up in the text. Its samples
look as good; but where the ten were not followed by the next one before, its probability is 0 and its cost infinite.
Backed off to shorter contexts (Witten and Bell 1991) counts have a finite cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import flowgraph as fg
from examples.common import Results, figure, run, save
from flowgraph.datasets import Vocabulary

CHECKPOINTS = Path("out") / "char_lm_checkpoints"  # of the full run: run it again, and it goes on
TEMPERATURES = (0.5, 0.8, 1.0)
ORDER = 10
SEED_TEXT = "\n\n"

State = tuple[fg.Tensor, ...]


class Model:
    """Embedding, LSTM, a softmax over characters. Time comes first: a row of the data is one character of every stream,
    and a minibatch, rows that follow one another, is a piece of every stream."""

    def __init__(self, characters: int, units: int) -> None:
        self.characters, self.units = characters, units
        self.embedding = fg.nn.Embedding("embedding", characters, 64)
        self.lstm = fg.nn.LSTM("lstm", 64, units)
        self.output = fg.nn.Dense("output", units, characters)

    def __call__(self, x: fg.Tensor, state: State) -> tuple[fg.Tensor, State]:
        """Logits (time · streams, characters) of what follows x (time, streams), and the state at the end."""
        hidden, state = self.lstm(fg.transpose(self.embedding(x), (1, 0, 2)), state=state)
        return self.output(fg.reshape(fg.transpose(hidden, (1, 0, 2)), (-1, self.units))), state

    def step_by_step(
        self, name: str, streams: int, anew: float = 0.0
    ) -> tuple[fg.Tensor, State, dict[fg.Tensor, fg.Tensor]]:
        """Cost of a piece; the state that it begins with, kept in parameters; and their updates, its state at the end.

        No gradient goes back beyond a piece: truncated backpropagation (Williams and Peng 1990). A share `anew` of
        pieces, at random, begins with an empty state, as texts do.
        """
        x, y = (fg.input(n, ("time", streams), "int32") for n in ("x", "y"))
        with fg.scope(name):
            state = tuple(fg.parameter(n, (streams, self.units)) for n in ("h", "c"))
        begin = state
        if anew:
            goes_on = fg.random.uniform((streams, 1)) >= anew
            begin = tuple(fg.where(goes_on, part, 0.0) for part in state)
        logits, new = self(x, begin)
        return fg.mean(fg.cross_ent_of_softmax(logits, fg.ravel(y))), state, dict(zip(state, new, strict=True))

    def sampler(self, length: int) -> fg.Program:
        """A program: the numbers `seed` (n, texts) and `temperature` (texts,) to what follows, (length, texts)."""
        texts = len(TEMPERATURES)
        seed = fg.input("seed", ("n", texts), "int32")
        temperature = fg.input("temperature", (texts,))
        draws = fg.random.Generator(1)

        def choose(logits: fg.Tensor) -> fg.Tensor:
            """One of softmax(logits / temperature), as the largest with Gumbel noise (Gumbel 1954)."""
            noise = -fg.log(-fg.log(fg.random.uniform(logits.shape, generator=draws)))
            return fg.cast(fg.argmax(logits / fg.expand_dims(temperature, 1) + noise, axis=1), "int32")

        def turn(carry: tuple[fg.Tensor, State], _: Any) -> tuple[tuple[fg.Tensor, State], fg.Tensor]:
            character, state = carry
            state = self.lstm.step(self.embedding(character), state)
            return (choose(self.output(state[0])), state), character

        zeros = fg.broadcast_to(fg.constant(0.0), (texts, self.units))
        _, state = self(seed, (zeros, zeros))
        _, written = fg.scan(turn, (choose(self.output(state[0])), state), length=length)
        return fg.compile(outputs=written, device="cpu", threads=1)


def as_streams(ids: np.ndarray, streams: int) -> dict[str, np.ndarray]:
    """A text cut into so many streams side by side: x (time, streams), and y, what follows each character."""
    time = (len(ids) - 1) // streams
    if not time:
        problem = f"{len(ids)} characters are too few for {streams} streams"
        raise fg.datasets.DatasetError(problem, hint=f"{streams + 1} at least")
    return {n: ids[k : k + time * streams].reshape(streams, time).T.copy() for k, n in enumerate("xy")}


class Judge(fg.Callback):
    """Measures nats a character on texts at the end of every epoch: from an empty state, carried through each text."""

    def __init__(self, model: Model, texts: dict[str, np.ndarray], streams: int) -> None:
        self.cost, self.carried, updates = model.step_by_step("judge", streams)
        self.program = fg.compile(outputs=self.cost, updates=updates, device="cpu", threads=1)
        self.data = {name: as_streams(ids, streams) for name, ids in texts.items()}
        self.found: dict[str, list[float]] = {name: [] for name in texts}

    def nats(self, data: dict[str, np.ndarray], piece: int = 256) -> float:
        for part in self.carried:
            part.value = np.zeros_like(part.value)
        total, time = 0.0, len(data["x"])
        for start in range(0, time, piece):
            x, y = (data[n][start : start + piece] for n in "xy")
            total += len(x) * float(self.program(x=x, y=y)[0])
        return total / time

    def on_epoch_end(self, trainer: fg.Trainer, row: Mapping[str, float]) -> None:
        for name, data in self.data.items():
            self.found[name].append(self.nats(data))
        now = ", ".join(f"{name} {nats[-1]:.3f}" for name, nats in self.found.items())
        print(f"epoch {row['epoch']}: training {row['loss']:.3f}, {now}, {row['seconds']:.0f} s", flush=True)

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return {}, {"found": self.found}

    def restore(self, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> None:
        self.found = about["found"]


class NGrams:
    """Counts of all n-grams up to `order` characters and the next one. N-grams are known by a hash of 64 bits."""

    def __init__(self, ids: np.ndarray, kinds: int, order: int) -> None:
        self.ids, self.kinds, self.order = ids, kinds, order
        self.counts = []
        for n in range(order + 1):  # of contexts of n characters
            grams, places, counts = np.unique(self.hashes(ids, n + 1), return_index=True, return_counts=True)
            contexts, inverse = np.unique(self.hashes(ids[:-1], n)[places], return_inverse=True)
            totals = np.bincount(inverse, counts)
            self.counts.append((grams, counts, contexts, totals, np.bincount(inverse)))
        contexts = self.hashes(ids[:-1], order)
        self.by_context = np.argsort(contexts, kind="stable")
        self.sorted = contexts[self.by_context]

    @staticmethod
    def hashes(ids: np.ndarray, n: int) -> np.ndarray:
        """Of the n characters from each place on, one uint64 for every place where there are so many."""
        found = np.zeros(len(ids) - max(n - 1, 0) + (n == 0), np.uint64)
        for k in range(n):
            found = found * np.uint64(0x9E3779B97F4A7C15) + ids[k : k + len(found)].astype(np.uint64) + np.uint64(1)
        return found

    def probabilities(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of every character that has `order` before it: by contexts of 0, 1, ... `order` characters, each backed off
        to shorter ones as Witten and Bell do, (order + 1, n); and by the longest one without smoothing, (n,)."""
        by_order, p = [], np.full(len(ids) - self.order, 1 / self.kinds)
        for n, (grams, counts, contexts, totals, followers) in enumerate(self.counts):
            first = self.order - n
            seen = looked_up(contexts, totals, self.hashes(ids[first:-1], n))
            kinds = looked_up(contexts, followers, self.hashes(ids[first:-1], n))
            both = looked_up(grams, counts, self.hashes(ids[first:], n + 1))
            p = np.where(seen > 0, (both + kinds * p) / np.maximum(seen + kinds, 1), p)
            by_order.append(p)
        return np.array(by_order), both / np.maximum(seen, 1)

    def write(self, ids: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
        """Go on from the last `order` of ids: each character as after some place where the text has the last ten."""
        written = list(ids)
        for _ in range(length):
            context = self.hashes(np.array(written[-self.order :]), self.order)[0]
            low, high = (np.searchsorted(self.sorted, context, side) for side in ("left", "right"))
            place = self.by_context[rng.integers(low, high)] if low < high else rng.integers(len(self.ids) - self.order)
            written.append(int(self.ids[place + self.order]))
        return np.array(written[len(ids) :])


def looked_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """values[k] where keys[k], sorted, is what is wanted; 0 where no key is."""
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0)


def texts(quick: bool) -> dict[str, str]:
    """What to learn, under "train"; and what to judge by."""
    if quick:
        text = fg.datasets.load_tempest().text
        cut = round(0.95 * len(text))
        return {"train": text[:cut], "last_part": text[cut:]}
    plays = fg.datasets.load_shakespeare()
    names = {"train": plays.train, "last_part": plays.validation, "new_plays": plays.test}
    return {name: "".join(play.text for play in part) for name, part in names.items()}


def main(quick: bool, out: Path) -> Results:
    units, streams, piece, epochs = (64, 16, 32, 6) if quick else (512, 32, 64, 3)
    text = texts(quick)
    vocabulary = Vocabulary.of(text["train"], special=[] if not quick else sorted(set(text["last_part"])))
    ids = {name: vocabulary.ids(content) for name, content in text.items()}
    judged = {name: numbers for name, numbers in ids.items() if name != "train"}

    model = Model(len(vocabulary), units)
    cost, _, updates = model.step_by_step("carried", streams, anew=0.02)
    data = as_streams(ids["train"], streams)
    steps = epochs * -(-len(data["x"]) // piece)
    rate = fg.optim.Warmup(steps // 40, fg.optim.Cosine(0.005 if quick else 0.003, steps=steps))
    adam = fg.optim.Adam(rate, clip_norm=1.0)
    trainer = fg.Trainer(cost, adam, updates=updates, device="cpu", threads=1)
    judge = Judge(model, judged, streams)
    saved = None if quick else fg.Checkpoints(CHECKPOINTS, steps=200, keep=1)
    history = trainer.fit(data, epochs, piece, shuffle=False, progress=False, callbacks=judge, checkpoint=saved)

    sampler = model.sampler(400 if quick else 800)
    begin = np.repeat(vocabulary.ids(SEED_TEXT)[:, None], len(TEMPERATURES), axis=1)
    written = sampler(seed=begin, temperature=np.array(TEMPERATURES, np.float32))[0]
    samples = {
        f"{t:g}".replace(".", "_"): "".join(vocabulary.decode(column))
        for t, column in zip(TEMPERATURES, written.T, strict=True)
    }

    grams = NGrams(ids["train"], len(vocabulary), ORDER)
    by_order, unseen = {}, {}
    for name, numbers in judged.items():
        smooth, plain = grams.probabilities(numbers)
        by_order[name], unseen[name] = -np.log(smooth).mean(axis=1), float((plain == 0).mean())
    best = int(by_order["last_part"].argmin())
    copied = "".join(vocabulary.decode(grams.write(ids["train"][:ORDER], len(written), np.random.default_rng(1))))

    draw(history.losses, judge.found, by_order["last_part"][best], epochs, out / "curve.svg")
    return {
        "nats": {name: found[-1] for name, found in judge.found.items()},
        "training_nats": history[-1]["loss"],
        "ngrams": {
            "by_order": {name: found.tolist() for name, found in by_order.items()},
            "best": {"order": best} | {name: float(found[best]) for name, found in by_order.items()},
            "unseen": unseen,
            "sample": copied,
        },
        "samples": samples,
        "characters": {name: len(content) for name, content in text.items()} | {"kinds": len(vocabulary)},
        "units": units,
        "epochs": epochs,
        "parameters": int(sum(p.value.size for p in trainer.parameters)),
    }


def draw(losses: np.ndarray, found: dict[str, list[float]], backed_off: float, epochs: int, path: Path) -> None:
    """Nats a character while it learns: in training, means of 1/20 of an epoch; and on the texts it is judged by."""
    picture, axes = figure(width=5)
    parts = np.array_split(losses, 20 * epochs)
    axes.plot((np.arange(len(parts)) + 1) / 20, [part.mean() for part in parts], label="training")
    for name, nats in found.items():
        axes.plot(range(1, epochs + 1), nats, "o-", label=name.replace("_", " "))
    axes.axhline(backed_off, color="#777777", linestyle=":", label="n-grams, last part")
    axes.set(xlabel="epoch", ylabel="nats a character", ylim=(min(min(n) for n in found.values()) - 0.3, 3.0))
    axes.legend()
    save(picture, path)


if __name__ == "__main__":
    run(main)
