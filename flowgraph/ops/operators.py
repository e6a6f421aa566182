"""Gives symbolic tensors Python's operators, and NumPy's functions an answer. The graph knows no op, so this is done
from here, once, on import.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from flowgraph.errors import GraphError
from flowgraph.graph import origin as origins
from flowgraph.graph.tensor import FUNCTIONS, Tensor
from flowgraph.ops import einsum, elementwise, functions, logic, piecewise, shape, slicing

_BINARY: dict[str, tuple[str, Callable[[Any, Any], Tensor]]] = {
    "add": ("+", elementwise.add),
    "sub": ("-", elementwise.subtract),
    "mul": ("*", elementwise.multiply),
    "truediv": ("/", elementwise.divide),
    "matmul": ("@", einsum.matmul),
    "pow": ("**", functions.power),
    "floordiv": ("//", logic.floor_divide),
    "mod": ("%", logic.remainder),
    "and": ("&", logic.logical_and),
    "or": ("|", logic.logical_or),
    "xor": ("^", logic.logical_xor),
    "gt": (">", elementwise.greater),
    "ge": (">=", elementwise.greater_equal),
    "lt": ("<", elementwise.less),
    "le": ("<=", elementwise.less_equal),
}
_COMPARISONS = ("gt", "ge", "lt", "le")  # which Python reflects by themselves
_UNARY = {"neg": ("-", elementwise.negative), "abs": ("abs", piecewise.absolute), "invert": ("~", logic.logical_not)}


def _install(name: str, method: Any, shown: str, function: Any) -> None:
    method.__name__, method.__qualname__ = f"__{name}__", f"Tensor.__{name}__"
    method.__doc__ = f"{shown}, which is fg.{function.__name__}."
    setattr(Tensor, method.__name__, method)


def _binary(function: Callable[[Any, Any], Tensor]) -> Callable[[Tensor, Any], Tensor]:
    return lambda self, other: function(self, other)


def _reflected(function: Callable[[Any, Any], Tensor]) -> Callable[[Tensor, Any], Tensor]:
    return lambda self, other: function(other, self)


def _unary(function: Callable[[Any], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda self: function(self)


for _name, (_sign, _function) in _BINARY.items():
    _install(_name, _binary(_function), f"self {_sign} other", _function)
    if _name not in _COMPARISONS:  # what NumPy arrays and numbers may stand to the left of
        _install(f"r{_name}", _reflected(_function), f"other {_sign} self", _function)
for _name, (_sign, _alone) in _UNARY.items():
    _install(_name, _unary(_alone), "abs(self)" if _name == "abs" else f"{_sign}self", _alone)
Tensor.T = property(shape.transpose, doc="The tensor with its axes in reverse order.")  # type: ignore[assignment]
Tensor.__getitem__ = slicing.getitem  # type: ignore[method-assign]


# NumPy

# What NumPy's arrays and scalars call for an operator, by NumPy's name.
_OF_OPERATORS = {
    **{function.__name__: function for _, function in _BINARY.values()},
    "bitwise_and": logic.logical_and,
    "bitwise_or": logic.logical_or,
    "bitwise_xor": logic.logical_xor,
}


def _array_ufunc(self: Tensor, ufunc: Any, method: str, *operands: Any, **settings: Any) -> Tensor:
    """NumPy asks here for `array * tensor`, which is an operator of the tensor's, and for np.exp(tensor)."""
    function = _OF_OPERATORS.get(ufunc.__name__)
    if function is None or method != "__call__":
        raise _no_values(self, ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}")
    if settings:
        raise GraphError(
            f"np.{ufunc.__name__} takes a tensor only by itself, got {', '.join(settings)}=",
            where=origins.here(),
            hint="an array cannot hold what is not computed yet: a = a + x instead of a += x"
            if "out" in settings
            else f"fg.{function.__name__}(x, y) has no such setting",
        )
    if function.__name__ in _COMPARED:  # NumPy makes an array of a scalar that it compares
        operands = tuple(t[()] if isinstance(t, np.ndarray) and not t.ndim else t for t in operands)
    return function(*operands)


_COMPARED = {_BINARY[name][1].__name__ for name in _COMPARISONS}


def _array_function(self: Tensor, function: Any, types: Any, operands: Any, settings: Any) -> Any:
    """NumPy asks here for what it has no ufunc for: np.concatenate, np.sum. Of the shape it may know."""
    if function in (np.shape, np.ndim):
        return self.shape if function is np.shape else self.rank
    module = function.__module__.removeprefix("numpy").lstrip(".")
    raise _no_values(self, f"{module}.{function.__name__}" if module else function.__name__)


def _no_values(x: Tensor, name: str) -> GraphError:
    offered = sys.modules[__name__.partition(".")[0]].__all__  # the package is whole when a user has a tensor
    last = name.rpartition(".")[2]
    known = FUNCTIONS | {"equal": "fg.equal(x, y), == is identity"}
    meant = known.get(last) or (f"fg.{last}" if last in offered else "")
    hint = f"use {meant}" if meant else "give it arrays: before they are fed, or what a program returns"
    problem = f"np.{name} needs values, and {x!r} has none before a program runs"
    return GraphError(problem, where=origins.here(), hint=hint)


Tensor.__array_ufunc__ = _array_ufunc  # type: ignore[assignment]
Tensor.__array_function__ = _array_function  # type: ignore[attr-defined]
