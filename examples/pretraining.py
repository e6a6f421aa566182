"""Stacked denoising autoencoders seed a deep logistic network: the first breakthrough, which the lecture recalls.

Five hidden layers of logistic units, which from random weights pass hardly any gradient to their first layers. Each is
first trained without labels, one after the other: to make its input again, from a corrupted copy, through its units.
Then the whole network is trained as usual. The same network from a random start is given as many epochs as both phases
have together. Full mode is on 10,000 images of Fashion-MNIST, quick mode on the small digits that ship.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import flowgraph as fg
from examples.common import Results, figure, run, save

LAYERS, NOISE, RATE = 5, 0.2, 0.1


def pretrain(images: np.ndarray, layers: list[fg.nn.Autoencoder], epochs: int, seed: int) -> list[float]:
    """Train each layer to copy the codes of the one before; returns the share of its cost that is left, for each."""
    left, codes = [], images
    for layer in layers:
        x = fg.input("X", ("batch", codes.shape[1]))
        cost = fg.sum(fg.binary_cross_ent(layer(fg.dropout(x, NOISE)), x), axis=1)
        trainer = fg.Trainer(cost, fg.optim.Adam(0.003), device="cpu", seed=seed, threads=1)
        losses = trainer.fit({"X": codes}, epochs, progress=False)["loss"]
        left.append(float(losses[-1] / losses[0]))
        codes = trainer.predict(layer.encode(x), {"X": codes})
    return left


def tune(layers: list[fg.nn.Autoencoder], parts: Any, epochs: int, seed: int) -> np.ndarray:
    """Train the layers and a softmax above them; returns the accuracy on the test part after each epoch."""
    known, test = parts
    x, y = fg.input("X", ("batch", known.images.shape[1])), fg.input("Y", ("batch",), "int32")
    h = x
    for layer in layers:
        h = layer.encode(h)
    logits = fg.nn.Dense("last", layers[-1].hidden, 10)(h)
    metrics = {"accuracy": fg.nn.accuracy(logits, y)}
    cost = fg.cross_ent_of_softmax(logits, y)
    trainer = fg.Trainer(cost, fg.optim.SGD(RATE), metrics, device="cpu", seed=seed, threads=1)
    data, held_out = ({"X": part.images, "Y": part.labels} for part in (known, test))
    return trainer.fit(data, epochs, validation=held_out, progress=False)["val_accuracy"]


def main(quick: bool, out: Path) -> Results:
    parts: Any = fg.datasets.load_digits().split()
    width, copying, tuning, seeds = 50, 15, 25, 1
    if not quick:
        known, test = fg.datasets.load_fashion_mnist()
        parts = known.take(slice(10_000)), test
        width, copying, tuning, seeds = 100, 10, 30, 5
    pixels, longer = parts[0].images.shape[1], tuning + LAYERS * copying

    def layers() -> list[fg.nn.Autoencoder]:
        sizes = [pixels, *[width] * LAYERS]
        return [fg.nn.Autoencoder(f"layer{k + 1}", sizes[k], width, tied=True) for k in range(LAYERS)]

    curves: dict[str, list[np.ndarray]] = {"pretrained": [], "random start": []}
    for seed in range(seeds):
        stack = layers()
        left = pretrain(parts[0].images, stack, copying, seed)
        curves["pretrained"].append(tune(stack, parts, tuning, seed))
        curves["random start"].append(tune(layers(), parts, longer, seed))
        print(seed, left, *(c[-1][[0, 4, -1]] for c in curves.values()), flush=True)
    picture, ax = figure(width=5)
    for (name, found), begin, color in zip(curves.items(), (LAYERS * copying, 0), ("C0", "C1"), strict=True):
        for k, curve in enumerate(found):
            ax.plot(begin + np.arange(1, len(curve) + 1), curve, color=color, label=name if k == 0 else None)
    ax.axvspan(0, LAYERS * copying, color="#777777", alpha=0.1, label="pretraining, without labels")
    ax.set(xlabel="epoch", ylabel="accuracy on the test part")
    ax.legend(frameon=False)
    save(picture, out / "accuracy.svg")
    return {
        "epochs": {"copying": copying, "tuning": tuning, "random_start": longer},
        "seeds": seeds,
        "cost_left": left,
        **{
            name.replace(" ", "_"): {
                "first": float(np.mean([c[0] for c in found])),
                "accuracy": float(np.mean([c[-1] for c in found])),
                "accuracies": [float(c[-1]) for c in found],
            }
            for name, found in curves.items()
        },
    }


if __name__ == "__main__":
    run(main)
