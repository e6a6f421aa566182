"""The documentation builds, and its pictures are drawn from the code beside them."""

from __future__ import annotations

import re
from contextlib import redirect_stderr
from importlib import import_module
from io import StringIO
from pathlib import Path
from types import ModuleType

import pytest
from sphinx.cmd.build import build_main

import flowgraph as fg

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.filterwarnings("ignore:'myst_parser")  # it uses what Sphinx 11 will not have
CODE = """\
x = fg.input("x", ("batch", 3))
w = fg.parameter("w", (3, 2))
cost = fg.mean(fg.square(fg.tanh(x @ w)))
step = fg.compile(outputs=[cost], updates={w: w - 0.1 * fg.grad(cost, w)}, device="cpu")"""
RST = f"""\
Page
====

.. flowgraph:: step
   :stage: declared, kernels
   :text:
   :caption: A *step*.

{chr(10).join("   " + line for line in CODE.splitlines())}

.. flowgraph:: fg.grad(cost, w)
   :detail:
   :hide-code:
"""
MYST = f"""\
# Page

```{{flowgraph}} step
:stage: kernels

{CODE}
```
"""


def build(folder: Path, name: str, text: str, builder: str = "html") -> tuple[int, str, str]:
    """Exit status, messages, and the page that Sphinx makes of a text."""
    folder.mkdir(exist_ok=True)
    (folder / "conf.py").write_text('extensions = ["myst_parser", "flowgraph.viz.sphinx"]\n')
    (folder / name).write_text(text)
    with redirect_stderr(StringIO()) as said:
        status = build_main(["-W", "-q", "-b", builder, str(folder), str(folder / "made")])
    page = folder / "made" / f"index.{'txt' if builder == 'text' else 'html'}"
    return status, said.getvalue(), page.read_text() if page.exists() else ""


def test_a_page_shows_its_code_and_its_stages(tmp_path: Path) -> None:
    status, said, page = build(tmp_path, "index.rst", RST)
    assert (status, said) == (0, "")
    drawings = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(drawings) == 3
    assert "backward" not in drawings[0] and "kernel" in drawings[1] and "backward" in drawings[2]
    assert "<em>step</em>" in page and "kernel mul_" in page
    ids = re.findall(r'<g id="([^"]+)"', page)
    assert len(ids) == len(set(ids)) > 20


def test_boxes_name_the_lines_of_the_page(tmp_path: Path) -> None:
    _, _, page = build(tmp_path, "index.rst", RST)
    number = RST.splitlines().index("   " + CODE.splitlines()[2]) + 1
    assert f"index.rst:{number}: cost = fg.mean(fg.square(fg.tanh(x @ w)))" in page


def test_markdown_and_other_formats(tmp_path: Path) -> None:
    status, said, page = build(tmp_path, "index.md", MYST)
    assert (status, said) == (0, "") and page.count("<svg") == 1
    assert ">cost</text>" in page  # called as on its line of the page
    status, said, text = build(tmp_path, "index.md", MYST, "text")
    assert (status, said) == (0, "") and "kernel mul_" in text and "<svg" not in text


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (RST.replace("(3, 2))", "(4, 2))"), "rst:4: ERROR: the code of this page fails at line 11: ShapeError: mul"),
        (RST.replace("flowgraph:: step", "flowgraph:: stop"), "NameError: name 'stop' is not defined"),
        (RST.replace("kernels", "kernel"), "no stage kernel; there are declared, backward, optimised, kernels"),
        (RST.replace("flowgraph:: step", "flowgraph:: 3"), "cannot draw int"),
    ],
)
def test_what_fails_is_said_where_it_stands(tmp_path: Path, broken: str, said: str) -> None:
    status, messages, _ = build(tmp_path, "index.rst", broken)
    assert status != 0 and said in messages


def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    with redirect_stderr(StringIO()) as said:
        status = build_main(["-W", "-q", str(ROOT / "docs"), str(tmp_path)])
    assert (status, said.getvalue()) == (0, "")
    page = (tmp_path / "functions.html").read_text()
    for name in ("fg-gather", "fg-sigmoid", "fg-nn-GRU", "fg-init-he_normal", "fg-optim-Adam", "fg-EarlyStopping"):
        assert f'id="{name}"' in page


def test_the_page_of_functions_has_every_public_name_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")
    functions = import_module("functions")
    kinds = functions.by_kind()
    names = [name for group in kinds.values() for name in group]
    assert {f"fg.{name}" for name in fg.__all__ if not isinstance(getattr(fg, name), ModuleType)} <= set(names)
    assert len(names) == len(set(names)) and functions.MORE not in kinds
    for name in names:
        said = functions.first_sentence(functions.looked_up(name).__doc__ or "")
        assert said and " at 0x" not in functions.signature(name, functions.looked_up(name)), name
    assert functions.signature("fg.gather", fg.gather) == "fg.gather(table, ids, axis=0)"
