"""Pretraining: autoencoders seed a deep logistic network that learns nothing from a random start."""

from __future__ import annotations

import pytest

from examples.pretraining import main


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("pretraining")
    return main(True, out) | {"pictures": {p.name for p in out.iterdir()}}


def test_every_layer_learns_to_copy_its_input(results):
    assert len(results["cost_left"]) == 5 and max(results["cost_left"]) < 0.95


def test_the_pretrained_network_beats_the_random_start_at_equal_epochs(results):
    epochs = results["epochs"]
    assert epochs["random_start"] == epochs["tuning"] + 5 * epochs["copying"]
    assert results["pretrained"]["accuracy"] > 0.8 and results["random_start"]["accuracy"] < 0.3


def test_the_curves_are_drawn(results):
    assert results["pictures"] == {"accuracy.svg"}
