"""Picture -> Mermaid, which GitHub, GitLab and JupyterLab draw by themselves."""

from __future__ import annotations

from collections.abc import Iterator

from flowgraph.graph.printable import printable
from flowgraph.viz import style
from flowgraph.viz.picture import Picture, Vertex

_SPECIAL = {
    c: f"#{ord(c)};" for c in "#&<>\"'`\\;{}[]()|"
}  # numeric entities: nothing left that Mermaid could read


def to_mermaid(picture: Picture) -> str:
    """The picture as a Mermaid flowchart."""
    lines = ["flowchart TB"]
    phases = picture.phases
    for phase in phases:
        members = list(_members(picture, phase))
        lines += (
            [f"  subgraph {phase}", *(f"    {m}" for m in members), "  end"]
            if len(phases) > 1
            else [f"  {m}" for m in members]
        )
    lines += [f"  {e.source} {'-->' if e.kind == 'flow' else '-.->'} {e.target}" for e in picture.edges]
    for name, vertex in sorted({_style(v): v for v in picture.vertices}.items()):
        colour = style.colour(vertex.kind, vertex.family)
        lines.append(
            f"  classDef {name} fill:{colour.fill},stroke:{colour.line},color:{style.ink(vertex.kind)}"
        )
    for phase in phases if len(phases) > 1 else ():
        shade = style.CLUSTERS[phase]
        lines.append(f"  style {phase} fill:{shade.fill},stroke:{shade.line},color:{style.MUTED}")
    lines += [f"  style {f.id} fill:{style.FRAME.fill},stroke:{style.FRAME.line},color:{style.MUTED}"
              for f in picture.frames]  # fmt: skip
    for position, edge in enumerate(picture.edges):
        phase = picture.vertex(edge.target).phase if edge.kind == "flow" else edge.kind
        if phase != "forward":
            lines.append(f"  linkStyle {position} stroke:{style.EDGES[phase]}")
    return "\n".join(lines) + "\n"


def _members(picture: Picture, phase: str, frame: str = "") -> Iterator[str]:
    """The vertices of a phase that stand in a frame, and the frames in it."""
    vertices, frames = picture.inside(phase, frame)
    yield from (f"{_vertex(vertex)}:::{_style(vertex)}" for vertex in vertices)
    for inner in frames:
        yield f'subgraph {inner.id}["{_escaped(inner.label)}"]'
        yield from (f"  {line}" for line in _members(picture, phase, inner.id))
        yield "end"


def _style(vertex: Vertex) -> str:
    """The class of a vertex; families unknown to the style share one."""
    family = vertex.family if vertex.family in style.FAMILIES else "other"
    return f"{vertex.kind}_{family}" if vertex.kind == "op" else vertex.kind


def _vertex(vertex: Vertex) -> str:
    label = _escaped(vertex.label)
    if vertex.note:
        label += f"<br/><small>{_escaped(vertex.note)}</small>"
    return f'{vertex.id}(["{label}"])' if vertex.is_data else f'{vertex.id}["{label}"]'


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(c, c) for c in printable(text))
