"""The ops that can be called, by each of their spellings; comes from the registry, so a new op is here by
itself.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

from flowgraph.graph.tensor import Tensor
from flowgraph.ops import Op, elementwise

_ALIASES = {"matmul": "mul", "sigmoid": "logistic", "broadcast_to": "broadcast", "size_of": "size"}
INFIX: dict[str, tuple[int, Callable[..., Tensor]]] = {
    "+": (1, elementwise.add),
    "-": (1, elementwise.subtract),
    "*": (2, elementwise.multiply),
    "/": (2, elementwise.divide),
}


def key(name: str) -> str:
    """softMax, softmax and soft_max are one name."""
    return name.replace("_", "").casefold()


Spelled = tuple[str, type[Op], Callable[..., Tensor]]  # name to show, class, function that applies it


def vocabulary() -> dict[str, Spelled]:
    """Every op that can be called, by the key of each of its spellings."""
    found = {}
    for name, op in Op.registry.items():
        if op.meaning() == "leaf":
            continue
        spellings = [
            name,
            op.display,
            *(alias for alias, stands_for in _ALIASES.items() if stands_for == name),
        ]
        module = sys.modules[op.__module__]
        functions = [getattr(module, s) for s in spellings if inspect.isfunction(getattr(module, s, None))]
        function = functions[0] if functions else _apply(op)
        for spelling in spellings:
            if spelling.rstrip("*").isidentifier():
                found[key(spelling)] = (op.display if op.display[0].isalpha() else name, op, function)
    return found


def _apply(op: type[Op]) -> Callable[..., Tensor]:
    """An op without a function of its own: tensors by position, attributes by keyword."""

    def function(*inputs: Tensor, **attributes: Any) -> Tensor:
        return op(**attributes)(*inputs)

    return function


def compares(op: type[Op], function: Callable[..., Tensor]) -> bool:
    """Does the op compare with a target y, which a suffix may name?"""
    return op.family == "classification" and list(inspect.signature(function).parameters)[1:] == ["y"]
