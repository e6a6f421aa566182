"""Loops made small: bodies rewritten, equal loops joined, what no turn needs left out.

`inside` applies passes to bodies; `join_loops` makes one of loops that carry the same (a forward loop, and the same one
that stacks more for its gradient); `tidy_loops` drops what nobody reads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any

from flowgraph.graph import origin as origins
from flowgraph.graph.graph import Graph, rewrite, topological
from flowgraph.graph.tensor import Node, Tensor, apply
from flowgraph.ops.elementwise import Copy
from flowgraph.ops.leaf import Constant, Leaf, constant
from flowgraph.ops.scan import Body, Scan, moved, results
from flowgraph.ops.shape import Injective, broadcast_to, expand_dims
from flowgraph.ops.slicing import memory_of
from flowgraph.passes.cse import eliminate_common_subexpressions

Pass = Callable[[Graph], Graph]


def inside(passes: Sequence[Pass], name: str) -> Pass:
    """A pass that applies others to the bodies of all loops, innermost first."""

    def apply_inside(graph: Graph) -> Graph:
        return _in_bodies(graph, passes, name)

    apply_inside.__name__ = name
    return apply_inside


def _in_bodies(graph: Graph, passes: Sequence[Pass], name: str) -> Graph:
    def rule(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if not isinstance(node.op, Scan):
            return None
        body = node.op.inner
        after = _in_bodies(body.graph, passes, name)
        for function in passes:
            after = function(after)
        if after is body.graph:
            return None
        return apply(dataclasses.replace(node.op, inner=body.with_results(after.roots)), *inputs)

    return rewrite(graph, rule, name) if any(isinstance(n.op, Scan) for n in graph.nodes()) else graph


def join_loops(graph: Graph) -> Graph:
    """Loops with the same operands that carry the same become one that stacks what each of them does: again and again,
    since loops that read the results of others, layer upon layer, have the same operands once those are one."""
    while (after := _joined(graph)) is not graph:
        graph = eliminate_common_subexpressions(after)
    return graph


def _joined(graph: Graph) -> Graph:
    """The graph after one round of joining; itself if no loops are alike."""
    alike: dict[Any, list[Node]] = {}
    for node in graph.nodes():
        if isinstance(node.op, Scan):
            bare = dataclasses.replace(node.op, inner=dataclasses.replace(node.op.inner, emits=()))
            alike.setdefault((bare, node.inputs), []).append(node)
    leader = {node: nodes for nodes in alike.values() if len(nodes) > 1 for node in nodes}
    made: dict[int, tuple[Node, dict[Node, list[int]]]] = {}

    def rule(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        nodes = leader.get(node)
        if nodes is None:
            return None
        if id(nodes) not in made:
            body, places = _union([n.op.inner for n in nodes])
            joined = apply(dataclasses.replace(node.op, inner=body), *inputs)[0].node
            made[id(nodes)] = joined, dict(zip(nodes, places, strict=True))
        joined, place = made[id(nodes)]
        finals, stacks = results(joined)
        return (*finals, *(stacks[k] for k in place[node]))

    return rewrite(graph, rule, "join_loops") if leader else graph


def _union(bodies: Sequence[Body]) -> tuple[Body, list[list[int]]]:
    """A body that stacks what all of these do, and where each finds its own among it."""
    first = bodies[0]
    emits: list[Tensor] = []
    counts: list[int] = []
    for body in bodies:
        emits += moved(body.emits, dict(zip(body.slots, first.slots, strict=True)))
        counts.append(len(body.emits))
    merged = eliminate_common_subexpressions(Graph((*first.nexts, *emits))).outputs
    nexts, found = merged[: len(first.nexts)], merged[len(first.nexts) :]
    distinct = list(dict.fromkeys(found))
    places = iter(found)
    where = [[distinct.index(next(places)) for _ in range(count)] for count in counts]
    return dataclasses.replace(first, nexts=tuple(nexts), emits=tuple(distinct)), where


def tidy_loops(graph: Graph, keep: Collection[Tensor] = ()) -> Graph:
    """Loops without what nobody reads: carries, sequences, given and stacked values; what no turn changes is given,
    not carried, and what is stacked without being changed is not stacked. Loops that make any of `keep` stay as they
    are: these may not become one with what has the same values."""
    while True:
        consumers = graph.consumers()
        roots = set(graph.roots)

        def rule(
            node: Node,
            inputs: tuple[Tensor, ...],
            consumers: dict[Tensor, list[Node]] = consumers,
            roots: set[Tensor] = roots,
        ) -> tuple[Tensor, ...] | None:
            if not isinstance(node.op, Scan) or any(t in keep for t in node.outputs):
                return None
            used = [bool(consumers[t]) or t in roots for t in node.outputs]
            return _tidied(node, inputs, used)

        after = rewrite(graph, rule, "tidy_loops")
        if after is graph:
            return graph
        graph = after


def _tidied(node: Node, inputs: tuple[Tensor, ...], used: Sequence[bool]) -> tuple[Tensor, ...] | None:
    """A loop's results, of which only some are used, from a smaller loop; None if it cannot be smaller."""
    op: Scan = node.op
    body, count = op.inner, len(op.inner.carries)
    outside = dict(zip(body.slots, inputs, strict=True))

    # What stands for what inside: equal operands are one, and a carry that no turn changes is given.
    first: dict[tuple[str, Tensor], Tensor] = {}
    stand: dict[Tensor, Tensor] = {}
    kinds = [("element", body.elements), ("given", body.given)]
    constant_carries = [s for s, new in zip(body.carries, body.nexts, strict=True) if new is s]
    kinds[1] = ("given", (*body.given, *constant_carries))
    for kind, slots in kinds:
        for s in slots:
            stand[s] = first.setdefault((kind, outside[s]), s)
    replaced = {s: t for s, t in stand.items() if s is not t}
    moved_roots = moved(body.graph.roots, {s: stand.get(s, s) for s in body.slots}) if replaced else body.graph.roots
    nexts, emits = moved_roots[:count], moved_roots[count:]

    # What is needed: from what is used, back through what is carried.
    carried = {s: new for s, new in zip(body.carries, nexts, strict=True) if s not in stand}
    stacked: list[Tensor] = []
    for k, tensor in enumerate(emits):
        if used[count + k] and not _is_passed_on(tensor, body, stand) and tensor not in stacked:
            stacked.append(tensor)
    alive = {s for k, s in enumerate(body.carries) if used[k] and s in carried}
    while True:
        results_ = [*(carried[s] for s in alive), *stacked]
        read = {*results_, *(t for n in topological(results_, given=body.slots) for t in n.inputs)}
        more = {s for s in read if s in carried} - alive
        if not more:
            break
        alive |= more
    carries = tuple(s for s in body.carries if s in alive)
    elements = tuple(s for s in body.elements if s in read)
    given = tuple(s for s in (*body.given, *constant_carries) if s in read)
    smaller = Body(carries, elements, given, tuple(carried[s] for s in carries), tuple(stacked))
    before = (body.carries, body.slots, emits)
    if not replaced and [len(p) for p in (carries, smaller.slots, stacked)] == [len(p) for p in before]:
        return None
    made: tuple[Tensor, ...] = ()
    if carries or stacked:
        made = apply(dataclasses.replace(op, inner=smaller), *(outside[s] for s in smaller.slots))
    final = dict(zip(carries, made, strict=False))
    stacks = dict(zip(stacked, made[len(carries) :], strict=True))
    found: list[Tensor] = []
    for s in body.carries:
        found.append(final[s] if s in final else outside[s] if s in stand else constant(0.0))
    for k, tensor in enumerate(emits):
        if not used[count + k]:
            found.append(constant(0.0))  # nobody reads it
        elif tensor in stacks:
            found.append(stacks[tensor])
        elif tensor in body.elements:
            found.append(outside[tensor])
        else:
            value = outside.get(tensor, tensor)
            found.append(broadcast_to(expand_dims(value, 0), (op.length, *value.shape)))
    return tuple(found)


def _is_passed_on(tensor: Tensor, body: Body, stand: dict[Tensor, Tensor]) -> bool:
    """Whether a value that is stacked is what the loop is given."""
    return tensor in body.elements or tensor in body.given or tensor in stand or isinstance(tensor.op, Constant)


def materialise_loops(graph: Graph) -> Graph:
    """What a loop reads and what it makes lies in memory of its own: a view of something, or something else's memory,
    is copied. (What a turn stacks may be what it is given by the last one, or gives the next one: then the stack is
    where the carries lie.)"""

    def rule(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if not isinstance(node.op, Scan):
            return None
        body = node.op.inner
        inner = materialise_loops(body.graph).roots
        count = len(body.carries)
        nexts: list[Tensor] = []
        for new in inner[:count]:
            nexts.append(_copied(new) if isinstance(new.op, Leaf) or new in nexts else new)
        stacked = [
            _copied(t) if isinstance(t.op, Leaf) and t not in body.carries else t for t in inner[count:]
        ]
        stored = tuple(_copied(t) if isinstance(memory_of(t)[0].op, Injective) else t for t in inputs)
        if (*nexts, *stacked, *stored) == (*body.graph.roots, *node.inputs):
            return None
        return apply(dataclasses.replace(node.op, inner=body.with_results((*nexts, *stacked))), *stored)

    return rewrite(graph, rule, "materialise")


def _copied(tensor: Tensor) -> Tensor:
    with origins.at(tensor.origin.by("materialise")):
        return Copy()(tensor)
