"""Weights that loops multiply by, turn after turn, as blocks of columns.

A product reads its second operand a few columns at a time, of every row: pieces of a line or two, kilobytes apart,
which no processor fetches ahead, and of which a cache keeps few where rows are a power of two long. So once a step,
before the loop, such weights are copied to blocks as wide as a register tile, whose rows lie one after the other.
"""

from __future__ import annotations

import dataclasses

from flowgraph.graph.graph import Graph, rewrite
from flowgraph.graph.size import estimate
from flowgraph.graph.tensor import Node, Tensor, apply
from flowgraph.ops.contraction import Mul
from flowgraph.ops.scan import Body, Scan, moved, slot
from flowgraph.ops.shape import ColumnBlocks, JoinedColumns
from flowgraph.passes.loops import inside

WIDTH = 32  # columns: of the register tiles of all processors (docs/performance.md)
LEAST = 2**18  # bytes: smaller weights are near, however they lie
TURNS = 8  # of fewer the copy is not worth its time


def block_weights(graph: Graph) -> Graph:
    """Give loops blocks of such weights' columns."""
    if not any(isinstance(n.op, Scan) for n in graph.nodes()):
        return graph
    return _of_level(inside((_of_level,), "block_weights")(graph))


def _of_level(graph: Graph) -> Graph:
    return rewrite(graph, _block, "block_weights")


def _block(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    if not isinstance(node.op, Scan) or estimate(node.op.length) < TURNS:
        return None
    body: Body = node.op.inner
    given = dict(zip(body.given, inputs[len(inputs) - len(body.given) :], strict=True))
    new: dict[Tensor, Tensor] = {}
    for weights in body.given:
        if _is_read_by_columns(weights, body):
            given[weights] = blocks = ColumnBlocks(WIDTH)(given[weights])
            new[weights] = JoinedColumns()(slot(weights.label or "weights", blocks.type))
    if not new:
        return None
    roots = moved(body.graph.roots, {**{s: s for s in body.slots}, **new})
    slots = tuple(new[t].node.inputs[0] if t in new else t for t in body.given)
    blocked = dataclasses.replace(body, given=slots).with_results(roots)
    first = inputs[: len(inputs) - len(body.given)]
    return apply(dataclasses.replace(node.op, inner=blocked), *first, *given.values())


def _is_read_by_columns(weights: Tensor, body: Body) -> bool:
    """Whether a given value is large, and nothing but the second factor of products."""
    if weights.type.rank != 2:
        return False
    rows, columns = weights.shape
    if not isinstance(rows, int) or not isinstance(columns, int) or columns % WIDTH:
        return False
    if rows * columns * weights.dtype.itemsize < LEAST:
        return False
    readers = body.graph.consumers().get(weights, [])
    return (
        weights not in body.graph.roots
        and bool(readers)
        and all(isinstance(n.op, Mul) and n.inputs[1] is weights and n.inputs[0] is not weights for n in readers)
    )
