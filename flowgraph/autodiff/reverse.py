"""Reverse accumulation. Knows no single op: only their `vjp` or, where a composite has none, its expansion, or the
derivative of a loop's body.

What comes out is a graph like any other: it can be printed, drawn, compiled, differentiated again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flowgraph.autodiff.loop import loop_vjp
from flowgraph.errors import DTypeError, ShapeError
from flowgraph.graph import origin as origins
from flowgraph.graph.graph import topological
from flowgraph.graph.size import show_shape
from flowgraph.graph.tensor import Node, Tensor
from flowgraph.ops.base import Cotangents, Op
from flowgraph.ops.elementwise import add
from flowgraph.ops.leaf import constant
from flowgraph.ops.shape import broadcast_to


def backward(cost: Tensor, wrt: Sequence[Tensor]) -> list[Tensor]:
    """The gradients of a scalar cost with respect to any tensors, as tensors of their types.

    Raises ShapeError unless the cost is a scalar, DTypeError where a tensor is not floating point.
    """
    if cost.shape != ():
        raise ShapeError(
            f"only a scalar has a gradient, the cost has shape {show_shape(cost.shape)}",
            where=cost.origin,
            hint="reduce it first, for example fg.mean(cost)",
        )
    for tensor in (cost, *wrt):
        if not tensor.dtype.is_float:
            raise DTypeError(
                f"no gradient for {tensor.type}: only floating-point tensors have one", where=tensor.origin
            )
    with origins.at(cost.origin.by("backward")):
        one = constant(1.0, cost.dtype)
    cotangents = accumulate({cost: one}, frozenset(wrt))

    gradients = []
    for tensor in wrt:
        found = cotangents.get(tensor)
        if found is None:  # the cost does not depend on it
            with origins.at(tensor.origin.by("backward")):
                found = broadcast_to(constant(0.0, tensor.dtype), tensor.shape)
        if found.label is None and tensor.label:
            found.label = _gradient_name(tensor.label)
        gradients.append(found)
    return gradients


def accumulate(
    seeds: Mapping[Tensor, Tensor], targets: frozenset[Tensor], given: frozenset[Tensor] = frozenset()
) -> dict[Tensor, Tensor]:
    """The cotangents of all tensors between the targets and roots whose own are the seeds. Ends at `given` tensors."""
    nodes = topological(seeds, given)
    reaches: set[Node] = set()  # nodes through which a root depends on a target
    for node in nodes:
        if any(t in targets or t.node in reaches for t in (*node.outputs, *node.inputs)):
            reaches.add(node)

    cotangents: dict[Tensor, Tensor] = dict(seeds)
    for node in reversed(nodes):
        arriving = tuple(cotangents.get(t) for t in node.outputs)
        if node not in reaches or not node.inputs or all(g is None for g in arriving):
            continue
        for tensor, cotangent in zip(node.outputs, arriving, strict=True):
            if tensor.label and cotangent is not None and cotangent.label is None and cotangent.node.inputs:
                cotangent.label = _gradient_name(tensor.label)  # complete: all readers were visited
        with origins.at(node.origin.by("backward")):
            for tensor, contribution in zip(node.inputs, _vjp(node, arriving), strict=True):
                if contribution is None or (tensor not in targets and tensor.node not in reaches):
                    continue
                if contribution.type != tensor.type:
                    raise ShapeError(
                        f"{node.op.name}.vjp gave {contribution.type} for {tensor.type}", where=node.origin
                    )
                known = cotangents.get(tensor)
                cotangents[tensor] = contribution if known is None else add(known, contribution)
    return cotangents


def _vjp(node: Node, arriving: Cotangents) -> Cotangents:
    """What the op says; a composite that says nothing is differentiated through its expansion."""
    if node.op.meaning() == "loop":
        return loop_vjp(node, arriving, accumulate)
    if type(node.op).vjp is not Op.vjp or node.op.meaning() != "expand":
        return node.op.vjp(node.inputs, node.outputs, arriving)
    (seed,) = arriving
    assert seed is not None
    inputs = frozenset(node.inputs)
    inner = node.op.expand(*node.inputs)
    found = {inner: seed} if inner in inputs else accumulate({inner: seed}, inputs, inputs)
    return tuple(found.get(t) if node.inputs.index(t) == k else None for k, t in enumerate(node.inputs))


def _gradient_name(name: str) -> str:
    return f"d{name.replace('/', '_')}"
