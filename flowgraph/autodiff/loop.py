"""The derivative of a loop: a loop that runs the other way.

Comes in: a loop's node and the cotangents of its results. Goes out: those of its operands. The body is differentiated
once. A turn of the backward loop is given the cotangents of what its forward turn carried on and stacked, and what it
needs of that turn's values: the forward loop stacks these too, unless it is frugal; then it stacks what it carried, and
the backward turn computes the rest again. Gradients of given values add up in carries.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from flowgraph.graph.graph import clone, topological
from flowgraph.graph.tensor import Node, Tensor, apply
from flowgraph.ops.base import Cotangents
from flowgraph.ops.elementwise import add
from flowgraph.ops.leaf import constant
from flowgraph.ops.scan import Body, Loop, Scan, make_loop, operands, results, slot
from flowgraph.ops.shape import Injective, broadcast_to

Accumulate = Callable[[Mapping[Tensor, Tensor], frozenset[Tensor], frozenset[Tensor]], dict[Tensor, Tensor]]


def loop_vjp(node: Node, arriving: Cotangents, accumulate: Accumulate) -> Cotangents:
    """The cotangents of a loop's operands; None where they are zero."""
    op: Scan = node.op
    body = op.inner
    _, sequences, given = operands(node)
    final, stacked = arriving[: len(body.carries)], arriving[len(body.carries) :]
    floats = [t for t in body.carries if t.dtype.is_float]
    carried = {t: slot(f"d{t.label}", t.type) for t in floats}  # the cotangent of what a turn made of this carry
    seeds: dict[Tensor, Tensor] = {}

    def seed(tensor: Tensor, cotangent: Tensor) -> None:
        seeds[tensor] = add(seeds[tensor], cotangent) if tensor in seeds else cotangent

    for old, new in zip(body.carries, body.nexts, strict=True):
        if old in carried:
            seed(new, carried[old])
    arrived: list[tuple[Tensor, Tensor]] = []  # (slot, sequence)
    for emitted, cotangent in zip(body.emits, stacked, strict=True):
        if cotangent is not None:
            arrived.append((slot("demitted", emitted.type), cotangent))
            seed(emitted, arrived[-1][0])
    targets = frozenset(t for t in body.slots if t.dtype.is_float)
    found = accumulate(seeds, targets, frozenset(body.slots))

    sums = {t: slot(f"d{t.label}", t.type) for t in body.given if t in found and t in targets}
    elements = [t for t in body.elements if t in found and t in targets]
    nexts = [found[t] if t in found else _zeros(t) for t in floats]
    nexts += [add(total, found[t]) for t, total in sums.items()]
    emits = [found[t] for t in elements]
    kept, roots = _cut(body, given, op.frugal, [*nexts, *emits])

    of_elements = dict(zip(body.elements, sequences, strict=True))
    stacks = of_elements | _stacked(node, [t for t in kept if t not in of_elements])
    loop = Loop(
        (*carried.values(), *sums.values()),
        (*(s for s, _ in arrived), *kept.values()),
        tuple(roots[: len(nexts)]),
        tuple(roots[len(nexts) :]),
    )
    begin = [c if c is not None else _zeros(t) for t, c in zip(body.carries, final, strict=True) if t in carried]
    begin += [_zeros(t) for t in sums]
    made = make_loop(
        loop, begin, [*(c for _, c in arrived), *(stacks[t] for t in kept)], op.length, not op.reverse, op.frugal
    )
    ends = iter(made)
    init = {t: next(ends) for t in floats}
    total = {t: next(ends) for t in sums}
    each = {t: next(ends) for t in elements}
    return tuple((init | total | each).get(t) for t in body.slots)


def _zeros(like: Tensor) -> Tensor:
    return broadcast_to(constant(0.0, like.dtype), like.shape)


def _cut(
    body: Body, given: Sequence[Tensor], frugal: bool, roots: Sequence[Tensor]
) -> tuple[dict[Tensor, Tensor], list[Tensor]]:
    """Where the backward turn begins: the values of the forward turn that it is given, each with a slot for it, and the
    roots in terms of these slots and of what the loop itself is given. Views, and what is made of nothing, are made
    again: a broadcast row is as large as what it meets."""
    forward = set(topological(body.graph.roots, given=body.slots))
    new: dict[Tensor, Tensor] = dict(zip(body.given, given, strict=True))
    kept: dict[Tensor, Tensor] = {}
    order = topological(roots, given=body.slots)
    wanted = set(roots)
    for node in reversed(order):
        if wanted.isdisjoint(node.outputs):
            continue
        again = frugal or not node.inputs or isinstance(node.op, Injective)
        if node in forward and not again:
            kept |= {t: slot(t.label or node.op.name, t.type) for t in node.outputs if t in wanted}
        else:
            wanted.update(node.inputs)
    kept |= {t: slot(t.label or "carry", t.type) for t in (*body.carries, *body.elements) if t in wanted}
    new |= kept
    for node in order:
        if wanted.isdisjoint(node.outputs) or any(t in new for t in node.outputs):
            continue
        inputs = tuple(new[t] for t in node.inputs)
        outputs = node.outputs if inputs == node.inputs else clone(node, inputs)
        new.update(zip(node.outputs, outputs, strict=True))
    return kept, [new[t] for t in roots]


def _stacked(node: Node, values: Sequence[Tensor]) -> dict[Tensor, Tensor]:
    """Values of a loop's turns, stacked: by the loop as it is, or by one that stacks more."""
    body, (_, stacks) = node.op.inner, results(node)
    found = dict(zip(body.emits, stacks, strict=True))
    more = tuple(t for t in dict.fromkeys(values) if t not in found)
    if more:
        larger = dataclasses.replace(body, emits=(*body.emits, *more))
        outputs = apply(dataclasses.replace(node.op, inner=larger), *node.inputs)
        for old, fresh in zip(node.outputs, outputs, strict=False):
            fresh.label = old.label
        found = dict(zip(larger.emits, outputs[len(body.carries) :], strict=True))
    return found
