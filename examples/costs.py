"""Quadratic cost or cross-entropy, logistic output or softmax: what a bad start does to each. On the digits that ship.

The lecture: networks of the 1990s had the quadratic cost, today's have a softmax layer and cross-entropy, whose
gradient at the logits is P - Y. Here are all four pairs on one network, 64-30-10, from the usual start and from one
that is certain that every image shows a 0: there all outputs are saturated, and wrong. The quadratic cost's gradient
has the slope of the saturated output as a factor, so it learns next to nothing for a long time (Nielsen's "learning
slowdown").
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import flowgraph as fg
from examples.common import Results, figure, run, save

RATES = {"quadratic": 3.0, "cross-entropy": 0.5}  # each learns well with its own from the usual start
STARTS = {"usual": 0.0, "saturated": 6.5}


def train(output: str, cost: str, sure: float, seed: int, epochs: int) -> np.ndarray:
    """The accuracy on the test part after each epoch."""
    x, y = fg.input("X", ("batch", 64)), fg.input("Y", ("batch",), "int32")
    hidden, last = fg.nn.Dense("hidden", 64, 30, fg.logistic), fg.nn.Dense("last", 30, 10, bias=False)
    b = fg.parameter("b", (10,), np.where(np.arange(10) == 0, sure, -sure))
    logits, target = fg.add_bias(last(hidden(x)), b), fg.one_hot(y, 10)
    if cost == "quadratic":
        a = fg.softmax(logits) if output == "softmax" else fg.logistic(logits)
        costs = 0.5 * fg.sum(fg.squared_error(a, target), axis=1)
    elif output == "softmax":
        costs = fg.cross_ent_of_softmax(logits, y)
    else:
        costs = fg.sum(fg.cross_ent_of_logistic(logits, target), axis=1)
    metrics = {"accuracy": fg.nn.accuracy(logits, y)}
    trainer = fg.Trainer(costs, fg.optim.SGD(RATES[cost]), metrics, device="cpu", seed=seed, threads=1)
    digits, test = fg.datasets.load_digits().split()
    held_out = {"X": test.images, "Y": test.labels}
    data = {"X": digits.images, "Y": digits.labels}
    return trainer.fit(data, epochs, validation=held_out, progress=False)["val_accuracy"]


def main(quick: bool, out: Path) -> Results:
    epochs, seeds = (15, 1) if quick else (60, 5)
    picture, axes = figure(1, 2, width=5, sharey=True)
    results: Results = {"epochs": epochs, "seeds": seeds}
    for ax, (start, sure) in zip(axes, STARTS.items(), strict=True):
        for output in ("logistic", "softmax"):
            for cost in RATES:
                curves = np.stack([train(output, cost, sure, seed, epochs) for seed in range(seeds)])
                mean = curves.mean(0)
                good = np.flatnonzero(mean >= 0.9)
                found: Results = {"accuracy": float(mean[-1]), "first": float(mean[0])}
                found["epochs_to_90"] = int(good[0]) + 1 if len(good) else None
                results[f"{start}_{output}_{cost}".replace("-", "_")] = found
                ax.plot(range(1, epochs + 1), mean, "-" if cost == "quadratic" else "--", label=f"{output}, {cost}")
                print(f"{start} start, {output} output, {cost}: {found}", flush=True)
        ax.set(title=f"{start} start", xlabel="epoch")
    axes[0].set_ylabel("accuracy on the test part")
    axes[1].legend(frameon=False)
    save(picture, out / "accuracy.svg")
    return results


if __name__ == "__main__":
    run(main)
