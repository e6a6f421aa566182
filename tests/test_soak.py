"""The soak: what a model leaves behind, and that growth is seen."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import soak
from benchmarks.soak import Sample, Use, verdict


def test_a_model_that_is_trained_and_forgotten_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "WIDTHS", (20,))
    use, counts = Use(tmp_path), []
    for number in range(9):
        use.new_model()
        use.mistakes()
        use.rounds += 1
        if number % 3 == 2:                     # each depth once
            gc.collect()
            counts.append(len(gc.get_objects()))
    assert counts[2] - counts[1] < 3 * soak.GROWTH_OBJECTS


STEADY = [Sample(10.0 * k, 120.0 + k % 3, 6, 2, 3, 60_000 + k, 10 * k, 6000.0 - 500 * (k % 2)) for k in range(30)]


def test_noise_is_no_growth() -> None:
    assert verdict(STEADY) == []


@pytest.mark.parametrize(("name", "rate"), [
    ("resident_mb", 1.0), ("files", 0.2), ("threads", 0.1), ("native_threads", 0.1), ("objects", 100),
    ("steps_per_second", -150.0),
])  # fmt: skip
def test_what_grows_or_slows_is_named(name: str, rate: float) -> None:
    grown = [replace(s, **{name: type(getattr(s, name))(getattr(s, name) + rate * k)}) for k, s in enumerate(STEADY)]
    (problem,) = verdict(grown)
    assert {"objects": "Python objects more", "steps_per_second": "training slowed"}.get(name, name) in problem
