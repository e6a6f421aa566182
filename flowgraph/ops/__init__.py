"""The vocabulary: one class per op, one file per family. Importing it registers every op."""

from flowgraph.ops import classification, contraction, elementwise, indexing, leaf, operators, reduce, shape
from flowgraph.ops.base import Op, Sample

__all__ = [
    "Op",
    "Sample",
    "classification",
    "contraction",
    "elementwise",
    "indexing",
    "leaf",
    "operators",
    "reduce",
    "shape",
]
