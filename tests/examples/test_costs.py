"""Costs: from a saturated start the quadratic cost learns slowly, cross-entropy does not mind."""

from __future__ import annotations

import pytest

from examples.costs import main


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("costs")
    return main(True, out) | {"pictures": {p.name for p in out.iterdir()}}


@pytest.mark.parametrize("output", ["logistic", "softmax"])
@pytest.mark.parametrize("cost", ["quadratic", "cross_entropy"])
def test_from_the_usual_start_all_learn_alike(results, output, cost):
    assert results[f"usual_{output}_{cost}"]["accuracy"] > 0.9


@pytest.mark.parametrize("output", ["logistic", "softmax"])
def test_from_a_saturated_start_cross_entropy_is_quick_and_the_quadratic_cost_is_not(results, output):
    quadratic, entropy = (results[f"saturated_{output}_{cost}"] for cost in ("quadratic", "cross_entropy"))
    assert entropy["accuracy"] > 0.9 > quadratic["accuracy"] + 0.05
    assert quadratic["first"] < 0.2 < entropy["first"]


def test_the_curves_are_drawn(results):
    assert results["pictures"] == {"accuracy.svg"}
