"""One-hot times W and a lookup in W are one program."""

from __future__ import annotations

import pytest

from examples.one_hot_lookup import main


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("one_hot_lookup")
    return main(True, out) | {"pictures": {p.name for p in out.iterdir()}}


def test_both_compile_to_the_same_kernels_also_in_training(results):
    assert results["same_kernels"] == {"forward": True, "training": True}
    assert results["kernel"][0].startswith("kernel gather_kernel(")


def test_both_train_to_the_same_bits(results):
    assert results["same_bits"] and results["loss"] < 3.3  # the logarithm of some 60 letters is 4.1


def test_neither_one_hot_rows_nor_a_dense_gradient_are_stored(results):
    assert results["memory"]["step"] < 0.1 * results["memory"]["one_hot"] < results["memory"]["gradient"]


def test_pictures_are_drawn(results):
    assert results["pictures"] == {"product.svg", "lookup.svg", "compiled.svg"}
