"""The role `{result}`: a number that an example found, read from its `results.json` when the page is built.

On the page `docs/examples/NAME.md`, {result}`spearman.mean:.3f` is `results["spearman"]["mean"]` of
`docs/examples/NAME/results.json`, in that format. The directive, ```{result} samples.0```, shows a text as it is, with
its lines. Of an example that has not been run in full yet, the page says so, in place of its numbers and of its
pictures.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole

NOT_YET = "(not yet run in full)"


def results_of(app_or_env: Any, page: str) -> Path:
    """The file of a page's results."""
    return (Path(app_or_env.srcdir) / page / "results.json").resolve()


def looked_up(file: Path, asked: str) -> str:
    """What a path, and a format after a colon, asks for; raises what cannot be read, found or written so."""
    path, _, form = asked.partition(":")
    found: Any = json.loads(file.read_text(encoding="utf-8"))
    for key in path.split("."):
        found = found[int(key) if isinstance(found, list) else key]
    return format(found, form)


class Result(SphinxRole):
    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        file = results_of(self.env, self.env.docname)
        self.env.note_dependency(str(file))
        if not file.exists():
            return [nodes.emphasis(NOT_YET, NOT_YET)], []
        try:
            return [nodes.Text(looked_up(file, self.text))], []
        except (OSError, LookupError, ValueError, TypeError) as error:
            message = self.inliner.reporter.error(f"{file.name} has no {self.text}: {error!r}", line=self.lineno)
            return [nodes.problematic(self.rawtext, self.rawtext)], [message]


class ResultBlock(SphinxDirective):
    """The same as a block of its own, with its lines: a text that an example wrote."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        file = results_of(self.env, self.env.docname)
        self.env.note_dependency(str(file))
        if not file.exists():
            return [nodes.paragraph("", "", nodes.emphasis(NOT_YET, NOT_YET))]
        try:
            text = looked_up(file, self.arguments[0])
        except (OSError, LookupError, ValueError, TypeError) as error:
            raise self.error(f"{file.name} has no {self.arguments[0]}: {error!r}") from error
        return [nodes.literal_block(text, text, language="text")]


def without_missing_pictures(app: Sphinx, tree: nodes.document) -> None:
    """Before Sphinx looks for the pictures of a page: of an example without results there are none."""
    page = app.env.docname
    if page.startswith("examples/") and not results_of(app, page).exists():
        for image in list(tree.findall(nodes.image)):
            image.replace_self(nodes.emphasis(NOT_YET, f"{image.get('alt', 'picture')} {NOT_YET}"))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_role("result", Result())
    app.add_directive("result", ResultBlock)
    app.connect("doctree-read", without_missing_pictures, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
