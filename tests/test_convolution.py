"""Convolution as users call it: shapes, padding, groups, what is refused, against sums written out."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.autodiff import backward
from flowgraph.errors import InputError, ShapeError
from flowgraph.graph.graph import Graph
from flowgraph.kernels.build import build_kernels
from flowgraph.schedule.access import collapse
from flowgraph.schedule.cuda import choose
from tests.support.compare import Oracle
from tests.support.paths import PATHS, optimise


def run(outputs: Any, device: str = "reference", **feeds: np.ndarray) -> np.ndarray:
    return fg.compile(outputs=outputs, device=device)(**feeds)[0]


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def written_out(
    x: np.ndarray, w: np.ndarray, strides: tuple[int, ...], dilations: tuple[int, ...], groups: int
) -> np.ndarray:
    """Every product of an image that needs no padding, one after the other."""
    rank = w.ndim - 2
    counts = [
        (n - (k - 1) * d - 1) // s + 1
        for n, k, s, d in zip(x.shape[2:], w.shape[2:], strides, dilations, strict=True)
    ]
    made = np.zeros((len(x), len(w), *counts))
    for n, o, *p in product(*map(range, made.shape)):
        first = o // (len(w) // groups) * w.shape[1]
        for c, *k in product(*map(range, w.shape[1:])):
            at = tuple(p[a] * strides[a] + k[a] * dilations[a] for a in range(rank))
            made[(n, o, *p)] += float(x[(n, first + c, *at)]) * float(w[(o, c, *k)])
    return made


@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize(
    ("image", "weights", "options"),
    [
        ((2, 4, 9, 8), (6, 4, 3, 2), {}),
        ((2, 4, 9, 8), (6, 2, 3, 2), {"groups": 2, "stride": (2, 1)}),
        ((1, 4, 9, 8), (4, 1, 3, 3), {"groups": 4, "dilation": (1, 2)}),
        ((3, 2, 11), (5, 2, 3), {"stride": 3, "dilation": 2}),
        ((1, 1, 1), (1, 1, 1), {}),
    ],
)
def test_a_convolution_is_the_sum_of_products_of_a_window_and_the_weights(
    image: tuple[int, ...], weights: tuple[int, ...], options: dict[str, Any], device: str
) -> None:
    X, W = random(*image), random(*weights, seed=1)
    rank = len(image) - 2
    form = (fg.conv1d, fg.conv2d)[rank - 1]
    found = run(form(fg.input("x", image), fg.input("w", weights), **options), device, x=X, w=W)
    steps = [options.get(name, 1) for name in ("stride", "dilation")]
    strides, dilations = (s if isinstance(s, tuple) else (s,) * rank for s in steps)
    np.testing.assert_allclose(found, written_out(X, W, strides, dilations, options.get("groups", 1)), atol=1e-5)


@pytest.mark.parametrize(
    ("padding", "widths"),
    [
        ("valid", ((0, 0), (0, 0))),
        (2, ((2, 2), (2, 2))),
        ((1, 2), ((1, 1), (2, 2))),
        (((0, 2), 1), ((0, 2), (1, 1))),
        ("same", ((1, 1), (0, 1))),  # of windows 3 and 2
    ],
)
def test_padding_adds_zeros_around_the_image(padding: Any, widths: Any) -> None:
    X, W = random(2, 3, 9, 8), random(4, 3, 3, 2, seed=1)
    x, w = fg.input("x", X.shape), fg.input("w", W.shape)
    padded = np.pad(X, ((0, 0), (0, 0), *widths))
    np.testing.assert_allclose(
        run(fg.conv2d(x, w, padding=padding), x=X, w=W), written_out(padded, W, (1, 1), (1, 1), 1), atol=1e-5
    )


def test_a_pair_pads_the_two_ends_of_a_line() -> None:
    x, w = fg.input("x", ("batch", 3, 10)), fg.input("w", (4, 3, 3))
    assert fg.conv1d(x, w, padding=(2, 0)).shape[-1] == 10
    assert fg.conv1d(x, w, padding=[(2, 1)]).shape[-1] == 11


@pytest.mark.parametrize(("size", "kernel", "stride"), [(10, 3, 1), (10, 4, 1), (10, 3, 2), (11, 3, 3), (7, 1, 2)])
def test_same_padding_makes_a_position_of_every_stride(size: int, kernel: int, stride: int) -> None:
    x, w = fg.input("x", (1, 1, size)), fg.input("w", (1, 1, kernel))
    assert fg.conv1d(x, w, stride, "same").shape == (1, 1, -(-size // stride))


def test_the_length_of_a_line_may_be_named() -> None:
    x, w = fg.input("x", ("batch", 2, "time")), fg.input("w", (5, 2, 3))
    cost = fg.mean(fg.tanh(fg.conv1d(x, w, stride=2, padding=1, dilation=2)))
    graph = Graph((cost, *backward(cost, [x, w])))
    for time in (3, 8, 33):
        feeds = {x: random(4, 2, time), w: random(5, 2, 3, seed=1)}
        sizes = {"batch": 4, "time": time}
        oracle = Oracle(graph, feeds, sizes)
        for name in ("fused", "cpu"):
            assert not oracle.mismatch(PATHS[name](graph, feeds, sizes)), (name, time)


def test_a_line_that_turns_out_shorter_than_the_window_is_refused_when_it_is_fed() -> None:
    x, w = fg.input("x", ("batch", 2, "time")), fg.input("w", (5, 2, 4))
    program = fg.compile(outputs=fg.conv1d(x, w), device="reference")
    with pytest.raises(InputError, match=r"(?s)a window of 4 elements does not fit an axis of time.*larger images"):
        program(x=random(1, 2, 3), w=random(5, 2, 4))


def _of(image: tuple[int, ...], weights: tuple[int, ...], **options: Any) -> Any:
    return lambda: fg.conv2d(fg.input("x", image), fg.input("w", weights), **options)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (_of((1, 3, 4, 9), (2, 3, 5, 3)), "a window of 5 elements does not fit an axis of 4"),
        (_of((1, 3, 8, 9), (2, 3, 5, 3), dilation=2), "a window of 9 elements does not fit an axis of 8"),
        (_of((1, 3, 8, 9), (2, 4, 3, 3)), "the image has 3 channels, the weights are for 4"),
        (_of((1, 4, 8, 9), (6, 4, 3, 3), groups=2), "4 channels a group, that is 8"),
        (_of((1, 4, 8, 9), (3, 2, 3, 3), groups=2), "3 maps do not divide into 2 groups"),
        (_of((3, 8, 9), (2, 3, 3, 3)), r"image \(3, 8, 9\)"),
        (_of((1, 3, 8, 9), (2, 3, 3, 3), stride=0), "stride 0"),
        (_of((1, 3, 8, 9), (2, 3, 3, 3), stride=(1, 2, 1)), r"stride \(1, 2, 1\)"),
        (_of((1, 3, 8, 9), (2, 3, 3, 3), groups=True), "groups True"),
        (_of((1, 3, 8, 9), (2, 3, 3, 3), padding="full"), "padding 'full'"),
        (_of((1, 3, 8, 9), (2, 3, 3, 3), padding=-1), "padding -1"),
        (_of((1, 3, "h", 9), (2, 3, 3, 3), stride=2, padding="same"), "depends on the data"),
    ],
)
def test_what_does_not_fit_is_refused_where_it_is_written(make: Any, problem: str) -> None:
    with pytest.raises(ShapeError, match=problem) as caught:
        make()
    assert "test_convolution" in str(caught.value)
    assert "hint" in str(caught.value)


@pytest.mark.skipif("cuda" not in PATHS, reason="needs numba-cuda")
def test_on_a_gpu_each_thread_takes_a_window_where_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowgraph.schedule.cuda.MANY", 64)
    x, w = fg.input("x", (4, 3, 20, 22)), fg.input("w", (5, 3, 3, 3))
    y = fg.max_pool2d(fg.relu(fg.conv2d(x, w)), 2)
    graph = Graph((y, *backward(fg.sum(y * y), [x, w])))
    schedules = [type(choose(collapse(call.kernel))).__name__ for call in build_kernels(optimise(graph))]
    assert schedules.count("Serial") >= 4
    feeds = {x: random(4, 3, 20, 22), w: random(5, 3, 3, 3, seed=1)}
    assert not Oracle(graph, feeds, {}).mismatch(PATHS["cuda"](graph, feeds, {}))
