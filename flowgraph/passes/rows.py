"""An update that changes nothing where no row was looked up touches the rows that were, whatever its formula is.

An update p ± D is the same as p where D is 0. If D is made, element by element, of gradients that are lookups'
(`scatter_add` into 0) and is 0 wherever these are 0, then it can be computed for the rows looked up alone: AdaGrad's
square and quotient, a clipped gradient. A row looked up twice must be summed first; `first_equal` says where, and all
but the first of equal lookups get a gradient of 0, so that what is scattered there is 0 again. Each element is
computed by the operations of the dense form, in its order: the rows looked up have its very bits.

As in `sparse`, a factor that is infinite or NaN would spoil every row in the dense form, and here only those looked up.
"""

from __future__ import annotations

import numpy as np

from flowgraph.graph import origin as origins
from flowgraph.graph.graph import Graph, rewrite
from flowgraph.graph.size import Shape, Size, product
from flowgraph.graph.tensor import Node, Tensor
from flowgraph.ops.distinct import FirstEqual
from flowgraph.ops.elementwise import (
    Add,
    Cast,
    Divide,
    Elementwise,
    Greater,
    Multiply,
    StopGradient,
    Subtract,
    Where,
    cast,
    equal,
    negative,
)
from flowgraph.ops.functions import Exp, Sqrt
from flowgraph.ops.indexing import Gather, ScatterAdd
from flowgraph.ops.leaf import Constant, Input, Leaf, Parameter, arange
from flowgraph.ops.pieces import concatenate
from flowgraph.ops.piecewise import Absolute
from flowgraph.ops.reduce import Sum
from flowgraph.ops.shape import Broadcast, ExpandDims, Reshape, broadcast_to
from flowgraph.passes.fold import scalar_value

MANY_ROWS = 1024  # a smaller table is as cheap whole, where nobody knows how many rows a step looks up
MOST_LOOKUPS = 16  # of one table: their row numbers are put together in one kernel


def row_updates(graph: Graph) -> Graph:
    """Scatter into the rows looked up, for every update p ± D where D is 0 wherever the lookups' gradients are; and
    sum these rows alone, where all rows of such a D are summed: for a gradient's norm, in another order."""
    at_zero = _AtZero()
    shared: dict[tuple[Tensor, ...], _Rows] = {}

    def rule(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if not isinstance(node.op, Sum) or 0 not in node.op.axes:
            return None
        changed = _rows_of(inputs[0], at_zero, shared)
        return None if changed is None else (node.op(changed[1]),)

    graph = rewrite(graph, rule, "rows")
    fresh = []
    for parameter, new in graph.updates:
        with origins.at(new.origin.by("rows")):
            fresh.append(_by_rows(parameter, new, at_zero, shared))
        fresh[-1].label = fresh[-1].label or new.label
    same = all(a is b for a, (_, b) in zip(fresh, graph.updates, strict=True))
    return graph if same else graph.with_roots((*graph.outputs, *fresh))


def lookups_in(gradient: Tensor) -> tuple[Tensor, ...]:
    """The row numbers of all lookups that a table's gradient comes from; none if anything else is in it."""
    cone = _cone(gradient)
    found = tuple(dict.fromkeys(t.node.inputs[1] for t in cone if _is_lookup(t)))
    return found if _AtZero().value(gradient) == 0 else ()


def _by_rows(parameter: Tensor, new: Tensor, at_zero: _AtZero, shared: dict[tuple[Tensor, ...], _Rows]) -> Tensor:
    if not isinstance(new.op, (Add, Subtract)) or not parameter.rank:
        return new
    start, change = new.node.inputs
    if isinstance(new.op, Add) and change is parameter:
        start, change = change, start
    found = _rows_of(change, at_zero, shared) if start is parameter else None
    if found is None:
        return new
    ids, changed = found
    return ScatterAdd(0)(parameter, ids, changed if isinstance(new.op, Add) else negative(changed))


def _rows_of(tensor: Tensor, at_zero: _AtZero, shared: dict[tuple[Tensor, ...], _Rows]) -> tuple[Tensor, Tensor] | None:
    """(row numbers, rows) of all of the tensor that is not 0, if it is made of lookups' gradients and it pays."""
    cone = _cone(tensor)
    lookups = tuple(dict.fromkeys(t.node.inputs[1] for t in cone if _is_lookup(t)))
    if not 0 < len(lookups) <= MOST_LOOKUPS or at_zero.value(tensor) != 0:
        return None
    total, count = tensor.shape[0], sum((product(t.shape) for t in lookups[1:]), start=product(lookups[0].shape))
    if isinstance(total, int) and total < (count if isinstance(count, int) else MANY_ROWS):
        return None
    if not all(scalar_value(t) is not None or _is_lookup(t) or _is_rowwise(t) or isinstance(t.op, Leaf) for t in cone):
        return None  # some of it would have to be computed for all rows
    if lookups not in shared:
        shared[lookups] = _Rows(lookups)
    rows = shared[lookups]
    return rows.ids, rows.of(tensor)


def _is_lookup(tensor: Tensor) -> bool:
    """Whether it is a lookup's gradient: rows added into a table, which is 0 or such a gradient itself."""
    return isinstance(tensor.op, ScatterAdd) and tensor.op.axis == 0


def _is_rowwise(tensor: Tensor) -> bool:
    """Whether row k of it is computed from row k of those of its operands that have rows at all."""
    op = tensor.op
    return isinstance(op, (Elementwise, Cast, StopGradient, Broadcast)) or (
        isinstance(op, ExpandDims) and 0 not in op.axes
    )


def _counts(tensor: Tensor) -> bool:
    """Whether it is above 0 in the rows looked up and 0 in the others: a positive number added for each lookup."""
    if not _is_lookup(tensor):
        return False
    base, _, added = (scalar_value(t) for t in tensor.node.inputs)
    return base == 0 and added is not None and added > 0


def _has_rows(operand: Tensor, of: Tensor) -> bool:
    """Whether the operand's first axis is the first axis of what is computed from it."""
    if isinstance(of.op, Broadcast):
        return operand.rank == of.rank and operand.shape[:1] == of.shape[:1]
    return True


def _cone(tensor: Tensor) -> list[Tensor]:
    """The tensor and what its rows are computed from, row by row; operands first."""
    seen: set[Tensor] = set()
    stack = [tensor]
    while stack:
        item = stack.pop()
        if item in seen:
            continue
        seen.add(item)
        if _is_lookup(item):
            stack.append(item.node.inputs[0])
        elif _is_rowwise(item):
            stack += [t for t in item.node.inputs if _has_rows(t, item)]
    return sorted(seen, key=lambda t: t.node.serial)


class _AtZero:
    """What a tensor is where no row was looked up, as far as constants tell."""

    def __init__(self) -> None:
        self._known: dict[Tensor, float | None] = {}

    def value(self, tensor: Tensor) -> float | None:
        for item in _cone(tensor):
            if item not in self._known:
                self._known[item] = self._found(item)
        return self._known[tensor]

    def _found(self, tensor: Tensor) -> float | None:
        number, op, inputs = scalar_value(tensor), tensor.op, tensor.node.inputs
        if number is not None:
            return number
        if _is_lookup(tensor):
            return 0.0 if self._known[inputs[0]] == 0 else None
        if not _is_rowwise(tensor):
            return None
        values = [self._known[t] if _has_rows(t, tensor) else scalar_value(t) for t in inputs]
        if isinstance(op, Multiply) and 0 in values:
            return 0.0
        if isinstance(op, Divide) and values[0] == 0 and _is_positive(inputs[1]):
            return 0.0
        if isinstance(op, Where) and values[0] is not None:
            return values[1] if values[0] else values[2]
        if isinstance(op, (Broadcast, ExpandDims, StopGradient)):
            return values[0]
        known = [np.asarray(v, t.dtype.numpy) for v, t in zip(values, inputs, strict=True) if v is not None]
        if len(known) < len(inputs):
            return None
        with np.errstate(all="ignore"):
            return float(op.reference(*known))


def _is_positive(tensor: Tensor) -> bool:
    """Whether it is above 0, or NaN: a positive number, or one added to what is not negative."""
    number = scalar_value(tensor)
    if number is not None or not isinstance(tensor.op, Add):
        return number is not None and number > 0
    numbers = [scalar_value(t) for t in tensor.node.inputs]
    others = [t for t, n in zip(tensor.node.inputs, numbers, strict=True) if n is None]
    return len(others) == 1 and sum(n for n in numbers if n) > 0 and isinstance(others[0].op, (Sqrt, Absolute, Exp))


class _Rows:
    """Tensors of a table's rows, at the rows that some lookups name: row i of the result belongs to lookup i."""

    def __init__(self, lookups: tuple[Tensor, ...]) -> None:
        self.flat = [Reshape((product(ids.shape),))(ids) if ids.rank != 1 else ids for ids in lookups]
        self.count = sum((t.shape[0] for t in self.flat[1:]), start=self.flat[0].shape[0])
        dtypes = {t.dtype for t in self.flat}
        parts = self.flat if len(dtypes) == 1 else [cast(t, "int64") for t in self.flat]
        self.ids = parts[0] if len(parts) == 1 else concatenate(parts)
        first = FirstEqual()(self.ids)
        self.first: dict[Tensor, Tensor] = {}
        start: Size = 0
        for ids, flat in zip(lookups, self.flat, strict=True):
            stop = start + flat.shape[0]
            self.first[ids] = first if len(lookups) == 1 else first[start:stop]
            start = stop
        self._made: dict[Tensor, Tensor] = {}

    def of(self, tensor: Tensor) -> Tensor:
        """The rows looked up; of a lookup's gradient, its sum at the first of equal lookups and 0 at the others."""
        for item in _cone(tensor):
            if item not in self._made:
                self._made[item] = self._of(item)
        return self._made[tensor]

    def _of(self, tensor: Tensor) -> Tensor:
        op, inputs, shape = tensor.op, tensor.node.inputs, (self.count, *tensor.shape[1:])
        number = scalar_value(tensor)
        if number is not None:
            return broadcast_to(_scalar_of(tensor), shape)
        if _is_lookup(tensor):
            base, ids, added = inputs
            first = self.first[ids]
            return ScatterAdd(0)(self._made[base], first, _as_rows(added, first.shape, tensor.shape[1:]))
        if isinstance(op, Greater) and len(self.first) == 1 and _counts(inputs[0]) and scalar_value(inputs[1]) == 0:
            (first,) = self.first.values()  # whether it was looked up: said once, at the first of equal lookups
            return equal(first, arange(self.count))
        if isinstance(op, Broadcast):
            return Broadcast(shape)(self._made[inputs[0]] if _has_rows(inputs[0], tensor) else inputs[0])
        if _is_rowwise(tensor):
            return op(*(self._made[t] for t in inputs))
        assert isinstance(op, (Parameter, Input, Constant)), op
        return Gather(0)(tensor, self.ids)


def _as_rows(added: Tensor, count: Shape, row: Shape) -> Tensor:
    shape = (*count, *row)
    return added if added.shape == shape else Reshape(shape)(added)


def _scalar_of(tensor: Tensor) -> Tensor:
    """The constant that a tensor is everywhere, as a scalar."""
    while not isinstance(tensor.op, Constant):
        tensor = tensor.node.inputs[0]
    return tensor if tensor.shape == () else Reshape(())(tensor)
