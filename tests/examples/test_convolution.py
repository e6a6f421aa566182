"""The example of convolution: filters do what they are called, and those that are learned tell images apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.common import Results
from examples.convolution import FILTERS, main


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Path]:
    out = tmp_path_factory.mktemp("convolution")
    return main(True, out), out


def test_a_convolution_is_an_inner_product_at_every_place(found: tuple[Results, Path]) -> None:
    assert found[0]["largest_error"] < 1e-5


def test_blurring_keeps_what_is_flat_and_edges_are_none(found: tuple[Results, Path]) -> None:
    flat = found[0]["of_a_flat_image"]
    assert list(flat) == list(FILTERS)
    for name in ("identity", "blur", "sharpen"):
        assert flat[name] == pytest.approx(1, abs=1e-6)
    for name in ("edges", "upright edges", "level edges"):
        assert flat[name] == pytest.approx(0, abs=1e-6)


def test_eight_learned_filters_are_enough_for_digits(found: tuple[Results, Path]) -> None:
    assert found[0]["accuracy"] > 0.9
    assert found[0]["change"] > 0.2, "the filters have learned, not only what reads their maps"
    assert found[0]["weights"] == 8 * 9 + 8 < found[0]["weights_untied"] / 100


def test_filters_are_drawn_above_their_maps(found: tuple[Results, Path]) -> None:
    for name in ("fixed.svg", "learned.svg"):
        assert 1_000 < (found[1] / name).stat().st_size < 100_000
