"""Sums that loops carry go on from what was carried, term by term.

A gradient of weights that a loop sums up, segment by segment, then has the bits of the sum over all turns at once, and
what a segment adds needs no memory of its own. In a loop's body `carry + product` becomes `accumulate(carry, product)`;
and a loop whose sum begins with zeros and is added to a value begins with this value.
"""

from __future__ import annotations

import dataclasses

from flowgraph.graph import origin as origins
from flowgraph.graph.graph import Graph, rewrite, topological
from flowgraph.graph.tensor import Node, Tensor, apply
from flowgraph.ops.contraction import Mul
from flowgraph.ops.einsum import Einsum
from flowgraph.ops.elementwise import Accumulate, Add
from flowgraph.ops.reduce import Sum
from flowgraph.ops.scan import Body, Scan, moved
from flowgraph.passes.fold import scalar_value
from flowgraph.passes.loops import inside

TERM_BY_TERM = (Mul, Einsum, Sum)


def continue_sums(graph: Graph) -> Graph:
    """Let the sums of loops begin where others end."""
    if not any(isinstance(n.op, Scan) for n in graph.nodes()):
        return graph
    return _of_level(inside((_of_level,), "continue_sums")(graph))


def _of_level(graph: Graph) -> Graph:
    graph = rewrite(graph, _going_on, "continue_sums")
    while (found := _begins_with_zeros(graph)) is not None:
        graph = _begun(graph, *found)
    return graph


def _going_on(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    """A loop whose turns add products, or sums, to what they are given term by term."""
    if not isinstance(node.op, Scan):
        return None
    body = node.op.inner
    nexts = tuple(_added(*pair) for pair in zip(body.carries, body.nexts, strict=True))
    if nexts == body.nexts:
        return None
    return apply(dataclasses.replace(node.op, inner=body.with_results((*nexts, *body.emits))), *inputs)


def _added(carry: Tensor, new: Tensor) -> Tensor:
    if not isinstance(new.op, Add) or carry not in new.node.inputs:
        return new
    first, second = new.node.inputs
    term = second if first is carry else first
    if not isinstance(term.op, TERM_BY_TERM) or not term.dtype.is_float:
        return new
    with origins.at(new.origin.by("continue_sums")):
        made = Accumulate()(carry, term)
    made.label = new.label
    return made


def _begins_with_zeros(graph: Graph) -> tuple[Node, Node, int] | None:
    """An addition of a gradient of what is left over, and what a loop over segments has summed up, beginning with
    zeros; the loop, and the number of that carry. Nothing else reads the loop's sum, and the other does not wait for
    the loop.

    Nothing but another sum over turns may be begun with: to a large number small terms are not added one by one.
    """
    consumers, roots = graph.consumers(), set(graph.roots)
    for node in graph.nodes():
        if not isinstance(node.op, Add) or "backward" not in node.origin.passes:
            continue
        for end, other in (node.inputs, node.inputs[::-1]):
            loop = end.node
            over_segments = isinstance(loop.op, Scan) and loop.op.frugal and _is_over_turns(other)
            if not over_segments or end in roots or consumers[end] != [node]:
                continue
            carry = loop.outputs.index(end)
            is_sum = carry < len(loop.op.inner.carries) and _is_sum(loop.op.inner, carry)
            if is_sum and scalar_value(loop.inputs[carry]) == 0 and loop not in topological([other]):
                return node, loop, carry
    return None


def _is_over_turns(tensor: Tensor) -> bool:
    """Whether a value is a gradient's sum over the turns of a loop, taken out of it."""
    passes = tensor.node.origin.passes
    return isinstance(tensor.op, TERM_BY_TERM) and "hoist" in passes and "backward" in passes


def _is_sum(body: Body, number: int) -> bool:
    """Whether turns do nothing to a carry but add to it."""
    carry, new = body.carries[number], body.nexts[number]
    reads = [t for n in topological(body.graph.roots, given=body.slots) for t in n.inputs].count(carry)
    only = reads == 1 and body.graph.roots.count(new) == 1 and carry not in body.graph.roots
    return only and isinstance(new.op, (Add, Accumulate)) and carry in new.node.inputs


def _begun(graph: Graph, addition: Node, loop: Node, carry: int) -> Graph:
    """The graph in which the loop begins with the other operand."""
    first, second = addition.inputs
    begin = second if first is loop.outputs[carry] else first
    inputs = (*loop.inputs[:carry], begin, *loop.inputs[carry + 1 :])
    with origins.at(loop.origin.by("continue_sums")):
        made = apply(loop.op, *inputs)
    for old, new in zip(loop.outputs, made, strict=True):
        new.label = old.label
    made[carry].label = addition.outputs[0].label
    replaced = {**dict(zip(loop.outputs, made, strict=True)), addition.outputs[0]: made[carry]}
    return graph.with_roots(moved(graph.roots, replaced))
