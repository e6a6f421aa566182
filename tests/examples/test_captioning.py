"""The example of captions: what is composed is what the caption says, and held-out pictures are described."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from examples.captioning import OPPOSITE, caption_of, composed, main
from examples.common import Results
from flowgraph.datasets import Vocabulary


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Path]:
    out = tmp_path_factory.mktemp("captioning")
    return main(True, out), out


def test_pictures_are_described_far_better_than_by_chance(found: tuple[Results, Path]) -> None:
    """There are 20 ordered pairs in 4 relations, of which two are right: one in 40."""
    assert found[0]["exact"] > 0.25
    assert found[0]["things_right"] > 0.4
    assert set(found[0]["by_relation"]) == set(OPPOSITE)


def test_every_caption_is_a_sentence(found: tuple[Results, Path]) -> None:
    for said in found[0]["said"]:
        assert said.split()[0] == "a" and len(said.split()) in (5, 6), said


def test_captions_are_drawn(found: tuple[Results, Path]) -> None:
    for name in ("captions.svg", "exact.svg"):
        assert 1_000 < (found[1] / name).stat().st_size < 100_000


def test_a_caption_tells_where_things_are() -> None:
    """A full square is "white", a hollow one "black": where the heavier half of the canvas is, the caption says."""
    full, hollow = np.ones(49, np.float32), np.zeros(49, np.float32)
    hollow[24] = 0.5
    pictures = composed(np.stack([full, hollow]), np.array([0, 1]), ("white", "black"), 200, seed=0)
    canvas = pictures.canvas.reshape(200, 16, 16)
    for picture, caption, other in zip(canvas, pictures.captions, pictures.others, strict=True):
        white_first = caption if caption.startswith("a white") else other
        rows, columns = np.nonzero(picture == 1), np.nonzero(picture == 0.5)
        place = {
            "above": rows[0].max() < columns[0][0], "below": rows[0].min() > columns[0][0],
            "left of": rows[1].max() < columns[1][0], "right of": rows[1].min() > columns[1][0],
        }  # fmt: skip
        relation = white_first.removeprefix("a white ").removesuffix(" a black")
        assert place[relation], white_first
    assert {c.split()[1] for c in pictures.captions} == {"white", "black"}


def test_the_same_seed_composes_the_same_pictures() -> None:
    images = np.random.default_rng(0).random((20, 64)).astype(np.float32)
    labels = np.arange(20) % 3
    first, again, other = (composed(images, labels, ("a", "b", None), 5, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.canvas, again.canvas)
    assert first.captions == again.captions
    assert not np.array_equal(first.canvas, other.canvas)


def test_a_caption_ends_at_its_end() -> None:
    words = Vocabulary.of(["one"], special=["<pad>", "<end>"])
    assert caption_of(np.array([2, 2, 1, 2]), words) == "one one"
    assert caption_of(np.array([2, 2]), words) == "one one"
