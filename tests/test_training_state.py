"""What a training remembers and what it refuses: cut epochs, stopped fits, weights, names."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.errors import (
    CheckpointError,
    DeviceError,
    FlowgraphError,
    GraphError,
    InputError,
    NumericsError,
    ShapeError,
)
from flowgraph.train import checkpoint
from flowgraph.train.costs import targets_of

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
    with (
        pytest.warns(RuntimeWarning, match="epoch 1 was cut short after 4 steps .* begins anew"),
        pytest.warns(RuntimeWarning, match="batch_size 8, now 4: it goes on with what is asked now$"),
    ):
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


def test_what_is_large_or_small_must_be_said_unless_a_name_says_it() -> None:
    cost, _ = model()
    made = fg.Trainer(cost, fg.optim.SGD(0.01), {"mae": fg.sqrt(cost), "accuracy": cost}, device="reference")
    with pytest.raises(GraphError, match="'mae': is a small one good, or a large one"):
        made.fit(DATA, 1, progress=False, callbacks=fg.EarlyStopping("mae"))
    made.fit(DATA, 1, progress=False, callbacks=[fg.EarlyStopping("mae", mode="min"), fg.EarlyStopping("accuracy")])


def test_a_plateau_never_raises_the_learning_rate() -> None:
    made = trainer(rate=1e-4)
    made.fit(DATA, 6, progress=False, callbacks=fg.ReduceOnPlateau("loss", patience=1, mode="max", least=1e-3))
    assert made.learning_rate == pytest.approx(1e-4)
    with pytest.raises(GraphError, match="least"):
        fg.ReduceOnPlateau("loss", least=-1.0)
    scheduled = fg.Trainer(model()[0], fg.optim.SGD(fg.optim.Cosine(0.1, steps=9)), device="reference")
    with pytest.raises(GraphError, match="computed by the program"):
        scheduled.fit(DATA, 1, progress=False, callbacks=fg.ReduceOnPlateau("loss"))
    assert len(scheduled.history) == 0


def test_diagnostics_are_no_callback_and_a_callback_may_be_one_that_has_items() -> None:
    class Walked(fg.Callback):
        def __iter__(self) -> object:
            return iter("ab")

    trainer().fit(DATA, 1, progress=False, callbacks=Walked())
    with pytest.raises(GraphError, match="diagnostics are part of the training step"):
        trainer().fit(DATA, 1, progress=False, callbacks=fg.Diagnostics({"cost": model()[0]}))


def test_the_losses_of_a_checkpoint_are_arrays_and_what_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    """A header of text has a limit, which millions of steps would meet."""
    first = trainer()
    first.fit(DATA, 3, 8, progress=False)
    arrays, about = first.state()
    assert len(arrays["<history>losses"]) == 15 and "losses" not in about
    first.save(tmp_path / "whole")
    second = trainer()
    second.load(tmp_path / "whole")
    np.testing.assert_array_equal(second.history.losses, first.history.losses)

    class Odd(fg.Callback):
        def state(self) -> tuple[dict[str, np.ndarray], dict[str, object]]:
            return {}, {"best": np.float32(1)}

    with pytest.raises(CheckpointError, match="JSON cannot hold"):
        trainer().fit(DATA, 1, progress=False, callbacks=Odd(), checkpoint=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["whole"]


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
        made.fit({"x": X, "y": (np.arange(37) % 2).astype("i4")}, class_weight={0: weight, 1: 3.0}, progress=False)


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
        lambda: fg.ReduceOnPlateau(factor="a"),
        lambda: fg.EarlyStopping(min_delta="a"),
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


# What is asked for, and cannot be: said at the user's line, before anything is trained


def told(kind: type[FlowgraphError], action: Callable[[], object]) -> str:
    """The message; its place is in this file."""
    with pytest.raises(kind) as caught:
        action()
    assert f"{__file__}:" in str(caught.value), caught.value
    return str(caught.value)


@pytest.mark.parametrize("options", [{"device": "gpu"}, {"device": 0}, {"device": "cpu:0"}])
def test_a_device_is_checked_where_the_trainer_is_made(options: dict[str, object]) -> None:
    message = told(DeviceError, lambda: fg.Trainer(model()[0], **options))  # type: ignore[arg-type]
    assert "'cpu'" in message


def test_threads_are_checked_where_the_trainer_is_made() -> None:
    assert "threads is a whole number" in told(InputError, lambda: trainer(threads=0))


def test_metrics_are_tensors_by_name() -> None:
    cost, w = model()
    for wrong in (cost, [cost], {1: cost}):
        assert "metric" in told(GraphError, lambda wrong=wrong: fg.Trainer(cost, metrics=wrong))
    message = told(ShapeError, lambda: fg.Trainer(cost, metrics={"w": w}))
    assert "the metric 'w' must be a scalar or one number an example" in message


def test_two_parameters_of_one_name_are_seen_where_the_trainer_is_made() -> None:
    x = fg.input("x", ("batch", 3))
    cost = fg.sum(x * fg.parameter("w", (3,)) + x * fg.parameter("w", (3,)), axis=1)
    assert "two parameters are called 'w'" in told(GraphError, lambda: fg.Trainer(cost, device="reference"))


def test_a_batch_of_fixed_size_is_declared_with_a_name() -> None:
    x = fg.input("x", (32, 3))
    cost = fg.mean(x @ fg.parameter("w", (3,)))
    message = told(ShapeError, lambda: fg.Trainer(cost, device="reference"))
    assert "(32, 3), needs a name" in message and 'fg.input("x", ("batch", 3))' in message


def test_data_are_one_dict() -> None:
    message = told(InputError, lambda: trainer().fit(X, DATA["y"]))  # type: ignore[arg-type]
    assert "an array of float32(37, 3)" in message and "{'x': ..., 'y': ...}" in message


def test_callbacks_are_objects() -> None:
    for wrong, hint in ((fg.EarlyStopping, "EarlyStopping()"), ([fg.EarlyStopping], "EarlyStopping()"), (print, "on_")):
        message = told(GraphError, lambda wrong=wrong: trainer().fit(DATA, callbacks=wrong, progress=False))
        assert hint in message


def test_a_callback_without_its_column_stops_before_the_first_epoch() -> None:
    made = trainer()
    assert "val_loss" in told(GraphError, lambda: made.fit(DATA, callbacks=fg.EarlyStopping(), progress=False))
    assert len(made.history) == 0 and not made.parameters[0].value.any()


@pytest.mark.parametrize(
    ("settings", "hint"), [({"checkpoint": 5}, "fg.Checkpoints"), ({"progress": 0}, "True, False, or an object")]
)
def test_other_settings_of_a_fit_are_named(settings: dict[str, object], hint: str) -> None:
    assert hint in told(InputError, lambda: trainer().fit(DATA, **settings))  # type: ignore[arg-type]


def test_a_folder_that_cannot_be_written_to_stops_before_the_first_epoch(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    made = trainer()
    folder = tmp_path / "file" / "runs"
    message = told(CheckpointError, lambda: made.fit(DATA, checkpoint=folder, progress=False))
    assert "cannot write checkpoints" in message and len(made.history) == 0


def test_what_is_to_be_predicted_is_a_tensor() -> None:
    made = trainer()
    for wrong in (DATA, "w", None):
        told(GraphError, lambda wrong=wrong: made.predict(wrong, DATA))  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [[1, 2], {"0": 1.0}, {0: "a"}, "balance"])
def test_weights_of_classes_are_numbers_by_number(wrong: object) -> None:
    x, y = fg.input("x", ("batch", 3)), fg.input("y", ("batch",), "int32")
    cost = fg.cross_ent_of_softmax(x @ fg.parameter("w", (3, 2)), y)
    made = fg.Trainer(cost, device="reference", weighted=True)
    data = {"x": X, "y": np.zeros(37, np.int32)}
    assert "class_weight" in told(InputError, lambda: made.fit(data, class_weight=wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "meant"),
    [({"lr": 0.1}, "learning_rate"), ({"eps": 1.0}, "epsilon"), ({"clipnorm": 1.0}, "clip_norm"), ({"rate": 1}, "le")],
)
def test_a_setting_of_an_optimiser_under_another_name_is_recognised(settings: dict[str, float], meant: str) -> None:
    message = told(GraphError, lambda: fg.optim.Adam(**settings))  # type: ignore[arg-type]
    assert f"Adam has no setting {next(iter(settings))!r}" in message and f"did you mean '{meant}" in message


def test_messages_name_the_users_own_sizes() -> None:
    message = told(ShapeError, lambda: trainer().fit({**DATA, "y": DATA["y"][:, None]}, progress=False))
    assert "declared with shape (batch,), got (37, 1)" in message and "y[:, 0]" in message
    message = told(ShapeError, lambda: trainer().fit({**DATA, "x": X[:, :2]}, progress=False))
    assert "declared with shape (batch, 3), got (37, 2): axis 1 is 2, not 3" in message


def test_a_scalar_input_is_fed_as_it_is_at_every_step() -> None:
    (cost, w), factor = model(), fg.input("factor", ())
    made = fg.Trainer(cost * factor, fg.optim.SGD(0.01), device="cpu")
    data = {name: array.tolist() for name, array in DATA.items()} | {"factor": 3.0}
    history = made.fit(data, 2, 8, validation=0.25, shuffle=False, progress=False)
    assert len(history) == 2 and w.value.any()
    assert made.evaluate({**DATA, "factor": 2.0})["loss"] == pytest.approx(
        2 * made.evaluate({**DATA, "factor": 1.0})["loss"], rel=1e-5
    )
    assert made.predict(cost * factor, {**DATA, "factor": 0.0}).shape == (37,)


def test_a_trainer_says_what_it_is() -> None:
    assert repr(trainer()) == "<Trainer of 'w' by SGD: 'loss' after 0 epochs>"


def sequences(*, one_hot: bool, weighted: bool = True) -> tuple[fg.Trainer, dict[str, np.ndarray]]:
    """A classifier of sequences: their lengths are whole numbers, too."""
    x, lengths = fg.input("x", ("batch", "time", 3)), fg.input("n", ("batch",), "int32")
    y = fg.input("y", ("batch", 2)) if one_hot else fg.input("y", ("batch",), "int32")
    _, (last,) = fg.nn.RNN("rnn", 3, 4)(x, lengths)
    cost = fg.cross_ent_of_softmax(fg.nn.Dense("out", 4, 2)(last), y)
    made = fg.Trainer(cost, fg.optim.SGD(0.0), device="cpu", weighted=weighted)
    y_data = np.array([0, 0, 0, 0, 0, 1], np.int32)
    fed = {"x": RNG.normal(size=(6, 5, 3)).astype("f4"), "n": np.array([1, 1, 2, 2, 5, 5], np.int32)}
    return made, {**fed, "y": np.eye(2, dtype="f4")[y_data] if one_hot else y_data}


def test_class_weights_are_of_what_the_cost_compares_with_not_of_lengths() -> None:
    made, data = sequences(one_hot=False)
    balanced = made.fit(data, class_weight="balanced", batch_size=6, progress=False)[-1]["loss"]
    by_hand = np.where(data["y"] == 1, 3.0, 0.6).astype("f4")
    assert balanced == made.fit(data, sample_weight=by_hand, batch_size=6, progress=False)[-1]["loss"]
    assert balanced != made.fit(data, batch_size=6, progress=False)[-1]["loss"]


def test_class_weights_need_class_numbers_among_the_targets() -> None:
    made, data = sequences(one_hot=True)
    message = told(InputError, lambda: made.fit(data, class_weight={0: 1.0, 1: 2.0}, progress=False))
    assert "it has none" in message and "sample_weight=weights[y]" in message


def test_a_class_that_there_is_not_has_no_weight() -> None:
    made, data = sequences(one_hot=False)
    for kind in (2, -1):
        weights = {0: 1.0, 1: 2.0, kind: 3.0}
        message = told(InputError, lambda weights=weights: made.fit(data, class_weight=weights, progress=False))
        assert f"class_weight has class {kind}; those of 'y' are from 0 to 1" in message


@pytest.mark.parametrize("bad", [float("nan"), -2.0])
def test_a_bad_weight_of_an_example_is_named_with_its_place(bad: float) -> None:
    made, data = sequences(one_hot=False)
    weights = np.ones(6)
    weights[4] = bad
    assert f"sample_weight[4] = {bad:g}" in told(InputError, lambda: made.fit(data, sample_weight=weights))


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"x": np.full((4, 3), np.inf, "f4"), "y": np.zeros(4, "f4")}, NumericsError),
        ({"x": np.zeros((4, 2), "f4"), "y": np.zeros(4, "f4")}, ShapeError),
        ({"x": np.zeros((4, 3), "f4")}, InputError),
    ],
)
def test_bad_validation_data_are_called_so(changed: dict[str, np.ndarray], error: type[FlowgraphError]) -> None:
    made = trainer()
    assert told(error, lambda: made.fit(DATA, validation=changed)).startswith("validation data: ")
    assert "validation" not in told(error, lambda: made.fit(changed))


def test_a_row_number_out_of_range_in_validation_names_no_example_of_the_training() -> None:
    x, y = fg.input("x", ("batch",)), fg.input("y", ("batch",))
    row = fg.cast(x * fg.constant(10.0), "int32")  # which only the program knows
    cost = fg.square(fg.take(fg.parameter("w", (5,), np.zeros(5, "f4")), row) - y)
    made = fg.Trainer(cost, fg.optim.SGD(0.1), device="cpu")
    good = {"x": np.full(6, 0.2, "f4"), "y": np.zeros(6, "f4")}
    bad = good | {"x": np.array([0.2, 0.2, 0.2, 0.2, 0.9, 0.2], "f4")}
    message = told(InputError, lambda: made.fit(good, validation=bad, batch_size=2, progress=False))
    assert message.startswith("validation data: ") and "(examples" not in message and "got 9" in message
    message = told(InputError, lambda: made.fit(bad, validation=good, batch_size=2, progress=False, shuffle=False))
    assert "step 3 of 3 (examples 4, 5)" in message and "validation" not in message


def test_a_training_that_goes_on_says_what_is_asked_of_it_now(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer(0.01, 0.5).fit(DATA, 1, 8, progress=False, checkpoint=tmp_path)
    trainer(0.01, 0.5).fit(DATA, 2, 8, checkpoint=tmp_path)
    assert f"going on from {tmp_path / '00000001-00000000.safetensors'}, after epoch 1" in capsys.readouterr().err
    less = {name: array[:30] for name, array in DATA.items()}
    other = trainer(0.5, 0.9)
    with pytest.warns(RuntimeWarning) as caught:
        other.fit(less, 3, 5, progress=False, checkpoint=tmp_path)
    (warned,) = caught
    assert warned.filename == __file__
    for part in (
        "optimizer SGD(0.01, momentum=0.5), now SGD(0.5, momentum=0.9)",
        "examples 37, now 30",
        "batch_size 8, now 5",
        "the learning rate is 0.01",
    ):
        assert part in str(warned.message)
    assert other.learning_rate == 0.01


def test_early_stopping_says_which_epoch_it_put_back(capsys: pytest.CaptureFixture[str]) -> None:
    stop = fg.EarlyStopping("loss", patience=2, min_delta=1e9)
    history = trainer().fit(DATA, 20, 8, callbacks=stop)
    assert len(history) == 3 and history.restored == stop.best_epoch == 1
    assert "epoch 1's parameters were put back" in capsys.readouterr().err


def test_a_column_that_there_is_not_is_told_with_those_there_are() -> None:
    history = trainer().fit(DATA, progress=False)
    with pytest.raises(KeyError, match="no column 'lss'; it has 'epoch', 'loss', 'seconds'"):
        history["lss"]


def test_a_cost_of_every_word_is_told_how_padding_is_left_out() -> None:
    logits, y = fg.input("x", ("batch", "time", 3)), fg.input("y", ("batch", "time"), "int32")
    cost = fg.cross_ent_of_softmax(logits * fg.parameter("w", (3,)), y)
    assert "fg.nn.sequence_cross_ent leaves out padding" in told(ShapeError, lambda: fg.Trainer(cost))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"shuffle": False}, "shuffle True, now False"),
        ({"accumulate": 4}, "accumulate 2, now 4"),
        ({"rate": fg.optim.Cosine(0.5, 10)}, "optimizer SGD(Cosine(0.1, 10, 0)), now SGD(Cosine(0.5, 10, 0))"),
    ],
)
def test_every_setting_that_was_changed_is_told(tmp_path: Path, changed: dict[str, object], said: str) -> None:
    made: dict[str, object] = {"rate": fg.optim.Cosine(0.1, 10), "accumulate": 2}
    for epochs, asked in ((1, {}), (2, changed)):
        fresh = trainer(**(made | {n: v for n, v in asked.items() if n != "shuffle"}))  # type: ignore[arg-type]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fresh.fit(DATA, epochs, 8, shuffle="shuffle" not in asked, progress=False, checkpoint=tmp_path)
    assert [said in str(warned.message) for warned in caught] == [True]


def test_settings_that_are_the_same_are_not_told(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    cost, _ = model()
    for epochs, betas, batch in ((1, (0.8, 0.9), 8), (2, [np.float64(0.8), 0.9], np.int64(8))):
        made = fg.Trainer(cost, fg.optim.Adam(1e-2, betas), device="reference")  # type: ignore[arg-type]
        made.fit(DATA, epochs, batch, progress=False, checkpoint=tmp_path, shuffle=np.bool_(True))  # type: ignore[arg-type]
    assert len(made.history) == 2 and not recwarn.list


def test_going_back_to_a_checkpoint_of_ones_own_is_no_change(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    made = trainer()
    made.fit(DATA, 1, 4, progress=False)
    made.save(tmp_path / "one")
    made.fit(DATA, 1, 6, progress=False)
    made.load(tmp_path / "one")
    made.fit(DATA, 1, 4, progress=False)
    assert not recwarn.list


def test_an_optimiser_of_ones_own_is_described_as_far_as_it_can_be() -> None:
    class Own(fg.optim.SGD):
        def __init__(self, rate: float, step: int = 3, scales: object = None) -> None:
            super().__init__(rate, momentum=0.5)
            self.scales = scales

    assert repr(Own(0.1, scales=np.ones(3))) == "Own(0.1, momentum=0.5)"
    trainer_of_it = fg.Trainer(model()[0], Own(0.1, scales=np.ones(3)), device="reference")
    assert len(trainer_of_it.fit(DATA, progress=False)) == 1
    w = fg.parameter("rate", (), np.float32(0.5))
    assert repr(fg.optim.SGD(w)) == "SGD(...)"


def test_a_checkpoint_that_says_nothing_of_settings_is_taken_up(tmp_path: Path) -> None:
    stop = fg.EarlyStopping("loss")
    once = trainer()
    once.fit(DATA, 1, 8, progress=False, callbacks=stop)
    arrays, about = once.state()
    del about["settings"], about["told"]["callback 0"]["best_epoch"]
    checkpoint.write(tmp_path / "00000001-00000000.safetensors", arrays, about)
    history = trainer().fit(DATA, 2, 8, progress=False, callbacks=fg.EarlyStopping("loss"), checkpoint=tmp_path)
    assert [row["epoch"] for row in history] == [1, 2]


def test_class_numbers_are_found_behind_what_they_are_made_into() -> None:
    x, y = fg.input("x", ("batch", 3)), fg.input("y", ("batch",), "int32")
    lengths = fg.input("n", ("batch",), "int32")
    z, one = x @ fg.parameter("w", (3, 3)), x @ fg.parameter("v", (3,))
    _, (h,) = fg.nn.RNN("r", 1, 3)(fg.expand_dims(x, 2), lengths)
    log_p = fg.log_softmax(h)
    for cost, found in (
        (fg.cross_ent_of_softmax(z, y), {"y": 3}),
        (fg.cross_ent_of_softmax(h, fg.one_hot(y, 3)), {"y": 3}),
        (fg.cross_ent_of_softmax(h, fg.cast(y, "int64")), {"y": 3}),
        (fg.cross_ent_of_logistic(one, y), {"y": 2}),
        (fg.cross_ent_of_logistic(one, fg.cast(y, "float32")), {"y": 2}),
        (fg.cross_ent_of_logistic(z, fg.one_hot(y, 3)), {"y": 3}),
        (-fg.sum(fg.one_hot(y, 3) * log_p, axis=1), {"y": None}),
        (fg.cross_ent_of_softmax(h, fg.input("p", ("batch", 3))), {}),
    ):
        assert targets_of(cost) == found
