"""Nested tuples, lists and dicts of tensors as what they are made of, and back.

In: what a user's function takes or returns. Out: its leaves in order, and what builds the same structure from others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from flowgraph.errors import GraphError
from flowgraph.graph import origin as origins


def flatten(tree: Any, leaf: Callable[[Any], Any]) -> tuple[list[Any], Callable[[Iterator[Any]], Any]]:
    """The leaves, each as `leaf` makes it, and what builds the same structure from as many others. None has no leaves.

    >>> leaves, build = flatten({"h": 1, "c": (2, 3)}, float)
    >>> leaves, build(iter("abc"))
    ([1.0, 2.0, 3.0], {'h': 'a', 'c': ('b', 'c')})
    """
    if tree is None:
        return [], lambda others: None
    if isinstance(tree, dict):
        parts = [flatten(value, leaf) for value in tree.values()]
        builds = dict(zip(tree, (build for _, build in parts), strict=True))
        return [x for found, _ in parts for x in found], lambda others: {k: b(others) for k, b in builds.items()}
    if isinstance(tree, (tuple, list)):
        parts = [flatten(value, leaf) for value in tree]
        make = type(tree)._make if hasattr(tree, "_fields") else type(tree)  # type: ignore[union-attr]
        return [x for found, _ in parts for x in found], lambda others: make([build(others) for _, build in parts])
    return [leaf(tree)], next


def shape_of(tree: Any) -> str:
    """How the structure looks, without its leaves: `(*, {'c': *})`."""
    if tree is None:
        return "None"
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{k!r}: {shape_of(v)}" for k, v in tree.items()) + "}"
    if isinstance(tree, (tuple, list)):
        inner = ", ".join(map(shape_of, tree))
        return f"[{inner}]" if isinstance(tree, list) else f"({inner}{',' if len(tree) == 1 else ''})"
    return "*"


def require_same_structure(what: str, tree: Any, expected: Any) -> None:
    """GraphError unless two structures are equal but for their leaves."""
    if shape_of(tree) != shape_of(expected):
        raise GraphError(
            f"{what} has the structure {shape_of(tree)}, expected {shape_of(expected)}",
            where=origins.here(),
            hint="return tuples, lists and dicts nested as they were given",
        )
