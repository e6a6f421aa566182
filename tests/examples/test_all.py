"""Every example has a page and a test, and its page quotes only what the example found."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = sorted(p.stem for p in (ROOT / "examples").glob("*.py") if p.stem not in ("__init__", "common"))


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_has_its_page_and_its_test(name: str) -> None:
    """Of an example that has not been run in full, the page says so in place of numbers and pictures."""
    page = (ROOT / "docs" / "examples" / f"{name}.md").read_text(encoding="utf-8")
    assert (ROOT / "tests" / "examples" / f"test_{name}.py").exists()
    found = ROOT / "docs" / "examples" / name / "results.json"
    if not found.exists():
        assert not list(found.parent.glob("*")), "pictures without results"
        return
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page):
        assert (ROOT / "docs" / "examples" / picture).exists(), picture
    results = json.loads(found.read_text(encoding="utf-8"))
    for quoted in re.findall(r"\{result\}(?:`| )([^`:\n]+)", page):
        value = results
        for key in quoted.split("."):
            value = value[int(key) if isinstance(value, list) else key]
