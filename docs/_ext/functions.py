"""The directive `functions`: all public names of the package by kind, read from the package when the page is built.

Each has its signature and the first sentence of its docstring; the whole docstring unfolds below. A name that is new in
the package is on the page by itself, under "More" where its module is of no kind below.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from html import escape
from importlib import import_module
from types import ModuleType
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

KINDS = {  # title -> rooms of the package, in which the public names of `fg` are made
    "Declaring, compiling, loops": "ops.leaf graph.origin compile passes.inference ops.scan notation",
    "Elementwise": "ops.elementwise ops.functions ops.piecewise ops.logic",
    "Products and convolutions": "ops.contraction ops.einsum ops.convolution ops.pooling",
    "Costs and probabilities": "ops.classification ops.regression",
    "Along axes": "ops.reduce ops.statistics ops.running ops.sorting",
    "Shapes, pieces, slices": "ops.shape ops.pieces ops.slicing",
    "Lookups": "ops.indexing ops.distinct",
    "Random numbers": "ops.random",
    "Training": "train.trainer train.callbacks train.checkpoint train.diagnostics train.saved train.units",
    "Looking inside": "viz.display graph.graph graph.tensor program",
    "Errors": "errors",
}
SPACES = {  # title -> module
    "Layers": "nn",
    "Initialisers": "init",
    "Optimisers and schedules": "optim",
    "Random numbers": "random",
    "Plots": "plots",
    "Data sets": "datasets",
}
MORE = "More"


def public(module: ModuleType) -> list[str]:
    """Its names for users: what it says, else what it makes itself."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    made = {name: getattr(value, "__module__", None) for name, value in vars(module).items() if callable(value)}
    return [name for name, home in made.items() if home == module.__name__ and not name.startswith("_")]


def by_kind() -> dict[str, list[str]]:
    """Title -> names as a user writes them, `fg.gather`."""
    package = import_module("flowgraph")
    of_room = {f"flowgraph.{room}": title for title, rooms in KINDS.items() for room in rooms.split()}
    found: dict[str, list[str]] = {title: [] for title in KINDS}
    more = []
    for name in public(package):
        value = getattr(package, name)
        if not isinstance(value, ModuleType):
            title = of_room.get(value.__module__)
            (found[title] if title else more).append(f"fg.{name}")
    for title, space in SPACES.items():
        module = getattr(package, space)
        values = {name: getattr(module, name) for name in public(module)}
        found.setdefault(title, []).extend(f"fg.{space}.{name}" for name, value in values.items() if callable(value))
    return {title: names for title, names in (found | {MORE: more}).items() if names}


def looked_up(name: str) -> Any:
    value: Any = import_module("flowgraph")
    for part in name.split(".")[1:]:
        value = getattr(value, part)
    return value


def signature(name: str, value: Any) -> str:
    """`gather(x, ids, axis=0)`: names and defaults, which types would hide."""
    if isinstance(value, type) and issubclass(value, BaseException):
        return name
    try:
        given = inspect.signature(value)
    except (TypeError, ValueError):
        return name
    plain = [p.replace(annotation=p.empty, default=_Shown.of(p.default)) for p in given.parameters.values()]
    return name + str(given.replace(parameters=plain, return_annotation=given.empty))


class _Shown:
    """A default as it is written: a function or a type by its name."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text

    @classmethod
    def of(cls, value: Any) -> Any:
        if inspect.isfunction(value):
            return cls(f"fg.{value.__name__}")
        return cls(value.__name__) if isinstance(value, type) and value is not inspect.Parameter.empty else value


def first_sentence(text: str) -> str:
    """Up to the first full stop that a sentence, or nothing, follows."""
    paragraph = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=[.!?])\s+(?=[A-Z`])", paragraph)[0]


def methods(value: Any) -> Iterator[tuple[str, str]]:
    """(signature, first sentence) of what a class says that it has for its users."""
    for name, member in vars(value).items() if isinstance(value, type) else ():
        doc = inspect.cleandoc(member.__doc__ or "")
        if name.startswith("_") or not doc or not (inspect.isfunction(member) or isinstance(member, property)):
            continue
        called = signature(name, member) if inspect.isfunction(member) else name
        yield re.sub(r"\(self(, )?", "(", called, count=1), first_sentence(doc)


def inline(text: str) -> list[nodes.Node]:
    """Text with `code` in it."""
    parts = re.split(r"`([^`]+)`", text)
    return [nodes.literal(part, part) if k % 2 else nodes.Text(part) for k, part in enumerate(parts) if part]


class Functions(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        self.env.note_reread()  # it depends on the package's code
        return [self._section(title, names) for title, names in by_kind().items()]

    def _section(self, title: str, names: list[str]) -> nodes.section:
        section = nodes.section(ids=[nodes.make_id(title)])
        section += nodes.title(title, title)
        section += nodes.definition_list("", *map(self._item, names))
        return section

    def _item(self, name: str) -> nodes.definition_list_item:
        value = looked_up(name)
        own = getattr(value, "__name__", name)
        alias = name.rsplit(".", 1)[0] + f".{own}"
        called = signature(name, value)
        anchor = name.replace(".", "-")
        index = addnodes.index(entries=[("single", name, anchor, "", None)])
        term = nodes.term("", "", index, nodes.literal(called, called), ids=[anchor])
        about = nodes.definition()
        if alias != name and own.isidentifier() and own in public(import_module("flowgraph")):
            about += nodes.paragraph("", "", nodes.Text("The same as "), nodes.literal(alias, alias), nodes.Text("."))
            return nodes.definition_list_item("", term, about)
        doc = inspect.getdoc(value) or ""
        first = first_sentence(doc)
        about += nodes.paragraph("", "", *inline(first))
        if " ".join(doc.split()) != first:
            html = f"<details><summary>more</summary><pre>{escape(doc)}</pre></details>"
            about += nodes.raw("", html, format="html")
        told = [nodes.list_item("", nodes.paragraph("", "", nodes.literal(m, m), nodes.Text(": "), *inline(said)))
                for m, said in methods(value)]  # fmt: skip
        if told:
            about += nodes.bullet_list("", *told)
        return nodes.definition_list_item("", term, about)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("functions", Functions)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
