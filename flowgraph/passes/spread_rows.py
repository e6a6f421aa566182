"""Weights that loops multiply by, turn after turn, with rows that do not meet in one place of a cache.

A cache finds room for a line by its address: of lines a large power of two apart it keeps few. A product reads its
second operand column block by column block, a short piece of every row; where rows are such a power of two long, as 512
or 2,048 numbers are, the pieces throw one another out, and the next rows of the product fetch them from afar again. So
once a step, before the loop, such weights are copied to rows that are one cache line longer.
"""

from __future__ import annotations

import dataclasses

from flowgraph.graph.graph import Graph, rewrite
from flowgraph.graph.size import estimate
from flowgraph.graph.tensor import Node, Tensor, apply
from flowgraph.ops.contraction import Mul
from flowgraph.ops.pieces import Pad
from flowgraph.ops.scan import Body, Scan, moved, slot
from flowgraph.ops.slicing import Slice
from flowgraph.passes.loops import inside

LINE = 64  # bytes
# Bytes: the number of rows times the power of two in their length, at most. A second-level cache of 1 MiB or more with
# 16 lines a place then keeps all pieces (measured: docs/performance.md).
MOST = 2**20
TURNS = 8  # of fewer the copy is not worth its time


def spread_rows(graph: Graph) -> Graph:
    """Give loops copies of such weights with longer rows."""
    if not any(isinstance(n.op, Scan) for n in graph.nodes()):
        return graph
    return _of_level(inside((_of_level,), "spread_rows")(graph))


def _of_level(graph: Graph) -> Graph:
    return rewrite(graph, _spread, "spread_rows")


def _spread(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    if not isinstance(node.op, Scan) or estimate(node.op.length) < TURNS:
        return None
    body: Body = node.op.inner
    given = dict(zip(body.given, inputs[len(inputs) - len(body.given) :], strict=True))
    found = [t for t in body.given if _meets(t, body)]
    if not found:
        return None
    new: dict[Tensor, Tensor] = {}
    for weights in found:
        rows, columns = weights.shape
        more = LINE // weights.dtype.itemsize
        given[weights] = longer = Pad((0, 0), (0, more), (1, 1), 0.0)(given[weights])
        inner = slot(weights.label or "weights", longer.type)
        new[weights] = Slice((0, 0), (rows, columns), (1, 1))(inner)
    roots = moved(body.graph.roots, {**{s: s for s in body.slots}, **new})
    slots = tuple(new[t].node.inputs[0] if t in new else t for t in body.given)
    spread = dataclasses.replace(body, given=slots).with_results(roots)
    first = inputs[: len(inputs) - len(body.given)]
    return apply(dataclasses.replace(node.op, inner=spread), *first, *given.values())


def _meets(weights: Tensor, body: Body) -> bool:
    """Whether a given value is nothing but the second factor of products, with rows that meet in caches."""
    if weights.type.rank != 2:
        return False
    rows, columns = weights.shape
    if not isinstance(rows, int) or not isinstance(columns, int):
        return False
    length = columns * weights.dtype.itemsize
    if rows * (length & -length) <= MOST:
        return False
    readers = body.graph.consumers().get(weights, [])
    return (
        weights not in body.graph.roots
        and bool(readers)
        and all(isinstance(n.op, Mul) and n.inputs[1] is weights and n.inputs[0] is not weights for n in readers)
    )
