"""Saturation: N(0, 1) begins saturated and ends worst; Glorot's start and 1/√n keep the spread and end best."""

from __future__ import annotations

import pytest

from examples.saturation import main


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("saturation")
    return main(True, out) | {"pictures": {p.name for p in out.iterdir()}}


def test_normal_weights_begin_saturated_and_others_do_not(results):
    for activation, least in (("tanh", 0.5), ("logistic", 0.15)):
        begin, end = results[f"{activation}_normal"]["saturated"]
        assert min(begin) > least and min(end) > least
        for start in ("customary", "one_over_sqrt_n", "glorot"):
            assert max(results[f"{activation}_{start}"]["saturated"][0]) < 0.05


def test_the_customary_start_loses_the_spread_from_layer_to_layer_and_glorots_keeps_it(results):
    customary, glorot = (results[f"tanh_{start}"]["std"] for start in ("customary", "glorot"))
    assert customary[4] < 0.3 * customary[0] and glorot[4] > 0.5 * glorot[0]


def test_errors_are_in_the_papers_order(results):
    starts = ("normal", "customary", "one_over_sqrt_n", "glorot")
    normal, customary, *best = (results[f"tanh_{start}"]["error"] for start in starts)
    assert max(best) < 0.12 < customary < normal


def test_the_courses_are_drawn(results):
    assert results["pictures"] == {"tanh.svg", "logistic.svg"}
