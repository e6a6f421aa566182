"""What units see: fields against gradients, the strongest inputs against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import flowgraph as fg
from tests.support.devices import DEVICES

RNG = np.random.default_rng(3)
IMAGES = RNG.normal(size=(30, 2, 11, 12)).astype(np.float32)


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def plain(x: fg.Tensor) -> fg.Tensor:
    return fg.conv2d(x, ones(3, 2, 3, 2))


def strided(x: fg.Tensor) -> fg.Tensor:
    return fg.conv2d(fg.conv2d(x, ones(2, 2, 3, 3), stride=2, padding=1), ones(1, 2, 2, 2), dilation=2)


def pooled(x: fg.Tensor) -> fg.Tensor:
    return fg.avg_pool2d(fg.conv2d(x, ones(4, 2, 3, 3), padding="same"), (2, 3))


def grouped(x: fg.Tensor) -> fg.Tensor:
    return fg.conv2d(x, ones(4, 1, 3, 3), groups=2)


def sliced(x: fg.Tensor) -> fg.Tensor:
    return fg.transpose(fg.conv2d(x[:, :, 1:, ::2], ones(2, 2, 2, 2)), (0, 1, 3, 2))


def dense(x: fg.Tensor) -> fg.Tensor:
    return fg.reshape(fg.avg_pool2d(plain(x), 3), ("batch", 27)) @ ones(27, 5)


@pytest.mark.parametrize("network", [plain, strided, pooled, grouped, sliced, dense])
def test_the_field_is_where_the_gradient_is_not_zero(network: Any) -> None:
    x = fg.input("x", ("batch", 2, 11, 12))
    h = network(x)
    shape = fg.compile(outputs=h, device="reference")(x=IMAGES[:1])[0].shape[1:]
    for _ in range(6):
        place = tuple(int(RNG.integers(n)) for n in shape)
        slope = fg.grad(fg.sum(h[(slice(None), *place)]), x)
        (found,) = fg.compile([x], slope, device="reference")(x=IMAGES[:1])
        nonzero = np.nonzero(found[0])
        expected = tuple((int(axis.min()), int(axis.max()) + 1) for axis in nonzero)
        field = fg.receptive_field(h, x, place)
        inside = tuple((max(s.start, 0), min(s.stop, n)) for s, n in zip(field, x.shape[1:], strict=True))
        assert inside == expected, place


def test_a_field_reaches_beyond_the_edge_where_there_is_padding_and_always_has_one_size() -> None:
    x = fg.input("x", ("batch", 1, "height", "width"))
    h = fg.max_pool2d(fg.relu(fg.conv2d(x, ones(2, 1, 5, 5), padding=2)), 2)
    sizes = {"height": 8, "width": 10}
    fields = [fg.receptive_field(h, x, (1, p, q), sizes) for p in range(4) for q in range(5)]
    assert fields[0] == (slice(0, 1), slice(-2, 4), slice(-2, 4))
    assert {tuple(s.stop - s.start for s in field) for field in fields} == {(1, 6, 6)}


def test_what_is_looked_up_sorted_or_goes_through_a_loop_depends_on_all() -> None:
    x = fg.input("x", ("batch", 6))
    _, states = fg.scan(lambda h, e: (h + e, h + e), fg.sum(x, axis=1) * 0.0, fg.transpose(x))
    for h in (fg.sort(x), fg.cumulative_sum(x, 1), fg.transpose(states)):
        assert fg.receptive_field(h, x, (2,)) == (slice(0, 6),)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("batch_size", [7, 256])
def test_the_strongest_are_those_of_numpy_with_their_places(device: str, batch_size: int) -> None:
    x = fg.input("x", ("batch", 2, 11, 12))
    w = RNG.normal(size=(3, 2, 3, 3)).astype(np.float32)
    h = fg.relu(fg.conv2d(x, w, padding=1))
    (maps,) = fg.compile(outputs=h, device="reference")(x=IMAGES)
    found = fg.strongest(h, {"x": IMAGES}, 2, 4, batch_size=batch_size, device=device)
    best = maps[:, 2].reshape(30, -1).max(1)
    order = np.argsort(-best, kind="stable")[:4]
    assert found.examples.tolist() == order.tolist()
    np.testing.assert_allclose(found.values, best[order], rtol=1e-5)
    patches = found.patches()
    for example, (p, q), patch, value in zip(found.examples, found.positions, patches, found.values, strict=True):
        assert np.argmax(maps[example, 2]) == p * 12 + q
        around = np.pad(IMAGES[example], ((0, 0), (1, 1), (1, 1)))
        np.testing.assert_array_equal(patch, around[:, p : p + 3, q : q + 3])
        assert np.isclose((patch * w[2]).sum(), value, rtol=1e-4)


def test_of_a_layer_the_whole_input_is_seen_and_dropout_is_left_out() -> None:
    x, noise = fg.input("x", ("batch", 12)), fg.input("noise", ("batch", 3))
    w = RNG.normal(size=(12, 3)).astype(np.float32)
    h = fg.dropout(x, 0.5) @ w + noise
    data = {"x": IMAGES[:, 0, 0], "noise": np.zeros((30, 3), np.float32), "y": np.zeros(30, np.int32)}
    found = fg.strongest(h, data, 1, 30, device="reference")
    assert found.examples.tolist() == np.argsort(-(IMAGES[:, 0, 0] @ w)[:, 1], kind="stable").tolist()
    assert found.positions.shape == (30, 0)
    assert np.array_equal(found.patches("x"), IMAGES[found.examples, 0, 0])
    assert np.array_equal(found.patches("noise"), np.zeros((30, 1)))  # unit 1 sees one of three
    with pytest.raises(fg.InputError, match="one of the inputs 'x', 'noise'"):
        found.patches()


def test_of_equal_values_the_first_counts() -> None:
    x = fg.input("x", ("batch", 1))
    found = fg.strongest(x * 1.0, {"x": np.ones((5, 1), np.float32)}, 0, 3, batch_size=2, device="reference")
    assert found.examples.tolist() == [0, 1, 2]


def test_what_is_wrong_is_said() -> None:
    x = fg.input("x", ("batch", 4))
    data = {"x": np.zeros((3, 4), np.float32)}
    for ask, error, message in (
        (lambda: fg.strongest(fg.sum(x, axis=1), data, 0), fg.ShapeError, "needs values"),
        (lambda: fg.strongest(x * 1.0, data, 4), fg.InputError, "unit is a whole number from 0 to 3"),
        (lambda: fg.strongest(x * 1.0, data, 0, 4), fg.InputError, "k is 4, and there are 3 examples"),
        (lambda: fg.strongest(x * 1.0, {}, 0), fg.InputError, "missing input 'x'"),
        (lambda: fg.receptive_field(x * 1.0, x, (0, 0)), fg.ShapeError, "a position of 2 axes"),
        (lambda: fg.receptive_field(x * 1.0, fg.input("z", ("batch", 2)), (0,)), fg.GraphError, "does not depend"),
    ):
        with pytest.raises(error, match=message):
            ask()
