"""Pictures to files."""

from __future__ import annotations

from pathlib import Path

from flowgraph.errors import FlowgraphError
from flowgraph.graph import origin as origins


def write(path: Path, text: str) -> None:
    """Write a text; FlowgraphError where that cannot be."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        hint = "" if path.parent.is_dir() else f"make the folder {path.parent} first"
        raise FlowgraphError(f"cannot write {path}: {error.strerror}", where=origins.here(), hint=hint) from error
