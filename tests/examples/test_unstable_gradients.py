"""Unstable gradients: with logistic units they vanish, with large weights they explode."""

from __future__ import annotations

import pytest

from examples.unstable_gradients import main


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("unstable_gradients")
    return main(True, out) | {"pictures": {p.name for p in out.iterdir()}}


def test_the_first_layers_gradient_vanishes_with_logistic_units_alone(results):
    assert results["logistic"]["first_to_last"] < 0.02
    for name in ("tanh", "softsign", "relu"):
        assert 0.3 < results[name]["first_to_last"] < 3
    assert results["logistic"]["first_to_last"] < results["softplus"]["first_to_last"] < 0.3


def test_what_vanishes_learns_nothing(results):
    assert results["logistic"]["accuracy"] < 0.2 and results["tanh"]["accuracy"] > 0.85


def test_relu_leaves_about_half_of_the_units_at_zero(results):
    assert all(0.2 < share < 0.8 for share in results["relu"]["zeros"])


def test_large_weights_explode_unless_gradients_are_clipped(results):
    large = results["large"]
    assert all(after > 2 * before for before, after in zip(large["values"], large["values"][1:], strict=False))
    assert "the cost was" in large["lost"] and large["clipped_accuracy"] > 0.4


def test_the_histograms_are_drawn(results):
    assert results["pictures"] == {"histograms.svg"}
