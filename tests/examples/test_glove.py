"""GloVe fits the logarithms of counts, and its vectors tell which words belong together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flowgraph as fg
from examples import glove


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("glove")
    return glove.main(quick=True, out=out), out


def test_words_of_one_class_come_to_have_similar_vectors(found: tuple[dict[str, Any], Path]) -> None:
    results, _ = found
    assert results["covered"] == 400 and results["score"]["mean"] > 0.4
    assert results["words_alone"]["mean"] > 0.3
    first, second = results["scores"]
    assert first != second and results["score"]["mean"] == pytest.approx((first[-1] + second[-1]) / 2)


def test_the_cost_falls_and_pictures_are_there(found: tuple[dict[str, Any], Path]) -> None:
    results, out = found
    assert results["cost"][-1] < results["cost"][0] / 4
    assert len(results["cost"]) == len(results["scores"][-1]) == results["epochs"] == glove.EPOCHS
    assert {p.name for p in out.glob("*.svg")} == {"training.svg", "weights.svg", "graph.svg"}


def test_the_cost_of_a_cell_is_the_papers() -> None:
    vectors, contexts, cost = glove.glove(5)
    rng = np.random.default_rng(0)
    vectors.value, contexts.value = (rng.normal(size=(5, glove.DIMENSIONS)).astype(np.float32) for _ in range(2))
    rows, columns, counts = np.int32([0, 3]), np.int32([4, 3]), np.float32([2.0, 50.0])
    (costs,) = fg.compile(outputs=cost, device="reference")(row=rows, column=columns, count=counts)
    error = (vectors.value[rows] * contexts.value[columns]).sum(1) - np.log(counts)
    np.testing.assert_allclose(costs, np.minimum((counts / 10) ** 0.75, 1) * error**2, rtol=1e-4)
