"""Picture -> DOT, for Graphviz and everything that reads its language; also what `svg` has laid out.

The backward graph is laid out as the forward graph's mirror: its edges rank upwards, so that a gradient
stands beside the value it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from flowgraph.graph.printable import printable
from flowgraph.viz import style
from flowgraph.viz.picture import Edge, Picture, Vertex


def to_dot(picture: Picture) -> str:
    """The picture as a DOT graph."""
    font = f'fontname="{style.FONT}"'
    lines = [
        f'digraph "{_quoted(picture.title)}" {{',
        f'  graph [rankdir=TB, ranksep=0.28, nodesep=0.22, {font}, fontsize=11, fontcolor="{style.MUTED}"]',
        f'  node [{font}, fontsize={style.SIZE}, fontcolor="{style.INK}", penwidth=1.2, height=0.3]',
        "  edge [arrowsize=0.6, penwidth=1.1]",
    ]
    phases = picture.phases
    for phase in phases:
        members = list(_members(picture, phase))
        if len(phases) > 1 and phase != "update":  # updates stand beside their parameters
            shade = style.CLUSTERS[phase]
            look = f'style="rounded,filled", fillcolor="{shade.fill}", color="{shade.line}", margin=14'
            lines += [f"  subgraph cluster_{phase} {{", f'    graph [label="{phase}", {look}]']
            lines += [*(f"    {m}" for m in members), "  }"]
        else:
            lines += [f"  {m}" for m in members]
    phase_of = {v.id: v.phase for v in picture.vertices}
    lines += [f"  {_edge(e, number, phase_of)}" for number, e in enumerate(picture.edges)]
    return "\n".join([*lines, "}"]) + "\n"


def _members(picture: Picture, phase: str, frame: str = "") -> Iterator[str]:
    """The vertices of a phase that stand in a frame, and the frames in it."""
    vertices, frames = picture.inside(phase, frame)
    yield from map(_vertex, vertices)
    for inner in frames:
        look = f'style="rounded,filled", fillcolor="{style.FRAME.fill}", color="{style.FRAME.line}", margin=10'
        yield f"subgraph cluster_{inner.id} {{"
        yield f"  graph [label=<{escape(printable(inner.label))}>, {look}]"
        yield from (f"  {line}" for line in _members(picture, phase, inner.id))
        yield "}"


def upwards(edge: Edge, phase_of: dict[str, str]) -> bool:
    """Is the edge ranked against its direction? So is what the backward graph and the updates make."""
    if edge.kind == "turn":
        return False
    return edge.kind == "update" or phase_of[edge.source] != "forward" or phase_of[edge.target] == "update"


def _vertex(vertex: Vertex) -> str:
    colour = style.colour(vertex.kind, vertex.family)
    label = escape(printable(vertex.label))
    if vertex.note:
        note = escape(printable(vertex.note))
        label += f'<br/><font point-size="{style.SMALL}" color="{style.faint(vertex.kind)}">{note}</font>'
    shape = (
        'shape=ellipse, style=filled, margin="0.08,0.03"'
        if vertex.is_data
        else 'shape=box, style="rounded,filled", margin="0.16,0.05"'
    )
    ink = f', fontcolor="{style.ink(vertex.kind)}"' if vertex.kind == "output" else ""
    tooltip = "&#10;".join(escape(printable(line, 200)) for line in vertex.tooltip.splitlines()).replace(
        "\\", "&#92;"
    )
    return (
        f'{vertex.id} [label=<{label}>, {shape}, fillcolor="{colour.fill}", color="{colour.line}"{ink}'
        f', tooltip="{tooltip or " "}"]'
    )


def _edge(edge: Edge, number: int, phase_of: dict[str, str]) -> str:
    source, target = phase_of[edge.source], phase_of[edge.target]
    look = f'id="e{number}", color="{style.EDGES[target if edge.kind == "flow" else edge.kind]}"'
    if edge.kind == "turn":
        look += ", style=dashed, constraint=false"
    elif edge.kind == "update":
        look += ", style=dashed, minlen=0, weight=2"
    elif source == target:
        look += ", weight=4" if source == "forward" else ""
    else:  # from one phase to the next: beside each other where possible
        look += ", penwidth=0.8, minlen=0"
    if upwards(edge, phase_of):
        return f"{edge.target} -> {edge.source} [{look}, dir=back]"
    return f"{edge.source} -> {edge.target} [{look}]"


def _quoted(text: str) -> str:
    return printable(text).replace("\\", "\\\\").replace('"', '\\"')
