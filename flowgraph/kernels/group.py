"""Groups of nodes that will be kernels, and what nodes read.

In: a node and what is computed where it is read. Out: what it reads through that, at which index. May not know how
groups are found.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from flowgraph.graph.size import Shape
from flowgraph.graph.tensor import Node, Tensor
from flowgraph.graph.types import TensorType
from flowgraph.index_notation import (
    FREE,
    Apply,
    Axis,
    Body,
    Expr,
    Index,
    Load,
    axes_of,
    reindex,
    transform,
    walk,
)
from flowgraph.ops.base import Op, axes_for, indices
from flowgraph.ops.leaf import Constant
from flowgraph.ops.shape import Injective, Reshape
from flowgraph.ops.slicing import memory_of

Read = tuple[Tensor, tuple[Expr, ...]]
MAX_INPUTS = 24  # a kernel's argument table stays small enough to read
MAX_NODES = 40  # compile time grows faster than a kernel's length


@dataclass
class Group:
    """Nodes that will be one kernel, in order. `shape` are its outer loops; in rows, nodes have axes beyond them."""

    shape: Shape
    kind: str  # "pointwise", "row", "reduction", "contraction"; "scatter", "pieces", "running", "sorting", "loop"
    nodes: list[Node] = field(default_factory=list)
    inputs: set[Tensor] = field(default_factory=set)  # what it reads from elsewhere
    waits: set[int] = field(default_factory=set)  # groups whose results it reads
    ancestors: int = 0  # bit k: it waits, directly or not, for group k
    reason: str = ""


def is_contraction(node: Node) -> bool:
    """Whether it is a sum of products of two loads that do not share all their axes: worth a register tile."""
    return node.op.meaning() == "body" and _is_contraction(node.op, tuple(t.type for t in node.inputs))


@lru_cache(maxsize=4096)
def _is_contraction(op: Op, types: tuple[TensorType, ...]) -> bool:
    body = _body(op, types)
    if body.combiner != "sum" or not isinstance(body.value, Apply) or body.value.function != "mul":
        return False
    left, right = body.value.arguments
    if not (isinstance(left, Load) and isinstance(right, Load)):
        return False
    reduced = set(body.reduce)
    both = reduced <= axes_of(left) and reduced <= axes_of(right)
    return both and bool(axes_of(left) - axes_of(right)) and bool(axes_of(right) - axes_of(left))


def body_of(node: Node) -> Body:
    """The meaning of a node's op for the types it is applied to."""
    return _body(node.op, tuple(t.type for t in node.inputs))


@lru_cache(maxsize=4096)
def _body(op: Op, types: tuple[TensorType, ...]) -> Body:
    return op.body(*types)


def costs_nothing(node: Node) -> bool:
    """No reduction, and no arithmetic but on integers: loads, sizes, row numbers, comparisons and choices."""
    if node.op.meaning() != "body":
        return False
    body = body_of(node)
    if body.reduce:
        return False
    floats = {e.function for e in walk(body.value) if isinstance(e, Apply) and e.dtype.kind != "int"}
    return floats <= FREE


def needs_arrays(node: Node, consumers: dict[Tensor, list[Node]]) -> bool:
    """Contractions (through views), reshapes, sorts and loops read arrays, nothing computed on the way."""
    if isinstance(node.op, Reshape) or node.op.meaning() in ("sorting", "loop"):
        return True
    if isinstance(node.op, Injective):
        return any(needs_arrays(c, consumers) for t in node.outputs for c in consumers[t])
    return is_contraction(node)


def is_multiplied(node: Node, consumers: dict[Tensor, list[Node]]) -> bool:
    """Whether a contraction reads what a node makes, directly or through views."""
    return any(
        is_multiplied(c, consumers) if isinstance(c.op, Injective) else is_contraction(c)
        for t in node.outputs for c in consumers[t]
    )  # fmt: skip


def reads_of(node: Node, inlined: set[Node] | frozenset[Node]) -> list[Read]:
    """What a node reads through inlined nodes: (tensor, index in terms of the node's own axes)."""
    found: dict[Read, None] = {}
    known: dict[Read, Expr] = {}  # a value that is read twice is followed once

    def follow(current: Node, expr: Expr) -> Expr:
        """The expression with its operands followed to what is not inlined; those are called by name from there on, so
        that an index computed from one node's operands is not taken for another's."""

        def rule(e: Expr) -> Expr | None:
            if not (isinstance(e, Load) and isinstance(e.source, int)):
                return None
            tensor = current.inputs[e.source]
            index = tuple(i if isinstance(i, Index) else follow(current, i) for i in e.index)
            read = (tensor, index)
            if tensor.node in inlined:
                if read not in known:
                    body = body_of(tensor.node)
                    places = dict(zip(body.axes, index, strict=True))
                    follow(tensor.node, reindex(body.value, places))
                    known[read] = Load(f"t{tensor.node.serial}_{tensor.index}", index, tensor.dtype)
                return known[read]
            if not (isinstance(tensor.op, Constant) and tensor.type.count == 1):
                found.setdefault(read)
            return Load(f"t{tensor.node.serial}_{tensor.index}", index, tensor.dtype)

        return transform(expr, rule)

    if node.op.meaning() == "scatter":
        scatter, base = node.op.scatter(*(t.type for t in node.inputs)), node.inputs[0]
        outer = tuple(map(Index, scatter.parallel))
        row = Index(Axis("row", base.shape[scatter.axis]))
        start = Load(0, (*outer[: scatter.axis], row, *outer[scatter.axis :]), base.dtype)
        for expr in (*scatter.index, scatter.value, start):
            follow(node, expr)
    elif node.op.meaning() == "pieces":
        for piece in node.op.pieces(*(t.type for t in node.inputs))[1]:
            follow(node, piece.value)
    elif node.op.meaning() == "sorting":
        follow(node, node.op.sorting(*(t.type for t in node.inputs)).key)
    elif node.op.meaning() == "loop":
        for tensor in (memory_of(t)[0] for t in node.inputs):
            found.setdefault((tensor, indices(axes_for(tensor.shape))))
    elif node.op.meaning() == "running":
        follow(node, node.op.running(*(t.type for t in node.inputs)).value)
    else:
        follow(node, body_of(node).value)
    return list(found)
