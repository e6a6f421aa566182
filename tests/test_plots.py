"""Plots: what is drawn is what was measured."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import flowgraph as fg


@pytest.fixture(scope="module")
def watch():
    x = fg.input("x", ("batch", 4))
    w = fg.parameter("w", (4, 3), fg.init.normal())
    h = fg.tanh(x @ w)
    found = fg.Diagnostics({"h": h, "w": w}, every=2)
    trainer = fg.Trainer(fg.mean(h * h), fg.optim.SGD(0.1), diagnostics=found, device="reference")
    data = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    trainer.fit({"x": data}, epochs=3, batch_size=10, progress=False)
    return found


@pytest.fixture
def ax():
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("svg")
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def test_gradients_are_drawn_by_magnitude_and_values_between_their_bounds(watch, ax):
    edges, counts = watch["w"].gradient.magnitudes()
    line = fg.plots.histograms(watch, ["w"], row=2, ax=ax).lines[0]
    assert np.allclose(line.get_xdata(), np.sqrt(edges[1:] * edges[:-1])) and ax.get_xscale() == "log"
    assert np.allclose(line.get_ydata(), counts[2] / (6 * 4))  # 12 weights, two steps, all of them in some bin
    ax.clear()
    line = fg.plots.histograms(watch, ["h"], of="values", ax=ax).lines[0]
    assert ax.get_xscale() == "linear" and np.isclose(line.get_ydata().sum(), 1)


def test_magnitudes_add_both_signs(watch):
    spread = watch["w"].gradient
    edges, counts = spread.magnitudes()
    assert len(edges) == counts.shape[1] + 1 and (edges > 0).all()
    around_zero = spread.counts[:, len(spread.edges) // 2]
    assert np.array_equal(counts.sum(1) + around_zero + spread.counts[:, 0] + spread.counts[:, -1], np.full(6, 24))
    with pytest.raises(fg.GraphError, match="not symmetric"):
        watch["h"].values.magnitudes()


def test_the_course_of_means_and_of_saturation_is_drawn_over_the_steps(watch, ax):
    line, _ = fg.plots.course(watch, ax=ax).lines
    assert np.array_equal(line.get_xdata(), watch.steps) and np.array_equal(line.get_ydata(), watch["h"].values.mean)
    ax.clear()
    (line,) = fg.plots.saturation(watch, ["h"], ax=ax).lines
    assert np.array_equal(line.get_ydata(), watch["h"].saturated)


def test_pictures_lie_side_by_side_each_in_its_own_greys(ax):
    tiles = np.arange(5 * 2 * 3).reshape(5, 2, 3)
    sheet = fg.plots.images(tiles, columns=3, ax=ax).images[0].get_array()
    assert sheet.shape == (2 * 3 - 1, 3 * 4 - 1)
    assert np.allclose(sheet[3:5, 4:7], (tiles[4] - 24) / 5) and sheet.mask[:, 3].all() and sheet.mask[3:, 8:].all()
    with pytest.raises(fg.ShapeError, match=r"\(n, height, width\), got \(1, 2, 3\)"):
        fg.plots.images(tiles[:, None], ax=ax)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda w, ax: fg.plots.histograms(w, ["x"], ax=ax), "'x' is not measured"),
        (lambda w, ax: fg.plots.histograms(w, of="gradients", ax=ax), "of is 'gradient' or 'values'"),
    ],
)
def test_what_is_wrong_is_said(watch, ax, draw, message):
    with pytest.raises(fg.GraphError, match=message):
        draw(watch, ax)


def test_without_histograms_there_is_nothing_to_draw(ax):
    w = fg.parameter("w", (3,), fg.init.normal())
    watch = fg.Diagnostics({"w": w}, histograms=False)
    cost = fg.mean(fg.input("x", ("batch",))) * fg.sum(w)
    fg.Trainer(cost, diagnostics=watch, device="reference").fit({"x": np.ones(2, np.float32)}, progress=False)
    with pytest.raises(fg.GraphError, match="count nothing"):
        fg.plots.histograms(watch, ax=ax)


def test_without_matplotlib_it_says_what_to_install(watch, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"flowgraph\[examples\]"):
        fg.plots.course(watch)
