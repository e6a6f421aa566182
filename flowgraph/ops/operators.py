"""Gives symbolic tensors Python's operators. The graph knows no op, so this is done from here, once, on
import.
"""

from __future__ import annotations

from typing import Any

from flowgraph.graph.tensor import Tensor
from flowgraph.ops import contraction, elementwise


def _swap(function: Any) -> Any:
    return lambda self, other: function(other, self)


_BINARY = {
    "add": elementwise.add,
    "sub": elementwise.subtract,
    "mul": elementwise.multiply,
    "truediv": elementwise.divide,
    "matmul": contraction.mul,
    "gt": elementwise.greater,
    "lt": elementwise.less,
}
_REFLECTED = (
    "add",
    "sub",
    "mul",
    "truediv",
    "matmul",
)  # what NumPy arrays and numbers may stand to the left of

for _name, _function in _BINARY.items():
    setattr(Tensor, f"__{_name}__", lambda self, other, f=_function: f(self, other))
for _name in _REFLECTED:
    setattr(Tensor, f"__r{_name}__", _swap(_BINARY[_name]))
for _name, _unary in {"neg": elementwise.negative}.items():
    setattr(Tensor, f"__{_name}__", lambda self, f=_unary: f(self))
