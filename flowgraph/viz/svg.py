"""Picture -> SVG. Graphviz decides where things stand (its JSON output); the drawing itself is ours.

So the picture looks the same with every version of Graphviz, nothing in it is a user's text unescaped, and
every vertex carries a tooltip with the user's line.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from flowgraph.errors import FlowgraphError
from flowgraph.graph.printable import printable
from flowgraph.viz import style
from flowgraph.viz.dot import to_dot, upwards
from flowgraph.viz.picture import Edge, Frame, Picture, Vertex

_TIMEOUT = 120.0
_HEAD = 7.0  # length of an arrow head, points
Point = tuple[float, float]


def to_svg(picture: Picture) -> str:
    """The picture as a self-contained SVG document.

    Raises FlowgraphError where no layout engine is installed, and says how to get one.
    """
    return _draw(picture, _layout(picture))


def find_engine() -> str | None:
    """The program that lays out DOT: graphviz-pure beside this Python or on PATH, else Graphviz' own dot."""
    beside = Path(sys.executable).parent / "graphviz-pure"
    return str(beside) if beside.exists() else shutil.which("graphviz-pure") or shutil.which("dot")


def _layout(picture: Picture) -> dict[str, Any]:
    engine = find_engine()
    if engine is None:
        raise FlowgraphError(
            "drawing SVG needs a layout engine, and there is none",
            hint="pip install 'flowgraph[viz]', or install Graphviz; .dot and .mermaid need neither",
        )
    command = [engine, "-Tjson0"]
    try:
        done = subprocess.run(
            command, input=to_dot(picture), capture_output=True, encoding="utf-8", timeout=_TIMEOUT
        )
    except subprocess.TimeoutExpired as error:
        raise FlowgraphError(
            f"{command[0]} took more than {_TIMEOUT:.0f} s", hint="draw a part of the graph"
        ) from error
    if done.returncode != 0 or not done.stdout:
        raise FlowgraphError(f"{command[0]} failed: {done.stderr.strip()[-500:]}")
    return dict(json.loads(done.stdout))


@dataclass(frozen=True)
class _Paper:
    """Graphviz counts upwards from the lower left corner, SVG downwards from the upper left."""

    width: float
    height: float
    margin: float = 8.0

    def at(self, x: float, y: float) -> Point:
        return round(x + self.margin, 1), round(self.height - y + self.margin, 1)


def _draw(picture: Picture, layout: dict[str, Any]) -> str:
    _, _, width, height = _numbers(layout["bb"])
    paper = _Paper(width, height)
    objects = layout.get("objects", [])
    placed = {o["name"]: o for o in objects}
    parts = [
        _cluster(phase, placed[f"cluster_{phase}"], paper)
        for phase in picture.phases
        if f"cluster_{phase}" in placed
    ]
    parts += [_frame(f, placed[f"cluster_{f.id}"], paper) for f in picture.frames if f"cluster_{f.id}" in placed]
    phase_of = {v.id: v.phase for v in picture.vertices}
    for drawn in layout.get("edges", []):
        edge = picture.edges[int(drawn["id"].removeprefix("e"))]
        parts.append(_edge(edge, phase_of, drawn["pos"], paper))
    parts += [_vertex(v, placed[v.id], paper) for v in picture.vertices]
    w, h = width + 2 * paper.margin, height + 2 * paper.margin
    extent = f'width="{w:.0f}" height="{h:.0f}" viewBox="0 0 {w:.1f} {h:.1f}"'
    text = f'font-family="{style.FONTS}" font-size="{style.SIZE}" text-anchor="middle"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {extent} role="img" {text}>'
    title = f"<title>{escape(printable(picture.title))}</title>"
    return (
        "\n".join([head, title, f'<rect width="{w:.1f}" height="{h:.1f}" fill="#ffffff"/>', *parts, "</svg>"])
        + "\n"
    )


def _cluster(phase: str, placed: dict[str, Any], paper: _Paper) -> str:
    return _framed(phase, placed, paper, style.CLUSTERS[phase], style.EDGES[phase])


def _frame(frame: Frame, placed: dict[str, Any], paper: _Paper) -> str:
    return _framed(frame.label, placed, paper, style.FRAME, style.EDGES["turn"])


def _framed(label: str, placed: dict[str, Any], paper: _Paper, colour: style.Colour, ink: str) -> str:
    x0, y0, x1, y1 = _numbers(placed["bb"])
    left, top = paper.at(x0, y1)
    extent = f'x="{left}" y="{top}" width="{x1 - x0:.1f}" height="{y1 - y0:.1f}" rx="10"'
    text = f'text-anchor="start" font-size="11" letter-spacing="0.06em" fill="{ink}"'
    return (
        f'<rect {extent} fill="{colour.fill}" stroke="{colour.line}"/>'
        f'<text x="{left + 12}" y="{top + 17}" {text}>{escape(printable(label))}</text>'
    )


def _vertex(vertex: Vertex, placed: dict[str, Any], paper: _Paper) -> str:
    x, y = paper.at(*_numbers(placed["pos"]))
    w, h = float(placed["width"]) * 72, float(placed["height"]) * 72
    colour = style.colour(vertex.kind, vertex.family)
    paint = f'fill="{colour.fill}" stroke="{colour.line}" stroke-width="1.2"'
    if vertex.is_data:
        outline = f'<ellipse cx="{x}" cy="{y}" rx="{w / 2:.1f}" ry="{h / 2:.1f}" {paint}/>'
    else:
        outline = (
            f'<rect x="{x - w / 2:.1f}" y="{y - h / 2:.1f}" width="{w:.1f}" height="{h:.1f}" rx="5" {paint}/>'
        )
    lines = [(vertex.label, style.SIZE, style.ink(vertex.kind))]
    lines += [(vertex.note, style.SMALL, style.faint(vertex.kind))] if vertex.note else []
    base = y + 0.35 * style.SIZE - (0.45 * style.SIZE if vertex.note else 0)
    texts = []
    for text, size, ink in lines:
        shown = escape(printable(text))
        texts.append(f'<text x="{x}" y="{base:.1f}" font-size="{size}" fill="{ink}">{shown}</text>')
        base += 1.25 * style.SMALL
    tooltip = "\n".join(printable(line, 200) for line in vertex.tooltip.splitlines())
    hover = f"<title>{escape(tooltip)}</title>" if tooltip else ""
    kind = quoteattr(f"{vertex.kind} {vertex.phase}")
    return f'<g id="{vertex.id}" class={kind}>{hover}{outline}{"".join(texts)}</g>'


def _edge(edge: Edge, phase_of: dict[str, str], pos: str, paper: _Paper) -> str:
    """A spline of Graphviz: `e,x,y` or `s,x,y` is the arrow's tip, then one start point and three points a
    curve.
    """
    curve: list[Point] = []
    tip: Point | None = None
    for word in pos.split():
        numbers = word.split(",")
        if numbers[0] in ("s", "e"):
            tip = paper.at(float(numbers[1]), float(numbers[2]))
        else:
            curve.append(paper.at(float(numbers[0]), float(numbers[1])))
    if upwards(edge, phase_of):  # laid out against its direction
        curve.reverse()
    start, *rest = curve
    tip = tip or curve[-1]
    is_flow = edge.kind == "flow"
    colour = style.EDGES[phase_of[edge.target] if is_flow else edge.kind]
    crossing = is_flow and phase_of[edge.source] != phase_of[edge.target]
    look = (
        'stroke-dasharray="5 3" stroke-width="1.4"'
        if not is_flow
        else f'stroke-width="{0.8 if crossing else 1.2}"'
    )
    path = f"M{start[0]},{start[1]} C" + " ".join(f"{x},{y}" for x, y in rest)
    return (
        f'<path d="{path}" fill="none" stroke="{colour}" {look}/>'
        f'<polygon points="{_head(curve[-1], tip)}" fill="{colour}"/>'
    )


def _head(base: Point, tip: Point) -> str:
    """The triangle of an arrow that ends at `tip`, coming from `base`."""
    dx, dy = tip[0] - base[0], tip[1] - base[1]
    length = max((dx * dx + dy * dy) ** 0.5, 1e-6)
    dx, dy = dx / length * _HEAD, dy / length * _HEAD
    back = (tip[0] - dx, tip[1] - dy)
    corners = [tip, (back[0] - dy * 0.4, back[1] + dx * 0.4), (back[0] + dy * 0.4, back[1] - dx * 0.4)]
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)


def _numbers(text: str) -> list[float]:
    return [float(n) for n in text.split(",")]
