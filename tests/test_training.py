"""What a trainer can be asked for beyond fit: several losses, weights, freezing, accumulation, callbacks."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.errors import GraphError, InputError, ShapeError

RNG = np.random.default_rng(3)
X = RNG.normal(size=(48, 5)).astype(np.float32)
Y = (X @ RNG.normal(size=(5,)) > 0).astype(np.int32)
DATA = {"x": X, "y": Y}


class Model:
    def __init__(self) -> None:
        x, y = fg.input("x", ("batch", 5)), fg.input("y", ("batch",), "int32")
        self.w1, self.w2 = fg.parameter("layer/w1", (5, 8), fg.init.glorot_uniform()), fg.parameter("w2", (8, 2))
        self.logits = fg.tanh(x @ self.w1) @ self.w2
        self.cost = fg.cross_ent_of_softmax(self.logits, y)

    def trainer(self, cost=None, optimizer=None, **options) -> fg.Trainer:
        return fg.Trainer(self.cost if cost is None else cost, optimizer or fg.optim.SGD(0.5), device="cpu", **options)


def fit(trainer: fg.Trainer, epochs: int = 2, data=DATA, **options):
    return trainer.fit(data, epochs, 16, progress=False, **options)


def test_several_losses_are_added_by_their_weights_and_all_are_recorded() -> None:
    model = Model()
    size = fg.mean(model.w1 * model.w1)
    trainer = model.trainer({"fit": model.cost, "size": size}, loss_weights={"size": 0.1})
    row = fit(trainer)[-1]
    assert abs(row["loss"] - (row["fit"] + 0.1 * row["size"])) < 1e-6
    with pytest.raises(GraphError, match="loss_weights has 'sise', which is no loss"):
        model.trainer({"fit": model.cost, "size": size}, loss_weights={"sise": 0.1})


def test_weights_of_examples_weigh_the_mean() -> None:
    weights = RNG.random(48).astype(np.float32)
    weights[::3] = 0
    model = Model()
    trainer = model.trainer(weighted=True)
    w1, w2 = model.w1.value, model.w2.value
    history = trainer.fit(DATA, 1, 48, progress=False, sample_weight=weights)
    logits = np.tanh(X @ w1) @ w2
    costs = np.log(np.exp(logits).sum(1)) - logits[np.arange(48), Y]
    assert abs(history[0]["loss"] - (weights * costs).sum() / weights.sum()) < 1e-5


def test_an_example_of_weight_two_is_that_example_twice() -> None:
    once, twice = Model(), Model()
    by_weight = once.trainer(weighted=True)
    by_copy = twice.trainer()
    by_weight.fit(DATA, 3, 48, progress=False, class_weight={0: 2.0, 1: 1.0})
    again = np.flatnonzero(Y == 0)
    doubled = {n: np.concatenate([a, a[again]]) for n, a in DATA.items()}
    by_copy.fit(doubled, 3, len(doubled["y"]), progress=False)
    np.testing.assert_allclose(once.w2.value, twice.w2.value, atol=1e-5)


def test_weights_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="this trainer takes no weights"):
        fit(Model().trainer(), sample_weight=np.ones(48))
    with pytest.raises(InputError, match="for each of 48 examples, got float64\\(47,\\)"):
        fit(Model().trainer(weighted=True), sample_weight=np.ones(47))
    with pytest.raises(InputError, match="class_weight has no number for class 1"):
        fit(Model().trainer(weighted=True), class_weight={0: 1.0})
    model = Model()
    with pytest.raises(ShapeError, match="one number an example, \\(batch,\\), to be weighted"):
        model.trainer(fg.mean(model.cost), weighted=True)


def test_a_balanced_training_counts_classes_alike() -> None:
    model = Model()
    rare = {n: np.concatenate([a[Y == 0], a[Y == 1][:3]]) for n, a in DATA.items()}
    history = model.trainer(weighted=True).fit(rare, 1, 64, progress=False, class_weight="balanced")
    assert abs(history[0]["loss"] - np.log(2)) < 1e-5  # weights of 0: every class costs log 2


@pytest.mark.parametrize("freeze", [["layer/*"], "tensor"])
def test_what_is_frozen_stays_as_it_is(freeze) -> None:
    model = Model()
    trainer = model.trainer(freeze=[model.w1] if freeze == "tensor" else freeze)
    model.w2.value = RNG.normal(size=(8, 2))
    before = model.w1.value, model.w2.value
    fit(trainer)
    np.testing.assert_array_equal(model.w1.value, before[0])
    assert not np.array_equal(model.w2.value, before[1])
    with pytest.raises(GraphError, match="freeze: 'lager' is no parameter"):
        model.trainer(freeze=["lager"])
    with pytest.raises(GraphError, match="every parameter is frozen"):
        model.trainer(freeze=["*"])
    for wrong in (3, [3], [fg.nn.Dense("d", 2, 2)]):
        with pytest.raises(GraphError) as caught:
            model.trainer(freeze=wrong)
        assert caught.value.problem.startswith("freeze takes parameters") and "layer.parameters" in caught.value.hint


@pytest.mark.parametrize("rule", [lambda: fg.optim.SGD(0.5, momentum=0.9), lambda: fg.optim.Adam(0.01)])
def test_accumulated_minibatches_are_one_large_one(rule) -> None:
    large, small = Model(), Model()
    a, b = large.trainer(optimizer=rule()), small.trainer(optimizer=rule(), accumulate=3)
    a.fit(DATA, 4, 48, progress=False, shuffle=False)
    b.fit(DATA, 4, 16, progress=False, shuffle=False)
    for mine, theirs in ((small.w1, large.w1), (small.w2, large.w2)):
        np.testing.assert_allclose(mine.value, theirs.value, atol=2e-5)


def test_a_group_of_minibatches_goes_on_in_the_next_epoch() -> None:
    model = Model()
    trainer = model.trainer(accumulate=2)  # three minibatches an epoch
    model.w2.value = RNG.normal(size=(8, 2))
    values = [model.w2.value]
    for _ in range(2):
        trainer.fit(DATA, 1, 16, progress=False)
        values.append(model.w2.value)
    assert not np.array_equal(values[0], values[1]) and not np.array_equal(values[1], values[2])
    count = next(t for t in trainer.updates if t.op.label == "optimizer/accumulated")
    assert count.value == 0  # six minibatches, three updates


# Callbacks


class Told(fg.Callback):
    def __init__(self) -> None:
        self.calls: list[str] = []

    def on_fit_begin(self, trainer):
        self.calls.append("fit")

    def on_epoch_begin(self, trainer, epoch):
        self.calls.append(f"epoch {epoch}")

    def on_steps(self, trainer, steps):
        self.calls.append(f"{steps} steps")

    def on_epoch_end(self, trainer, row):
        self.calls.append(f"row {row['epoch']}")

    def on_fit_end(self, trainer, history):
        self.calls.append("end")


def test_callbacks_are_told_in_order() -> None:
    told = Told()
    fit(Model().trainer(), epochs=2, callbacks=[told])
    seen = list(dict.fromkeys(told.calls))
    assert seen == ["fit", "epoch 1", "3 steps", "row 1", "epoch 2", "row 2", "end"]


def test_early_stopping_puts_the_best_parameters_back() -> None:
    model = Model()
    trainer = model.trainer(optimizer=fg.optim.SGD(200.0))  # leaps about
    stopping = fg.EarlyStopping("loss", patience=2)
    best: dict[str, np.ndarray] = {}

    class Keep(fg.Callback):
        def on_epoch_end(self, trainer, row):
            if row["loss"] == min(trainer.history["loss"]):
                best["w2"] = model.w2.value

    history = fit(trainer, epochs=100, callbacks=[stopping, Keep()])
    assert len(history) < 100
    np.testing.assert_array_equal(model.w2.value, best["w2"])


def test_the_learning_rate_falls_on_a_plateau() -> None:
    trainer = Model().trainer(optimizer=fg.optim.SGD(0.0))
    fit(trainer, epochs=3, callbacks=[fg.ReduceOnPlateau("loss", patience=1)])
    assert trainer.learning_rate == 0.0
    trainer = Model().trainer(optimizer=fg.optim.SGD(1e-30))
    fit(trainer, epochs=4, callbacks=[fg.ReduceOnPlateau("loss", factor=0.5, patience=1)])
    assert trainer.learning_rate == pytest.approx(1e-30 * 0.5**3)


def test_a_column_that_is_not_there_is_named() -> None:
    with pytest.raises(GraphError, match="EarlyStopping watches 'val_loss', which the history does not have"):
        fit(Model().trainer(), callbacks=[fg.EarlyStopping()])


# Validation and the table


def test_a_fraction_is_held_out_the_same_for_the_same_seed() -> None:
    rows = [fit(Model().trainer(seed=7), validation=0.25)[-1] for _ in range(2)]
    assert rows[0]["val_loss"] == rows[1]["val_loss"]
    with pytest.raises(InputError, match="the fraction for validation is between 0 and 1"):
        fit(Model().trainer(), validation=1.5)


def test_the_history_is_a_table(tmp_path: Path) -> None:
    history = fit(Model().trainer(), validation=DATA)
    columns = history.to_dict()
    assert list(columns) == ["epoch", "loss", "val_loss", "seconds"] and len(columns["loss"]) == 2
    history.to_csv(tmp_path / "history.csv")
    with (tmp_path / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[1]["val_loss"]) == history[-1]["val_loss"]


def test_a_history_becomes_a_data_frame_or_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from flowgraph.train.history import History

    history = History()
    history.replace([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25, "val_loss": 1.0}], [])
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        history.to_pandas()
    monkeypatch.undo()
    pandas = pytest.importorskip("pandas")
    pandas.testing.assert_frame_equal(history.to_pandas(), pandas.DataFrame(history.to_dict()))


class Carried:
    """A network that goes on with the state that the last minibatch ended with; rows are turns of three streams."""

    def __init__(self) -> None:
        x, y = fg.input("x", ("time", 3)), fg.input("y", ("time", 3))
        self.w, self.h = fg.parameter("w", (3, 3), fg.init.orthogonal(0.5)), fg.parameter("h", (3,))
        last, every = fg.scan(lambda h, x: ((h := fg.tanh(h @ self.w + x)), h), self.h, x)
        self.cost, self.updates = fg.mean((every - y) ** 2), {self.h: last}

    def trainer(self, **options) -> fg.Trainer:
        return fg.Trainer(self.cost, fg.optim.SGD(0.1), updates=self.updates, device="cpu", **options)


TURNS = {name: RNG.normal(size=(24, 3)).astype(np.float32) for name in ("x", "y")}


def test_updates_are_made_with_every_step_and_what_they_change_is_not_trained() -> None:
    model, other = Carried(), Carried()
    trainer = model.trainer()
    assert trainer.parameters == [model.w]
    trainer.fit(TURNS, 2, 5, shuffle=False, progress=False)
    w, h = other.w, other.h
    by_hand = fg.compile(
        outputs=other.cost, updates={**other.updates, w: w - 0.1 * fg.grad(other.cost, w)}, device="cpu"
    )
    for _ in range(2):
        for start in range(0, 24, 5):
            by_hand(**{name: rows[start : start + 5] for name, rows in TURNS.items()})
    np.testing.assert_allclose(model.w.value, w.value, rtol=1e-5)
    np.testing.assert_allclose(model.h.value, h.value, rtol=1e-5)
    before = model.h.value.copy()
    trainer.evaluate(TURNS)
    assert (model.h.value == before).all()  # validation reads it, and changes nothing


def test_a_checkpoint_has_what_updates_change(tmp_path: Path) -> None:
    whole, first, second = Carried(), Carried(), Carried()
    how = {"batch_size": 5, "shuffle": False, "progress": False}
    whole.trainer().fit(TURNS, 3, **how)
    first.trainer().fit(TURNS, 1, checkpoint=tmp_path, **how)
    second.trainer().fit(TURNS, 3, checkpoint=tmp_path, **how)
    assert (second.h.value == whole.h.value).all() and (second.w.value == whole.w.value).all()


def test_wrong_updates_of_a_trainer_are_errors() -> None:
    model = Carried()
    with pytest.raises(GraphError, match="only parameters can be updated"):
        fg.Trainer(model.cost, updates={model.cost: model.cost})
    with pytest.raises(ShapeError, match="the update of 'h' has type"):
        fg.Trainer(model.cost, updates={model.h: model.w})
    with pytest.raises(GraphError, match="updates are a dict"):
        fg.Trainer(model.cost, updates=[model.h])
    with pytest.raises(GraphError, match="depends on no parameter"):
        fg.Trainer(model.cost, updates={model.h: model.h, model.w: model.w})
