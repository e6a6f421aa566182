"""flowgraph: declare a symbolic graph, derive its gradients, fuse it into native kernels, train it.

>>> import flowgraph as fg
>>> x = fg.input("x", ("batch", 2))
>>> w = fg.parameter("w", (2, 1))
>>> cost = fg.mean(fg.tanh(x @ w))
>>> fg.grad(cost, w)
<Tensor dw: float32(2, 1)>
"""

from typing import TYPE_CHECKING, Any

from flowgraph import errors, random
from flowgraph.compile import compile, grad
from flowgraph.errors import (
    CheckpointError,
    DeviceError,
    DTypeError,
    FlowgraphError,
    GraphError,
    InputError,
    NumericsError,
    OutOfRangeError,
    ParseError,
    ShapeError,
)
from flowgraph.graph.graph import Graph
from flowgraph.graph.origin import scope
from flowgraph.graph.tensor import Tensor
from flowgraph.ops.classification import (
    binary_cross_ent,
    cross_ent,
    cross_ent_of_logistic,
    cross_ent_of_softmax,
    log_softmax,
    masked_softmax,
    softmax,
)
from flowgraph.ops.contraction import add_bias, mul
from flowgraph.ops.convolution import conv1d, conv2d
from flowgraph.ops.distinct import first_equal
from flowgraph.ops.einsum import einsum, matmul, tensordot
from flowgraph.ops.elementwise import (
    add,
    cast,
    divide,
    equal,
    greater,
    greater_equal,
    less,
    less_equal,
    multiply,
    negative,
    not_equal,
    stop_gradient,
    subtract,
    where,
)
from flowgraph.ops.functions import (
    cos,
    erf,
    exp,
    expm1,
    gelu,
    log,
    log1p,
    logistic,
    power,
    reciprocal,
    silu,
    sin,
    softplus,
    softsign,
    sqrt,
    square,
    tanh,
)
from flowgraph.ops.indexing import gather, one_hot, scatter_add, take_along_axis
from flowgraph.ops.leaf import arange, constant, input, parameter, size_of
from flowgraph.ops.logic import (
    floor_divide,
    isfinite,
    isinf,
    isnan,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    remainder,
)
from flowgraph.ops.pieces import concatenate, pad, roll, stack, tile
from flowgraph.ops.piecewise import (
    absolute,
    ceil,
    clip,
    elu,
    floor,
    leaky_relu,
    maximum,
    minimum,
    relu,
    round,
    sign,
    trunc,
)
from flowgraph.ops.pooling import avg_pool1d, avg_pool2d, max_pool1d, max_pool2d
from flowgraph.ops.random import dropout
from flowgraph.ops.reduce import all, any, max, mean, min, sum
from flowgraph.ops.regression import absolute_error, huber, squared_error
from flowgraph.ops.running import cumulative_sum
from flowgraph.ops.scan import scan
from flowgraph.ops.shape import broadcast_to, expand_dims, moveaxis, ravel, reshape, squeeze, swapaxes, transpose
from flowgraph.ops.slicing import flip, split, unstack
from flowgraph.ops.sorting import argsort, sort, top_k
from flowgraph.ops.statistics import argmax, argmin, cosine_similarity, logsumexp, norm, std, var
from flowgraph.passes.inference import inference
from flowgraph.program import Program

abs = absolute
concat = concatenate
flatten = ravel
permute_dims = transpose
take = gather
cumsum = cumulative_sum
sigmoid = logistic
__version__ = "0.1.0"

_LATER = {  # name -> module, attribute: imported on first use, so that `import flowgraph` stays quick
    "Callback": ("flowgraph.train.callbacks", "Callback"),
    "Checkpoints": ("flowgraph.train.checkpoint", "Checkpoints"),
    "Diagnostics": ("flowgraph.train.diagnostics", "Diagnostics"),
    "EarlyStopping": ("flowgraph.train.callbacks", "EarlyStopping"),
    "ReduceOnPlateau": ("flowgraph.train.callbacks", "ReduceOnPlateau"),
    "Trainer": ("flowgraph.train.trainer", "Trainer"),
    "datasets": ("flowgraph.datasets", None),
    "init": ("flowgraph.nn.init", None),
    "load": ("flowgraph.train.saved", "load"),
    "nn": ("flowgraph.nn", None),
    "optim": ("flowgraph.train.optim", None),
    "parse": ("flowgraph.notation", "parse"),
    "parse_file": ("flowgraph.notation", "parse_file"),
    "plots": ("flowgraph.train.plots", None),
    "receptive_field": ("flowgraph.train.units", "receptive_field"),
    "save": ("flowgraph.train.saved", "save"),
    "show": ("flowgraph.viz", "show"),
    "strongest": ("flowgraph.train.units", "strongest"),
}

if TYPE_CHECKING:
    from flowgraph import datasets, nn
    from flowgraph.nn import init
    from flowgraph.notation import parse, parse_file
    from flowgraph.train import optim, plots
    from flowgraph.train.callbacks import Callback, EarlyStopping, ReduceOnPlateau
    from flowgraph.train.checkpoint import Checkpoints
    from flowgraph.train.diagnostics import Diagnostics
    from flowgraph.train.saved import load, save
    from flowgraph.train.trainer import Trainer
    from flowgraph.train.units import receptive_field, strongest
    from flowgraph.viz import show


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'flowgraph' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _LATER[name]
    found = import_module(module)
    globals()[name] = value = found if attribute is None else getattr(found, attribute)
    return value


def __dir__() -> list[str]:
    return __all__


__all__ = [
    "Callback",
    "CheckpointError",
    "Checkpoints",
    "DTypeError",
    "DeviceError",
    "Diagnostics",
    "EarlyStopping",
    "FlowgraphError",
    "Graph",
    "GraphError",
    "InputError",
    "NumericsError",
    "OutOfRangeError",
    "ParseError",
    "Program",
    "ReduceOnPlateau",
    "ShapeError",
    "Tensor",
    "Trainer",
    "abs",
    "absolute",
    "absolute_error",
    "add",
    "add_bias",
    "all",
    "any",
    "arange",
    "argmax",
    "argmin",
    "argsort",
    "avg_pool1d",
    "avg_pool2d",
    "binary_cross_ent",
    "broadcast_to",
    "cast",
    "ceil",
    "clip",
    "compile",
    "concat",
    "concatenate",
    "constant",
    "conv1d",
    "conv2d",
    "cos",
    "cosine_similarity",
    "cross_ent",
    "cross_ent_of_logistic",
    "cross_ent_of_softmax",
    "cumsum",
    "cumulative_sum",
    "datasets",
    "divide",
    "dropout",
    "einsum",
    "elu",
    "equal",
    "erf",
    "errors",
    "exp",
    "expand_dims",
    "expm1",
    "first_equal",
    "flatten",
    "flip",
    "floor",
    "floor_divide",
    "gather",
    "gelu",
    "grad",
    "greater",
    "greater_equal",
    "huber",
    "inference",
    "init",
    "input",
    "isfinite",
    "isinf",
    "isnan",
    "leaky_relu",
    "less",
    "less_equal",
    "load",
    "log",
    "log1p",
    "log_softmax",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "logistic",
    "logsumexp",
    "masked_softmax",
    "matmul",
    "max",
    "max_pool1d",
    "max_pool2d",
    "maximum",
    "mean",
    "min",
    "minimum",
    "moveaxis",
    "mul",
    "multiply",
    "negative",
    "nn",
    "norm",
    "not_equal",
    "one_hot",
    "optim",
    "pad",
    "parameter",
    "parse",
    "parse_file",
    "permute_dims",
    "plots",
    "power",
    "random",
    "ravel",
    "receptive_field",
    "reciprocal",
    "relu",
    "remainder",
    "reshape",
    "roll",
    "round",
    "save",
    "scan",
    "scatter_add",
    "scope",
    "show",
    "sigmoid",
    "sign",
    "silu",
    "sin",
    "size_of",
    "softmax",
    "softplus",
    "softsign",
    "sort",
    "split",
    "sqrt",
    "square",
    "squared_error",
    "squeeze",
    "stack",
    "std",
    "stop_gradient",
    "strongest",
    "subtract",
    "sum",
    "swapaxes",
    "take",
    "take_along_axis",
    "tanh",
    "tensordot",
    "tile",
    "top_k",
    "transpose",
    "trunc",
    "unstack",
    "var",
    "where",
]
