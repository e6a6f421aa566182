"""What a convolution is: nine numbers slide over an image, and what they are decides what comes out.

The lecture's filters first: blur, sharpen, edges, each written down by hand and applied with `fg.conv2d`. Then filters
that nobody wrote down, those of a network with one convolution that has learned to tell images apart. Images are from
Fashion-MNIST; in `--quick` they are the handwritten digits that ship.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import flowgraph as fg
from examples.common import Results, figure, run, save

FILTERS = {
    "identity": [[0, 0, 0], [0, 1, 0], [0, 0, 0]],
    "blur": [[1 / 16, 2 / 16, 1 / 16], [2 / 16, 4 / 16, 2 / 16], [1 / 16, 2 / 16, 1 / 16]],
    "sharpen": [[0, -1, 0], [-1, 5, -1], [0, -1, 0]],
    "edges": [[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]],
    "upright edges": [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]],  # Sobel's
    "level edges": [[-1, -2, -1], [0, 0, 0], [1, 2, 1]],
    "emboss": [[-2, -1, 0], [-1, 1, 1], [0, 1, 2]],
}
FIXED = np.array(list(FILTERS.values()), np.float32)[:, None]  # (filters, channels, 3, 3)
MAPS = 8


def slid(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The definition: at every place the inner product of the filter and the 3×3 field around it, zeros outside."""
    around, found = np.pad(image, 1), np.zeros_like(image)
    for r in range(image.shape[0]):
        for c in range(image.shape[1]):
            found[r, c] = np.sum(around[r : r + 3, c : c + 3] * weights)
    return found


def draw(filters: np.ndarray, maps: np.ndarray, titles: list[str], path: Path) -> None:
    """Each filter above the map that it makes; blue is negative, red positive, white 0."""
    picture, axes = figure(2, len(filters), width=1.1, height=1.15)
    for k, (weights, values) in enumerate(zip(filters, maps, strict=True)):
        for ax, shown in ((axes[0, k], weights), (axes[1, k], values)):
            most = np.abs(shown).max() or 1
            ax.imshow(shown, cmap="RdBu_r", vmin=-most, vmax=most)
            ax.set(xticks=[], yticks=[])
        axes[0, k].set_title(titles[k], fontsize=8)
    save(picture, path)


def main(quick: bool, out: Path) -> Results:
    data: tuple[fg.datasets.Dataset, fg.datasets.Dataset]
    data = fg.datasets.load_digits().split() if quick else fg.datasets.load_fashion_mnist()
    (train, test), side = data, 8 if quick else 28
    image = test["images"][0].reshape(side, side)

    # Filters that somebody wrote down
    x = fg.input("x", ("batch", 1, side, side))
    convolve = fg.compile(outputs=fg.conv2d(x, fg.constant(FIXED), padding="same"), device="cpu", threads=1)
    maps = convolve(x=image[None, None])[0][0]
    error = max(float(np.abs(slid(image, w[0]) - m).max()) for w, m in zip(FIXED, maps, strict=True))
    draw(FIXED[:, 0], maps, list(FILTERS), out / "fixed.svg")
    flat = convolve(x=np.ones((1, 1, side, side), np.float32))[0][0, :, 1:-1, 1:-1]  # away from the border
    sums = dict(zip(FILTERS, flat.mean(axis=(1, 2)).tolist(), strict=True))

    # Filters that are learned
    images, labels = fg.input("images", ("batch", side * side)), fg.input("labels", ("batch",), dtype="int32")
    layer = fg.nn.Conv2D("conv", 1, MAPS, 3, fg.relu, padding="same")
    seen = layer(fg.reshape(images, ("batch", 1, side, side)))
    logits = fg.nn.Dense("logits", MAPS * (side // 4) ** 2, 10)(fg.nn.flatten(fg.nn.MaxPool2D(4)(seen)))
    metrics = {"accuracy": fg.nn.accuracy(logits, labels)}
    cost = fg.cross_ent_of_softmax(logits, labels)
    trainer = fg.Trainer(cost, fg.optim.Adam(0.01 if quick else 0.003), metrics, device="cpu", threads=1)
    before = layer.w.value[:, 0]
    history = trainer.fit(train, epochs=20 if quick else 5, batch_size=64, validation=test, progress=not quick)
    learned = layer.w.value[:, 0]
    draw(learned, trainer.predict(seen, {"images": image.reshape(1, -1)})[0], [f"map {k}" for k in range(MAPS)],
         out / "learned.svg")  # fmt: skip
    return {
        "filters": list(FILTERS),
        "largest_error": error,
        "of_a_flat_image": sums,
        "accuracy": history[-1]["val_accuracy"],
        "change": float(np.linalg.norm(learned - before) / np.linalg.norm(before)),
        "weights": sum(int(p.value.size) for p in layer.parameters),
        "weights_untied": MAPS * side**2 * (side**2 + 1),  # of a dense layer that makes maps of this size
    }


if __name__ == "__main__":
    run(main)
