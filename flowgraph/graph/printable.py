"""Any text on one line: what users call things goes into listings, pictures and generated comments."""

from __future__ import annotations

LONGEST = 60  # characters of a name where it is shown


def printable(text: str, longest: int = LONGEST) -> str:
    """The text with control and formatting characters as escapes (so no line breaks), cut to a length."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"
