"""What a training remembers and what it refuses: cut epochs, stopped fits, weights, names."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.errors import CheckpointError, FlowgraphError, GraphError, InputError, NumericsError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(37, 3)).astype("f4")
DATA = {"x": X, "y": (X @ [1, 2, 3]).astype("f4")}


class Cut(fg.Callback):
    """Ctrl-C after the first native call."""

    def on_steps(self, trainer: fg.Trainer, steps: int) -> None:
        raise KeyboardInterrupt


def model() -> tuple[fg.Tensor, fg.Tensor]:
    x, y = fg.input("x", ("batch", 3)), fg.input("y", ("batch",))
    w = fg.parameter("w", (3,), np.zeros(3, "f4"))
    return (fg.sum(x * w, axis=1) - y) ** 2, w


def trainer(rate: float = 0.01, momentum: float = 0.0, **options: object) -> fg.Trainer:
    return fg.Trainer(model()[0], fg.optim.SGD(rate, momentum), device="cpu", **options)  # type: ignore[arg-type]


def test_an_epoch_that_other_batches_cannot_go_on_with_begins_anew(tmp_path: Path) -> None:
    cut = trainer().fit(DATA, 1, 8, progress=False, checkpoint=tmp_path, callbacks=Cut())
    assert cut.interrupted and len(cut) == 0
    with pytest.warns(RuntimeWarning, match="epoch 1 was cut short after 4 steps .* begins anew"):
        history = trainer().fit(DATA, 1, 4, progress=False, checkpoint=tmp_path)
    assert [row["epoch"] for row in history] == [1]


def test_no_epochs_are_none_even_after_one_was_cut_short() -> None:
    made = trainer()
    made.fit(DATA, 1, 8, progress=False, callbacks=Cut())
    assert len(made.fit(DATA, 0, 8, progress=False)) == 0
    assert [row["epoch"] for row in made.fit(DATA, 1, 8, progress=False)] == [1]


def test_a_script_that_early_stopping_ended_ends_there_again(tmp_path: Path) -> None:
    def script() -> tuple[int, list[float]]:
        made = trainer()
        early = fg.EarlyStopping(monitor="loss", patience=2, mode="max")
        history = made.fit(DATA, 20, 8, progress=False, callbacks=[early], checkpoint=tmp_path)
        return len(history), made.parameters[0].value.tolist()

    first = script()
    assert first[0] == 3
    assert [script(), script()] == [first, first]


def test_early_stopping_judges_each_fit_by_itself() -> None:
    early = fg.EarlyStopping(monitor="loss", patience=2, mode="max")
    made = trainer()
    assert len(made.fit(DATA, 20, 8, progress=False, callbacks=early)) == 3
    assert len(made.fit(DATA, 20, 8, progress=False, callbacks=early)) == 6


def test_early_stopping_knows_which_columns_are_costs() -> None:
    cost, w = model()
    made = fg.Trainer({"fit": cost, "size": fg.sum(w * w)}, fg.optim.SGD(0.01), device="cpu")
    early = fg.EarlyStopping("val_fit", patience=3)
    assert len(made.fit(DATA, 20, 8, validation=DATA, progress=False, callbacks=early)) == 20


@pytest.mark.parametrize("batch_size", [1, 8, 37])
def test_the_loss_of_an_epoch_is_weighted_as_the_costs_are(batch_size: int) -> None:
    weights = np.ones(37, "f4")
    weights[:5] = 100
    made = trainer(0.0, weighted=True)
    data = {**DATA, "sample_weight": weights}
    history = made.fit(data, 1, batch_size, validation=data, shuffle=False, progress=False)
    expected = np.average(DATA["y"].astype("f8") ** 2, weights=weights)
    assert history[-1]["loss"] == pytest.approx(expected, rel=1e-5)
    assert history[-1]["val_loss"] == pytest.approx(expected, rel=1e-5)
    assert "sample_weight" not in history[-1]
    assert made.evaluate(DATA)["loss"] == pytest.approx(np.mean(DATA["y"] ** 2), rel=1e-5)


def test_names_of_losses_and_metrics_are_distinct() -> None:
    cost, w = model()
    with pytest.raises(GraphError, match="a loss and a metric are both called 'fit'"):
        fg.Trainer({"fit": cost, "size": fg.sum(w * w)}, metrics={"fit": fg.sum(w)})


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_class_weights_are_finite_and_not_negative(weight: float) -> None:
    x, y = fg.input("x", ("batch", 3)), fg.input("y", ("batch",), "int32")
    cost = fg.cross_ent_of_softmax(x @ fg.parameter("w", (3, 2)), y)
    made = fg.Trainer(cost, device="reference", weighted=True)
    with pytest.raises(InputError, match="class_weight of class 0"):
        made.fit({"x": X, "y": np.arange(37) % 2}, class_weight={0: weight, 1: 3.0}, progress=False)


def test_centred_rmsprop_stays_finite_where_rounding_makes_a_spread_negative() -> None:
    slopes = np.linspace(0.1, 9.7, 64).astype("f4")
    x, w = fg.input("x", ("batch", 64)), fg.parameter("w", (64,))
    made = fg.Trainer(fg.sum(x * w, axis=1), fg.optim.RMSProp(1e-4, centered=True), device="cpu")
    made.fit({"x": np.tile(slopes, (500, 1))}, 8, 1, progress=False)
    assert np.isfinite(w.value).all()


@pytest.mark.parametrize("options", [{"keep": 1.5}, {"keep": 0}, {"steps": "a"}, {"steps": 0}])
def test_checkpoints_are_asked_for_in_whole_numbers(options: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="whole number"):
        fg.Checkpoints(tmp_path, **options)  # type: ignore[arg-type]


def test_what_another_process_is_writing_is_left_alone(tmp_path: Path) -> None:
    mine, other, gone = (tmp_path / f".0.safetensors.{pid}" for pid in (os.getpid(), os.getppid(), 2**22 + 1))
    for part in (mine, other, gone):
        part.touch()
    trainer().fit(DATA, 1, 8, progress=False, checkpoint=tmp_path)
    assert not mine.exists() and other.exists() and not gone.exists()


def test_a_checkpoint_of_other_callbacks_is_refused(tmp_path: Path) -> None:
    trainer().fit(DATA, 1, 8, progress=False, checkpoint=tmp_path, callbacks=fg.ReduceOnPlateau("loss"))
    with pytest.raises(CheckpointError, match="has the callbacks ReduceOnPlateau, this fit EarlyStopping"):
        trainer().fit(DATA, 2, 8, progress=False, checkpoint=tmp_path, callbacks=fg.EarlyStopping("loss"))


def test_one_name_or_tensor_is_frozen_without_a_list() -> None:
    x = fg.input("x", ("batch", 3))
    v, w = fg.parameter("encoder/v", (3,)), fg.parameter("w", (3,))
    for freeze in ("encoder/*", v, [v]):
        made = fg.Trainer(fg.sum(x * v * w, axis=1), device="reference", freeze=freeze)
        assert made.parameters == [w]


def test_predict_takes_the_models_data_and_no_rows() -> None:
    x, y, w = fg.input("x", ("batch", 3)), fg.input("y", ("batch",)), fg.parameter("w", (3,), [1.0, 2.0, 3.0])
    guess = fg.sum(x * w, axis=1)
    made = fg.Trainer((guess - y) ** 2, device="cpu")
    np.testing.assert_allclose(made.predict(guess, DATA), DATA["y"], rtol=1e-4, atol=1e-5)
    assert made.predict(guess, {"x": X[:0]}).shape == (0,)
    with pytest.raises(InputError, match="z"):
        made.predict(guess, {**DATA, "z": X})


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: fg.optim.SGD("0.1"),
        lambda: fg.optim.Adam(None),
        lambda: fg.optim.SGD(0.1, weight_decay="a"),
        lambda: fg.optim.Adam(betas=(0.9,)),
        lambda: fg.Trainer(model()[0], fg.optim.SGD),
        lambda: fg.EarlyStopping(patience="3"),
        lambda: fg.ReduceOnPlateau(factor=10.0),
        lambda: trainer().fit(DATA, validation=np.float32(2), progress=False),
    ],
)
def test_what_is_no_number_or_no_optimizer_is_said_so(wrong: object) -> None:
    with pytest.raises(FlowgraphError, match="test_training_state"):
        wrong()  # type: ignore[operator]


def test_a_fit_that_begins_with_a_lost_parameter_names_it() -> None:
    made = trainer(momentum=0.9)
    (w,) = made.parameters
    w.value = [1.0, np.nan, 2.0]
    with pytest.raises(NumericsError, match=r"the parameter 'w' is nan at \[1\] before anything is trained") as caught:
        made.fit(DATA, progress=False)
    assert "w = fg.parameter" in str(caught.value) and "trainer.load" in str(caught.value)
    assert len(made.history) == 0
    w.value = np.zeros(3)
    velocity = next(p for p in made.updates if p is not w)
    velocity.value = [0.0, 0.0, np.inf]
    with pytest.raises(NumericsError, match=r"'optimizer/w/velocity' is inf at \[2\]"):
        made.fit(DATA, progress=False)


def test_a_validation_cost_that_is_not_finite_is_treated_as_any_cost() -> None:
    made, far = trainer(), {"x": X * np.float32(1e30), "y": DATA["y"]}
    with pytest.raises(NumericsError, match="the validation cost was inf after epoch 1"):
        made.fit(DATA, 3, validation=far, progress=False)
    with pytest.warns(RuntimeWarning, match="the validation cost was inf after epoch 2") as caught:
        history = made.fit(DATA, 1, validation=far, on_nan="warn", progress=False)
    assert caught[0].filename == __file__ and np.isinf(history[-1]["val_loss"])


def test_weights_that_are_all_0_leave_nothing_to_learn() -> None:
    with pytest.raises(InputError, match="the weights of all 37 examples are 0"):
        trainer(weighted=True).fit(DATA, progress=False, sample_weight=np.zeros(37))


def test_a_mask_is_seen_in_a_data_set_and_in_a_part_that_is_held_out() -> None:
    masked = {"x": np.ma.masked_array(X, mask=X > 0), "y": DATA["y"]}
    for data in (masked, fg.datasets.Dataset(masked)):
        for validation in (None, 0.5):
            with pytest.raises(InputError, match="elements are masked"):
                trainer().fit(data, validation=validation, progress=False)
