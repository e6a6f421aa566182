"""The sum of tensors padded with zeros to places that do not overlap is their concatenation.

The gradient of splitting a tensor in four is the sum of four padded gradients: it becomes one kernel that writes four
pieces. x + 0 = x but for the sign of a zero, as in `simplify_algebra`.
"""

from __future__ import annotations

from itertools import pairwise

from flowgraph.graph.graph import Graph, rewrite
from flowgraph.graph.size import Size, evaluate
from flowgraph.graph.tensor import Node, Tensor
from flowgraph.ops.elementwise import Add
from flowgraph.ops.leaf import constant
from flowgraph.ops.pieces import Concatenate, Pad
from flowgraph.ops.shape import Broadcast

Part = tuple[Size, Size, Tensor]  # from, to, and what lies there


def join_pads(graph: Graph) -> Graph:
    """Sums of zero-padded tensors become concatenations; only the largest sums are looked at."""
    consumers = graph.consumers()
    roots = set(graph.roots)

    def inner(node: Node) -> bool:
        """Whether a sum is only part of another sum."""
        readers = consumers[node.outputs[0]]
        return node.outputs[0] not in roots and len(readers) == 1 and isinstance(readers[0].op, Add)

    def rule(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if not isinstance(node.op, Add) or inner(node):
            return None
        terms = _terms(inputs)
        axis = _axis(terms)
        if axis is None:
            return None
        whole = node.outputs[0].shape
        parts: list[Part] = []
        for term in terms:
            pad, (x,) = term.op, term.node.inputs
            parts.append((pad.before[axis], pad.before[axis] + x.shape[axis], x))
        ordered = _ordered(parts, whole[axis])
        if ordered is None:
            return None
        pieces, end = list[Tensor](), _zero()
        for start, stop, x in ordered:
            if start != end:
                pieces.append(_zeros(x, axis, start - end))
            pieces.append(x)
            end = stop
        if end != whole[axis]:
            pieces.append(_zeros(pieces[-1], axis, whole[axis] - end))
        return (Concatenate(axis)(*pieces),)

    return rewrite(graph, rule, "join_pads")


def _terms(inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """The terms of a sum of sums."""
    found: list[Tensor] = []
    stack = list(reversed(inputs))
    while stack:
        tensor = stack.pop()
        if isinstance(tensor.op, Add):
            stack.extend(reversed(tensor.node.inputs))
        else:
            found.append(tensor)
    return found


def _axis(terms: list[Tensor]) -> int | None:
    """The one axis along which all terms are padded with zeros, without gaps."""
    axes: set[int] = set()
    for term in terms:
        op = term.op
        if not isinstance(op, Pad) or op.value != 0 or any(s != 1 for s in op.steps) or not term.dtype.is_float:
            return None
        axes |= {k for k in range(term.rank) if (op.before[k], op.after[k]) != (0, 0)}
    return axes.pop() if len(axes) == 1 else None


def _ordered(parts: list[Part], whole: Size) -> list[Part] | None:
    """The parts from first to last, if it is certain that none overlaps another."""
    if all(isinstance(p[0], int) and isinstance(p[1], int) for p in parts):
        found = sorted(parts, key=lambda p: evaluate(p[0], {}))
        return found if all(evaluate(a[1], {}) <= evaluate(b[0], {}) for a, b in pairwise(found)) else None
    chain, end = list[Part](), _zero()  # with named sizes: each must begin where one ends
    rest = list(parts)
    while rest:
        following = next((p for p in rest if p[0] == end), None)
        if following is None:
            return None
        rest.remove(following)
        chain.append(following)
        end = following[1]
    return chain if end == whole else None


def _zero() -> Size:
    return 0


def _zeros(like: Tensor, axis: int, count: Size) -> Tensor:
    shape = (*like.shape[:axis], count, *like.shape[axis + 1 :])
    return Broadcast(shape)(constant(0.0, like.dtype))
