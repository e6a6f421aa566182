"""A picture as plain data: what is drawn, before anyone knows where or in which format.

Comes from a stage of the compiler (`graphs`, `kernels`); goes to `dot`, `mermaid` and `svg`. Knows no op and
no format: texts are as the user wrote them, each format escapes them itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

PHASES = ("forward", "backward", "update")  # drawn as clusters of these names
KINDS = ("input", "parameter", "constant", "slot", "value", "output", "op")  # all but "op" are data, drawn as ovals


@dataclass(frozen=True)
class Vertex:
    """One oval (data) or box (op). `note` is small secondary text, such as a shape; `family` gives an op its
    colour.
    """

    id: str
    label: str
    kind: str
    phase: str = "forward"
    family: str = ""
    note: str = ""
    tooltip: str = ""
    frame: str = ""  # the innermost frame it stands in

    @property
    def is_data(self) -> bool:
        return self.kind != "op"


@dataclass(frozen=True)
class Edge:
    """From the vertex that makes a value to one that reads it; an "update" edge writes a parameter's next value, a
    "turn" edge gives a value to the next turn of a loop."""

    source: str
    target: str
    kind: str = "flow"  # or "update", or "turn"


@dataclass(frozen=True)
class Frame:
    """A frame around the body of a loop; inside of another one's, if there is a `parent`."""

    id: str
    label: str
    phase: str
    parent: str = ""


@dataclass(frozen=True)
class Picture:
    """Vertices in the order of the computation, and edges between them."""

    title: str
    vertices: tuple[Vertex, ...]
    edges: tuple[Edge, ...]
    frames: tuple[Frame, ...] = ()  # outer ones before inner ones

    def __post_init__(self) -> None:
        known = [v.id for v in self.vertices]
        if len(set(known)) != len(known):
            raise ValueError("two vertices of a picture have one id")
        if loose := {end for e in self.edges for end in (e.source, e.target)} - set(known):
            raise ValueError(f"edges of a picture end nowhere: {sorted(loose)}")
        if lost := {v.frame for v in self.vertices} - {"", *(f.id for f in self.frames)}:
            raise ValueError(f"vertices of a picture stand in no frame: {sorted(lost)}")

    @property
    def phases(self) -> tuple[str, ...]:
        """The phases that occur, in order."""
        return tuple(p for p in PHASES if any(v.phase == p for v in self.vertices))

    def inside(self, phase: str, frame: str = "") -> tuple[list[Vertex], list[Frame]]:
        """What of a phase stands in a frame, or in none, but not in one within it: vertices, and those frames."""
        vertices = [v for v in self.vertices if (v.phase, v.frame) == (phase, frame)]
        return vertices, [f for f in self.frames if (f.phase, f.parent) == (phase, frame)]

    def vertex(self, id: str) -> Vertex:
        return next(v for v in self.vertices if v.id == id)


def unique(edges: Iterable[Edge]) -> tuple[Edge, ...]:
    """The edges without repetitions, order kept."""
    return tuple(dict.fromkeys(edges))
