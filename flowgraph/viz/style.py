"""Colours and type of every picture: one table, used by all formats. Knows nothing of what is drawn."""

from __future__ import annotations

from dataclasses import dataclass

FONT = "Helvetica"  # layout engines have its metrics; SVG names fallbacks after it
FONTS = "Helvetica, Arial, Liberation Sans, Nimbus Sans, Arimo, sans-serif"  # of one width
INK = "#1f2933"
MUTED = "#66727f"
SIZE, SMALL = 13.0, 9.5  # points


@dataclass(frozen=True)
class Colour:
    fill: str
    line: str


FAMILIES = {
    "contraction": Colour("#dbe4fb", "#4a69bd"),
    "elementwise": Colour("#d9f0ea", "#2a8c74"),
    "classification": Colour("#fbe0e6", "#c2456b"),
    "reduce": Colour("#fdebd0", "#c07a1c"),
    "indexing": Colour("#eadff7", "#7d55b3"),
    "shape": Colour("#e9ecef", "#7b8794"),
    "random": Colour("#f7f3c6", "#9a8b1d"),
    "loop": Colour("#d6eef8", "#2b7fa3"),
    "optimizer": Colour("#e3f2e1", "#3d8b40"),
    "kernel": Colour("#dbe4fb", "#4a69bd"),
    "other": Colour("#eef0f2", "#7b8794"),
}
DATA = {
    "input": Colour("#e3f1ff", "#2f7fc1"),
    "parameter": Colour("#fff2cc", "#b98a12"),
    "constant": Colour("#f4f5f7", "#9aa5b1"),
    "slot": Colour("#d6eef8", "#2b7fa3"),
    "value": Colour("#ffffff", "#9aa5b1"),
    "output": Colour("#2d3e50", "#2d3e50"),
}
CLUSTERS = {
    "forward": Colour("#f7f9fb", "#d5dce3"),
    "backward": Colour("#fdf6f1", "#ecd3c2"),
    "update": Colour("#f3faf3", "#c8e0c8"),
}
FRAME = Colour("#eef7fb", "#9cc7da")
EDGES = {"turn": "#2b7fa3", "forward": "#66788a", "backward": "#c8672f", "update": "#3d8b40"}


def colour(kind: str, family: str) -> Colour:
    """Fill and outline of a vertex."""
    return FAMILIES.get(family, FAMILIES["other"]) if kind == "op" else DATA[kind]


def ink(kind: str) -> str:
    """Colour of a vertex's text."""
    return "#ffffff" if kind == "output" else INK


def faint(kind: str) -> str:
    """Colour of a vertex's secondary text."""
    return "#c3ccd5" if kind == "output" else MUTED
