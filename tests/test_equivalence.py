"""flowgraph's losses beside those that PyTorch had: what `benchmarks.equivalence` measured is still so."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.equivalence import MODELS, RESULTS, STEPS, TOLERANCE, begun, losses

MEASURED = json.loads(RESULTS.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", MODELS)
def test_a_model_trains_in_float64_as_it_does_in_pytorch(name: str) -> None:
    theirs = np.array(MEASURED[name]["torch"])
    assert len(theirs) == STEPS and theirs[-1] < 0.9 * theirs[0]
    np.testing.assert_allclose(losses(*begun(name, "float64"), STEPS), theirs, rtol=TOLERANCE)
