"""Where a node comes from: the user's lines, the name scope, and the passes that rewrote it.

Every node has an origin; rewrites merge origins, so an error, a profile row or a NaN can always name the
user's line.
"""

from __future__ import annotations

import linecache
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import FrameType
from typing import Any

import numpy as np

from flowgraph.errors import GraphError, shown
from flowgraph.graph.printable import printable

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
# What may stand between the user's line and the package: a contextmanager of contextlib's, a function of NumPy's.
_BETWEEN = (_PACKAGE, os.path.dirname(np.__file__) + os.sep, "<frozen ")
_STANDARD = os.path.dirname(os.__file__) + os.sep
_INSTALLED = tuple(_STANDARD + folder + os.sep for folder in ("site-packages", "dist-packages"))


@dataclass(frozen=True, order=True)
class SourceLine:
    """A place in the user's code or in a file in the lecture's notation."""

    file: str
    line: int
    column: int = 0
    text: str = ""

    @property
    def code(self) -> str:
        """The line itself, stripped; "" where it cannot be read."""
        return self.text or linecache.getline(self.file, self.line).strip()

    @property
    def short(self) -> str:
        return f"{printable(os.path.basename(self.file))}:{self.line}"

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" + (f":{self.column}" if self.column else "")
        return f"{place}: {self.code}" if self.code else place


@dataclass(frozen=True)
class Origin:
    """The user's lines (outermost first declared), name scope, and names of the passes that made the node."""

    lines: tuple[SourceLine, ...] = ()
    scope: str = ""
    passes: tuple[str, ...] = ()

    def merge(self, *others: Origin) -> Origin:
        """The origin of something made from all of these."""
        lines, passes = dict.fromkeys(self.lines), dict.fromkeys(self.passes)
        for other in others:
            lines.update(dict.fromkeys(other.lines))
            passes.update(dict.fromkeys(other.passes))
        return Origin(tuple(lines), self.scope, tuple(passes))

    def by(self, name: str) -> Origin:
        """This origin, marked as rewritten by the pass `name`."""
        return self if name in self.passes else Origin(self.lines, self.scope, (*self.passes, name))

    def without(self, name: str) -> Origin:
        """This origin, without the mark of the pass `name`."""
        return Origin(self.lines, self.scope, tuple(p for p in self.passes if p != name))

    def __str__(self) -> str:
        return str(self.lines[0]) if self.lines else ""


# An origin, perhaps with the pass that shall have marked it: few of the nodes that a pass looks at are made anew.
_current: ContextVar[tuple[Origin, str] | None] = ContextVar("flowgraph_origin", default=None)
_scope: ContextVar[str] = ContextVar("flowgraph_scope", default="")


def here() -> Origin:
    """The origin of a node made now: as set by `at`, else the user's innermost line."""
    override = _current.get()
    if override is not None:
        origin, name = override
        return origin.by(name) if name else origin
    frame = _users_frame()
    line = SourceLine(frame.f_code.co_filename, frame.f_lineno) if frame is not None else None
    return Origin((line,) if line else (), _scope.get())


def warn(problem: str) -> None:
    """A RuntimeWarning at the user's line."""
    frame = _users_frame()
    if frame is None:
        warnings.warn(problem, RuntimeWarning, stacklevel=2)
        return
    known = frame.f_globals.setdefault("__warningregistry__", {})
    file, line, module = frame.f_code.co_filename, frame.f_lineno, frame.f_globals.get("__name__")
    warnings.warn_explicit(problem, RuntimeWarning, file, line, module, known)


def _users_frame() -> FrameType | None:
    """The innermost frame outside the package, NumPy and the standard library; of a package that others have installed,
    too. Where there is none, as in a thread that runs a program, the innermost outside the package."""
    frame: FrameType | None = sys._getframe(2)
    outside: FrameType | None = None
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_BETWEEN) and (not file.startswith(_STANDARD) or file.startswith(_INSTALLED)):
            break
        if outside is None and not file.startswith(_PACKAGE):
            outside = frame
        frame = frame.f_back
    return frame or outside


@contextmanager
def at(origin: Origin) -> Iterator[None]:
    """Nodes made inside get this origin (the backward graph, text files)."""
    token = _current.set((origin, ""))
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def rewriting(name: str) -> Iterator[Callable[[Origin], object]]:
    """Nodes made inside get the origin that was last given to what this yields, marked with the pass `name`."""
    token = _current.set((Origin(), name))
    try:
        yield lambda origin: _current.set((origin, name))
    finally:
        _current.reset(token)


@contextmanager
def scope(name: Any) -> Iterator[None]:
    """Nodes and parameters made inside belong to the name scope `outer/name`. GraphError for a name that is no text."""
    if not isinstance(name, str):
        hint = "a layer's name comes first: fg.nn.Dense('hidden', 64, 32)"
        raise GraphError(f"a name is text, got {shown(name)}", where=here(), hint=hint)
    outer = _scope.get()
    token = _scope.set(f"{outer}/{name}" if outer else name)
    try:
        yield
    finally:
        _scope.reset(token)


def current_scope() -> str:
    return _scope.get()
