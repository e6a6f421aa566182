"""A network like LeNet-5: convolution, pooling, convolution, pooling, then a normal network on what is left.

The lecture asks why one pools: to save space, to overfit less, and so that the next convolution, as small as the first,
sees more of the image. Here the maximum and the mean of each window are compared, on handwritten digits (8×8, which
ship) and on Fashion-MNIST (28×28). Then it is looked at what the maps of one image are, and which parts of which images
excite a unit of the second layer most. `--quick` has the digits only, and fewer epochs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import flowgraph as fg
from examples.common import Results, figure, run, save
from flowgraph.datasets.images import CLOTHES

FIELD = -3, 8  # a unit of the second layer at p sees 8 pixels from 2p - 3 on: convolution, 2×2 pooling, convolution
POOLINGS = {"max": fg.nn.MaxPool2D, "average": fg.nn.AvgPool2D}


class LeNet:
    """Two convolutions with relu, each followed by pooling of 2×2, and two dense layers, with dropout before each."""

    def __init__(self, side: int, maps: tuple[int, int], hidden: int, pooling: str) -> None:
        pool = POOLINGS[pooling](2)
        first = fg.nn.Conv2D("first", 1, maps[0], 3, fg.relu, padding="same")
        second = fg.nn.Conv2D("second", maps[0], maps[1], 3, fg.relu, padding="same")
        self.images = fg.input("images", ("batch", side * side))
        self.labels = fg.input("labels", ("batch",), dtype="int32")
        self.first_maps = first(fg.reshape(self.images, ("batch", 1, side, side)))
        self.second_maps = second(pool(self.first_maps))
        features = fg.nn.flatten(pool(self.second_maps))
        width = features.shape[1]
        assert isinstance(width, int)
        dense = fg.nn.Dense("dense", width, hidden, fg.relu, init=fg.init.he_normal())
        logits = fg.nn.Dense("logits", hidden, 10)
        self.logits = logits(fg.dropout(dense(fg.dropout(features, 0.25)), 0.5))
        self.cost = fg.cross_ent_of_softmax(self.logits, self.labels)


def shifted(images: np.ndarray, side: int) -> np.ndarray:
    """The images as they are and moved by one pixel to the eight sides, with zeros where nothing was: (9n, pixels)."""
    around = np.pad(images.reshape(-1, side, side), ((0, 0), (1, 1), (1, 1)))
    moved = [around[:, r : r + side, c : c + side] for r in range(3) for c in range(3)]
    return np.concatenate(moved).reshape(-1, side * side)


def trained(
    model: LeNet, train: fg.datasets.Dataset, test: fg.datasets.Dataset, epochs: int, batch: int, seed: int, loud: bool
) -> fg.Trainer:
    steps = epochs * -(-len(train) // batch)
    trainer = fg.Trainer(
        model.cost,
        fg.optim.Adam(fg.optim.Cosine(0.002, steps)),
        metrics={"accuracy": fg.nn.accuracy(model.logits, model.labels)},
        device="cpu", threads=1, seed=seed,
    )  # fmt: skip
    trainer.fit(train, epochs, batch, validation=test, progress=loud)
    return trainer


def strongest(maps: np.ndarray, images: np.ndarray, field: tuple[int, int], stride: int, count: int) -> np.ndarray:
    """For every unit the parts of images, one an image, that excite it most: (units, count, size, size).

    `maps` (n, units, rows, columns) are what the units say of `images` (n, side, side); the unit at (r, c) sees
    `size` pixels from stride·r + start on, and likewise of the columns, where `field` is (start, size).
    """
    start, size = field
    columns = maps.shape[3]
    around = np.pad(images, ((0, 0), (max(-start, 0), size), (max(-start, 0), size)))
    flat = maps.reshape(*maps.shape[:2], -1)
    best, where = flat.max(axis=2), flat.argmax(axis=2)
    found = np.zeros((maps.shape[1], count, size, size), images.dtype)
    for unit in range(maps.shape[1]):
        for k, n in enumerate(np.argsort(-best[:, unit], kind="stable")[:count]):
            row, column = (stride * p for p in divmod(int(where[n, unit]), columns))
            found[unit, k] = around[n, row : row + size, column : column + size]
    return found


def draw(trainer: fg.Trainer, model: LeNet, test: fg.datasets.Dataset, side: int, name: str, out: Path) -> None:
    """The maps of one test image, and what excites eight units of the second layer most."""
    one = {"images": test["images"][:1]}
    first, second = (trainer.predict(t, one)[0] for t in (model.first_maps, model.second_maps))
    picture, axes = figure(3, 8, width=0.8, height=0.8)
    shown = [test["images"][0].reshape(side, side), *[None] * 7, *first[:8], *second[:8]]
    for ax, values in zip(axes.flat, shown, strict=True):
        ax.axis("off")
        if values is not None:
            ax.imshow(values, cmap="gray_r")
    save(picture, out / f"{name}_maps.svg")
    some = test["images"][:2000]
    maps = trainer.predict(model.second_maps, {"images": some})
    lively = np.argsort(-maps.max(axis=(0, 2, 3)), kind="stable")[:8]
    patches = strongest(maps[:, lively], some.reshape(-1, side, side), FIELD, 2, 9)
    picture, axes = figure(8, 9, width=0.55, height=0.55)
    for row, unit in zip(axes, patches, strict=True):
        for ax, patch in zip(row, unit, strict=True):
            ax.axis("off")
            ax.imshow(patch, cmap="gray_r")
    save(picture, out / f"{name}_strongest.svg")


def main(quick: bool, out: Path) -> Results:
    digits, held_out = fg.datasets.load_digits().split()
    nine = fg.datasets.Dataset({"images": shifted(digits.images, 8), "labels": np.tile(digits.labels, 9)})
    results: Results = {"digits": {}, "digits_examples": [len(digits), len(held_out)]}
    for pooling in POOLINGS:
        scores = []
        for seed in range(1 if quick else 5):
            model = LeNet(8, (16, 32) if quick else (32, 64), 64 if quick else 128, pooling)
            trainer = trained(model, nine, held_out, 3 if quick else 12, 64, seed, loud=False)
            scores.append(trainer.history[-1]["val_accuracy"])
            print(f"digits, {pooling} pooling, seed {seed}: {scores[-1]:.4f}", flush=True)
            if pooling == "max" and seed == 0:
                draw(trainer, model, held_out, 8, "digits", out)
        results["digits"][pooling] = {"accuracy": float(np.mean(scores)), "seeds": scores}
    if quick:
        return results
    train, test = fg.datasets.load_fashion_mnist()
    picture, ax = figure(width=5)
    results |= {"fashion": {}, "fashion_examples": [len(train), len(test)]}
    for pooling in POOLINGS:
        model = LeNet(28, (32, 64), 256, pooling)
        trainer = trained(model, train, test, 10, 64, 0, loud=True)
        scores = [row["val_accuracy"] for row in trainer.history]
        said = trainer.predict(model.logits, {"images": test.images}).argmax(axis=1)
        by_class = [float((said[test.labels == c] == c).mean()) for c in range(10)]
        results["fashion"][pooling] = {
            "accuracy": scores[-1], "epochs": scores, "classes": dict(zip(CLOTHES, by_class, strict=True)),
            "train_accuracy": trainer.history[-1]["accuracy"],
        }  # fmt: skip
        ax.plot(range(1, 11), scores, label=f"{pooling} pooling")
        if pooling == "max":
            draw(trainer, model, test, 28, "fashion", out)
            fg.show(model.logits).save(out / "network.svg")
    ax.set(xlabel="epoch", ylabel="accuracy on the test images")
    ax.legend(frameon=False)
    save(picture, out / "accuracy.svg")
    return results


if __name__ == "__main__":
    run(main)
