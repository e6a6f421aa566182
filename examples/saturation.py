"""Saturation and initialisation: the pictures of Glorot and Bengio (2010) that the lecture shows.

Networks of five hidden layers, tanh or logistic, from four kinds of first weights: N(0, 1), with which hundreds of
inputs add up to a large sum, so that units begin saturated; uniform in ±1/√n, the custom of the time; N(0, 1/√n), the
lecture's; and Glorot's. Recorded over the training is the mean and spread of each layer's values. Full mode is on
Fashion-MNIST, quick mode on the small digits that ship.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import flowgraph as fg
from examples.common import Results, figure, run, save

LAYERS, ROWS = 5, 30  # hidden layers; points of a curve


def customary(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Uniform in ±1/√n, a third of the variance that keeps that of the values (Glorot and Bengio 2010, equation 1)."""
    return generator.uniform(-1, 1, shape) / np.sqrt(shape[0])


STARTS = {
    "normal": ("N(0, 1)", fg.init.normal(1.0)),
    "customary": ("uniform ±1/√n", customary),
    "one_over_sqrt_n": ("N(0, 1/√n)", fg.init.one_over_sqrt_n()),
    "glorot": ("Glorot", fg.init.glorot_uniform()),
}


def train(
    activation: Any, init: Any, data: Any, width: int, epochs: int, seed: int
) -> tuple[fg.Diagnostics, float]:
    """What was measured on the way, and the share of the test part that is wrong in the end."""
    known, test = data
    pixels, batch_size = known.images.shape[1], 20
    x, y = fg.input("X", ("batch", pixels)), fg.input("Y", ("batch",), "int32")
    h, values = x, {}
    for k in range(1, LAYERS + 1):
        layer = fg.nn.Dense(f"layer{k}", pixels if k == 1 else width, width, activation, init=init)
        h = values[f"layer {k}"] = layer(h)
    logits = fg.nn.Dense("last", width, 10, init=init)(h)
    every = max(epochs * -(-len(known.images) // batch_size) // ROWS, 1)
    watch = fg.Diagnostics(values, every=every, histograms=False)
    trainer = fg.Trainer(
        fg.cross_ent_of_softmax(logits, y), fg.optim.SGD(0.05), {"accuracy": fg.nn.accuracy(logits, y)},
        device="cpu", threads=1, seed=seed, diagnostics=watch,
    )  # fmt: skip
    trainer.fit({"X": known.images, "Y": known.labels}, epochs, batch_size, progress=False)
    return watch, 1.0 - trainer.evaluate({"X": test.images, "Y": test.labels})["accuracy"]


def main(quick: bool, out: Path) -> Results:
    data = fg.datasets.load_digits().split() if quick else fg.datasets.load_fashion_mnist()
    width, epochs, seeds = (50, 10, 1) if quick else (100, 10, 3)
    results: Results = {"epochs": epochs, "seeds": seeds, "examples": len(data[0].images)}
    for activation, runs_each in ((fg.tanh, seeds), (fg.logistic, 1)):
        picture, axes = figure(1, len(STARTS), width=3, sharey=True)
        for ax, (name, (title, init)) in zip(axes, STARTS.items(), strict=True):
            runs = [train(activation, init, data, width, epochs, seed) for seed in range(runs_each)]
            watch, errors = runs[0][0], [error for _, error in runs]
            found = results[f"{activation.__name__}_{name}"] = {
                "error": float(np.mean(errors)),
                "errors": [float(e) for e in errors],
                "saturated": [[float(watch[layer].saturated[row]) for layer in watch] for row in (0, -1)],
                "std": [float(watch[layer].values.std[0]) for layer in watch],
                "mean": [float(watch[layer].values.mean[0]) for layer in watch],
            }
            print(activation.__name__, title, found["errors"], found["saturated"], flush=True)
            fg.plots.course(watch, ax=ax)
            ax.set(title=title, ylabel="")
        axes[0].set_ylabel(f"{activation.__name__} units: mean ± std")
        axes[-1].legend(frameon=False, fontsize="small")
        save(picture, out / f"{activation.__name__}.svg")
    return results


if __name__ == "__main__":
    run(main)
