"""The README is true: its code runs, and the kernels it shows are the kernels it makes."""

from __future__ import annotations

import re
from contextlib import redirect_stdout
from io import StringIO
from itertools import pairwise
from pathlib import Path

import pytest

from flowgraph.cli import main
from tools.pictures import readme_program, run_block

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_readme_runs_and_shows_what_it_makes() -> None:
    names = readme_program()
    step, history = names["step"], names["history"]
    assert history[-1]["val_accuracy"] >= 0.965
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    shown = [text for language, text in blocks if not language]
    (kernel,) = [b for b in shown if b.startswith("kernel ")]
    assert kernel.rstrip() in "\n".join(map(str, step.kernels))
    (source,) = [b for b in shown if b.startswith("def ")]
    assert source.rstrip() in step.source()
    assert len(step.kernels) == 9 and "nine kernels" in README
    assert len(step.graph.nodes()) == 68 and "Sixty-eight nodes" in README


def test_the_listing_of_the_readme_is_one_that_the_command_takes(tmp_path: Path) -> None:
    blocks = re.findall(r"^```\w*\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    (listing,) = (block for block in blocks if "Inputs:" in block)
    (tmp_path / "readme.fg").write_text(listing, encoding="utf-8")
    with redirect_stdout(StringIO()) as printed:
        assert main(["train", str(tmp_path / "readme.fg"), "--epochs", "2", "--device", "reference"]) == 0
    assert "val_accuracy" in printed.getvalue()


def test_every_file_the_readme_links_to_exists() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(links) >= 4
    for link in links:
        assert (Path(__file__).parent.parent / link).exists(), link


@pytest.mark.parametrize(("page", "shown"), [("lecture", 2), ("loops", 1)])
def test_a_page_prints_what_it_shows(page: str, shown: int) -> None:
    """A block of code is followed by one of what it prints, if it prints anything."""
    text = (Path(__file__).parent.parent / "docs" / f"{page}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    names: dict[str, object] = {}
    checked = 0
    for (language, code), (following, expected) in pairwise([*blocks, ("", "")]):
        if language == "python":
            with redirect_stdout(StringIO()) as printed:
                run_block(code, f"docs/{page}.md {checked}", names)
            assert printed.getvalue().strip() == ("" if following == "python" else expected.strip())
            checked += not following
    assert checked == shown + (blocks[-1][0] == "python")


@pytest.mark.parametrize(("page", "count"), [("layers", 2), ("training", 1)])
def test_the_first_programs_of_a_page_run_by_themselves(page: str, count: int, in_folder: Path) -> None:
    text = (Path(__file__).parent.parent / "docs" / f"{page}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    names: dict[str, object] = {}
    with redirect_stdout(StringIO()):
        for number, block in enumerate(blocks[:count]):
            run_block(block, f"docs/{page}.md {number}", names)


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path
