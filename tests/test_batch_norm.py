"""BatchNorm and LayerNorm as layers: the batch's statistics in training, running averages where a model is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.errors import GraphError, ShapeError

rng = np.random.default_rng(0)
IMAGES = rng.normal(3, 2, (12, 4, 5, 6)).astype("f4")
AXES = (0, 2, 3)


def column(vector: np.ndarray) -> np.ndarray:
    return vector[:, None, None]


def normalised(x: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    return (x - column(mean)) / np.sqrt(column(variance) + 1e-5)


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_in_training_channels_are_normalised_by_the_batch(device: str) -> None:
    layer = fg.nn.BatchNorm("norm", 4)
    layer.scale.value, layer.shift.value = [1, 2, 3, 4], [0, 1, 2, 3]
    found = fg.compile(outputs=layer(fg.input("x", ("batch", 4, 5, 6))), device=device)(x=IMAGES)[0]
    expected = normalised(IMAGES.astype("f8"), IMAGES.mean(AXES), IMAGES.var(AXES))
    expected = expected * column(layer.scale.value) + column(layer.shift.value)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_where_it_is_used_they_are_normalised_by_the_running_averages(device: str) -> None:
    layer = fg.nn.BatchNorm("norm", 4)
    layer.mean.value, layer.variance.value = [1, 2, 3, 4], [4, 3, 2, 1]
    used = fg.inference(layer(fg.input("x", ("batch", 4, 5, 6))))
    found = fg.compile(outputs=used, device=device)(x=IMAGES)[0]
    np.testing.assert_allclose(found, normalised(IMAGES, layer.mean.value, layer.variance.value), rtol=1e-4, atol=1e-4)
    alone = fg.compile(outputs=used, device=device)(x=IMAGES[:1])[0]
    np.testing.assert_array_equal(alone, found[:1])


def test_any_axis_may_have_the_features() -> None:
    x = rng.normal(size=(3, 7, 5)).astype("f4")
    layer = fg.nn.BatchNorm("norm", 5, axis=-1)
    found = fg.compile(outputs=layer(fg.input("x", (3, 7, 5))), device="reference")(x=x)[0]
    np.testing.assert_allclose(found.mean((0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(found.std((0, 1)), 1, atol=1e-3)


def test_the_gradient_goes_through_the_statistics_of_the_batch() -> None:
    """As that of the function without averages, whose derivatives are tested as its ops' are."""
    x, weights = fg.input("x", ("batch", 5)), fg.input("weights", ("batch", 5))
    layer = fg.nn.BatchNorm("norm", 5)
    pair = [layer(x), fg.nn.batch_norm(x, layer.scale, layer.shift)]
    gradients = [fg.grad(fg.sum(fg.tanh(y) * weights), [x, layer.scale, layer.shift]) for y in pair]
    run = fg.compile([x, weights], [*gradients[0], *gradients[1]], device="reference")
    found = run(x=IMAGES[:, :, 0, :5].reshape(-1, 5), weights=rng.normal(size=(48, 5)).astype("f4"))
    for ours, expected in zip(found[:3], found[3:], strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-4)


def model(momentum: float = 0.9) -> tuple[fg.nn.BatchNorm, fg.Tensor, fg.Tensor]:
    x, y = fg.input("x", ("batch", 3)), fg.input("y", ("batch",))
    layer = fg.nn.BatchNorm("norm", 3, momentum=momentum)
    out = fg.reshape(fg.nn.Dense("out", 3, 1)(layer(x)), (-1,))
    return layer, out, fg.squared_error(out, y)


X = rng.normal([5, -3, 100], [1, 2, 10], (64, 3)).astype("f4")
DATA = {"x": X, "y": (X @ [1, 2, 0.1]).astype("f4")}


def trainer_of(cost: fg.Tensor, **how: Any) -> fg.Trainer:
    return fg.Trainer(cost, fg.optim.SGD(0.05), **({"device": "reference"} | how))


def test_a_trainer_updates_the_averages_at_every_step_and_no_gradient_does() -> None:
    layer, _, cost = model(momentum=0.75)
    trainer = trainer_of(cost)
    assert layer.mean not in trainer.parameters and layer.scale in trainer.parameters
    trainer.fit(DATA, epochs=1, batch_size=16, shuffle=False, progress=False)
    mean, variance = np.zeros(3), np.ones(3)
    for part in np.split(X.astype("f8"), 4):
        mean, variance = 0.75 * mean + 0.25 * part.mean(0), 0.75 * variance + 0.25 * part.var(0)
    np.testing.assert_allclose(layer.mean.value, mean, rtol=1e-5)
    np.testing.assert_allclose(layer.variance.value, variance, rtol=1e-5)


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_predictions_are_by_the_averages_so_that_examples_do_not_depend_on_each_other(device: str) -> None:
    layer, out, cost = model()
    trainer = trainer_of(cost, device=device)
    trainer.fit(DATA, epochs=60, batch_size=16, progress=False)
    together = trainer.predict(out, {"x": X})
    np.testing.assert_allclose(trainer.predict(out, {"x": X[:1]}), together[:1], rtol=1e-5)
    np.testing.assert_allclose(np.mean((together - DATA["y"]) ** 2), trainer.evaluate(DATA)["loss"], rtol=1e-3)
    assert trainer.evaluate(DATA)["loss"] < 0.1 * DATA["y"].var()
    before = layer.mean.value
    trainer.evaluate(DATA)
    np.testing.assert_array_equal(layer.mean.value, before)


def test_frozen_averages_stay_where_they_are() -> None:
    layer, _, cost = model()
    trainer_of(cost, freeze="norm/*").fit(DATA, epochs=1, progress=False)
    np.testing.assert_array_equal(layer.mean.value, 0)
    np.testing.assert_array_equal(layer.scale.value, 1)
    with pytest.raises(GraphError, match="every parameter is frozen"):
        trainer_of(model()[2], freeze=["norm/scale", "norm/shift", "out/*"])


def test_with_frozen_averages_training_is_by_them_as_use_is() -> None:
    layer, _, cost = model()
    layer.mean.value, layer.variance.value = X.mean(0), X.var(0)
    watched = fg.Diagnostics({"cost": cost})
    trainer = trainer_of(cost, freeze="norm/*", diagnostics=watched)
    trainer.fit(DATA, epochs=1, batch_size=16, progress=False)
    before = trainer.evaluate(DATA)["loss"]
    history = trainer.fit(DATA, epochs=1, batch_size=64, progress=False)
    np.testing.assert_allclose(history[-1]["loss"], before, rtol=1e-5)


def test_the_best_epochs_averages_are_put_back_with_its_weights() -> None:
    layer, _, cost = model()

    class Seen(fg.Callback):
        def __init__(self) -> None:
            self.means: list[np.ndarray] = []

        def on_epoch_end(self, trainer: fg.Trainer, row: Any) -> None:
            self.means.append(layer.mean.value)

    seen, early = Seen(), fg.EarlyStopping("loss", patience=2, mode="max")  # of a falling cost the first is best
    trainer_of(cost).fit(DATA, epochs=9, batch_size=16, progress=False, callbacks=[seen, early])
    assert len(seen.means) == 3
    np.testing.assert_array_equal(layer.mean.value, seen.means[0])


def test_with_accumulation_every_minibatch_counts() -> None:
    layer, _, cost = model(momentum=0.5)
    trainer_of(cost, accumulate=4).fit(DATA, epochs=1, batch_size=32, shuffle=False, progress=False)
    first, second = (part.astype("f8").mean(0) for part in np.split(X, 2))
    np.testing.assert_allclose(layer.mean.value, 0.25 * first + 0.5 * second, rtol=1e-5)


def test_a_checkpoint_has_the_averages(tmp_path: Path) -> None:
    layer, _, cost = model()
    trainer = trainer_of(cost)
    trainer.fit(DATA, epochs=1, progress=False)
    trainer.save(tmp_path / "state.safetensors")
    mean = layer.mean.value
    fresh, _, cost = model()
    trainer_of(cost).load(tmp_path / "state.safetensors")
    np.testing.assert_array_equal(fresh.mean.value, mean)


def test_a_step_of_ones_own_has_the_updates_too() -> None:
    layer, _, cost = model(momentum=0.0)
    inputs = [n.outputs[0] for n in fg.Graph((cost,)).nodes() if n.op.name == "input"]
    fg.compile(inputs, [fg.mean(cost)], updates=fg.nn.running_updates(cost), device="reference")(**DATA)
    np.testing.assert_allclose(layer.mean.value, X.astype("f8").mean(0), rtol=1e-5)


def test_a_layer_that_is_applied_twice_takes_up_both_batches() -> None:
    layer = fg.nn.BatchNorm("norm", 3, momentum=0.5)
    a, b = fg.input("a", ("batch", 3)), fg.input("b", ("batch", 3))
    both = fg.sum(layer(a)) + fg.sum(layer(b))
    updates = fg.nn.running_updates(both)
    assert set(updates) == {layer.mean, layer.variance}
    fg.compile([a, b], [both], updates=updates, device="reference")(a=X[:32], b=X[32:])
    first, second = (part.astype("f8").mean(0) for part in np.split(X, 2))
    np.testing.assert_allclose(layer.mean.value, 0.25 * first + 0.5 * second, rtol=1e-5)


def test_there_are_no_averages_within_a_loop() -> None:
    layer = fg.nn.BatchNorm("norm", 3)
    x = fg.input("x", ("batch", 4, 3))
    begin = fg.broadcast_to(fg.constant(0.0), ("batch", 3))
    last, _ = fg.scan(lambda h, t: (h + layer(t), None), begin, fg.swapaxes(x, 0, 1))
    with pytest.raises(GraphError, match="a running average within a loop") as error:
        trainer_of(fg.sum(last, axis=1))
    assert "LayerNorm" in str(error.value.hint)


def test_a_layer_norm_is_the_function_with_weights_of_its_own() -> None:
    layer = fg.nn.LayerNorm("norm", 6)
    layer.scale.value, layer.shift.value = np.arange(6), np.ones(6)
    found = fg.compile(outputs=layer(fg.input("x", (12, 4, 5, 6))), device="reference")(x=IMAGES)[0]
    x = IMAGES.astype("f8")
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * np.arange(6) + 1
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert [p.label for p in layer.parameters] == ["norm/scale", "norm/shift"]


def test_other_features_and_no_momentum_are_refused() -> None:
    with pytest.raises(ShapeError, match="BatchNorm 'norm' of 4 features along axis 1"):
        fg.nn.BatchNorm("norm", 4)(fg.input("x", ("batch", 5)))
    with pytest.raises(ShapeError, match="along axis 3"):
        fg.nn.BatchNorm("norm", 4, axis=3)(fg.input("x", ("batch", 4)))
    with pytest.raises(ShapeError, match="LayerNorm 'norm' of 4 features"):
        fg.nn.LayerNorm("norm", 4)(fg.input("x", ("batch", 5)))
    with pytest.raises(GraphError, match="momentum"):
        fg.nn.BatchNorm("norm", 4, momentum=1.0)
