"""Every example has a page and a test, and its page quotes only what the example found."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from examples.common import Results, run

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


def test_an_example_ends_with_a_line_a_result_and_the_folder_of_its_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def example(quick: bool, out: Path) -> Results:
        (out / "curve.svg").write_text("<svg/>")
        return {"score": 0.5, "costs": list(range(1000))}

    monkeypatch.setattr("sys.argv", ["tiny.py", "--quick", "--out", str(tmp_path / "tiny")])
    run(example)
    *lines, folder = capsys.readouterr().out.splitlines()
    assert lines[0] == "score: 0.5" and len(lines) == 4 and max(map(len, lines)) <= 100
    assert folder == f"in {tmp_path / 'tiny'}: curve.svg, results.json"
    assert json.loads((tmp_path / "tiny" / "results.json").read_text())["costs"] == list(range(1000))
