"""The chain: the gradient is a product of factors that are at most 1/4 times a weight."""

from __future__ import annotations

import pytest

from examples.chain import LAYERS, main


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("chain")
    return main(True, out) | {"pictures": {p.name for p in out.iterdir()}}


def test_every_factor_is_at_most_a_quarter_where_weights_are_at_most_one(results):
    assert 0.2 < results["largest_factor"] <= 0.25


def test_the_product_of_the_factors_is_the_gradient_of_the_whole(results):
    assert results["error_of_the_product"] < 1e-5


def test_gradients_vanish_with_small_weights_and_explode_with_large_ones(results):
    assert results["last_to_first"]["small"] > 4 ** (LAYERS - 1)
    assert results["by_layer"]["w4"] == pytest.approx([0.5] * LAYERS)
    assert results["by_layer"]["w8"] == pytest.approx([0.5 * 2**k for k in reversed(range(LAYERS))])


def test_the_printed_gradient_has_a_line_for_every_factor(results):
    for k in range(1, LAYERS):
        assert f"da{k} = dz{k + 1}*w{k + 1}" in results["formulas"]
        assert f"dz{k} = da{k}*a{k}*(1 - a{k})" in results["formulas"]
    assert results["pictures"] == {"gradient.svg", "gradients.svg"}
