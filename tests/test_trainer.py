"""The trainer: minibatches, epochs, seeds, metrics, what it refuses."""

from __future__ import annotations

import math
import signal

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.train.sweep import CAPACITY, pieces
from tests.support.devices import DEVICES

EXAMPLES = 70
RNG = np.random.default_rng(5)
DATA = {
    "x": RNG.normal(size=(EXAMPLES, 6)).astype(np.float32),
    "y": RNG.integers(0, 4, EXAMPLES).astype(np.int32),
}


class Model:
    """6-5-4, tanh; `a` are logits, `c` a cost an example."""

    def __init__(self) -> None:
        self.x, self.y = fg.input("x", ("batch", 6)), fg.input("y", ("batch",), "int32")
        self.w1, self.b1 = fg.parameter("w1", (6, 5), fg.init.one_over_sqrt_n()), fg.parameter("b1", (5,))
        self.w2, self.b2 = fg.parameter("w2", (5, 4), fg.init.one_over_sqrt_n()), fg.parameter("b2", (4,))
        self.a = fg.add_bias(fg.tanh(fg.add_bias(self.x @ self.w1, self.b1)) @ self.w2, self.b2)
        self.c = fg.cross_ent_of_softmax(self.a, self.y)
        self.accuracy = fg.nn.accuracy(self.a, self.y)

    def trainer(self, device="reference", **settings) -> fg.Trainer:
        settings.setdefault("optimizer", fg.optim.SGD(0.3))
        return fg.Trainer(self.c, metrics={"accuracy": self.accuracy}, device=device, **settings)

    @property
    def parameters(self) -> list[np.ndarray]:
        return [p.value for p in (self.w1, self.b1, self.w2, self.b2)]


def fit(model: Model | None = None, device="reference", seed=0, data=DATA, **settings) -> Model:
    model = model or Model()
    model.trainer(device, seed=seed).fit(
        data, **({"epochs": 2, "batch_size": 16, "progress": False} | settings)
    )
    return model


def plain_numpy(parameters: list[np.ndarray], orders: list[np.ndarray], batch_size: int) -> list[np.ndarray]:
    """The same training, written by hand in float64."""
    w1, b1, w2, b2 = (p.astype(np.float64) for p in parameters)
    for order in orders:
        for start in range(0, len(order), batch_size):
            ids = order[start : start + batch_size]
            x, y = DATA["x"][ids].astype(np.float64), DATA["y"][ids]
            h = np.tanh(x @ w1 + b1)
            e = np.exp(h @ w2 + b2)
            d = (e / e.sum(1, keepdims=True) - np.eye(4)[y]) / len(ids)
            dh = d @ w2.T * (1 - h * h)
            w1, b1 = w1 - 0.3 * x.T @ dh, b1 - 0.3 * dh.sum(0)
            w2, b2 = w2 - 0.3 * h.T @ d, b2 - 0.3 * d.sum(0)
    return [w1, b1, w2, b2]


# What is computed


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("batch_size", [16, 70, 35, 100, 1])
def test_training_in_order_is_what_numpy_computes_partial_last_batch_included(batch_size, device):
    model = Model()
    trainer = model.trainer(device)
    expected = plain_numpy(model.parameters, [np.arange(EXAMPLES)] * 2, batch_size)
    trainer.fit(DATA, epochs=2, batch_size=batch_size, shuffle=False, progress=False)
    for found, wanted in zip(model.parameters, expected, strict=True):
        assert np.abs(found - wanted).max() <= 1e-5 * max(1.0, np.abs(wanted).max())


@pytest.mark.parametrize("device", DEVICES)
def test_each_epoch_has_its_own_order_and_sees_every_example_once(device):
    model = Model()
    trainer = model.trainer(device, seed=3)
    orders = [
        np.random.Generator(np.random.Philox(key=np.array([3, e], np.uint64))).permutation(70) for e in (0, 1)
    ]
    expected = plain_numpy(model.parameters, orders, 16)
    trainer.fit(DATA, epochs=2, batch_size=16, progress=False)
    assert not np.array_equal(*orders)
    for found, wanted in zip(model.parameters, expected, strict=True):
        assert np.abs(found - wanted).max() <= 1e-5 * max(1.0, np.abs(wanted).max())


@pytest.mark.parametrize("device", DEVICES)
def test_the_same_seed_gives_the_same_bits(device):
    first, second, other = (fit(device=device, seed=seed).parameters for seed in (1, 1, 2))
    assert all(map(np.array_equal, first, second))
    assert not any(map(np.array_equal, first[::2], other[::2]))


@pytest.mark.parametrize("device", DEVICES)
def test_the_bits_do_not_depend_on_the_number_of_threads(device):
    trained = []
    for threads in (1, 2, 3):
        model = Model()
        model.trainer(device, seed=1, threads=threads).fit(DATA, epochs=2, batch_size=16, progress=False)
        trained.append(model.parameters)
    assert all(map(np.array_equal, trained[0], trained[1])) and all(
        map(np.array_equal, trained[0], trained[2])
    )


@pytest.mark.parametrize("device", DEVICES)
def test_fit_again_goes_on_where_it_was(device):
    once = fit(device=device, epochs=4).parameters
    model = Model()
    trainer = model.trainer(device)
    trainer.fit(DATA, epochs=1, batch_size=16, progress=False)
    history = trainer.fit(DATA, epochs=3, batch_size=16, progress=False)
    assert all(map(np.array_equal, once, model.parameters))
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]


def test_momentum_is_kept_from_fit_to_fit():
    def train(*epochs):
        model = Model()
        trainer = model.trainer(optimizer=fg.optim.SGD(0.1, momentum=0.9))
        for count in epochs:
            trainer.fit(DATA, epochs=count, batch_size=16, progress=False)
        return model.parameters

    assert all(map(np.array_equal, train(3), train(1, 2)))


def test_a_native_call_holds_whole_batches_and_at_most_its_capacity():
    calls = list(pieces(3 * CAPACITY * 2 + 5, 2))
    assert [stop - start for start, stop, _ in calls] == [2 * CAPACITY] * 3 + [4, 1]
    assert [size for *_, size in calls] == [2] * 4 + [1]


@pytest.mark.parametrize("device", DEVICES)
def test_an_epoch_longer_than_one_native_call_is_one_epoch(device):
    examples = CAPACITY + 3
    x = fg.input("x", ("batch",))
    total = fg.parameter("total", ())
    trainer = fg.Trainer(-fg.mean(x) * total, fg.optim.SGD(1.0), device=device)
    history = trainer.fit({"x": np.ones(examples, np.float32)}, batch_size=1, progress=False)
    assert total.value == examples
    assert np.array_equal(history.losses, -np.arange(examples))


def test_parameters_with_a_value_keep_it():
    model = Model()
    model.w1.value = np.full((6, 5), 0.5, np.float32)
    model.trainer(seed=9)
    assert (model.parameters[0] == 0.5).all()


def test_a_cost_an_example_is_averaged():
    vector, scalar = Model(), Model()
    scalar.c = fg.mean(scalar.c)
    assert all(map(np.array_equal, fit(vector).parameters, fit(scalar).parameters))


def test_the_batch_may_have_any_name_also_one_the_trainer_uses_itself():
    x = fg.input("x", ("examples", 6))
    w = fg.parameter("w", (6,))
    trainer = fg.Trainer(fg.sum(x, axis=1) * fg.sum(w), fg.optim.SGD(0.0), device="reference")
    assert trainer.fit({"x": DATA["x"]}, batch_size=16, progress=False)["loss"] == [0.0]


def test_only_what_the_cost_depends_on_is_trained():
    model = Model()
    stranger = fg.parameter("stranger", (3,), fg.init.normal())
    counter = fg.parameter("counter", (), np.int64(3), "int64")
    cost = fg.mean(model.c) + fg.cast(counter, "float32")
    trainer = fg.Trainer(cost, device="reference")
    assert trainer.parameters == [model.w1, model.b1, model.w2, model.b2]
    assert not stranger.op.storage.drawn


# What is reported


@pytest.mark.parametrize("device", DEVICES)
def test_evaluate_is_the_mean_over_examples_whatever_the_batch_size(device):
    model = Model()
    trainer = model.trainer(device)
    a = trainer.predict(model.a, {"x": DATA["x"]}).astype(np.float64)
    picked = a[np.arange(EXAMPLES), DATA["y"]]
    loss = (np.log(np.exp(a).sum(1)) - picked).mean()
    accuracy = (a.argmax(1) == DATA["y"]).mean()
    before = model.parameters
    for batch_size in (16, 70, 256):
        found = trainer.evaluate(DATA, batch_size)
        assert found == {"loss": pytest.approx(loss, rel=1e-6), "accuracy": pytest.approx(accuracy, rel=1e-6)}
    assert all(map(np.array_equal, before, model.parameters))


@pytest.mark.parametrize("device", DEVICES)
def test_predict_has_one_row_an_example_whatever_the_batch_size(device):
    model = Model()
    trainer = model.trainer(device)
    whole = trainer.predict(model.a, {"x": DATA["x"]})
    assert whole.shape == (EXAMPLES, 4)
    assert np.allclose(whole, trainer.predict(model.a, {"x": DATA["x"]}, batch_size=16), rtol=0, atol=1e-6)


def test_history_has_a_row_an_epoch_and_a_loss_a_step():
    trainer = Model().trainer()
    history = trainer.fit(DATA, epochs=3, batch_size=16, validation=DATA, progress=False)
    assert len(history) == 3 and len(history.losses) == 3 * 5
    assert list(history[0]) == ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds"]
    weights = [16, 16, 16, 16, 6]
    assert history[1]["loss"] == pytest.approx(np.average(history.losses[5:10], weights=weights))
    assert history[-1]["val_loss"] == trainer.evaluate(DATA, 16)["loss"]
    assert history["loss"][0] > history["loss"][2]
    table = str(history).splitlines()
    assert (
        len(table) == 4 and table[0].split() == list(history[0]) and len({len(line) for line in table}) == 1
    )


def test_training_metrics_are_taken_before_the_update():
    model = Model()
    trainer = model.trainer()
    before = trainer.evaluate(DATA)
    row = trainer.fit(DATA, batch_size=EXAMPLES, progress=False)[0]
    assert {name: row[name] for name in before} == {
        name: pytest.approx(v, rel=1e-6) for name, v in before.items()
    }


@pytest.mark.parametrize("device", DEVICES)
def test_accuracy_is_that_of_argmax_for_class_numbers_and_distributions(device):
    a = np.array([[1, 2, 0], [3, 3, 0], [3, 3, 0], [0, 0, 0], [5, 1, 1], [np.nan, 1, 0]], np.float32)
    y = np.array([1, 0, 1, 2, 0, 0], np.int32)  # of ties the first counts; a NaN is never right
    shares = []
    for target in (y, np.eye(3, dtype=np.float32)[y]):
        logits = fg.input("a", ("batch", 3))
        wanted = fg.input("y", ("batch", *target.shape[1:]), target.dtype)
        program = fg.compile(outputs=fg.nn.accuracy(logits, wanted), device=device)
        shares += [float(program(a=a, y=target)[0])]
    assert shares == [0.5, 0.5]


def test_a_network_learns_the_digits():
    train, test = fg.datasets.load_digits().split()
    x, y = fg.input("x", ("batch", 64)), fg.input("y", ("batch",), "int32")
    hidden, out = fg.nn.Dense("hidden", 64, 32, fg.tanh), fg.nn.Dense("out", 32, 10)
    logits = out(hidden(x))
    cost = fg.cross_ent_of_softmax(logits, y)
    trainer = fg.Trainer(cost, fg.optim.SGD(0.2), {"accuracy": fg.nn.accuracy(logits, y)}, device="reference")
    trainer.fit({"x": train.images, "y": train.labels}, epochs=8, progress=False)
    assert trainer.evaluate({"x": test.images, "y": test.labels})["accuracy"] > 0.93


# Progress and interruption


def test_away_from_a_terminal_there_is_one_line(capsys):
    Model().trainer().fit(DATA, epochs=2, validation=DATA)
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1
    assert err.startswith("trained 2 epochs in ") and "val_accuracy" in err


def test_a_fit_says_that_it_compiles_before_it_does(capsys, tmp_path, monkeypatch):
    from flowgraph.backends.cpu import executor
    from flowgraph.backends.cpu.store import KernelStore
    from flowgraph.backends.cpu.team import CpuRuntime

    for first in (True, False):  # the second runtime finds them kept
        runtime = CpuRuntime(1, KernelStore(tmp_path))
        monkeypatch.setattr(executor, "shared_runtime", lambda threads, runtime=runtime: runtime)
        x = fg.input("x", ("batch", 4))
        trainer = fg.Trainer(fg.mean(fg.square(fg.nn.Dense("out", 4, 1)(x))), fg.optim.SGD(0.1), device="cpu")
        for again in (False, True):
            kernels = trainer.program.executor.to_compile()
            trainer.fit({"x": np.ones((8, 4), np.float32)})
            told = capsys.readouterr().err.splitlines()
            assert len(told) == (2 if first and not again else 1) and (kernels > 0) == (len(told) == 2)
            assert told[0].startswith(f"compiling {kernels} kernels" if kernels else "trained 1 epoch")
            assert trainer.program.executor.to_compile() == 0


def test_progress_false_is_silent(capsys):
    Model().trainer().fit(DATA, progress=False)
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_there_is_a_line_an_epoch(capsys, monkeypatch):
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    Model().trainer().fit(DATA, epochs=2, batch_size=16)
    err = capsys.readouterr().err
    assert "epoch 1/2: 100%" in err and "epoch 2/2: 100%" in err and "5/5" in err and "accuracy" in err


def test_ctrl_c_stops_after_a_whole_step_and_keeps_what_was_reached(monkeypatch):
    model = Model()
    trainer = model.trainer()
    run, calls = trainer._training.program.executor.run, []

    def interrupted(sizes, inputs, steps, on_chunk):
        calls.append(steps)
        if len(calls) == 3:  # the second epoch's whole batches: two steps, then Ctrl-C
            run(sizes, inputs, 2, on_chunk)
            raise KeyboardInterrupt
        return run(sizes, inputs, steps, on_chunk)

    monkeypatch.setattr(trainer._training.program.executor, "run", interrupted)
    history = trainer.fit(DATA, epochs=9, batch_size=16, progress=False)
    assert history.interrupted and len(history) == 1 and len(history.losses) == 5 + 2
    assert history is trainer.history
    again = trainer.fit(DATA, epochs=1, batch_size=16, progress=False)
    assert not again.interrupted and [row["epoch"] for row in again] == [1, 2]  # the rest of the second
    assert len(again.losses) == 5 + 5


@pytest.mark.parametrize("device", [device for device in DEVICES if device != "reference"])
def test_a_real_ctrl_c_in_a_native_run_loses_nothing(device):
    trainer = Model().trainer(device)
    trainer.fit(DATA, batch_size=16, progress=False)  # compiled
    previous = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        history = trainer.fit(DATA, epochs=10**7, batch_size=16, progress=False)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert history.interrupted and 1 < len(history) < 10**7
    assert 5 * len(history) <= len(history.losses) <= 5 * (len(history) + 1)


# What is refused


def message(error: type[Exception], act) -> str:
    with pytest.raises(error) as caught:
        act()
    return str(caught.value)


def with_bad(name: str, index, value) -> dict[str, np.ndarray]:
    changed = {k: v.copy() for k, v in DATA.items()}
    changed[name][index] = value
    return changed


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_data_that_are_not_finite_are_named_with_their_place_and_line(value):
    text = message(fg.NumericsError, lambda: fit(data=with_bad("x", (12, 3), value)))
    assert (
        f"x[12, 3] = {value}" in text
        and "1 of 420" in text
        and "test_trainer.py" in text
        and 'fg.input("x"' in text
    )


def test_a_class_number_out_of_range_is_named_with_its_place_and_line():
    text = message(fg.InputError, lambda: fit(data=with_bad("y", 40, 4)))
    assert "y[40] = 4" in text and "0 to 3" in text and "test_trainer.py" in text


def test_arrays_of_different_lengths_are_named():
    text = message(fg.ShapeError, lambda: fit(data=DATA | {"y": DATA["y"][:-1]}))
    assert "'x' have 70" in text and "'y' 69" in text and "(70, 6)" in text and "(69,)" in text


def test_a_wrong_width_names_the_users_input_and_both_shapes():
    text = message(fg.ShapeError, lambda: fit(data=DATA | {"x": DATA["x"][:, :5].copy()}))
    assert "'x'" in text and "6)" in text and "(70, 5)" in text and "test_trainer.py" in text


def test_a_wrong_dtype_says_how_to_convert():
    text = message(fg.DTypeError, lambda: fit(data=DATA | {"x": DATA["x"].astype(np.float64)}))
    assert "'x'" in text and "float32" in text and "astype" in text


def test_lists_are_converted_as_a_program_converts_them():
    lists = {name: array.tolist() for name, array in DATA.items()}
    assert all(map(np.array_equal, fit(data=lists).parameters, fit().parameters))
    for labels in ([0.7] * EXAMPLES, [2**32] * EXAMPLES):
        text = message(fg.DTypeError, lambda labels=labels: fit(data=DATA | {"y": labels}))
        assert "'y' is declared int32" in text and "test_trainer.py" in text


def test_a_class_out_of_range_is_blamed_on_the_users_own_op():
    text = message(fg.InputError, lambda: fit(data=with_bad("y", 40, 4)))
    assert "crossEntOfSoftMax takes integers from 0 to 3" in text and "self.c = fg.cross_ent" in text


@pytest.mark.parametrize("part", ["data", "validation"])
def test_data_that_are_refused_change_nothing(part):
    once, model = fit(seed=4), Model()
    trainer = model.trainer(seed=4)
    before = model.parameters
    bad = {"data": DATA, "validation": DATA} | {part: with_bad("y", 40, 4)}
    text = message(fg.InputError, lambda: trainer.fit(**bad, epochs=2, batch_size=16, progress=False))
    assert "y[40] = 4" in text
    assert all(map(np.array_equal, before, model.parameters))
    assert len(trainer.history) == len(trainer.history.losses) == 0
    trainer.fit(DATA, epochs=2, batch_size=16, progress=False)
    assert all(map(np.array_equal, once.parameters, model.parameters))
    assert [row["epoch"] for row in trainer.history] == [1, 2]


def test_missing_and_unknown_data_are_named():
    assert "missing input 'y'" in message(fg.InputError, lambda: fit(data={"x": DATA["x"]}))
    assert "unknown input 'z'" in message(fg.InputError, lambda: fit(data=DATA | {"z": DATA["y"]}))
    assert "dict" in message(fg.InputError, lambda: fit(data=DATA["x"]))


def test_no_examples_are_an_error():
    assert "no examples" in message(fg.InputError, lambda: fit(data={k: v[:0] for k, v in DATA.items()}))


@pytest.mark.parametrize(
    "settings", [{"epochs": -1}, {"batch_size": 0}, {"batch_size": 2.5}, {"on_nan": "ignore"}]
)
def test_settings_that_make_no_sense_are_named(settings):
    assert next(iter(settings)) in message(fg.InputError, lambda: fit(**settings))


def test_a_bad_seed_is_named():
    for seed in (-1, 2**64, 0.5):
        assert "seed" in message(fg.InputError, lambda seed=seed: Model().trainer(seed=seed))
    fit(seed=2**64 - 1)


@pytest.mark.filterwarnings("ignore:.*encountered in")
def test_a_cost_that_becomes_nan_stops_the_training_and_says_where():
    x = fg.input("x", ("batch",))
    w = fg.parameter("w", (), np.float32(1.0))
    trainer = fg.Trainer(fg.mean(x) * w * w, fg.optim.SGD(1e30), device="reference")
    ones = {"x": np.ones(8, np.float32)}
    text = message(fg.NumericsError, lambda: trainer.fit(ones, batch_size=1, progress=False))
    assert "epoch 1, step 2 of 8" in text and "learning rate" in text and "test_trainer.py" in text
    assert len(trainer.history.losses) == 8 and math.isinf(trainer.history.losses[1])
    with pytest.warns(RuntimeWarning, match="epoch 2, step 1 of 8") as caught:
        trainer.fit(ones, batch_size=1, on_nan="warn", progress=False)
    assert caught[0].filename == __file__


def test_inputs_without_a_common_batch_are_refused_at_the_users_line():
    x, y = fg.input("x", ("batch", 3)), fg.input("y", ("rows",))
    w = fg.parameter("w", (3,))
    text = message(fg.ShapeError, lambda: fg.Trainer(fg.mean(fg.sum(x, axis=0) * w) * fg.mean(y)))
    assert "(batch, 3)" in text and "(rows,)" in text and "test_trainer.py" in text
    fixed = fg.input("fixed", (8, 3))
    assert "(8, 3)" in message(fg.ShapeError, lambda: fg.Trainer(fg.mean(fg.sum(fixed, axis=0) * w)))


def test_a_cost_must_be_a_scalar_or_one_number_an_example():
    model = Model()
    assert "(batch, 4)" in message(fg.ShapeError, lambda: fg.Trainer(model.a))


def test_a_cost_without_parameters_or_inputs_is_refused():
    assert "no parameter" in message(fg.GraphError, lambda: fg.Trainer(fg.input("x", ("batch",))))
    assert "no input" in message(fg.GraphError, lambda: fg.Trainer(fg.sum(fg.parameter("w", (3,)))))


@pytest.mark.parametrize("name", ["loss", "epoch", "val_accuracy"])
def test_a_metric_may_not_take_a_name_of_the_history(name):
    model = Model()
    assert name in message(fg.GraphError, lambda: fg.Trainer(model.c, metrics={name: model.accuracy}))


def test_what_is_predicted_from_data_that_are_not_finite_is_no_training():
    model = Model()
    text = message(fg.NumericsError, lambda: model.trainer().predict(model.a, {"x": DATA["x"] * np.nan}))
    assert "x[0, 0] = nan" in text and "train on" not in text


def test_predict_needs_one_row_an_example():
    model = Model()
    trainer = model.trainer()
    assert "(6, 5)" in message(
        fg.ShapeError, lambda: trainer.predict(model.w1 * fg.mean(model.x), {"x": DATA["x"]})
    )
