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

WIDTH = 32  # columns: of one or two register tiles
LEAST = 2**18  # bytes: smaller weights are near, however they lie
TURNS = 8  # of fewer the copy is not worth its time


def block_weights(graph: Graph) -> Graph:
    """Give loops blocks of such weights' columns, made outside of all loops that are given the weights."""
    if not any(isinstance(n.op, Scan) for n in graph.nodes()):
        return graph
    return rewrite(rewrite(graph, _block, "block_weights"), _go_on_inside, "block_weights")


def _go_on_inside(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    if not isinstance(node.op, Scan):
        return None
    body: Body = node.op.inner
    after = block_weights(body.graph)
    if after is body.graph:
        return None
    return apply(dataclasses.replace(node.op, inner=body.with_results(after.roots)), *inputs)


def _block(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    if not isinstance(node.op, Scan):
        return None
    body: Body = node.op.inner
    given = dict(zip(body.given, inputs[len(inputs) - len(body.given) :], strict=True))
    new: dict[Tensor, Tensor] = {}
    for weights in body.given:
        if not _is_large(weights) or not _is_read_by_columns(weights, node.op):
            continue
        source = given[weights]  # blocks already, of a loop around?
        blocks = source.node.inputs[0] if isinstance(source.op, JoinedColumns) else ColumnBlocks(WIDTH)(source)
        given[weights] = blocks
        new[weights] = JoinedColumns()(slot(weights.label or "weights", blocks.type))
    if not new:
        return None
    roots = moved(body.graph.roots, {**{s: s for s in body.slots}, **new})
    slots = tuple(new[t].node.inputs[0] if t in new else t for t in body.given)
    blocked = dataclasses.replace(body, given=slots).with_results(roots)
    first = inputs[: len(inputs) - len(body.given)]
    return apply(dataclasses.replace(node.op, inner=blocked), *first, *given.values())


def _is_large(weights: Tensor) -> bool:
    if weights.type.rank != 2:
        return False
    rows, columns = weights.shape
    if not isinstance(rows, int) or not isinstance(columns, int) or columns % WIDTH:
        return False
    return rows * columns * weights.dtype.itemsize >= LEAST


def _is_read_by_columns(weights: Tensor, loop: Scan, turns: int = 1) -> bool:
    """Whether what a loop is given is nothing but the second factor of products, in it and in loops in it, and that in
    many turns."""
    body: Body = loop.inner
    turns *= estimate(loop.length)
    readers = body.graph.consumers().get(weights, [])
    if weights in body.graph.roots or not readers:
        return False
    for node in readers:
        if isinstance(node.op, Mul):
            if turns < TURNS or node.inputs[1] is not weights or node.inputs[0] is weights:
                return False
        elif isinstance(node.op, Scan):
            inner: Body = node.op.inner
            given = node.inputs[len(node.inputs) - len(inner.given) :]
            if weights in node.inputs[: len(node.inputs) - len(inner.given)]:
                return False
            slots = [s for s, t in zip(inner.given, given, strict=True) if t is weights]
            if not all(_is_read_by_columns(s, node.op, turns) for s in slots):
                return False
        else:
            return False
    return True
