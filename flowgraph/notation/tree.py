"""What a text says, as a tree: inputs, shapes, and statements over names, numbers and calls. Plain data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from flowgraph.graph.origin import SourceLine
from flowgraph.graph.tensor import Tensor


@dataclass(frozen=True)
class Number:
    value: int | float
    at: SourceLine


@dataclass(frozen=True)
class Name:
    text: str
    at: SourceLine


@dataclass(frozen=True)
class Group:
    """A parenthesised list, such as the axes (1,0)."""

    items: tuple[Expression, ...]
    at: SourceLine


@dataclass(frozen=True)
class Call:
    """An op by name, or an infix sign, applied; `target` is the name that a suffix stands for."""

    op: str
    function: Callable[..., Tensor]
    arguments: tuple[Expression, ...]
    keywords: tuple[tuple[str, Expression], ...]
    target: Name | None
    at: SourceLine
    is_cost: bool = False  # its last argument is the target it compares with


Expression = Number | Name | Group | Call


@dataclass(frozen=True)
class Shape:
    sizes: tuple[int | str, ...]
    dtype: str | None
    at: SourceLine


@dataclass(frozen=True)
class Listing:
    """A parsed text: what is given, and what is computed from it, in order."""

    inputs: dict[str, SourceLine]
    shapes: dict[str, Shape]
    statements: dict[str, tuple[Expression, SourceLine]]


def uses(expression: Expression) -> Iterator[Name]:
    """Every name in an expression, targets included."""
    if isinstance(expression, Name):
        yield expression
    elif isinstance(expression, Group):
        for item in expression.items:
            yield from uses(item)
    elif isinstance(expression, Call):
        for item in (*expression.arguments, *(value for _, value in expression.keywords)):
            yield from uses(item)
        if expression.target is not None:
            yield expression.target


def calls_in(expression: Expression) -> Iterator[Call]:
    if isinstance(expression, Group):
        for item in expression.items:
            yield from calls_in(item)
    elif isinstance(expression, Call):
        yield expression
        for item in (*expression.arguments, *(value for _, value in expression.keywords)):
            yield from calls_in(item)
