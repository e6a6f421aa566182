"""Recomputation: values that are cheaper to compute where they are read than to store and load.

In: the groups that fusion found. Out: the same groups, from which such values are gone; their readers read what these
are computed from. May not know how groups are found or built.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from flowgraph.graph.graph import Graph
from flowgraph.graph.size import estimate, product
from flowgraph.graph.tensor import Node, Tensor
from flowgraph.index_notation import CHEAP, Apply, Load, walk
from flowgraph.kernels.group import MAX_INPUTS, Group, body_of, needs_arrays, reads_of
from flowgraph.ops.base import indices
from flowgraph.ops.leaf import Leaf
from flowgraph.ops.shape import Injective

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


class Recompute:
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
            if needs_arrays(node, self.consumers) or node.op.meaning() == "pieces":
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
                        found[number] = max(found.get(number, 0), points_of(node))
                    elif t not in seen:
                        seen.add(t)
                        stack.append(t)
        return found


def points_of(node: Node) -> float:
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
