"""The vocabulary: one class per op, one file per family. Importing it registers every op."""

from flowgraph.ops import (
    classification,
    contraction,
    elementwise,
    functions,
    indexing,
    leaf,
    logic,
    operators,
    pieces,
    piecewise,
    random,
    reduce,
    regression,
    shape,
    slicing,
    statistics,
)
from flowgraph.ops.base import Op, Sample

__all__ = [
    "Op",
    "Sample",
    "classification",
    "contraction",
    "elementwise",
    "functions",
    "indexing",
    "leaf",
    "logic",
    "operators",
    "pieces",
    "piecewise",
    "random",
    "reduce",
    "regression",
    "running",
    "shape",
    "slicing",
    "statistics",
]
