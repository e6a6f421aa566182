"""The same models in PyTorch and in flowgraph learn the same: `python -m benchmarks.equivalence [MODEL ...]`

An LSTM, a CNN, skip-gram and an encoder and decoder with attention, each with the same first weights, data in the same
order and hyper-parameters. In float64 the losses of the first 100 steps must agree to a relative 1e-9, or the run
fails; in float32 the curves of some hundred steps are drawn over each other. Writes docs/pictures/equivalence.svg and
docs/equivalence/results.json, which the docs quote and the tests compare flowgraph with. Data are those that ship.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import flowgraph as fg
from benchmarks.contest import PEERS_PYTHON, ROOT
from examples.common import figure, save
from flowgraph.datasets.text import Vocabulary, pad, words

RESULTS = ROOT / "docs" / "equivalence" / "results.json"
STEPS, CURVE, TOLERANCE, BATCH = 100, 300, 1e-9, 32

Arrays = dict[str, np.ndarray]
Model = tuple[fg.Tensor, Arrays]  # a cost, data


def lstm(dtype: str) -> Model:
    """Digits read row by row."""
    digits = fg.datasets.load_digits()
    x, y = fg.input("x", ("batch", 8, 8), dtype), fg.input("y", ("batch",), "int32")
    _, (h, _) = fg.nn.LSTM("lstm", 8, 32, dtype=dtype)(x)
    logits = fg.nn.Dense("out", 32, 10, dtype=dtype)(h)
    data = {"x": digits.images.reshape(-1, 8, 8).astype(dtype), "y": digits.labels.astype(np.int32)}
    return fg.mean(fg.cross_ent_of_softmax(logits, y)), data


def cnn(dtype: str) -> Model:
    """Digits as images: two convolutions with pools, two dense layers."""
    digits = fg.datasets.load_digits()
    x, y = fg.input("x", ("batch", 1, 8, 8), dtype), fg.input("y", ("batch",), "int32")
    image = x
    for name, shape in (("conv1", (8, 1, 3, 3)), ("conv2", (16, 8, 3, 3))):
        w = fg.parameter(f"{name}/w", shape, fg.init.uniform(-0.3, 0.3), dtype)
        b = fg.parameter(f"{name}/b", shape[:1], fg.init.uniform(-0.1, 0.1), dtype)
        image = fg.max_pool2d(fg.relu(fg.conv2d(image, w, padding=1) + fg.reshape(b, (shape[0], 1, 1))), 2)
    hidden = fg.nn.Dense("hidden", 64, 32, fg.tanh, dtype=dtype)(fg.reshape(image, ("batch", 64)))
    logits = fg.nn.Dense("out", 32, 10, dtype=dtype)(hidden)
    data = {"x": digits.images.reshape(-1, 1, 8, 8).astype(dtype), "y": digits.labels.astype(np.int32)}
    return fg.mean(fg.cross_ent_of_softmax(logits, y)), data


def skip_gram(dtype: str) -> Model:
    """Neighbours in a play, and five words drawn in proportion to their counts for each."""
    tokens = words(fg.datasets.load_tempest().text)
    vocabulary = Vocabulary.of(tokens, min_count=3, unknown="<unk>")
    ids, draw = vocabulary.ids(tokens), np.random.default_rng(0)
    drawn = draw.choice(len(vocabulary), (len(ids) - 1, 5), p=vocabulary.counts / vocabulary.counts.sum())
    pairs = draw.permutation(len(ids) - 1)
    word, context = fg.input("word", ("batch",), "int32"), fg.input("context", ("batch", 6), "int32")
    of_words, of_contexts = (
        fg.nn.Embedding(table, len(vocabulary), 16, init=fg.init.normal(0.5), dtype=dtype)
        for table in ("words", "contexts")
    )
    scores = fg.sum(of_contexts(context) * fg.expand_dims(of_words(word), 1), axis=2)
    cost = fg.mean(fg.sum(fg.softplus(fg.where(fg.equal(fg.arange(6), 0), -scores, scores)), axis=1))
    return cost, {"word": ids[pairs], "context": np.column_stack([ids[1:], drawn])[pairs].astype(np.int32)}


def attention(dtype: str) -> Model:
    """Verses of Mark from Spanish into English."""
    verses = [(words(v.spanish), words(v.english)) for v in fg.datasets.load_mark()]
    short = [(s, e) for s, e in verses if len(s) <= 22 and len(e) <= 22][:256]
    spanish, english = (
        Vocabulary.of((w for pair in short for w in pair[side]), special=["<pad>", "<s>", "</s>"]) for side in (0, 1)
    )
    data: Arrays = {}
    data["source"], data["source_lengths"] = pad([spanish.ids(s) for s, _ in short])
    data["target"], data["lengths"] = pad([[1, *english.ids(e)] for _, e in short])
    data["following"], _ = pad([[*english.ids(e), 2] for _, e in short])
    model = fg.nn.EncoderDecoder("translate", len(spanish), len(english), 24, 32, attention="general", dtype=dtype)
    source, target, following = (
        fg.input(name, ("batch", data[name].shape[1]), "int32") for name in ("source", "target", "following")
    )
    source_lengths, lengths = (fg.input(name, ("batch",), "int32") for name in ("source_lengths", "lengths"))
    return fg.nn.sequence_cross_ent(model(source, source_lengths, target), following, lengths), data


MODELS: dict[str, tuple[Callable[[str], Model], Callable[[], fg.optim.Optimizer]]] = {
    "lstm": (lstm, lambda: fg.optim.SGD(0.1, momentum=0.9)),
    "cnn": (cnn, lambda: fg.optim.SGD(0.05, momentum=0.9, nesterov=True)),
    "skip-gram": (skip_gram, lambda: fg.optim.AdaGrad(0.1)),
    "attention": (attention, lambda: fg.optim.Adam(0.003)),
}


def begun(name: str, dtype: str) -> tuple[fg.Trainer, Arrays]:
    """A trainer that has done nothing yet, and its data."""
    build, optimiser = MODELS[name]
    cost, data = build(dtype)
    return fg.Trainer(cost, optimiser(), device="cpu", seed=0, threads=1), data


def losses(trainer: fg.Trainer, data: Arrays, steps: int) -> np.ndarray:
    """The loss of every step, before its update; examples in their order, the last batch of an epoch smaller."""
    epoch = -(-len(next(iter(data.values()))) // BATCH)
    whole, rest = divmod(steps, epoch)
    if whole:
        trainer.fit(data, whole, BATCH, shuffle=False, progress=False)
    if rest:
        trainer.fit({k: a[: rest * BATCH] for k, a in data.items()}, 1, BATCH, shuffle=False, progress=False)
    return trainer.history.losses


def by_torch(name: str, trainer: fg.Trainer, data: Arrays, steps: int) -> np.ndarray:
    """PyTorch's losses from the weights that the trainer begins with."""
    given = {f"weights/{p.label}": np.array(p.value) for p in trainer.parameters}
    given |= {f"data/{k}": a for k, a in data.items()}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "given.npz"
        np.savez(file, batch=BATCH, allow_pickle=False, **given)
        command = [str(PEERS_PYTHON), "-m", "benchmarks.peers.torch_models", name, str(file), str(steps)]
        done = subprocess.run(command, cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE)
    return np.array(json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(MODELS), help=f"of: {' '.join(MODELS)}")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(MODELS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    if not PEERS_PYTHON.exists():
        parser.error("there is no environment for the peers: run `make bench-peers-env`")
    found: dict[str, dict[str, Any]] = {}
    curves = {}
    for name in asked.names:
        found[name] = {}
        for dtype, steps in (("float64", STEPS), ("float32", CURVE)):
            trainer, data = begun(name, dtype)
            theirs = by_torch(name, trainer, data, steps)
            ours = losses(trainer, data, steps)
            apart = float(np.max(np.abs(ours - theirs)[:STEPS] / np.abs(theirs[:STEPS])))
            found[name][dtype] = {"apart": apart, "first": float(ours[0]), "last": float(ours[STEPS - 1])}
            print(f"{name:10} {dtype}: {ours[0]:.4f} to {ours[STEPS - 1]:.4f} in {STEPS} steps, apart by {apart:.1e}")
            if dtype == "float64":
                found[name]["torch"] = theirs.tolist()
            else:
                curves[name] = (ours, theirs)
    if wrong := [name for name, row in found.items() if not row["float64"]["apart"] <= TOLERANCE]:
        raise SystemExit(f"more than {TOLERANCE} apart in float64: {', '.join(wrong)}")
    if set(found) == set(MODELS):
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        draw(curves, ROOT / "docs" / "pictures" / "equivalence.svg")


def draw(curves: dict[str, tuple[np.ndarray, np.ndarray]], path: Path) -> None:
    """Both losses by step, in float32: PyTorch's broad and pale, flowgraph's thin on top of it."""
    picture, axes = figure(1, len(curves), width=3.0, height=2.4)
    for place, (name, (ours, theirs)) in zip(axes, curves.items(), strict=True):
        place.plot(theirs, color="#edae49", linewidth=3, label="PyTorch")
        place.plot(ours, color="#2a6f97", linewidth=0.7, label="flowgraph")
        place.set(title=name, xlabel="step")
    axes[0].set_ylabel("loss")
    axes[0].legend(frameon=False)
    save(picture, path)


if __name__ == "__main__":
    main()
