"""Fusion: which ops share a kernel. Optimised graph in, groups of nodes out; `build` writes the kernels.

What fuses is derived from the ops' bodies, never from a list of ops:

* a *view* (each element is one input element) or a value that costs nothing (sizes, index comparisons) is read through;
* a pointwise op joins the group of a producer that has its points as outer loop, or its rows;
* a reduction along the last axes joins a group that computes its rows (softmax: max, sum and quotient over one row);
* a reduction over other axes, or a contraction, starts a group; pointwise consumers of the same shape are its epilogue.

Every group has a `reason`: why it is a kernel of its own. Each time a node stays out of the kernel of something it
reads, that is recorded, too (`Apart`): the explanation is what was decided, not a guess made afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flowgraph.graph.graph import Graph
from flowgraph.graph.order import stable_order
from flowgraph.graph.size import Shape, Size, product
from flowgraph.graph.tensor import Node, Tensor
from flowgraph.index_notation import Body, Index
from flowgraph.kernels.group import (
    MAX_INPUTS,
    MAX_NODES,
    Group,
    Read,
    body_of,
    costs_nothing,
    is_contraction,
    is_multiplied,
    needs_arrays,
    reads_of,
)
from flowgraph.kernels.recompute import Recompute
from flowgraph.ops.leaf import Leaf
from flowgraph.ops.shape import Injective, Reshape

MAX_INLINED = 16  # nodes read through one another: beyond, one of them is stored
SHORT_ROW = 2048  # elements that one thread reads sooner than others wake up
MAX_DEPTH = 60  # values written into one another in a kernel: expressions stay short enough to walk


@dataclass(frozen=True)
class Apart:
    """A node that is not computed in the kernel of a node it reads, and why. Several reasons may hold; the first found
    is given."""

    node: Node
    producer: Node
    why: str


@dataclass(frozen=True)
class Fusion:
    """The result: groups in order, the group of each computed tensor, and what must be stored."""

    groups: tuple[Group, ...]
    member_of: dict[Tensor, int]
    stored: frozenset[Tensor]
    inlined: frozenset[Node]
    recomputed: frozenset[Node] = frozenset()  # of these, what could have been stored and is cheaper to compute again
    apart: tuple[Apart, ...] = ()


def fuse(graph: Graph) -> Fusion:
    """Group the nodes of an optimised graph (every op a leaf, a body, a scatter or pieces) into kernels."""
    nodes = graph.nodes()
    consumers = graph.consumers()
    roots = set(graph.roots)
    inlined = _inlined(nodes, consumers, roots)
    groups: list[Group] = []
    member_of: dict[Tensor, int] = {}
    depth: dict[Node, int] = {}
    apart: list[Apart] = []

    for node in nodes:
        depth[node] = 0 if isinstance(node.op, Leaf) else 1 + max((depth[t.node] for t in node.inputs), default=0)
        if isinstance(node.op, Leaf) or node in inlined:
            continue
        reads = reads_of(node, inlined)
        producers = {member_of[t] for t, _ in reads if t in member_of}
        chosen = None
        refused: dict[int, str] = {}
        for index in sorted(producers, reverse=True):
            refused[index] = _refusal(node, reads, producers, groups, index, member_of, depth[node])
            if not refused[index]:
                chosen = index
                break
        if chosen is not None and groups[chosen].kind == "pointwise":
            for index in sorted(producers - {chosen}, reverse=True):
                point = tuple(map(Index, body_of(node).axes))
                elsewhere = any(member_of.get(t) == index and place != point for t, place in reads)
                between = any(groups[p].ancestors >> index & 1 for p in producers - {index, chosen})
                if not elsewhere and not between and _unite(groups, index, chosen, member_of, inlined):
                    producers = {chosen if p == index else p for p in producers}
        if chosen is None:
            depth[node] = 0
            chosen = len(groups)
            groups.append(_new_group(node, reads, refused, groups))
        for index in sorted(producers - {chosen}):
            why = refused.get(index, ALREADY_INSIDE)
            found = {t.node for t, _ in reads if member_of.get(t) == index}
            apart += [Apart(node, producer, why) for producer in sorted(found, key=lambda n: n.serial)]
        group = groups[chosen]
        group.nodes.append(node)
        group.inputs |= {t for t, _ in reads if member_of.get(t) != chosen}
        _wait(groups, chosen, producers - {chosen})
        for tensor in node.outputs:
            member_of[tensor] = chosen

    stored = _stored(groups, member_of, inlined, roots)
    read_through = frozenset(inlined)
    Recompute(graph, groups, member_of, inlined, stored, consumers).run()
    order = [number for number in stable_order([g.waits for g in groups]) if groups[number].nodes]
    position = {old: new for new, old in enumerate(order)}
    member_of = {t: position[g] for t, g in member_of.items()}
    return Fusion(
        groups=tuple(groups[k] for k in order),
        member_of=member_of,
        stored=frozenset(stored),
        inlined=frozenset(inlined),
        recomputed=frozenset(inlined) - read_through,
        apart=tuple(apart),
    )


def _wait(groups: list[Group], number: int, producers: set[int]) -> None:
    """Record that a group needs what others compute, and tell the groups that already wait for it."""
    group = groups[number]
    before = group.ancestors
    for p in producers:
        group.waits.add(p)
        group.ancestors |= 1 << p | groups[p].ancestors
    if group.ancestors != before:
        for other in groups:
            if other.ancestors >> number & 1:
                other.ancestors |= group.ancestors


def _unite(
    groups: list[Group], number: int, into: int, member_of: dict[Tensor, int], inlined: set[Node] | frozenset[Node]
) -> bool:
    """Make two pointwise groups, of both of which a node needs values, one; False if they must stay apart."""
    a, b = groups[number], groups[into]
    if a.kind != "pointwise" or a.shape != b.shape or len(a.nodes) + len(b.nodes) >= MAX_NODES:
        return False
    inputs = {t for t in a.inputs | b.inputs if member_of.get(t) not in (number, into)}
    if len(inputs) >= MAX_INPUTS:
        return False
    for one, other in ((number, into), (into, number)):  # a third between them would wait for itself
        if any(groups[q].ancestors >> one & 1 for q in groups[other].waits - {one}):
            return False
    for node in (*a.nodes, *b.nodes):
        point = tuple(map(Index, body_of(node).axes))
        if any(member_of.get(t) in (number, into) and index != point for t, index in reads_of(node, inlined)):
            return False
    b.nodes = sorted((*a.nodes, *b.nodes), key=lambda n: n.serial)
    b.inputs, b.waits = inputs, (a.waits | b.waits) - {number, into}
    b.ancestors = (a.ancestors | b.ancestors) & ~(1 << number | 1 << into)
    for node in a.nodes:
        for tensor in node.outputs:
            member_of[tensor] = into
    a.nodes, a.inputs, a.waits, a.ancestors = [], set(), set(), 0
    for other_group in groups:
        if number in other_group.waits:
            other_group.waits = (other_group.waits - {number}) | {into}
        if other_group.ancestors >> number & 1:
            other_group.ancestors = other_group.ancestors & ~(1 << number) | 1 << into
        if other_group.ancestors >> into & 1:
            other_group.ancestors |= b.ancestors
    return True


def _inlined(nodes: Sequence[Node], consumers: dict[Tensor, list[Node]], roots: set[Tensor]) -> set[Node]:
    """Nodes that are computed where they are read: views, what costs nothing, prologues of a single reduction."""
    found: set[Node] = set()
    length: dict[Node, int] = {}  # of the chain of inlined nodes that ends here
    prologues = _prologues(nodes, consumers, roots)
    for node in nodes:
        length[node] = 1 + max((length[t.node] for t in node.inputs if t.node in found), default=0)
        if isinstance(node.op, Leaf) or any(t in roots for t in node.outputs) or length[node] > MAX_INLINED:
            continue
        readers = [c for t in node.outputs for c in consumers[t]]
        is_view = isinstance(node.op, Injective)
        if is_view and not isinstance(node.op, Reshape) and any(
            isinstance(c.op, Reshape) and is_multiplied(c, consumers) for c in readers
        ):
            continue  # rows taken apart by division have no stride, and a product would crawl
        if is_view or node in prologues or (
            costs_nothing(node) and not any(needs_arrays(c, consumers) for c in readers)
        ):
            found.add(node)
    return found


def _prologues(nodes: Sequence[Node], consumers: dict[Tensor, list[Node]], roots: set[Tensor]) -> set[Node]:
    """Elementwise nodes that only one op which puts pieces together reads, directly or through one another: computed
    where a piece is written. What several pieces need is computed once if these share their loops, else stored.
    """
    found: dict[Node, Node] = {}  # and that op
    for node in reversed(nodes):
        if any(t in roots for t in node.outputs) or node.op.meaning() != "body" or isinstance(node.op, Reshape):
            continue
        readers = [c for t in node.outputs for c in consumers[t]]
        targets = {c if c.op.meaning() == "pieces" else found.get(c) for c in readers}
        target = targets.pop() if len(targets) == 1 else None
        if target is None or body_of(node).reduce or (len(readers) > 1 and not _share_loops(target)):
            continue
        if isinstance(node.op, Injective) or all(t.shape == node.outputs[0].shape for t in node.inputs):
            found[node] = target
    return set(found)


def _share_loops(node: Node) -> bool:
    _, pieces = node.op.pieces(*(t.type for t in node.inputs))
    return len({tuple(a.extent for a in piece.axes) for piece in pieces}) == 1


def _new_group(node: Node, reads: list[Read], refused: dict[int, str], groups: list[Group]) -> Group:
    """A group for a node that joins none; `refused` says why not, for every group whose results it reads."""
    producers = set(refused)
    shape = node.outputs[0].shape
    if node.op.meaning() == "scatter":
        scatter = node.op.scatter(*(t.type for t in node.inputs))
        return Group(tuple(a.extent for a in scatter.parallel), "scatter", reason="writes where integers say")
    if node.op.meaning() == "pieces":
        shared, _ = node.op.pieces(*(t.type for t in node.inputs))
        return Group(tuple(a.extent for a in shared), "pieces", reason="puts pieces together, each in loops of its own")
    if node.op.meaning() == "running":
        running = node.op.running(*(t.type for t in node.inputs))
        others = tuple(a.extent for a in running.axes if a != running.along)
        return Group(others, "running", reason="combines step by step along an axis")
    if node.op.meaning() == "loop":
        return Group((), "loop", reason="a loop, turn by turn")
    if node.op.meaning() == "sorting":
        sorting = node.op.sorting(*(t.type for t in node.inputs))
        others = tuple(a.extent for a in sorting.axes if a != sorting.along)
        return Group(others, "sorting", reason="sorts a whole line at once")
    body = body_of(node)
    if is_contraction(node):
        return Group(shape, "contraction", reason="a contraction: a register tile of its own")
    if body.reduce:
        last = (*body.axes, *body.reduce)
        along_rows = any(idx == tuple(map(Index, last)) for _, idx in reads)
        kind = "row" if along_rows and (shape or _is_short(body)) else "reduction"
        why = "reduces rows" if kind == "row" else "reduces over other axes than its producer's loops"
        return Group(shape, kind, reason=why if producers else "reduces its input")
    if not producers:
        why = "reads only inputs and parameters"
    elif limits := [w for w in refused.values() if w in LIMITS]:
        why = limits[0]
    else:
        kinds = sorted({groups[p].kind for p in producers})
        why = f"needs all of what a {'/'.join(kinds)} kernel computes before its own loops can start"
    return Group(shape, "pointwise", reason=why)


# Why a node stays out of the kernel of a node it reads: said of the reader.
CIRCLE = "something else it reads waits for that kernel, so that joining would make a circle"
OWN_LOOPS = "it has loops of its own"
PRODUCT = "a product needs whole arrays: a register tile of its own"
CLOSED = "nothing joins a kernel of that kind"
ALREADY_INSIDE = "it is computed in the kernel of something else it reads"
TOO_LONG = f"the kernel would have more than {MAX_NODES} ops: compile time grows faster than a kernel's length"
TOO_MANY_INPUTS = f"the kernel would read more than {MAX_INPUTS} arrays"
TOO_DEEP = f"more than {MAX_DEPTH} values would be written into one another"
OTHER_POINTS = "its loops are not those of that kernel"
ALL_FIRST = "it reads elements other than its own, so all of them must be there first"
ACROSS = "it combines what that kernel computes at different points of its loops, which run in any order"
NOT_ROWS = "it reduces rows, and that kernel computes none"
NO_ROWS = "it has axes beyond that kernel's loops, and only a kernel over rows takes those"
LONG_ROW = f"without outer loops it would be a single task, of more than {SHORT_ROW} elements or of unknown length"
OTHER_ROWS = "its rows are not those of that kernel"
LIMITS = (TOO_LONG, TOO_MANY_INPUTS, TOO_DEEP)  # reasons that have nothing to do with what is computed


def _refusal(
    node: Node,
    reads: list[Read],
    producers: set[int],
    groups: list[Group],
    index: int,
    member_of: dict[Tensor, int],
    depth: int,
) -> str:
    """Why the node cannot be computed inside the loops of group `index`, or "" where it can; then a pointwise group may
    have been turned into one over rows."""
    group = groups[index]
    if node.op.meaning() != "body":
        return OWN_LOOPS
    body = body_of(node)
    if is_contraction(node):
        return PRODUCT
    if any(groups[p].ancestors >> index & 1 for p in producers - {index}):
        return CIRCLE
    if group.kind in ("scatter", "pieces", "running", "sorting", "loop"):
        return CLOSED
    if len(group.nodes) >= MAX_NODES:
        return TOO_LONG
    if len(group.inputs | {t for t, _ in reads}) > MAX_INPUTS:
        return TOO_MANY_INPUTS
    if depth > MAX_DEPTH:
        return TOO_DEEP
    shape = node.outputs[0].shape
    own = [(t, idx) for t, idx in reads if member_of.get(t) == index]
    outer = len(group.shape)
    rows = body.reduce and (shape or _is_short(body))
    if group.kind == "pointwise" and rows and len(shape) < outer and group.shape[: len(shape)] == shape:
        full = tuple(map(Index, (*body.axes, *body.reduce)))
        same = (*(a.extent for a in body.axes), *(a.extent for a in body.reduce)) == group.shape
        if same and all(idx == full for _, idx in own):
            group.shape, group.kind = shape, "row"
            group.reason = "computes rows and reduces them"
            return ""
        return ACROSS
    if shape[:outer] != group.shape:
        return ACROSS if body.reduce else OTHER_POINTS
    if len(shape) > outer and group.kind != "row":
        return NO_ROWS
    if len(shape) > outer and not (outer or _is_short_row(shape)):
        return LONG_ROW
    if body.reduce and (len(shape) != outer or group.kind != "row"):
        return NOT_ROWS
    scalar_index = tuple(map(Index, body.axes[:outer]))
    row_index = tuple(map(Index, (*body.axes, *body.reduce)))
    for tensor, idx in own:
        is_row = tensor.rank > outer
        if idx != (row_index if is_row else scalar_index):
            return ALL_FIRST
        if is_row and _row_extents(tensor, outer) != tuple(a.extent for a in (*body.axes, *body.reduce)[outer:]):
            return OTHER_ROWS
    return ""


def _is_short(body: Body) -> bool:
    return _is_short_row(tuple(a.extent for a in body.reduce))


def _is_short_row(shape: Shape) -> bool:
    """Whether a row may go without outer loops, which makes it a single task: a softmax of one vector."""
    count = product(shape)
    return isinstance(count, int) and count <= SHORT_ROW


def _row_extents(tensor: Tensor, outer: int) -> tuple[Size, ...]:
    return tensor.shape[outer:]


def _stored(groups: list[Group], member_of: dict[Tensor, int], inlined: set[Node], roots: set[Tensor]) -> set[Tensor]:
    """Tensors that need memory: what is asked for, and what another kernel reads."""
    found = {t for t in roots if t in member_of}
    for number, group in enumerate(groups):
        for node in group.nodes:
            for tensor, _ in reads_of(node, inlined):
                if member_of.get(tensor, number) != number:
                    found.add(tensor)
    return found
