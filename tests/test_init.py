"""Initialisers: moments as their formulas say, drawn from the generator that is handed in."""

from __future__ import annotations

import math

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.errors import GraphError
from flowgraph.ops.leaf import INITIALIZERS

SHAPE = (400, 300)


@pytest.mark.parametrize(
    ("init", "std"),
    [
        (fg.init.zeros(), 0.0),
        (fg.init.normal(), 1.0),
        (fg.init.normal(std=0.25), 0.25),
        (fg.init.uniform(-0.5, 0.5), 1 / math.sqrt(12)),
        (fg.init.one_over_sqrt_n(), 1 / 20),
        (fg.init.lecun_normal(), 1 / 20),
        (fg.init.glorot_uniform(), math.sqrt(2 / 700)),
        (fg.init.glorot_normal(), math.sqrt(2 / 700)),
        (fg.init.he_normal(), math.sqrt(2 / 400)),
    ],
)
def test_mean_and_spread_follow_the_formula(init, std):
    drawn = init(SHAPE, np.random.default_rng(1))
    assert drawn.shape == SHAPE
    assert drawn.std() == pytest.approx(std, rel=0.01)
    assert abs(drawn.mean()) <= 4 * std / math.sqrt(drawn.size)


def test_normal_takes_a_mean():
    assert fg.init.normal(0.1, mean=3.0)(SHAPE, np.random.default_rng(0)).mean() == pytest.approx(
        3.0, abs=0.01
    )


def test_uniform_stays_inside_its_bounds():
    limit = math.sqrt(6 / 700)
    drawn = fg.init.glorot_uniform()(SHAPE, np.random.default_rng(0))
    assert drawn.min() >= -limit and drawn.max() <= limit and drawn.max() > 0.99 * limit


def test_axes_left_of_a_matrix_count_for_both_fans():
    drawn = fg.init.he_normal()((3, 3, 50, 200), np.random.default_rng(0))
    assert drawn.std() == pytest.approx(math.sqrt(2 / 450), rel=0.01)


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (7,)])
def test_odd_shapes_are_drawn_too(shape):
    for init in (
        fg.init.one_over_sqrt_n(),
        fg.init.glorot_uniform(),
        fg.init.glorot_normal(),
        fg.init.he_normal(),
    ):
        assert init(shape, np.random.default_rng(0)).shape == shape


def test_a_seed_and_a_name_fix_the_numbers():
    draws = []
    for name, seed in (("w", 3), ("w", 3), ("w", 4), ("v", 3)):
        storage = fg.parameter(name, (5, 4), fg.init.one_over_sqrt_n()).op.storage
        draws.append(storage.draw(seed).copy())
    same, other_seed, other_name = (np.array_equal(draws[0], draw) for draw in draws[1:])
    assert same and not other_seed and not other_name


@pytest.mark.parametrize(
    ("text", "first"),
    [("glorot", "glorot_uniform"), ("xavier_normal", "glorot_n"), ("kaiming", "he_"), ("zero", "zeros")],
)
def test_an_initialiser_by_its_name_is_told_the_closest_function(text, first):
    for make in (lambda: fg.parameter("w", (4, 3), text), lambda: fg.nn.Conv2D("c", 1, 4, 3, init=text)):
        with pytest.raises(GraphError, match=f"init={text!r} is text") as caught:
            make()
        assert caught.value.hint.startswith(f"init=fg.init.{first}") and "test_init.py" in str(caught.value)


def test_messages_know_every_initialiser():
    made = [n for n, f in vars(fg.init).items() if getattr(f, "__annotations__", {}).get("return") == "Initializer"]
    assert sorted(made) == sorted(INITIALIZERS)
