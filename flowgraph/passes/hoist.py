"""What a loop need not do turn by turn, done outside of it for all turns at once.

Before it: products and lookups of what no turn carries. An LSTM multiplies its whole input by its weights in one
product. After it: products of what turns make that no other turn reads; and sums of products over the turns, such as
the gradient of weights: one product of all turns' rows. What these read is stacked.

Only contractions and lookups are worth the memory of a stack; with them goes what they are computed from, and what is
made of them point by point. A plain sum goes along where what it adds is stacked anyway. A frugal loop stays as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from flowgraph.graph import origin as origins
from flowgraph.graph.graph import Graph, Rule, rewrite, topological
from flowgraph.graph.size import Size, estimate
from flowgraph.graph.tensor import Node, Tensor, apply
from flowgraph.ops.base import Op
from flowgraph.ops.contraction import AddBias, Mul, mul
from flowgraph.ops.einsum import Einsum
from flowgraph.ops.elementwise import Add, Elementwise, add
from flowgraph.ops.indexing import Gather
from flowgraph.ops.leaf import Constant
from flowgraph.ops.reduce import Sum
from flowgraph.ops.scan import Body, Scan, moved, slot
from flowgraph.ops.shape import Injective, Transpose, reshape, transpose
from flowgraph.ops.slicing import flip
from flowgraph.passes.fold import scalar_value

WORTH_A_STACK = (Mul, Einsum, Gather)
Results = tuple[Tensor, ...]


def hoist(graph: Graph) -> Graph:
    """Take out of loops what can be done for all turns at once."""
    if any(isinstance(n.op, Scan) for n in graph.nodes()):
        for take in (_before, _sums, _after):
            graph = rewrite(graph, _of_loops(take), "hoist")
    return graph


def hoist_lookups(graph: Graph) -> Graph:
    """Take lookups alone out of loops: before there are gradients, so that these are not dense in every turn. (The
    gradients of products are sums over the turns; taken out then, they keep the turns' order.)"""
    if any(isinstance(n.op, Scan) for n in graph.nodes()):
        graph = rewrite(graph, _of_loops(partial(_before, worth=(Gather,))), "hoist")
    return graph


def _of_loops(take: Rule) -> Rule:
    def rule(node: Node, inputs: Results) -> Results | None:
        return take(node, inputs) if isinstance(node.op, Scan) and not node.op.frugal else None

    return rule


def _before(node: Node, inputs: Results, worth: tuple[type[Op], ...] = WORTH_A_STACK) -> Results | None:
    """Compute before the loop what no turn carries, and what is the same in every turn."""
    op, body = node.op, node.op.inner
    first = len(body.carries)
    known = dict(zip(body.slots[first:], inputs[first:], strict=True))  # outside: the same, or stacked
    stacked = set(body.elements)
    free: list[Tensor] = []
    for each in _nodes(body):
        if all(t in known or _is_number(t) for t in each.inputs):
            made = _over_turns(each, known, stacked, op.length)
            if made is not None:
                tensor = each.outputs[0]
                known[tensor] = made
                free.append(tensor)
                if any(t in stacked for t in each.inputs):
                    stacked.add(tensor)
    rows: set[Tensor] = set()  # what is worth a stack, and what is made of it point by point
    for tensor in free:
        is_row = isinstance(tensor.op, (Elementwise, AddBias)) and any(
            t in rows and estimate(tensor.type.count) <= estimate(t.type.count) for t in tensor.node.inputs
        )
        if isinstance(tensor.op, worth) or is_row:
            rows.add(tensor)
    taken = {t for t in free if t in rows or t not in stacked}
    new = {t: slot(t.label or t.op.name, t.type) for t in free if t in taken and not isinstance(t.op, Injective)}
    if not new:
        return None
    roots = moved(body.graph.roots, {**{s: s for s in body.slots}, **new})
    elements = {**dict.fromkeys(body.elements), **{new[t]: None for t in new if t in stacked}}
    given = {**dict.fromkeys(body.given), **{new[t]: None for t in new if t not in stacked}}
    outside = known | {s: known[t] for t, s in new.items()}
    larger = Body(body.carries, tuple(elements), tuple(given), tuple(roots[:first]), tuple(roots[first:]))
    operands = (*inputs[:first], *(outside[s] for s in (*elements, *given)))
    return apply(dataclasses.replace(op, inner=larger), *operands)


def _sums(node: Node, inputs: Results) -> Results | None:
    """Sum outside what a carry only adds up, where all turns' terms are one product."""
    body = node.op.inner
    reads = [t for each in _nodes(body) for t in each.inputs]
    roots = list(body.graph.roots)
    terms: dict[Tensor, Tensor] = {}
    for carry, new in zip(body.carries, body.nexts, strict=True):
        if isinstance(new.op, Add) and carry in new.node.inputs:
            (term,) = [t for t in new.node.inputs if t is not carry] or [carry]
            factors = _factors(term)
            alone = reads.count(carry) == 1 and carry not in roots and roots.count(new) == 1
            if alone and factors is not None and carry not in factors and not set(factors) & set(body.given):
                terms[carry] = term
    products = {t: term for t, term in terms.items() if not isinstance(term.op, Sum)}
    stacked = {*body.elements, *body.emits, *(t for term in products.values() for t in _factors(term) or ())}
    terms = {t: term for t, term in terms.items() if t in products or term.node.inputs[0] in stacked}
    if not terms:
        return None
    kept = [k for k, carry in enumerate(body.carries) if carry not in terms]
    smaller = dataclasses.replace(
        body, carries=tuple(body.carries[k] for k in kept), nexts=tuple(body.nexts[k] for k in kept)
    )
    operands = (*(inputs[k] for k in kept), *inputs[len(body.carries) :])
    needs = [t for term in terms.values() for t in _factors(term) or ()]
    made, emits, stacks = _stacking(node.op, smaller, operands, needs)
    finals = dict(zip(smaller.carries, made, strict=True))
    for carry, begin in zip(body.carries, inputs, strict=False):
        if carry in terms:
            total = _sum_of_products(terms[carry], stacks, node.op)
            finals[carry] = total if scalar_value(begin) == 0 else add(begin, total)
    return (*(finals[carry] for carry in body.carries), *emits)


def _after(node: Node, inputs: Results) -> Results | None:
    """Compute after the loop the products that no turn reads, and what is made of them."""
    op, body = node.op, node.op.inner
    carried = set(topological(body.nexts, given=body.slots))
    apart = [n for n in _nodes(body) if n not in carried]
    readers: dict[Tensor, list[Node]] = {}
    for each in apart:
        for t in each.inputs:
            readers.setdefault(t, []).append(each)
    can_move: set[Node] = set()
    for each in reversed(apart):  # with all that reads it
        if all(n in can_move for n in readers.get(each.outputs[0], ())) and _can_be_over(each, body, op.length):
            can_move.add(each)
    moving: dict[Node, None] = {}
    for each in apart:
        if each in can_move and (isinstance(each.op, (Mul, Einsum)) or any(t.node in moving for t in each.inputs)):
            moving[each] = None
    if not moving:
        return None
    needs = [t for each in moving for t in each.inputs if t.node not in moving]
    smaller = dataclasses.replace(body, emits=tuple(t for t in body.emits if t.node not in moving))
    made, emits, known = _stacking(op, smaller, inputs, needs)
    stacked = set(known) - set(body.given)
    known |= dict(zip(body.given, inputs[len(body.carries) + len(body.elements) :], strict=True))
    for each in moving:
        result = _over_turns(each, known, stacked, op.length)
        assert result is not None, each
        known[each.outputs[0]] = result
        stacked.add(each.outputs[0])
    left = dict(zip(smaller.emits, emits, strict=True))
    return (*made, *(known[t] if t.node in moving else left[t] for t in body.emits))


def _nodes(body: Body) -> list[Node]:
    """What a turn computes."""
    own = set(body.slots)
    return [n for n in topological(body.graph.roots, given=own) if n.outputs[0] not in own]


def _is_number(tensor: Tensor) -> bool:
    """Whether it is the same in and outside of the loop."""
    return isinstance(tensor.op, Constant)


def _over_turns(node: Node, known: Mapping[Tensor, Tensor], stacked: Iterable[Tensor], turns: Size) -> Tensor | None:
    """What a node makes in all turns, of what is known outside; if nothing of that differs, what it makes once."""
    if len(node.outputs) != 1 or isinstance(node.op, Constant):
        return None
    inputs = tuple(known.get(t, t) for t in node.inputs)
    differs = tuple(t in stacked for t in node.inputs)
    with origins.at(node.origin.by("hoist")):
        return node.op.over_turns(inputs, differs, turns) if any(differs) else apply(node.op, *inputs)[0]


def _can_be_over(node: Node, body: Body, turns: Size) -> bool:
    """Whether a node can be computed for all turns at once, once all that differs is stacked."""
    same = {*body.given, *(t for t in node.inputs if _is_number(t))}
    differs = {t for t in node.inputs if t not in same}
    if not differs:
        return False
    known = {t: slot("stack", dataclasses.replace(t.type, shape=(turns, *t.shape))) for t in differs}
    return _over_turns(node, known, differs, turns) is not None


def _stacking(
    op: Scan, body: Body, operands: Sequence[Tensor], needs: Sequence[Tensor]
) -> tuple[Results, Results, dict[Tensor, Tensor]]:
    """The loop, of these operands, that stacks what is needed, too: its final values, its stacked values, and the
    stacks of what is needed and of all elements."""
    first, second = len(body.carries), len(body.carries) + len(body.elements)
    stacks = dict(zip(body.elements, operands[first:second], strict=True))
    same = {*body.given, *stacks}
    more = [t for t in dict.fromkeys(needs) if t not in same and not _is_number(t) and t not in body.emits]
    larger = dataclasses.replace(body, emits=(*body.emits, *more))
    made: Results = ()
    if larger.carries or larger.emits:
        made = apply(dataclasses.replace(op, inner=larger), *operands)
    stacks |= dict(zip(larger.emits, made[first:], strict=True))
    return made[:first], made[first : first + len(body.emits)], stacks


def _factors(term: Tensor) -> tuple[Tensor, ...] | None:
    """What must be stacked for the sum of a term over all turns to be one contraction; None if it is none."""
    op = term.op
    if isinstance(op, Mul):
        x, y = term.node.inputs
        return (x.node.inputs[0] if isinstance(x.op, Transpose) else x), y
    if isinstance(op, Einsum) or (isinstance(op, Sum) and 0 in op.axes):
        return term.node.inputs
    return None


def _sum_of_products(term: Tensor, stacks: Mapping[Tensor, Tensor], loop: Scan) -> Tensor:
    """The sum over all turns, in their order, of a term whose factors are stacked (or the same in every turn)."""
    op, inputs = term.op, term.node.inputs

    def in_order(stack: Tensor) -> Tensor:
        return flip(stack, 0) if loop.reverse else stack

    with origins.at(term.origin.by("hoist")):
        if isinstance(op, Sum):
            return Sum((0, *(a + 1 for a in op.axes)))(in_order(stacks[inputs[0]]))
        if isinstance(op, Einsum):
            turn = next(c for c in "tuvwxyzabc" if c not in op.first + op.second)
            stacked = [t in stacks for t in inputs]
            first, second = (turn * s + labels for s, labels in zip(stacked, (op.first, op.second), strict=True))
            return Einsum(first, second, op.result)(*(in_order(stacks[t]) if t in stacks else t for t in inputs))
        x, y = inputs
        flat = (loop.length * y.shape[0], y.shape[1])
        if isinstance(x.op, Transpose):
            source = x.node.inputs[0]
            rows = reshape(stacks[source], (flat[0], source.shape[1]))
            return mul(transpose(in_order(rows)), in_order(reshape(stacks[y], flat)))
        columns = transpose(in_order(reshape(transpose(stacks[x], (0, 2, 1)), (flat[0], x.shape[0]))))
        return mul(columns, in_order(reshape(stacks[y], flat)))
