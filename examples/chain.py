"""The lecture's trivial network, one logistic unit a layer: why gradients vanish, or explode.

Autodiff's gradient by the first bias is printed and drawn. It is a product with one factor w·s'(z) a layer, and s' is
at most 1/4: so weights of up to 1 make every factor at most 1/4, and only weights above 4 can make one larger than 1.
No data: the chains are drawn at random, many at once.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

import flowgraph as fg
from examples.common import Results, figure, run, save

LAYERS = 5


def main(quick: bool, out: Path) -> Results:
    x, y = fg.input("x", ("chains",)), fg.input("y", ("chains",))
    w = [fg.input(f"w{k}", ("chains",)) for k in range(1, LAYERS + 1)]
    b = [fg.input(f"b{k}", ("chains",)) for k in range(1, LAYERS + 1)]
    z, a = [], x
    for k in range(LAYERS):
        z.append(w[k] * a + b[k])
        a = fg.logistic(z[k])
        z[k].label, a.label = f"z{k + 1}", f"a{k + 1}"  # names for the picture
    cost = fg.sum(fg.cross_ent_of_logistic(z[-1], y))  # each chain's own, as no two share anything
    gradients = fg.grad(cost, b)
    factors = [fg.grad(fg.sum(after), before) for before, after in pairwise(z)]

    program = fg.compile(outputs=[*gradients, *factors], device="cpu", threads=1)
    first = fg.compile(outputs=gradients[0], device="cpu", threads=1)
    drawn = fg.show(first, out / "gradient.svg", stage="optimised", title="the gradient by the first bias")
    print(drawn.formulas)

    def measure(weights: np.ndarray, biases: np.ndarray, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The gradients by all biases, (layers, chains), and the factors between layers."""
        fed = {"x": inputs, "y": np.zeros_like(inputs)}
        fed |= {f"w{k + 1}": weights[k] for k in range(LAYERS)} | {f"b{k + 1}": biases[k] for k in range(LAYERS)}
        found = np.stack(program(**fed))
        return found[:LAYERS], found[LAYERS:]

    random, chains = np.random.default_rng(0), 1_000 if quick else 100_000
    small, shifts = random.uniform(-1, 1, (LAYERS, chains)), random.normal(size=(LAYERS, chains))
    inputs = random.normal(size=chains).astype(np.float32)
    slopes, parts = measure(small.astype(np.float32), shifts.astype(np.float32), inputs)
    product = slopes[-1] * parts.prod(0)
    wrong = float(np.abs(product - slopes[0]).max() / np.abs(slopes[0]).max())
    curves = {"small": np.abs(slopes).mean(1)}
    for size in (4.0, 8.0):  # biases that keep every unit where it is steepest, at z = 0
        weights = np.full((LAYERS, 1), size, np.float32)
        shifts = np.full((LAYERS, 1), -size / 2, np.float32)
        shifts[0] = 0.0
        slopes, _ = measure(weights, shifts, np.zeros(1, np.float32))
        curves[f"w{size:.0f}"] = np.abs(slopes).mean(1)

    picture, axes = figure(width=5)
    labels = ("|w| up to 1, at random", "w = 4, where it is steepest", "w = 8, where it is steepest")
    for name, curve in zip(labels, curves.values(), strict=True):
        axes.semilogy(range(1, LAYERS + 1), curve, "o-", label=name)
    axes.set(xlabel="layer, from the input", ylabel="|gradient by its bias|")
    axes.legend(frameon=False)
    save(picture, out / "gradients.svg")
    return {
        "layers": LAYERS,
        "chains": chains,
        "formulas": drawn.formulas.split("\n")[:-1],
        "largest_factor": float(np.abs(parts).max()),
        "error_of_the_product": wrong,
        "by_layer": {name: [float(v) for v in curve] for name, curve in curves.items()},
        "last_to_first": {name: float(curve[-1] / curve[0]) for name, curve in curves.items()},
    }


if __name__ == "__main__":
    run(main)
