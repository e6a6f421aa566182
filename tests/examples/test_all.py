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
    page = (ROOT / "docs" / "examples" / f"{name}.md").read_text(encoding="utf-8")
    assert (ROOT / "tests" / "examples" / f"test_{name}.py").exists()
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page):
        assert (ROOT / "docs" / "examples" / picture).exists(), picture
    results = json.loads((ROOT / "docs" / "examples" / name / "results.json").read_text(encoding="utf-8"))
    for quoted in re.findall(r"\{result\}`([^`:]+)", page):
        found = results
        for key in quoted.split("."):
            found = found[int(key) if isinstance(found, list) else key]
