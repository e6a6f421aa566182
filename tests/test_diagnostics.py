"""Diagnostics: what the training step sums up is what NumPy computes from the same minibatches."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.backends.cuda.emulator import EmulatedDevice
from flowgraph.train.diagnostics import symmetric_log
from flowgraph.train.sweep import CAPACITY
from tests.support.devices import DEVICES

RNG = np.random.default_rng(7)
DATA = {"x": RNG.normal(size=(50, 6)).astype(np.float32), "y": RNG.integers(0, 3, 50).astype(np.int32)}
EDGES = [-0.5, 0.0, 0.5]


class Model:
    """6-5-3 with one activation, whose gradient NumPy knows."""

    def __init__(self, activation=fg.tanh):
        x, y = fg.input("x", ("batch", 6)), fg.input("y", ("batch",), "int32")
        self.w = fg.parameter("w", (6, 5), fg.init.normal(1.0))
        self.v = fg.parameter("v", (5, 3), fg.init.normal(1.0))
        self.h = activation(x @ self.w)
        self.cost = fg.cross_ent_of_softmax(self.h @ self.v, y)

    def train(self, watch, epochs=2, batch_size=16, rate=0.0, device="reference", data=DATA, **settings):
        trainer = fg.Trainer(self.cost, fg.optim.SGD(rate), diagnostics=watch, device=device)
        trainer.fit(data, epochs, batch_size, shuffle=False, progress=False, **settings)
        return trainer

    def by_hand(self, batch_size=16):
        """For every minibatch, in order: h, and the gradients of the mean cost by h, w and v."""
        w, v = self.w.value.astype(np.float64), self.v.value.astype(np.float64)
        for start in range(0, len(DATA["x"]), batch_size):
            x, y = (DATA[name][start : start + batch_size] for name in "xy")
            h = np.tanh(x @ w)
            e = np.exp(h @ v)
            d = (e / e.sum(1, keepdims=True) - np.eye(3)[y]) / len(x)
            dh = d @ v.T
            yield h, dh, x.T @ (dh * (1 - h * h)), h.T @ d


def together(arrays):
    return np.concatenate([np.ravel(a) for a in arrays])


@pytest.mark.parametrize("device", DEVICES)
def test_a_row_sums_up_all_minibatches_of_an_epoch_also_a_smaller_last_one(device):
    model = Model()
    watch = fg.Diagnostics({"h": model.h, "w": model.w, "v": model.v}, edges={"h": EDGES}, gradient_edges=EDGES)
    model.train(watch, device=device)
    hs, dhs, dws, dvs = (together(arrays) for arrays in zip(*model.by_hand(), strict=True))
    ws, vs = (np.tile(np.ravel(p.value), 4) for p in (model.w, model.v))
    for name, values, slopes in (("h", hs, dhs), ("w", ws, dws), ("v", vs, dvs)):
        for spread, expected in ((watch[name].values, values), (watch[name].gradient, slopes)):
            assert np.allclose(spread.mean, expected.mean(), rtol=1e-5, atol=1e-7)
            assert np.allclose(spread.std, expected.std(), rtol=1e-5)
            assert spread.counts.sum(1).tolist() == [expected.size] * 2
    for spread, expected in ((watch["h"].values, hs), (watch["h"].gradient, dhs), (watch["v"].gradient, dvs)):
        counts, _ = np.histogram(expected, [-np.inf, *EDGES, np.inf])
        assert spread.counts.tolist() == [counts.tolist()] * 2
    assert np.allclose(watch["h"].saturated, (np.abs(hs) >= 0.98).mean())
    assert np.isnan(watch["w"].saturated).all()
    assert watch.steps.tolist() == [4, 8] and watch.epochs.tolist() == [1, 2]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("every", [1, 3, 4])
def test_a_row_sums_up_so_many_steps_across_epochs(every, device):
    model = Model()
    watch = fg.Diagnostics({"h": model.h}, every=every)
    model.train(watch, epochs=3, device=device)
    steps = [h for h, *_ in model.by_hand()] * 3
    rows = [together(steps[k : k + every]) for k in range(0, len(steps) - every + 1, every)]
    assert np.allclose(watch["h"].values.mean, [r.mean() for r in rows], rtol=1e-5, atol=1e-7)
    assert np.allclose(watch["h"].values.std, [r.std() for r in rows], rtol=1e-5)
    assert watch.steps.tolist() == [every * (k + 1) for k in range(len(rows))]


def test_rows_of_a_cuda_device_are_those_of_the_cpu():
    tables = []
    for device in ("cpu", EmulatedDevice()):
        model = Model()
        watch = fg.Diagnostics({"h": model.h, "w": model.w}, every=3)
        model.train(watch, rate=0.1, device=device)
        tables.append([watch["h"].values.std, watch["w"].gradient.std, watch["w"].gradient.counts.sum(1)])
    assert all(np.allclose(a, b, rtol=1e-4) for a, b in zip(*tables, strict=True))


@pytest.mark.parametrize("every", [100, 2000])
def test_rows_survive_more_steps_than_one_native_call_makes(every):
    x, w = fg.input("x", ("batch",)), fg.parameter("w", (), np.float32(0))
    watch = fg.Diagnostics({"w": w}, every=every, histograms=False)
    trainer = fg.Trainer(-fg.mean(x) * w, fg.optim.SGD(1.0), diagnostics=watch, device="cpu", threads=1)
    steps = 4 * CAPACITY + 352
    trainer.fit({"x": np.ones(steps, np.float32)}, batch_size=1, progress=False)
    rows = steps // every
    assert np.array_equal(watch["w"].values.mean, every * np.arange(rows) + (every - 1) / 2)  # w counts the steps
    assert watch["w"].values.counts.shape == (rows, 0)


def test_statistics_are_those_before_the_update():
    model = Model()
    watch = fg.Diagnostics({"w": model.w}, every=1)
    trainer = fg.Trainer(model.cost, fg.optim.SGD(0.5), diagnostics=watch, device="reference")
    before = model.w.value
    trainer.fit(DATA, batch_size=50, progress=False)
    assert np.isclose(watch["w"].values.std[0], before.std(), rtol=1e-5)


@pytest.mark.parametrize(
    ("activation", "near"),
    [
        (fg.tanh, lambda z: abs(np.tanh(z)) >= 0.98),
        (fg.softsign, lambda z: abs(z / (1 + abs(z))) >= 0.98),
        (fg.logistic, lambda z: abs(np.tanh(z / 2)) >= 0.98),
        (fg.relu, lambda z: z <= 0),
    ],
)
def test_bounds_follow_from_the_op(activation, near):
    model = Model(activation)
    watch = fg.Diagnostics({"h": model.h})
    model.train(watch, batch_size=50, epochs=1, data=DATA | {"x": 20 * DATA["x"]})
    expected = near(20.0 * DATA["x"] @ model.w.value).mean()
    assert 0.05 < expected < 1 and np.allclose(watch["h"].saturated, expected, atol=0.02)


def test_bounds_may_be_given_on_one_side_or_both():
    model = Model(fg.softplus)
    h = np.log1p(np.exp(DATA["x"] @ model.w.value))
    for bounds, expected in (((None, 2.0), h >= 2), ((0.5, None), h <= 0.5), ((0, 2), (h <= 0.2) | (h >= 1.8))):
        watch = fg.Diagnostics({"h": model.h}, bounds={"h": bounds}, margin=0.1)
        model.train(watch, epochs=1)
        assert np.allclose(watch["h"].saturated, expected.mean())


def test_tensors_of_any_rank_are_measured():
    images = RNG.normal(size=(8, 2, 4, 4)).astype(np.float32)
    x = fg.input("x", ("batch", 2, 4, 4))
    s = fg.parameter("s", (), np.float32(0.5))
    h = fg.tanh(x * s)
    watch = fg.Diagnostics({"h": h, "s": s})
    trainer = fg.Trainer(fg.mean(h * h, (1, 2, 3)), fg.optim.SGD(0.0), diagnostics=watch, device="reference")
    trainer.fit({"x": images}, batch_size=8, progress=False)
    values = np.tanh(images * 0.5)
    assert np.isclose(watch["h"].values.std[0], values.std(), rtol=1e-5)
    slope = (2 * values * (1 - values**2) * images / values.size).sum()
    assert np.isclose(watch["s"].gradient.mean[0], slope, rtol=1e-4) and watch["s"].values.mean[0] == 0.5


def test_what_the_cost_does_not_depend_on_has_a_gradient_of_zero():
    model = Model()
    watch = fg.Diagnostics({"beside": fg.tanh(2.0 * model.h)})
    model.train(watch)
    assert watch["beside"].values.std[0] > 0 and not watch["beside"].gradient.std.any()


def test_measuring_leaves_the_training_as_it_is():
    plain, watched = Model(), Model()
    plain.train(None, rate=0.1, device="cpu")
    watched.train(fg.Diagnostics({"h": watched.h, "w": watched.w}), rate=0.1, device="cpu")
    assert np.allclose(plain.w.value, watched.w.value, rtol=1e-5, atol=1e-6)


def test_gradients_with_accumulation_are_those_of_each_minibatch():
    model = Model()
    watch = fg.Diagnostics({"w": model.w})
    trainer = fg.Trainer(model.cost, fg.optim.SGD(0.0), accumulate=2, diagnostics=watch, device="reference")
    trainer.fit(DATA, batch_size=16, shuffle=False, progress=False)
    dws = together([dw for *_, dw, _ in model.by_hand()])
    assert np.allclose(watch["w"].gradient.std, dws.std(), rtol=1e-5)


@pytest.mark.parametrize("every", [None, 3])
def test_a_training_that_is_resumed_has_the_same_rows(every, tmp_path):
    def begin(model):
        watch = fg.Diagnostics({"h": model.h}, every=every)
        return fg.Trainer(model.cost, fg.optim.SGD(0.1), diagnostics=watch, device="reference")

    whole = begin(Model())
    whole.fit(DATA, epochs=4, batch_size=16, progress=False)
    first = begin(Model())
    first.fit(DATA, epochs=2, batch_size=16, progress=False, checkpoint=tmp_path)
    second = begin(Model())
    second.fit(DATA, epochs=4, batch_size=16, progress=False, checkpoint=tmp_path)
    by_hand = begin(Model())
    second.save(tmp_path / "by hand")
    by_hand.load(tmp_path / "by hand")
    for other in (second, by_hand):
        assert other.diagnostics.to_dict() == whole.diagnostics.to_dict()
        assert np.array_equal(other.diagnostics["h"].gradient.counts, whole.diagnostics["h"].gradient.counts)


@pytest.mark.parametrize("every", [None, 3])
def test_a_training_that_is_resumed_within_an_epoch_has_the_same_rows(every, tmp_path):
    class Stop(fg.Callback):
        def __init__(self, after):
            self.left = after

        def on_steps(self, trainer, steps):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt

    data = {name: np.tile(array, (60, *[1] * (array.ndim - 1))) for name, array in DATA.items()}  # 3,000 examples

    def fit(stop):
        model = Model()
        watch = fg.Diagnostics({"h": model.h}, every=every)
        trainer = fg.Trainer(model.cost, fg.optim.SGD(0.1), diagnostics=watch, device="cpu", threads=1)
        folder = tmp_path if stop is not None else None
        history = trainer.fit(data, 2, 2, progress=False, callbacks=Stop(stop or 0), checkpoint=folder)
        return watch, history

    whole, _ = fit(None)
    first, history = fit(2)  # told of 1,024 steps, and then of all 1,500: stopped in the first epoch
    assert history.interrupted and len(first) < len(whole)
    second, _ = fit(0)
    assert second.to_dict() == whole.to_dict()


def test_the_table_prints_and_is_written(tmp_path):
    model = Model()
    watch = fg.Diagnostics({"h": model.h, "w": model.w})
    model.train(watch)
    first, *lines = str(watch).splitlines()
    assert first.split() == list(watch.to_dict()) and [line.split()[2] for line in lines] == ["h", "w"] * 2
    assert lines[1].split()[5] == "-"  # a parameter has no bounds
    watch.to_csv(tmp_path / "table.csv")
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 and float(rows[0]["std"]) == watch["h"].values.std[0]


def test_shares_between_edges():
    model = Model()
    watch = fg.Diagnostics({"h": model.h}, edges={"h": np.linspace(-1, 1, 21)})
    model.train(watch, epochs=1)
    hs = together(h for h, *_ in model.by_hand())
    assert np.allclose(watch["h"].values.share(-0.5, 0.5), (np.abs(hs) < 0.5).mean())


def test_symmetric_log_has_edges_at_powers_of_ten_on_both_sides():
    assert np.allclose(symmetric_log(1e-2, 1e1, 2)[5:8], [-(10**-1.5), -0.01, 0.01])
    with pytest.raises(fg.GraphError, match="least"):
        symmetric_log(1.0, 0.1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda h: fg.Diagnostics({}), "by name, got {}"),
        (lambda h: fg.Diagnostics(h), "by name"),
        (lambda h: fg.Diagnostics({1: h}), "named by a string, got 1"),
        (lambda h: fg.Diagnostics({"h": fg.cast(h, "int32")}), "'h' is int32"),
        (lambda h: fg.Diagnostics({"h": h}, every=0), "every is a whole number"),
        (lambda h: fg.Diagnostics({"h": h}, margin=0.5), "margin is .* below 0.5"),
        (lambda h: fg.Diagnostics({"h": h}, bounds={"H": (0, 1)}), "'H', which is not measured"),
        (lambda h: fg.Diagnostics({"h": h}, bounds={"h": (1, 0)}), "bounds of 'h' are a pair"),
        (lambda h: fg.Diagnostics({"h": h}, edges={"h": [0.0]}), "edges of 'h' are at least two"),
        (lambda h: fg.Diagnostics({"h": h}, gradient_edges=[1.0, 0.0]), "finite numbers that rise"),
        (lambda h: fg.Diagnostics({"h": h})["h"], "have no trainer"),
    ],
)
def test_what_is_wrong_is_said(make, message):
    with pytest.raises(fg.FlowgraphError, match=message):
        make(Model().h)


def test_diagnostics_belong_to_one_trainer_and_are_nothing_else():
    model = Model()
    watch = fg.Diagnostics({"h": model.h})
    model.train(watch)
    with pytest.raises(fg.GraphError, match="belong to one trainer"):
        model.train(watch)
    with pytest.raises(fg.GraphError, match="diagnostics are"):
        model.train({"h": model.h})


def test_the_page_shows_what_its_code_prints(tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parent.parent / "docs" / "diagnostics.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for code in re.findall(r"^```python\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE):
        exec(compile(code, "docs/diagnostics.md", "exec"), names)
    (shown,) = re.findall(r"^```\n(epoch.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    found, expected = ([line.split() for line in text.splitlines()] for text in (capsys.readouterr().out, shown))
    assert [line[:3] for line in found] == [line[:3] for line in expected]
    stds = [np.array([[line[4], line[7]] for line in lines[1:]], float) for lines in (found, expected)]
    assert np.allclose(*stds, rtol=0.02)  # means around 0 differ from machine to machine
    assert (tmp_path / "watch.csv").exists() and names["found"].examples.shape == (9,)
