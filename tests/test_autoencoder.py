"""Autoencoders against their equations in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import flowgraph as fg

X = np.random.default_rng(0).random((7, 5)).astype(np.float32)


def logistic(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize("tied", [False, True])
def test_it_encodes_and_decodes(tied: bool) -> None:
    x = fg.input("x", ("batch", 5))
    layer = fg.nn.Autoencoder("layer", 5, 3, tied=tied)
    layer.b.value = np.arange(5, dtype=np.float32)
    codes, copy = fg.compile(outputs=[layer.encode(x), layer(x)], device="reference")(x=X)
    w = layer.encoder.w.value
    expected = logistic(X @ w)
    back = w.T if tied else layer.w.value
    np.testing.assert_allclose(codes, expected, rtol=1e-5)
    np.testing.assert_allclose(copy, logistic(expected @ back + np.arange(5)), rtol=1e-5)


def test_other_activations_may_be_given_or_none() -> None:
    x = fg.input("x", ("batch", 5))
    layer = fg.nn.Autoencoder("layer", 5, 2, None, None, init=fg.init.normal())
    (copy,) = fg.compile(outputs=layer(x), device="reference")(x=X)
    np.testing.assert_allclose(copy, X @ layer.encoder.w.value @ layer.w.value, rtol=1e-4)


def test_parameters_are_named_by_the_layer_and_tied_ones_are_shared() -> None:
    names = ["layer/encoder/w", "layer/encoder/b", "layer/decoder/w", "layer/decoder/b"]
    for tied in (False, True):
        layer = fg.nn.Autoencoder("layer", 5, 3, tied=tied)
        assert [p.op.label for p in layer.parameters] == [n for n in names if not (tied and n == "layer/decoder/w")]
        x = fg.input("x", ("batch", 5))
        trainer = fg.Trainer(fg.sum(fg.squared_error(layer(x), x), axis=1), fg.optim.SGD(0.01), device="reference")
        assert trainer.parameters == layer.parameters


@pytest.mark.parametrize("tied", [False, True])
def test_it_learns_to_copy_what_fits_into_its_codes(tied: bool) -> None:
    rng = np.random.default_rng(1)
    data = (rng.random((200, 2)) @ rng.random((2, 8))).astype(np.float32)  # of rank two
    x = fg.input("x", ("batch", 8))
    layer = fg.nn.Autoencoder("layer", 8, 2, None, None, tied=tied)
    cost = fg.sum(fg.squared_error(layer(x), x), axis=1)
    trainer = fg.Trainer(cost, fg.optim.Adam(0.01), device="reference")
    history = trainer.fit({"x": data}, epochs=60, batch_size=20, progress=False)
    assert history[-1]["loss"] < 0.02 * history[0]["loss"]
