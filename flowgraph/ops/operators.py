"""Gives symbolic tensors Python's operators. The graph knows no op, so this is done from here, once, on
import.
"""

from __future__ import annotations

from typing import Any

from flowgraph.graph.tensor import Tensor
from flowgraph.ops import einsum, elementwise, functions, logic, piecewise, shape, slicing


def _swap(function: Any) -> Any:
    return lambda self, other: function(other, self)


_BINARY = {
    "add": elementwise.add,
    "sub": elementwise.subtract,
    "mul": elementwise.multiply,
    "truediv": elementwise.divide,
    "matmul": einsum.matmul,
    "pow": functions.power,
    "floordiv": logic.floor_divide,
    "mod": logic.remainder,
    "and": logic.logical_and,
    "or": logic.logical_or,
    "xor": logic.logical_xor,
    "gt": elementwise.greater,
    "ge": elementwise.greater_equal,
    "lt": elementwise.less,
    "le": elementwise.less_equal,
}
_REFLECTED = (
    "add",
    "sub",
    "mul",
    "truediv",
    "matmul",
    "pow",
    "floordiv",
    "mod",
    "and",
    "or",
    "xor",
)  # what NumPy arrays and numbers may stand to the left of

for _name, _function in _BINARY.items():
    setattr(Tensor, f"__{_name}__", lambda self, other, f=_function: f(self, other))
for _name in _REFLECTED:
    setattr(Tensor, f"__r{_name}__", _swap(_BINARY[_name]))
for _name, _unary in {"neg": elementwise.negative, "abs": piecewise.absolute, "invert": logic.logical_not}.items():
    setattr(Tensor, f"__{_name}__", lambda self, f=_unary: f(self))
Tensor.T = property(shape.transpose, doc="The tensor with its axes in reverse order.")  # type: ignore[assignment]
Tensor.__getitem__ = slicing.getitem  # type: ignore[method-assign]
