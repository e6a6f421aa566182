"""Steps of random graphs that are loops along the first axis of something."""

from __future__ import annotations

from typing import Any

from flowgraph.graph.tensor import Tensor
from flowgraph.ops import bounds, contraction, elementwise, functions, indexing, random, reduce, scan, shape

COVERED = {"scan", "slot", "turn_states", "lengths", "accumulate"}


def loop(g: Any) -> Tensor | None:
    """A state that every turn changes smoothly, perhaps by a matrix, a lookup or a draw; perhaps a sum beside it. What
    is stacked may be stacked twice, carried, or given."""
    x = g.any_float(at_least=1)
    element, dtype = x.shape[1:], x.dtype.name
    start = g.new_float(element, -1, 1, dtype)
    weight = other = None
    if len(element) == 2 and g.random.random() < 0.7:
        weight = g.new_float((element[1], element[1]), -0.5, 0.5, dtype)
        other = g.new_float((element[1], g.random.choice(g.dims)), -0.5, 0.5, dtype)
    table = g.new_float((5,), -1, 1, dtype) if g.random.random() < 0.3 else None
    ids = g.new_integers((x.shape[0],), 5) if table is not None else None
    sums = g.random.random() < 0.4
    state = g.state() if g.random.random() < 0.15 else None
    stream = len(g.values)
    again = g.random.choice(("kept", "carry", "element", "weight"))
    how = {"reverse": g.random.random() < 0.3}
    if g.random.random() < 0.25:
        how["checkpoint"] = g.random.choice((1, 2, 3))

    def step(carry: Any, parts: Any) -> Any:
        (h, total), (x, row) = carry, parts
        moved = elementwise.add(elementwise.multiply(h, 0.5), x)
        if weight is not None:
            moved = elementwise.add(moved, contraction.mul(h, weight))
        if row is not None and table is not None:
            moved = elementwise.add(moved, shape.broadcast_to(indexing.gather(table, row), moved.shape))
        if state is not None:
            moved = random.dropout(moved, 0.3, state, stream)
        new = functions.tanh(moved)
        kept = new if other is None else contraction.mul(new, other)
        if total is not None:
            total = elementwise.add(total, contraction.mul(shape.transpose(h), x) if len(element) == 2 else new)
        last = {"kept": kept, "carry": h, "element": x, "weight": x if weight is None else weight}[again]
        return (new, total), (kept, reduce.sum(elementwise.multiply(new, h)), last)

    total = None
    if sums:
        total = g.new_float((element[1], element[1]) if len(element) == 2 else element, -1, 1, dtype)
    (last, total), stacked = scan.scan(step, (start, total), (x, ids), **how)
    results = [t for t in (last, total, *stacked) if t is not None]
    g.random.shuffle(results)
    for extra in results[2:]:
        if g.fits(extra):
            g.pool(extra).append(extra)
    return results[0]


def lengths(g: Any) -> Tensor:
    """How long some sequences are."""
    return bounds.Lengths(6)(elementwise.add(g.new_integers(g.some_shape(), 5), 1))


def going_on(g: Any) -> Tensor:
    """A sum that begins with a value."""
    x = g.any_float(at_least=1)
    terms = contraction.mul(shape.transpose(x), x) if x.rank == 2 else reduce.sum(x, axis=0)
    return elementwise.Accumulate()(g.new_float(terms.shape, -1, 1, x.dtype.name), terms)


STEPS = (loop, lengths, going_on)
