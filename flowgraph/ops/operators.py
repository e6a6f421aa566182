"""Gives symbolic tensors Python's operators. The graph knows no op, so this is done from here, once, on
import.
"""

from __future__ import annotations

from typing import Any

from flowgraph.graph.tensor import Tensor
from flowgraph.ops import contraction, elementwise


def _swap(function: Any) -> Any:
    return lambda self, other: function(other, self)


for _name, _function in {
    "add": elementwise.add,
    "sub": elementwise.subtract,
    "mul": elementwise.multiply,
    "truediv": elementwise.divide,
}.items():
    setattr(Tensor, f"__{_name}__", lambda self, other, f=_function: f(self, other))
    setattr(Tensor, f"__r{_name}__", _swap(_function))
setattr(Tensor, "__matmul__", lambda self, other: contraction.mul(self, other))
setattr(Tensor, "__neg__", lambda self: elementwise.negative(self))
setattr(Tensor, "__gt__", lambda self, other: elementwise.greater(self, other))
setattr(Tensor, "__lt__", lambda self, other: elementwise.less(self, other))
