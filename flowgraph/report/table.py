"""Rows of text as a table."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """Columns as wide as they need to be; those whose number is in `right` are flush right."""
    width = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = zip(cells, width, strict=True)
        return "  ".join(c.rjust(w) if k in right else c.ljust(w) for k, (c, w) in enumerate(padded)).rstrip()

    return "\n".join(map(line, (head, *rows)))
