"""The example of LeNet: both poolings learn, and what is drawn of a unit is what excites it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import flowgraph as fg
from examples.common import Results
from examples.lenet import FIELD, LeNet, main, shifted, strongest


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Path]:
    out = tmp_path_factory.mktemp("lenet")
    return main(True, out), out


@pytest.mark.parametrize("pooling", ["max", "average"])
def test_digits_are_told_apart_in_three_epochs(found: tuple[Results, Path], pooling: str) -> None:
    assert found[0]["digits"][pooling]["accuracy"] > 0.85
    assert found[0]["digits_examples"] == [1437, 360]


def test_maps_and_patches_are_drawn(found: tuple[Results, Path]) -> None:
    for name in ("digits_maps.svg", "digits_strongest.svg"):
        assert 1_000 < (found[1] / name).stat().st_size < 100_000


def test_shifted_images_are_moved_by_a_pixel() -> None:
    image = np.arange(1, 10, dtype=np.float32)
    nine = shifted(image[None], 3).reshape(9, 3, 3)
    assert nine[4].ravel().tolist() == image.tolist()  # as it is
    assert nine[0].tolist() == [[0, 0, 0], [0, 1, 2], [0, 4, 5]]  # down and to the right
    assert nine[8].tolist() == [[5, 6, 0], [8, 9, 0], [0, 0, 0]]


def test_the_strongest_patch_holds_all_that_the_unit_sees() -> None:
    """A unit of the second layer, alone on its patch, says what it says of the whole image; outside nothing counts."""
    model = LeNet(28, (2, 3), 8, "max")
    images = np.random.default_rng(0).random((6, 28, 28)).astype(np.float32)
    images *= np.pad(np.ones((24, 24), np.float32), 2)  # nothing at the border, where maps are padded too
    run = fg.compile([model.images], [model.second_maps], device="reference")
    maps = run(images=images.reshape(6, -1))[0]
    patches = strongest(maps, images, FIELD, 2, 1)[:, 0]
    assert patches.shape == (3, 8, 8)
    placed = np.zeros((3, 28, 28), np.float32)
    placed[:, 9:17, 9:17] = patches
    again = run(images=placed.reshape(3, -1))[0]
    middle = (9 - FIELD[0]) // 2
    np.testing.assert_allclose(again[[0, 1, 2], [0, 1, 2], middle, middle], maps.max(axis=(0, 2, 3)), rtol=1e-5)
