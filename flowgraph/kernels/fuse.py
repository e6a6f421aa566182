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

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from flowgraph.graph.graph import Graph
from flowgraph.graph.order import stable_order
from flowgraph.graph.size import Shape, Size, estimate, product
from flowgraph.graph.tensor import Node, Tensor
from flowgraph.graph.types import TensorType
from flowgraph.index_notation import (
    CHEAP,
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
from flowgraph.ops.leaf import Constant, Leaf
from flowgraph.ops.shape import Injective, Reshape
from flowgraph.ops.slicing import memory_of

Read = tuple[Tensor, tuple[Expr, ...]]
MAX_INPUTS = 24  # a kernel's argument table stays small enough to read
MAX_NODES = 40  # compile time grows faster than a kernel's length
MAX_INLINED = 16  # nodes read through one another: beyond, one of them is stored
SHORT_ROW = 2048  # elements that one thread reads sooner than others wake up
MAX_DEPTH = 60  # values written into one another in a kernel: expressions stay short enough to walk


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


def is_contraction(body: Body) -> bool:
    """A sum of products of two loads that do not share all their axes: worth a register tile."""
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
    _Recompute(graph, groups, member_of, inlined, stored, consumers).run()
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
        if isinstance(node.op, Injective) or node in prologues or (
            costs_nothing(node) and not any(_needs_arrays(c, consumers) for c in readers)
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


MAX_RECOMPUTED = 6  # operations: kernels stay short
MAX_SEEN = 32  # those and what is read through, row numbers included
OPERATION = 1.0  # bytes: a vector's operation takes about as long as a quarter of its load from L2
SMALL = 8  # times smaller than a value: what is worth storing so that the value need not be


@dataclass
class _Recomputation:
    """How a value would be computed where it is read."""

    chain: dict[Node, None] = field(default_factory=dict)  # the operations made again
    seen: set[Node] = field(default_factory=set)  # these, and what is read through
    kept: dict[Tensor, None] = field(default_factory=dict)  # small values that would be stored for it


class _Recompute:
    """Recompute in the reader what is cheaper to compute there than to store: 1 - h*h from h; the gradient of the rows
    of a table from one number a row, where the outer product would be as large as all those rows."""

    def __init__(
        self,
        graph: Graph,
        groups: list[Group],
        member_of: dict[Tensor, int],
        inlined: set[Node],
        stored: set[Tensor],
        consumers: dict[Tensor, list[Node]],
    ) -> None:
        self.groups, self.member_of, self.inlined, self.stored = groups, member_of, inlined, stored
        self.consumers = consumers
        self.roots = set(graph.roots)
        self.writers = {p: member_of[new] for p, new in graph.updates if new in member_of}
        self.written: dict[int, list[Tensor]] = {}
        for p, number in self.writers.items():
            self.written.setdefault(number, []).append(p)
        self.all_writers = sum(1 << number for number in self.written)
        self.readers: dict[Tensor, set[int]] = {p: set() for p in self.writers}
        for number, group in enumerate(groups):
            for p in self.readers.keys() & group.inputs:
                self.readers[p].add(number)

    def run(self) -> None:
        for tensor in sorted(self.stored, key=lambda t: -t.node.serial):
            if tensor in self.roots or not self._may_move(tensor):
                continue
            found = _Recomputation()
            if not self._is_cheap(tensor, found):
                continue
            readers = self._points_of_readers(tensor)
            if self._pays(tensor, found, readers) and self._stays_in_place(tensor, found, readers.keys()):
                self._move(tensor, found, readers.keys())

    def _may_move(self, tensor: Tensor) -> bool:
        """Whether everything that reads a value can compute it. What is read through already may not grow without end,
        and a row number is found once, not by every task that writes a part of the row."""
        for node in self.consumers[tensor]:
            if _needs_arrays(node, self.consumers) or node.op.meaning() == "pieces":
                return False
            if node in self.inlined and not (isinstance(node.op, Injective) and self._may_move(node.outputs[0])):
                return False
            if node.op.meaning() == "scatter":
                scatter = node.op.scatter(*(t.type for t in node.inputs))
                added = {e.source for e in walk(scatter.value) if isinstance(e, Load)}
                if any(t is tensor and k not in added for k, t in enumerate(node.inputs)):
                    return False
        return True

    def _is_cheap(self, tensor: Tensor, found: _Recomputation, least: float = 0) -> bool:
        """Whether a value is a few cheap operations on leaves, stored values and those of fewer elements than `least`;
        collects them."""
        node = tensor.node
        if isinstance(node.op, Leaf) or (tensor in self.stored and least) or node in found.seen:
            return True  # (seen: looked at already; had it failed, so had everything)
        if len(found.seen) >= MAX_SEEN:
            return False
        if node not in self.inlined:
            if estimate(tensor.type.count) < least:
                found.kept.setdefault(tensor)
                return True
            if node.op.meaning() != "body" or tensor in self.roots or len(found.chain) >= MAX_RECOMPUTED:
                return False
            body = body_of(node)
            functions = {e.function for e in walk(body.value) if isinstance(e, Apply)}
            if body.reduce or not functions <= CHEAP:
                return False
            found.chain.setdefault(node)
        found.seen.add(node)
        return all(self._is_cheap(t, found, least or estimate(tensor.type.count) / SMALL) for t in node.inputs)

    def _operands(self, found: _Recomputation) -> dict[Tensor, float]:
        """What the operations read, and of how much of it they make something, in elements."""
        read: dict[Tensor, float] = {}
        for node in found.seen:
            for t in node.inputs:
                if t.node not in found.chain and t.node not in self.inlined:
                    read[t] = max(read.get(t, 0), estimate(node.outputs[0].type.count))
        return {t: min(estimate(t.type.count), most) for t, most in read.items()}

    def _pays(self, tensor: Tensor, found: _Recomputation, readers: Mapping[int, float]) -> bool:
        """Whether computing a value again in each kernel that reads it moves fewer bytes, operations included, than
        storing it and reading it there. A kernel that repeats the value along an axis computes it at all its points.
        Operands of the chain cost bytes, too, in every kernel that does not read them anyway; so does storing what was
        not stored."""
        of = estimate(tensor.type.count)
        sizes = {t: count * t.dtype.itemsize for t, count in self._operands(found).items()}
        again = sum(readers.values()) * len(found.chain) * OPERATION + sum(sizes[t] for t in found.kept)
        for k in readers:
            have = self.groups[k].inputs | {t for n in self.groups[k].nodes for t in n.outputs}
            more = sizes.keys() - have
            if len(self.groups[k].inputs) + len(more) > MAX_INPUTS:
                return False
            again += sum(sizes[t] for t in more)
        once: float = (1 + len(readers)) * of * tensor.dtype.itemsize
        if set(self.groups[self.member_of[tensor]].nodes) <= set(found.chain):  # its kernel is needed for nothing else
            once += sum(sizes.values())
        return again <= once

    def _stays_in_place(self, tensor: Tensor, found: _Recomputation, readers: Collection[int]) -> bool:
        """Whether every parameter can still be updated in place: a kernel that is to read its old value must not wait
        for the one that writes the new value, nor be that one and read other elements than it writes."""
        read = {t for node in found.seen for t in node.inputs if t in self.writers}
        for p in read:
            writer = self.writers[p]
            if writer in readers and (
                self.groups[writer].kind == "scatter"
                or not all(map(_reads_own_points, found.seen))
                or not self._reads_at_own_points(tensor, self.groups[writer])
            ):
                return False
            if any(self._waits(k, writer, read, readers) for k in readers if k != writer):
                return False
        return True

    def _reads_at_own_points(self, tensor: Tensor, group: Group) -> bool:
        """Whether all nodes of a group that read a value read it at their own points."""
        for node in group.nodes:
            if node.op.meaning() != "body":
                return False
            own = indices(body_of(node).axes)
            if any(t is tensor and place != own for t, place in reads_of(node, self.inlined)):
                return False
        return True

    def _waits(self, number: int, goal: int, more: set[Tensor], readers: Collection[int]) -> bool:
        """Whether a group waits for another one: for its results, or to read a parameter before it is written. (Those
        in `more` will have these readers, too.)"""
        reached = 1 << number | self.groups[number].ancestors
        visited = 0
        while new := reached & self.all_writers & ~visited:
            if reached >> goal & 1:
                return True
            visited |= new
            for writer in (k for k in self.written if new >> k & 1):
                for p in self.written[writer]:
                    for k in self.readers[p] | (set(readers) if p in more else set()):
                        if k != writer:
                            reached |= 1 << k | self.groups[k].ancestors
        return bool(reached >> goal & 1)

    def _move(self, tensor: Tensor, found: _Recomputation, readers: Collection[int]) -> None:
        for node in found.chain:
            self.inlined.add(node)
            for output in node.outputs:
                self.groups[self.member_of.pop(output)].nodes.remove(node)
        self.stored.discard(tensor)
        self.stored.update(found.kept)
        operands = self._operands(found)
        for k in readers:
            mine = {t for n in self.groups[k].nodes for t in n.outputs}
            self.groups[k].inputs = (self.groups[k].inputs - {tensor}) | (operands.keys() - mine)
        for p in operands.keys() & self.writers.keys():
            self.readers[p].update(readers)

    def _points_of_readers(self, tensor: Tensor) -> dict[int, float]:
        """The kernels that read a value, through what they inline too, and at how many points."""
        found: dict[int, float] = {}
        stack, seen = [tensor], {tensor}
        while stack:
            for node in self.consumers[stack.pop()]:
                for t in node.outputs:
                    if node not in self.inlined:
                        number = self.member_of[t]
                        found[number] = max(found.get(number, 0), _points(node))
                    elif t not in seen:
                        seen.add(t)
                        stack.append(t)
        return found


def _points(node: Node) -> float:
    """At how many points a node computes."""
    if node.op.meaning() == "body":
        body = body_of(node)
        return estimate(product(a.extent for a in (*body.axes, *body.reduce)))
    if node.op.meaning() == "scatter":
        scatter = node.op.scatter(*(t.type for t in node.inputs))
        return estimate(product(a.extent for a in (*scatter.parallel, *scatter.sequential)))
    return max(estimate(t.type.count) for t in (*node.inputs, *node.outputs))


def _reads_own_points(node: Node) -> bool:
    """Whether a node reads its operands where it computes, or scalars."""
    body = body_of(node)
    own = indices(body.axes)
    return all(e.index in ((), own) for e in walk(body.value) if isinstance(e, Load))


def _needs_arrays(node: Node, consumers: dict[Tensor, list[Node]]) -> bool:
    """Contractions (through views), reshapes, sorts and loops read arrays, nothing computed on the way."""
    if isinstance(node.op, Reshape) or node.op.meaning() in ("sorting", "loop"):
        return True
    if isinstance(node.op, Injective):
        return any(_needs_arrays(c, consumers) for t in node.outputs for c in consumers[t])
    return node.op.meaning() == "body" and is_contraction(body_of(node))


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
    if is_contraction(body):
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
    if is_contraction(body):
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
