"""A Sphinx directive that draws graphs from the code on the page, so that no picture can be stale.

    extensions = ["flowgraph.viz.sphinx"]

    ```{flowgraph} dw                                .. flowgraph:: dw
    :stage: backward                                    :stage: backward

    x = fg.input("x", ("batch", 2))                     x = fg.input("x", ("batch", 2))
    ...                                                 ...
    ```

Comes in: Python code, and an expression to draw. Goes out: the code, and below it the picture, inline, so that one can
hover over its boxes; where the output is not HTML, the text form. Code of a page runs in order, in one namespace, in
which `fg` is flowgraph. Code that raises is an error of the build, at its line of the page.

May be imported by Sphinx only: everything else does without it.
"""

from __future__ import annotations

import linecache
import re
import traceback
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, cast

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from flowgraph.viz.display import STAGES, Shown, show

_ID = re.compile(r'(?<=<g id=")')


def _stages(argument: str) -> list[str]:
    chosen = [word.strip() for word in argument.split(",")]
    if unknown := [word for word in chosen if word not in STAGES]:
        raise ValueError(f"no stage {', '.join(unknown)}; there are {', '.join(STAGES)}")
    return chosen


class GraphDirective(SphinxDirective):
    """`flowgraph EXPRESSION`, with code as its content.

    Options: `stage`, of a program, one or several with commas between them (`declared`, `backward`, `optimised`,
    `kernels`); `detail`, a box for every node; `caption`; `hide-code`, to show the picture alone; `text`, to show the
    formulas or kernels below the picture, too.
    """

    optional_arguments = 1
    final_argument_whitespace = True
    has_content = True
    option_spec: ClassVar[dict[str, Callable[[str], Any]] | None] = {
        "stage": _stages,
        "detail": directives.flag,
        "caption": directives.unchanged_required,
        "hide-code": directives.flag,
        "text": directives.flag,
    }

    def run(self) -> list[nodes.Node]:
        page = self.env.docname
        fresh = {"fg": import_module("flowgraph"), "__name__": page}  # the package as the page's readers have it
        names = cast(dict[str, Any], self.env.temp_data.setdefault("flowgraph", fresh))
        code = "\n".join(self.content)
        try:
            self._execute(code, names)
            pictures = list(self._pictures(names))
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)
            lines = [frame.lineno for frame in last if frame.filename == self._file() and frame.lineno]
            line = lines[-1] if lines else self.lineno
            raise self.error(f"the code of this page fails at line {line}: {type(error).__name__}: {error}") from error
        made: list[nodes.Node] = []
        if code.strip() and "hide-code" not in self.options:
            made.append(nodes.literal_block(code, code, language="python"))
        for each, svg in pictures:
            made.append(self._figure(svg, each.text))
            if "text" in self.options:
                text = (each.formulas or each.text).rstrip()
                made.append(nodes.literal_block(text, text, language="text"))
        if "caption" in self.options:
            made.append(nodes.paragraph("", "", *self.parse_inline(self.options["caption"])[0], classes=["caption"]))
        for node in made:
            self.set_source_info(node)
        return made

    def _pictures(self, names: dict[str, Any]) -> Iterator[tuple[Shown, str]]:
        for argument in self.arguments:
            what = eval(argument, names)
            for stage in self.options.get("stage", ["backward"]):
                shown = show(what, stage=stage, detail="detail" in self.options)
                yield shown, shown.svg

    def _file(self) -> str:
        return str(self.env.doc2path(self.env.docname))

    def _execute(self, code: str, names: dict[str, Any]) -> None:
        """Run the code as lines of the page: errors, names and tooltips come from these."""
        file = self._file()
        text = Path(file).read_text(encoding="utf-8")
        lines = text.splitlines(keepends=True)
        linecache.cache[file] = (len(text), None, lines, file)
        first = self.content[0].strip() if self.content else ""
        after = self.lineno - 1  # Markdown and reStructuredText count a content's lines differently
        begin = next((k for k in range(after, len(lines)) if lines[k].strip() == first), after)
        exec(compile("\n" * begin + code, file, "exec"), names)

    def _figure(self, svg: str, text: str) -> nodes.Element:
        """The picture for HTML, the text form for every other output."""
        number = self.env.new_serialno("flowgraph")
        inline = svg[svg.index("<svg") :]
        inline = _ID.sub(f"graph{number}-", inline)  # ids are unique in a page
        box = nodes.container(classes=["flowgraph"])
        box += nodes.raw("", f'<div style="overflow-x: auto">{inline}</div>', format="html")
        only = nodes.literal_block(text, text, language="text")
        other = _NotHtml("", only)
        box += other
        return box


class _NotHtml(nodes.General, nodes.Element):
    """What HTML leaves out, because it has a picture."""


def _skip(translator: Any, node: nodes.Element) -> None:
    raise nodes.SkipNode


def _enter(translator: Any, node: nodes.Element) -> None:
    pass


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_node(
        _NotHtml, html=(_skip, None), latex=(_enter, _enter), text=(_enter, _enter), man=(_enter, _enter),
        texinfo=(_enter, _enter),
    )  # fmt: skip
    app.add_directive("flowgraph", GraphDirective)
    return {"version": version("flowgraph"), "parallel_read_safe": True, "parallel_write_safe": True}
