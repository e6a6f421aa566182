"""Text -> tokens of one line, each with its place. Knows no grammar."""

from __future__ import annotations

import re
from dataclasses import dataclass

from flowgraph.errors import ParseError
from flowgraph.graph.origin import SourceLine

_TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<comment>//.*)|(?P<number>([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?)|(?P<name>[^\W\d]\w*)"
    r"|(?P<mark>[-+*/(),=:])"
)
_SHOWN = 120  # characters of a line kept for messages


def wrong(problem: str, at: SourceLine, hint: str = "") -> ParseError:
    """What is wrong, where, and what to do."""
    return ParseError(problem, where=at, hint=hint)


@dataclass(frozen=True)
class Token:
    kind: str  # "name", "number", "mark" or "end"
    text: str
    at: SourceLine


def tokenise(line: str, number: int, filename: str) -> list[Token]:
    found, position, text = [], 0, line.strip()[:_SHOWN]
    while position < len(line):
        match = _TOKEN.match(line, position)
        at = SourceLine(filename, number, position + 1, text)
        if match is None or (match["name"] and not match["name"].isidentifier()):
            raise wrong(
                f"unexpected character {line[position]!r}",
                at,
                "a line reads `A = op(B,C)`, with comments after //",
            )
        if match.lastgroup not in ("space", "comment"):
            kind = "number" if match["number"] else "name" if match["name"] else "mark"
            found.append(Token(kind, match.group(), at))
        position = match.end()
    return [*found, Token("end", "end of line", SourceLine(filename, number, len(line.rstrip()) + 1, text))]
