"""`show`: any stage of anything -> something a notebook, a browser or a text editor can display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from flowgraph.errors import FlowgraphError, nearest, shown
from flowgraph.graph import origin as origins
from flowgraph.graph.graph import Graph
from flowgraph.graph.tensor import Tensor
from flowgraph.graph.text import to_text
from flowgraph.program import Program
from flowgraph.viz import svg
from flowgraph.viz.dot import to_dot
from flowgraph.viz.files import write
from flowgraph.viz.fold import model
from flowgraph.viz.graphs import from_graph, to_formulas
from flowgraph.viz.kernels import from_kernels
from flowgraph.viz.mermaid import to_mermaid
from flowgraph.viz.picture import Picture

STAGES = ("declared", "backward", "optimised", "kernels")
_FORMATS = {
    ".svg": "svg",
    ".dot": "dot",
    ".gv": "dot",
    ".mmd": "mermaid",
    ".mermaid": "mermaid",
    ".txt": "text",
}
_RASTERS = (".png", ".jpg")  # what the layout engine of the extra `viz` draws by itself


@dataclass(frozen=True)
class Shown:
    """A picture in every format. Notebooks draw it by themselves; `save` writes it to a file."""

    picture: Picture
    text: str
    formulas: str = ""  # a line a box, as a person would write it; "" for kernels

    def __repr__(self) -> str:
        """What a prompt shows, which cannot draw: the formulas, or the text form of what has none."""
        return self.formulas or self.text

    @cached_property
    def svg(self) -> str:
        """SVG; needs the extra `viz` (or Graphviz) and raises FlowgraphError without."""
        return svg.to_svg(self.picture)

    @property
    def dot(self) -> str:
        return to_dot(self.picture)

    @property
    def mermaid(self) -> str:
        return to_mermaid(self.picture)

    def save(self, path: str | Path) -> Path:
        """Write the picture in the format that the suffix names: .svg, .dot, .mmd or .txt."""
        target = Path(path)
        if target.suffix not in _FORMATS:
            raster = f"; graphviz-pure -T{target.suffix[1:]} x.dot -o x{target.suffix} makes it of a .dot"
            raise FlowgraphError(
                f"no picture format is called {target.suffix!r}",
                where=target,
                hint=f"use one of {', '.join(_FORMATS)}" + (raster if target.suffix in _RASTERS else ""),
            )
        write(target, getattr(self, _FORMATS[target.suffix]))
        return target

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        bundle = {"text/vnd.mermaid": self.mermaid, "text/plain": self.text}
        if svg.find_engine() is None:
            bundle["text/plain"] += "for a drawing: pip install 'flowgraph[viz]'\n"
        else:
            bundle["image/svg+xml"] = self.svg
        return bundle


def show(
    what: Any,
    path: str | Path | None = None,
    *,
    stage: str = "backward",
    detail: bool = False,
    title: str = "",
) -> Shown:
    """Draw a tensor, several (a sequence, or what `fg.parse` returns), a graph, or a stage of a program.

    Stages of a program: "declared" (what was declared), "backward" (with gradients and updates), "optimised"
    (after all passes) and "kernels". Tensors and graphs, which are not compiled, have the first two, drawn alike. A
    trainer is drawn as its program. What a trainer and its optimiser add to a model is folded away; with `detail` every
    node has a box of its own. `path` also saves, in the format of its suffix. Raises FlowgraphError for anything else,
    or where SVG is wanted and no layout engine is installed.

    >>> import flowgraph as fg
    >>> x = fg.input("x", ("batch", 2))
    >>> [vertex.label for vertex in show(fg.tanh(x)).picture.vertices]
    ['x', 'tanh', 'tanh']
    """
    if stage not in STAGES:
        meant = nearest(stage, STAGES) if isinstance(stage, str) else None
        raise FlowgraphError(
            f"there is no stage {shown(stage)} to draw",
            where=origins.here(),
            hint=(f"did you mean {meant!r}? " if meant else "") + f"use one of {', '.join(STAGES)}",
        )
    if isinstance(program := getattr(what, "program", None), Program):  # a trainer's
        what = program
    if isinstance(what, Program) and stage == "kernels":
        text = "\n".join(map(str, what.kernels))
        drawn = Shown(from_kernels(what.graph, what.calls, title or "kernels", detail=detail), text)
    else:
        graph = _graph(what, stage)
        drawn = Shown(from_graph(graph, detail=detail, title=title or "flowgraph"), to_text(graph), to_formulas(graph))
    if path is not None:
        drawn.save(path)
    return drawn


def _graph(what: Any, stage: str) -> Graph:
    if isinstance(what, Program):
        if stage == "declared":
            return model(what.declared)
        return what.declared if stage == "backward" else what.graph
    graph = _not_compiled(what)
    if stage not in ("declared", "backward"):
        raise FlowgraphError(
            f"only a compiled program has the stage {stage!r}, this is {_called(what)}",
            where=origins.here(),
            hint=f"compile it first: fg.show(fg.compile(outputs=...), stage={stage!r})",
        )
    return graph


def _called(what: Any) -> str:
    name = "Tensor" if isinstance(what, Tensor) else type(what).__name__
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def _not_compiled(what: Any) -> Graph:
    if isinstance(what, Graph):
        return what
    if isinstance(what, Tensor):
        return Graph((what,))
    tensors = (
        tuple(what.values())
        if isinstance(what, Mapping)
        else tuple(what)
        if isinstance(what, Sequence)
        else ()
    )
    if not tensors or not all(isinstance(t, Tensor) for t in tensors):
        raise FlowgraphError(
            f"cannot draw {type(what).__name__}",
            where=origins.here(),
            hint="a layer is drawn by what it makes of an input: fg.show(layer(x))"
            if callable(what) and hasattr(what, "parameters")
            else "draw a tensor, several tensors, a graph, a trainer or a compiled program",
        )
    read = {t for other in tensors for t in other.node.inputs}
    return Graph(tuple(t for t in tensors if t not in read) if isinstance(what, Mapping) else tensors)
