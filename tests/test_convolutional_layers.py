"""Convolutional layers against their equations, written out in NumPy; where weights begin; what is refused."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.errors import GraphError, ShapeError

rng = np.random.default_rng(0)


def convolved(x: np.ndarray, w: np.ndarray, stride: int = 1, margin: int = 0) -> np.ndarray:
    """Window by window: x (n, c, h, w), w (o, c, *kernel)."""
    x = np.pad(x.astype("f8"), ((0, 0), (0, 0), (margin, margin), (margin, margin)))
    rows, columns = w.shape[2:]
    down = range(0, x.shape[2] - rows + 1, stride)
    right = range(0, x.shape[3] - columns + 1, stride)
    found = np.zeros((len(x), len(w), len(down), len(right)))
    for i, r in enumerate(down):
        for j, c in enumerate(right):
            found[:, :, i, j] = np.einsum("ncij,ocij->no", x[:, :, r : r + rows, c : c + columns], w.astype("f8"))
    return found


@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize(("stride", "padding", "margin"), [(1, "valid", 0), (1, "same", 1), (2, 1, 1)])
def test_a_layer_of_images_is_the_sum_over_its_windows(device: str, stride: int, padding: Any, margin: int) -> None:
    layer = fg.nn.Conv2D("layer", 3, 5, 3, fg.relu, stride=stride, padding=padding)
    assert layer.b is not None
    layer.b.value = rng.normal(size=5).astype("f4")
    images = rng.normal(size=(4, 3, 9, 8)).astype("f4")
    found = fg.compile(outputs=layer(fg.input("x", ("batch", 3, 9, 8))), device=device)(x=images)[0]
    expected = convolved(images, layer.w.value, stride, margin) + layer.b.value[:, None, None]
    np.testing.assert_allclose(found, np.maximum(expected, 0), rtol=1e-4, atol=1e-5)


def test_a_layer_of_sequences_is_one_of_images_one_pixel_high() -> None:
    layer = fg.nn.Conv1D("words", 4, 6, 3, padding="same")
    texts = rng.normal(size=(2, 4, 11)).astype("f4")
    found = fg.compile(outputs=layer(fg.input("x", ("batch", 4, "length"))), device="reference")(x=texts)[0]
    expected = convolved(np.pad(texts, ((0, 0), (0, 0), (1, 1)))[:, :, None], layer.w.value[:, :, None])
    np.testing.assert_allclose(found, expected[:, :, 0], rtol=1e-4, atol=1e-5)


def test_groups_see_their_own_channels_only() -> None:
    layer = fg.nn.Conv2D("layer", 4, 6, 1, groups=2, bias=False)
    assert layer.parameters == [layer.w] and layer.w.shape == (6, 2, 1, 1)
    images = rng.normal(size=(1, 4, 2, 2)).astype("f4")
    run = fg.compile(outputs=layer(fg.input("x", (1, 4, 2, 2))), device="reference")
    before = run(x=images)[0]
    images[:, 2:] += 1
    after = run(x=images)[0]
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert not np.allclose(before[:, 3:], after[:, 3:])


def test_weights_for_relu_begin_by_he_and_others_by_glorot() -> None:
    fan_in, fan_out = 16 * 25, 64 * 25
    w = fg.nn.Conv2D("a", 16, 64, 5, fg.relu).w.value
    np.testing.assert_allclose(w.std(), np.sqrt(2 / fan_in), rtol=0.03)
    w = fg.nn.Conv2D("b", 16, 64, 5, fg.tanh).w.value
    np.testing.assert_allclose(np.abs(w).max(), np.sqrt(6 / (fan_in + fan_out)), rtol=0.01)


def test_an_own_initialiser_is_given_the_axes_whose_fans_it_knows() -> None:
    asked = []

    def draw(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
        asked.append(shape)
        return np.arange(np.prod(shape)).reshape(shape)

    w = fg.nn.Conv2D("layer", 2, 3, (4, 5), init=draw).w.value
    assert asked == [(4, 5, 2, 3)] and w.shape == (3, 2, 4, 5)
    assert w[1, 0, 0, 0] == 1 and w[0, 1, 0, 0] == 3 and w[0, 0, 0, 1] == 6


def test_parameters_are_named_by_scope() -> None:
    with fg.scope("encoder"):
        layer = fg.nn.Conv2D("first", 1, 2, 3)
    assert [p.label for p in layer.parameters] == ["encoder/first/w", "encoder/first/b"]


POOLS: dict[str, tuple[Any, tuple[int, ...], Any]] = {
    "MaxPool1D": (fg.nn.MaxPool1D(2), (3, 4, 10), lambda x: x.reshape(3, 4, 5, 2).max(-1)),
    "AvgPool1D": (fg.nn.AvgPool1D(2), (3, 4, 10), lambda x: x.reshape(3, 4, 5, 2).mean(-1)),
    "MaxPool2D": (fg.nn.MaxPool2D((2, 3)), (3, 4, 6, 9), lambda x: x.reshape(3, 4, 3, 2, 3, 3).max((3, 5))),
    "AvgPool2D": (fg.nn.AvgPool2D((2, 3)), (3, 4, 6, 9), lambda x: x.reshape(3, 4, 3, 2, 3, 3).mean((3, 5))),
}


@pytest.mark.parametrize("name", POOLS)
def test_a_pooling_layer_is_numpys_reduction_of_windows(name: str) -> None:
    layer, shape, expected = POOLS[name]
    images = rng.normal(size=shape).astype("f4")
    found = fg.compile(outputs=layer(fg.input("x", shape)), device="reference")(x=images)[0]
    np.testing.assert_allclose(found, expected(images), rtol=1e-6, atol=1e-7)


def test_windows_may_overlap_and_be_padded() -> None:
    layer = fg.nn.MaxPool2D(3, stride=2, padding=1)
    assert layer(fg.input("x", (7, 20, 24, 24))).shape == (7, 20, 12, 12)


def test_flatten_keeps_examples_apart() -> None:
    images = rng.normal(size=(3, 2, 4, 5)).astype("f4")
    found = fg.compile(outputs=fg.nn.flatten(fg.input("x", ("batch", 2, 4, 5))), device="reference")(x=images)[0]
    np.testing.assert_array_equal(found, images.reshape(3, 40))


def refused(problem: str, make: Any) -> None:
    with pytest.raises((ShapeError, GraphError)) as error:
        make()
    assert re.search(problem, f"{error.value.problem}\n{error.value.hint}") and error.value.hint


def test_what_does_not_fit_is_refused() -> None:
    layer = fg.nn.Conv2D("layer", 3, 8, 5)
    gray = fg.input("x", ("batch", 1, 9, 9))
    refused(r"takes \(batch, 3, height, width\), got \(batch, 1, 9, 9\)", lambda: layer(gray))
    refused(r"takes \(batch, 3, height, width\), got \(batch, 9, 9\)", lambda: layer(fg.input("x", ("batch", 9, 9))))
    refused("a window of 5 elements does not fit an axis of 4", lambda: layer(fg.input("x", ("batch", 3, 4, 9))))
    refused("a window of 3 elements", lambda: fg.nn.MaxPool2D(3)(fg.input("x", ("batch", 3, 2, 9))))
    refused("channels come before them", lambda: fg.nn.MaxPool2D(2)(fg.input("x", ("batch", 8, 8, 1))))
    for pool in (fg.nn.MaxPool2D, fg.nn.AvgPool2D):
        for shape in (("batch", 8), ("batch", 8, 8)):
            refused(r"2D takes \(batch, channels, height, width\)", lambda p=pool, s=shape: p(2)(fg.input("x", s)))
    for pool in (fg.nn.MaxPool1D, fg.nn.AvgPool1D):
        refused(r"1D takes \(batch, channels, size\), got", lambda p=pool: p(2)(fg.input("x", ("batch", 8))))
    refused("kernel 0", lambda: fg.nn.Conv2D("layer", 3, 8, 0))
    refused("kernel .3, 3, 3.", lambda: fg.nn.Conv2D("layer", 3, 8, (3, 3, 3)))
    refused("3 channels and 8 maps do not divide into 2 groups", lambda: fg.nn.Conv2D("layer", 3, 8, 3, groups=2))
    refused("an activation is a function", lambda: fg.nn.Conv2D("layer", 3, 8, 3, "relu"))  # type: ignore[arg-type]
    refused("nn.flatten of a tensor of shape", lambda: fg.nn.flatten(fg.input("x", ("batch",))))


def test_a_small_network_learns_where_a_bar_is() -> None:
    """Bars, upright or level, at any place: no pixel tells, only what lies beside it."""
    images = np.zeros((256, 1, 8, 8), np.float32)
    labels = rng.integers(0, 2, 256).astype(np.int32)
    for image, label in zip(images, labels, strict=True):
        r, c = rng.integers(0, 6, 2)
        image[0, *((slice(r, r + 3), c) if label else (r, slice(c, c + 3)))] = 1
    x, y = fg.input("x", ("batch", 1, 8, 8)), fg.input("y", ("batch",), dtype="int32")
    maps = fg.nn.MaxPool2D(2)(fg.nn.Conv2D("conv", 1, 4, 3, fg.relu, padding="same")(x))
    logits = fg.nn.Dense("out", 64, 2)(fg.nn.flatten(maps))
    metrics = {"accuracy": fg.nn.accuracy(logits, y)}
    trainer = fg.Trainer(fg.cross_ent_of_softmax(logits, y), fg.optim.Adam(0.01), metrics, device="cpu", threads=1)
    history = trainer.fit({"x": images[:192], "y": labels[:192]}, epochs=20, batch_size=32, progress=False)
    assert history[-1]["accuracy"] > 0.95
    assert trainer.evaluate({"x": images[192:], "y": labels[192:]})["accuracy"] > 0.85
