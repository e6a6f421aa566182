"""Gradients in a network of five layers, by activation: they vanish, they explode, and clipping tames them.

The lecture's histograms of gradients by layer, for logistic, tanh, softsign, relu and softplus units, on the digits
that ship. `fg.Diagnostics` counts them in the steps of the first epoch, from Glorot's start. Then relu again, from
weights so large that every layer multiplies values by three: the cost is lost in a few steps, unless the gradients'
joint norm is clipped to 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flowgraph as fg
from examples.common import Results, figure, run, save

LAYERS, WIDTH, LARGE = 5, 50, 0.6
ACTIVATIONS = {
    "logistic": fg.logistic, "tanh": fg.tanh, "softsign": fg.softsign, "relu": fg.relu, "softplus": fg.softplus,
}  # fmt: skip


def network(activation: Any, init: Any = None, **optimiser: Any) -> fg.Trainer:
    x, y = fg.input("X", ("batch", 64)), fg.input("Y", ("batch",), "int32")
    h, weights, values = x, {}, {}
    for k in range(1, LAYERS + 1):
        layer = fg.nn.Dense(f"layer{k}", 64 if k == 1 else WIDTH, WIDTH, activation, init=init)
        h = values[f"h{k}"] = layer(h)
        weights[f"w{k}"] = layer.w
    logits = fg.nn.Dense("last", WIDTH, 10)(h)
    watch = fg.Diagnostics(weights | (values if activation is fg.relu else {}))
    return fg.Trainer(
        fg.cross_ent_of_softmax(logits, y), fg.optim.SGD(0.05, **optimiser), {"accuracy": fg.nn.accuracy(logits, y)},
        device="cpu", threads=1, diagnostics=watch,
    )  # fmt: skip


def main(quick: bool, out: Path) -> Results:
    epochs = 5 if quick else 60
    digits, test = fg.datasets.load_digits().split()
    data, held_out = ({"X": part.images, "Y": part.labels} for part in (digits, test))

    def fit(trainer: fg.Trainer) -> tuple[fg.Diagnostics, float]:
        """What was measured, and the accuracy in the end."""
        history = trainer.fit(data, epochs, validation=held_out, progress=False)
        assert trainer.diagnostics is not None
        return trainer.diagnostics, float(history[-1]["val_accuracy"])

    results: Results = {"epochs": epochs}
    picture, axes = figure(1, len(ACTIVATIONS), width=2.8, sharey=True)
    for ax, (name, activation) in zip(axes, ACTIVATIONS.items(), strict=True):
        watch, accuracy = fit(network(activation))
        slopes = [watch[f"w{k}"].gradient for k in range(1, LAYERS + 1)]
        fg.plots.histograms(watch, [f"w{k}" for k in range(1, LAYERS + 1)], row=0, ax=ax)
        ax.set(title=name, xlim=(1e-8, 1), ylabel="")
        results[name] = {"first_to_last": float(slopes[0].std[0] / slopes[-1].std[0]), "accuracy": accuracy}
        if activation is fg.relu:
            results[name]["zeros"] = [float(watch[f"h{k}"].saturated[0]) for k in range(1, LAYERS + 1)]
        print(name, results[name], flush=True)
    axes[0].set_ylabel("share of the layer's weights")
    axes[0].legend(frameon=False, fontsize="small")
    save(picture, out / "histograms.svg")

    try:
        fit(network(fg.relu, fg.init.normal(LARGE)))
        lost = "nothing"
    except fg.NumericsError as error:
        lost = error.problem
    watch, accuracy = fit(network(fg.relu, fg.init.normal(LARGE), clip_norm=1.0))
    results["large"] = {
        "lost": lost,
        "clipped_accuracy": accuracy,
        "values": [float(watch[f"h{k}"].values.std[0]) for k in range(1, LAYERS + 1)],
        "gradient": float(watch["w1"].gradient.std[0]),
    }
    print("large weights", results["large"], flush=True)
    return results


if __name__ == "__main__":
    run(main)
