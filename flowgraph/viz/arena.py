"""The arena as a picture: launches from left to right, addresses from the bottom up, a rectangle a value."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from flowgraph.errors import FlowgraphError
from flowgraph.graph.printable import printable
from flowgraph.report.memory import Memory, Value
from flowgraph.viz import style
from flowgraph.viz.files import write

LEFT, TOP, RIGHT, BOTTOM = 92.0, 34.0, 16.0, 46.0  # margins, points
HEIGHT, WIDTH = 360.0, 860.0  # of the field; the field is narrower where there are few launches
NARROWEST, WIDEST = 6.0, 84.0  # of a launch
LETTER = 0.6  # width of a letter, in its size: on the safe side


@dataclass(frozen=True)
class ArenaPicture:
    """Notebooks draw it by themselves; `save` writes SVG. Needs no layout engine."""

    memory: Memory

    @cached_property
    def svg(self) -> str:
        return _draw(self.memory)

    def save(self, path: str | Path) -> Path:
        """Write the picture; the suffix is .svg."""
        target = Path(path)
        if target.suffix != ".svg":
            raise FlowgraphError(f"the arena is drawn as .svg, not {target.suffix!r}", where=target)
        write(target, self.svg)
        return target

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"image/svg+xml": self.svg, "text/plain": str(self.memory)}


def show_memory(memory: Memory, path: str | Path | None = None) -> ArenaPicture:
    """Draw the arena of `program.memory(...)`; `path` also saves it. FlowgraphError where there is none."""
    if memory.arena is None:
        raise FlowgraphError(
            "there is no arena to draw: the reference plans nothing", hint="compile with device='cpu'"
        )
    picture = ArenaPicture(memory)
    if path is not None:
        picture.save(path)
    return picture


def _draw(memory: Memory) -> str:
    launches = len(memory.launches)
    columns = launches + 1  # the last one is the step's end, which outputs live to see
    column = min(WIDEST, max(NARROWEST, WIDTH / columns))
    total = max(memory.arena or 0, 1)
    field = column * columns
    w, h = LEFT + field + RIGHT, TOP + HEIGHT + BOTTOM

    def x(launch: int) -> float:
        return LEFT + column * launch

    def y(address: int) -> float:
        return TOP + HEIGHT * (1 - address / total)

    parts = [
        f'<rect x="{LEFT}" y="{TOP}" width="{field:.1f}" height="{HEIGHT}" fill="#f7f9fb" stroke="#d5dce3"/>',
        _text(LEFT, TOP - 14, f"arena: {total:,} bytes; alive at once at most {memory.bound or 0:,}", 11, "start"),
    ]
    for share in range(5):
        address = total * share // 4
        parts.append(_text(LEFT - 6, y(address) + 3, f"{address:,}", style.SMALL, "end"))
    every = max(1, round(24 / column))
    for number, name in enumerate((*memory.launches, "end")):
        tooltip = f"<title>{escape(printable(name))}</title>"
        if number % every == 0 or number == launches:
            label = _text(x(number) + column / 2, TOP + HEIGHT + 14, "end" if number == launches else str(number))
            parts.append(f"<g>{tooltip}{label}</g>")
    parts.append(_text(LEFT + field / 2, h - 10, "launch", 11))
    for value in memory.values:
        if value.offset is not None and value.first is not None and value.last is not None:
            right = x(min(value.last, launches) + 1)
            top = y(value.offset + value.bytes)
            parts.append(_value(value, x(value.first), top, right - x(value.first), y(value.offset) - top))
    bound = y(memory.bound or 0)
    parts.append(
        f'<line x1="{LEFT}" x2="{LEFT + field:.1f}" y1="{bound:.1f}" y2="{bound:.1f}" '
        f'stroke="{style.EDGES["backward"]}" stroke-dasharray="5 3"/>'
    )
    extent = f'width="{w:.0f}" height="{h:.0f}" viewBox="0 0 {w:.1f} {h:.1f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {extent} role="img" font-family="{style.FONTS}">'
    paper = f'<rect width="{w:.1f}" height="{h:.1f}" fill="#ffffff"/>'
    return "\n".join([head, "<title>arena</title>", paper, *parts, "</svg>"]) + "\n"


def _value(value: Value, x: float, y: float, w: float, h: float) -> str:
    colour = style.FAMILIES["shape" if value.kind == "working" else "elementwise"]
    about = " ".join(part for part in (value.name, value.type, f"{value.bytes:,} bytes", value.line) if part)
    shape = (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" fill="{colour.fill}" '
        f'stroke="{colour.line}" stroke-width="0.8"/>'
    )
    label = ""
    most = int((w - 6) / (LETTER * style.SMALL))
    if h >= style.SMALL and most >= 2:
        name = value.name if len(value.name) <= most else value.name[: most - 1] + "…"
        label = _text(x + w / 2, y + h / 2 + 0.35 * style.SMALL, name)
    return f"<g><title>{escape(printable(about, 200))}</title>{shape}{label}</g>"


def _text(x: float, y: float, text: str, size: float = style.SMALL, anchor: str = "middle") -> str:
    look = f'font-size="{size}" text-anchor="{anchor}" fill="{style.INK}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {look}>{escape(printable(text))}</text>'
