"""Every error flowgraph raises on purpose: what was asked, where in the user's code, what to do.

Knows nothing of graphs: `where` is anything that prints as a place (see `graph.origin`).
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable

import numpy as np


class FlowgraphError(Exception):
    """Base of all errors raised by flowgraph.

    `problem` says what is wrong, `where` the place in the user's code (or None), `hint` what to do about it.
    """

    def __init__(self, problem: str, *, where: object = None, hint: str = "") -> None:
        self.problem, self.where, self.hint = problem, where, hint
        super().__init__(problem)

    def __str__(self) -> str:
        lines = [self.problem]
        if self.where is not None and str(self.where):
            lines.append(f"  at {self.where}")
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)


class ShapeError(FlowgraphError, ValueError):
    """Shapes that do not fit together; raised where the graph is declared, or when data are fed."""


class DTypeError(FlowgraphError, TypeError):
    """A dtype an op or an input cannot take; flowgraph never promotes silently."""


class InputError(FlowgraphError, ValueError):
    """Data that do not match the declared inputs: missing, unknown, out of range."""


class OutOfRangeError(InputError):
    """A row number that the graph computed, out of range; `step` counts from 0 within the run, of `steps`."""

    def __init__(self, what: str, step: int, steps: int, *, where: object = None, hint: str = "") -> None:
        super().__init__(f"step {step + 1} of {steps}: {what}" if steps > 1 else what, where=where, hint=hint)
        self.what, self.step = what, step


class DeviceError(FlowgraphError, RuntimeError):
    """A device that does not exist or cannot be used here."""


class ParseError(FlowgraphError, ValueError):
    """Text in the lecture's notation that cannot be read; `where` names line and column."""


class NumericsError(FlowgraphError, ArithmeticError):
    """A NaN or infinity where a finite number is required."""


class GraphError(FlowgraphError, ValueError):
    """A graph that is not well formed, or a request a graph cannot answer."""


class CheckpointError(FlowgraphError, ValueError):
    """A saved file that is damaged or does not fit the model."""


class VerificationError(FlowgraphError, AssertionError):
    """A compiler stage produced something its verifier rejects: a bug in flowgraph, never in the user's code."""


# What goes into messages: short, whatever was given.


_short = reprlib.Repr()
_short.maxother = _short.maxstring = 60


def shown(value: object, longest: int = 60) -> str:
    """A value on one line; an array by its dtype and shape.

    >>> shown(np.zeros((1000, 2))), shown("a")
    ('an array of float64(1000, 2)', "'a'")
    """
    if isinstance(value, np.ndarray) and value.ndim:
        return f"an array of {value.dtype}{value.shape}"
    text = " ".join(_short.repr(value).split())
    return text if len(text) <= longest else text[: longest - 1] + "…"


def listed(names: Iterable[object], most: int = 8) -> str:
    """Names as a list that is not too long.

    >>> listed("abc", most=2)
    "'a', 'b', …"
    """
    found = [shown(name) for name in names]
    return ", ".join([*found[:most], *["…"] * (len(found) > most)])


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The known name that was meant, perhaps: in another case, or with a letter wrong."""
    names = list(known)
    same = [n for n in names if n.lower() == str(name).lower()]
    return next(iter(same or difflib.get_close_matches(str(name), names, 1)), None)
