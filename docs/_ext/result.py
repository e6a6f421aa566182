"""The role `{result}`: a number that an example found, read from its `results.json` when the page is built.

On the page `docs/examples/NAME.md`, {result}`spearman.mean:.3f` is `results["spearman"]["mean"]` of
`docs/examples/NAME/results.json`, in that format.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxRole


class Result(SphinxRole):
    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        path, _, form = self.text.partition(":")
        file = (Path(self.env.srcdir) / self.env.docname / "results.json").resolve()
        self.env.note_dependency(str(file))
        try:
            found: Any = json.loads(file.read_text(encoding="utf-8"))
            for key in path.split("."):
                found = found[int(key) if isinstance(found, list) else key]
            text = format(found, form)
        except (OSError, LookupError, ValueError, TypeError) as error:
            message = self.inliner.reporter.error(f"{file.name} has no {self.text}: {error!r}", line=self.lineno)
            return [nodes.problematic(self.rawtext, self.rawtext)], [message]
        return [nodes.Text(text)], []


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_role("result", Result())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
