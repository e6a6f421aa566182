"""flowgraph: declare a symbolic graph, derive its gradients, fuse it into native kernels, train it.

>>> import flowgraph as fg
>>> x = fg.input("x", ("batch", 2))
>>> w = fg.parameter("w", (2, 1))
>>> cost = fg.mean(fg.tanh(x @ w))
>>> fg.grad(cost, w)
<Tensor dw: float32(2, 1)>
"""

from flowgraph import errors
from flowgraph.compile import compile, grad
from flowgraph.errors import (
    CheckpointError,
    DeviceError,
    DTypeError,
    FlowgraphError,
    GraphError,
    InputError,
    NumericsError,
    ParseError,
    ShapeError,
)
from flowgraph.graph.graph import Graph
from flowgraph.graph.origin import scope
from flowgraph.graph.tensor import Tensor
from flowgraph.ops.classification import cross_ent, cross_ent_of_softmax, softmax
from flowgraph.ops.contraction import add_bias, mul
from flowgraph.ops.elementwise import (
    add,
    cast,
    divide,
    equal,
    exp,
    greater,
    less,
    log,
    logistic,
    multiply,
    negative,
    relu,
    subtract,
    tanh,
    where,
)
from flowgraph.ops.indexing import gather, one_hot, scatter_add
from flowgraph.ops.leaf import arange, constant, input, parameter, size_of
from flowgraph.ops.reduce import max, mean, sum
from flowgraph.ops.shape import broadcast_to, expand_dims, squeeze, transpose
from flowgraph.program import Program

matmul = mul
sigmoid = logistic
__version__ = "0.1.0"

__all__ = [name for name in dir() if not name.startswith("_")]
