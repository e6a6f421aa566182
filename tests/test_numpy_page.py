"""The page of differences from NumPy shows what happens."""

from __future__ import annotations

import doctest
from pathlib import Path


def test_every_example_of_the_page_of_differences_from_numpy_is_true() -> None:
    page = Path(__file__).parent.parent / "docs" / "numpy.md"
    found = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert found.attempted > 20 and not found.failed
