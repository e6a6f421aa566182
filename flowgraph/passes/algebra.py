"""Algebra: a table of small rules, each with the law it keeps. `tests/test_algebra.py` holds every rule to its law.

A law holds for every value of its operands, NaN and infinity among them. What is missing is missing for that reason:
`x - x = 0` and `0 * x = 0` fail for NaN, `exp(log(x)) = x` rounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np

from flowgraph.graph.graph import Graph, clone, rewrite
from flowgraph.graph.tensor import Node, Tensor
from flowgraph.graph.types import DType
from flowgraph.ops import elementwise as ew
from flowgraph.ops.base import Op
from flowgraph.ops.elementwise import Add, Cast, Divide, Elementwise, Multiply, Negative, StopGradient, Subtract, Where
from flowgraph.ops.leaf import Constant, Leaf, constant
from flowgraph.ops.logic import LogicalNot
from flowgraph.ops.piecewise import Absolute
from flowgraph.ops.reduce import Max, Mean, Reduction, Sum
from flowgraph.ops.reduce import mean as mean_
from flowgraph.ops.reduce import sum as sum_
from flowgraph.ops.shape import (
    Broadcast,
    ExpandDims,
    Squeeze,
    Transpose,
    broadcast_to,
    expand_dims,
    squeeze,
    transpose,
)
from flowgraph.passes.fold import scalar_value


class Law(Enum):
    """How equal the two sides of a rule are."""

    EXACT = "exact"  # the same bits; the sign of a NaN means nothing
    ZEROS = "exact but for the sign of zero"
    ROUNDS_LESS = "rounds less"  # the right side is the correctly rounded value, the left one rounds more often


@dataclass(frozen=True)
class Rule:
    """`text`, which holds as `law` says. `rewrite(op, inputs)` is the right side, or None where the left one does not
    match; `example(x, y, s, c)` makes a left side of two float vectors, a float scalar and a bool vector."""

    text: str
    law: Law
    ops: tuple[type[Op], ...]
    rewrite: Callable[[Op, tuple[Tensor, ...]], Tensor | None]
    example: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def simplify_algebra(graph: Graph) -> Graph:
    """Apply the rules bottom-up, and to what they make, until none applies."""
    return apply_rules(graph, RULES)


def apply_rules(graph: Graph, rules: tuple[Rule, ...]) -> Graph:
    """The graph with these rules applied wherever they match."""
    by_op: dict[type[Op], tuple[Rule, ...]] = {}
    settled: set[Node] = set()  # nodes that no rule matches

    def simplify(op: Op, inputs: tuple[Tensor, ...]) -> Tensor | None:
        kind = type(op)
        if kind not in by_op:
            by_op[kind] = tuple(r for r in rules if issubclass(kind, r.ops))
        for rule in by_op[kind]:
            made = rule.rewrite(op, inputs)
            if made is not None:
                return settle(made)
        return None

    def settle(tensor: Tensor) -> Tensor:
        """The tensor, which a rule made, with the rules applied to all that is new in it."""
        node = tensor.node
        if node in settled or isinstance(node.op, Leaf):
            return tensor
        inputs = tuple(settle(t) for t in node.inputs)
        better = simplify(node.op, inputs)
        if better is not None:
            return better
        result = tensor if inputs == node.inputs else clone(node, inputs)[tensor.index]
        settled.add(result.node)
        return result

    def rule(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        settled.update(t.node for t in inputs)
        if len(node.outputs) != 1:
            return None
        made = simplify(node.op, inputs)
        return None if made is None else (made,)

    return rewrite(graph, rule, "algebra")


def _everywhere(number: float, like: Tensor) -> Tensor:
    """The number in the shape and dtype of a tensor."""
    return broadcast_to(constant(number, like.dtype), like.shape)


def _operand(tensor: Tensor, *kinds: type[Op]) -> Tensor | None:
    """x, if the tensor is op(x) with one of these ops."""
    return tensor.node.inputs[0] if isinstance(tensor.op, kinds) else None


# Sums


def _add_zero(op: Op, inputs: tuple[Tensor, ...]) -> Tensor | None:
    x, y = inputs
    return x if scalar_value(y) == 0 else y if scalar_value(x) == 0 else None


def _is_zero(tensor: Tensor, sign: float) -> bool:
    value = scalar_value(tensor)
    return value == 0 and math.copysign(1.0, value) == sign


def _subtract_zero(op: Op, inputs: tuple[Tensor, ...]) -> Tensor | None:
    x, y = inputs
    return x if _is_zero(y, 1.0) else None


def _add_negative(op: Op, inputs: tuple[Tensor, ...]) -> Tensor | None:
    x, y = inputs
    taken = _operand(y, Negative)
    return None if taken is None else Subtract()(x, taken)


def _negative_first(op: Op, inputs: tuple[Tensor, ...]) -> Tensor | None:
    x, y = inputs
    taken = _operand(x, Negative)
    return None if taken is None else Subtract()(y, taken)


def _subtract_negative(op: Op, inputs: tuple[Tensor, ...]) -> Tensor | None:
    x, y = inputs
    added = _operand(y, Negative)
    return None if added is None else Add()(x, added)


def _subtract_from_zero(op: Op, inputs: tuple[Tensor, ...]) -> Tensor | None:
    x, y = inputs
    return Negative()(y) if scalar_value(x) == 0 else None


def _negative_difference(op: Op, inputs: tuple[Tensor, ...]) -> Tensor | None:
    (x,) = inputs
    return Subtract()(*reversed(x.node.inputs)) if isinstance(x.op, Subtract) else None


# Products


def _times_one(op: Op, inputs: tuple[Tensor, ...]) -> Tensor | None:
    x, y = inputs
    return x if scalar_value(y) == 1 else y if scalar_value(x) == 1 else None


def _over_one(op: Op, inputs: tuple[Tensor, ...]) -> Tensor | None:
    x, y = inputs
    return x if scalar_value(y) == 1 else None


def _times_minus_one(op: Op, inputs: tuple[Tensor, ...]) -> Tensor | None:
    for x, factor in (inputs, inputs[::-1]):
        if scalar_value(factor) == -1:
            return Negative()(x)
    return None


def _two_negatives(op: Op, inputs: tuple[Tensor, ...]) -> Tensor | None:
    x, y = (_operand(t, Negative) for t in inputs)
    return None if x is None or y is None else op(x, y)


def _negative_times_number(op: Op, inputs: tuple[Tensor, ...]) -> Tensor | None:
    for x, factor in (inputs, inputs[::-1]):
        taken, number = _operand(x, Negative), scalar_value(factor)
        if taken is not None and number is not None and x.dtype.is_float:
            return Multiply()(taken, _everywhere(-number, x))
    return None


def _negative_of_scaled(op: Op, inputs: tuple[Tensor, ...]) -> Tensor | None:
    (x,) = inputs
    if not isinstance(x.op, Multiply) or not x.dtype.is_float:
        return None
    for value, factor in (x.node.inputs, x.node.inputs[::-1]):
        number = scalar_value(factor)
        if number is not None:
            return Multiply()(value, _everywhere(-number, x))
    return None


def _over_power_of_two(op: Op, inputs: tuple[Tensor, ...]) -> Tensor | None:
    x, y = inputs
    number = scalar_value(y)
    if number is None or not math.isfinite(number) or abs(math.frexp(number)[0]) != 0.5:
        return None
    with np.errstate(all="ignore"):
        inverse = 1 / x.dtype.numpy.type(number)
    exact = np.finfo(x.dtype.numpy).smallest_normal <= abs(inverse) < np.inf
    return Multiply()(x, _everywhere(float(inverse), x)) if exact else None


def _times_reciprocal(op: Op, inputs: tuple[Tensor, ...]) -> Tensor | None:
    for x, factor in (inputs, inputs[::-1]):
        divisor = _reciprocal(factor)
        if divisor is not None:
            return Divide()(x, divisor)
    return None


def _reciprocal(tensor: Tensor) -> Tensor | None:
    """n, of the shape of `tensor`, if `tensor` is a broadcast scalar 1/n."""
    path: list[Tensor] = []
    while isinstance(tensor.op, (Broadcast, ExpandDims, Squeeze)):
        path.append(tensor)
        tensor = tensor.node.inputs[0]
    if not isinstance(tensor.op, Divide) or tensor.shape != () or scalar_value(tensor.node.inputs[0]) != 1:
        return None
    result = tensor.node.inputs[1]
    if isinstance(result.op, Constant):
        return None  # folded: a product is cheaper
    for step in reversed(path):
        result = step.op(result)
    return result


# Functions undone


def _undone(op: Op, inputs: tuple[Tensor, ...]) -> Tensor | None:
    return _operand(inputs[0], type(op))


def _absolute_of(op: Op, inputs: tuple[Tensor, ...]) -> Tensor | None:
    inner = _operand(inputs[0], Negative, Absolute)
    return None if inner is None else Absolute()(inner)


def _first(op: Op, inputs: tuple[Tensor, ...]) -> Tensor | None:
    return inputs[0]


def _holds(wide: DType, narrow: DType) -> bool:
    """Whether every value of the narrow dtype is one of the wide dtype."""
    if wide == narrow or narrow.kind == "bool":
        return True
    if wide.kind == "bool" or (narrow.is_float and not wide.is_float):
        return False
    return wide.itemsize > narrow.itemsize


def _cast_chain(op: Op, inputs: tuple[Tensor, ...]) -> Tensor | None:
    assert isinstance(op, Cast)
    x = inputs[0]
    if x.dtype == op.dtype:
        return x
    source = _operand(x, Cast)
    if source is None or not _holds(x.dtype, source.dtype):
        return None
    return source if source.dtype == op.dtype else op(source)


# Choices


def _where_known(op: Op, inputs: tuple[Tensor, ...]) -> Tensor | None:
    condition, x, y = inputs
    known = scalar_value(condition)
    return None if known is None else x if known else y


def _where_same(op: Op, inputs: tuple[Tensor, ...]) -> Tensor | None:
    _, x, y = inputs
    return x if x is y else None


def _where_not(op: Op, inputs: tuple[Tensor, ...]) -> Tensor | None:
    condition, x, y = inputs
    opposite = _operand(condition, LogicalNot)
    return None if opposite is None else op(opposite, y, x)


def _where_again(op: Op, inputs: tuple[Tensor, ...]) -> Tensor | None:
    condition, x, y = inputs
    if isinstance(x.op, Where) and x.node.inputs[0] is condition:
        return op(condition, x.node.inputs[1], y)
    if isinstance(y.op, Where) and y.node.inputs[0] is condition:
        return op(condition, x, y.node.inputs[2])
    return None


# Shapes


def _transposes(op: Op, inputs: tuple[Tensor, ...]) -> Tensor | None:
    assert isinstance(op, Transpose)
    (x,) = inputs
    axes, source = op.axes, x
    if isinstance(x.op, Transpose):
        axes, source = tuple(x.op.axes[k] for k in op.axes), x.node.inputs[0]
    elif axes != tuple(range(x.rank)):
        return None
    return transpose(source, axes)


def _squeeze_expanded(op: Op, inputs: tuple[Tensor, ...]) -> Tensor | None:
    assert isinstance(op, Squeeze)
    (x,) = inputs
    return x.node.inputs[0] if isinstance(x.op, ExpandDims) and x.op.axes == op.axes else None


def _expand_squeezed(op: Op, inputs: tuple[Tensor, ...]) -> Tensor | None:
    assert isinstance(op, ExpandDims)
    (x,) = inputs
    return x.node.inputs[0] if isinstance(x.op, Squeeze) and x.op.axes == op.axes else None


def _broadcasts(op: Op, inputs: tuple[Tensor, ...]) -> Tensor | None:
    assert isinstance(op, Broadcast)
    (x,) = inputs
    if op.shape == x.shape:
        return x
    if isinstance(x.op, Broadcast):
        return op(x.node.inputs[0])
    if isinstance(x.op, ExpandDims) and x.op.axes == tuple(range(len(x.op.axes))):
        return op(x.node.inputs[0])  # a missing leading axis is one of size 1
    return None


def _without_ones(op: Op, inputs: tuple[Tensor, ...]) -> Tensor | None:
    """What `keepdims` leaves is one number a row, not a row."""
    expanded = next((t for t in inputs if isinstance(t.op, ExpandDims)), None)
    if expanded is None:
        return None
    assert isinstance(expanded.op, ExpandDims)
    inner = expanded.node.inputs[0].shape
    operands = []
    for tensor in inputs:
        source = _operand(tensor, ExpandDims, Broadcast)
        if source is None or (isinstance(tensor.op, ExpandDims) and tensor.op.axes != expanded.op.axes):
            return None
        if isinstance(tensor.op, Broadcast):
            if source.shape != ():
                return None
            source = broadcast_to(source, inner)
        operands.append(source)
    return ExpandDims(expanded.op.axes)(op(*operands))


# Reductions


def _reduce_ones(op: Op, inputs: tuple[Tensor, ...]) -> Tensor | None:
    assert isinstance(op, Reduction)
    (x,) = inputs
    return Squeeze(op.axes)(x) if all(x.shape[a] == 1 for a in op.axes) else None


def _unrepeated(op: Op, x: Tensor) -> tuple[Tensor, int] | None:
    """(what is left of `x` without the axes that `op` reduces, how often each element was there), if `x` is a broadcast
    that only repeats along them, a fixed number of times."""
    assert isinstance(op, Reduction)
    source = _operand(x, Broadcast)
    if source is None:
        return None
    missing, count, ones = x.rank - source.rank, 1, []
    for axis in op.axes:
        size = x.shape[axis]
        if not isinstance(size, int) or size < 1 or (axis >= missing and source.shape[axis - missing] != 1):
            return None
        count *= size
        if axis >= missing:
            ones.append(axis - missing)
    rest = tuple(s for k, s in enumerate(x.shape) if k not in op.axes)
    return broadcast_to(squeeze(source, ones) if ones else source, rest), count


def _sum_of_repeated(op: Op, inputs: tuple[Tensor, ...]) -> Tensor | None:
    found = _unrepeated(op, inputs[0])
    if found is None or found[1] > 1 << 24:  # beyond, a count is no float32
        return None
    once, count = found
    return Multiply()(_everywhere(count, once), once)


def _max_of_repeated(op: Op, inputs: tuple[Tensor, ...]) -> Tensor | None:
    found = _unrepeated(op, inputs[0])
    return None if found is None else found[0]


def _again(x: Tensor) -> Tensor:
    return ew.cast(ew.cast(x, "float64"), "float32")


RULES: tuple[Rule, ...] = (
    Rule("x + 0 = x", Law.ZEROS, (Add,), _add_zero, lambda x, y, s, c: x + 0.0),
    Rule("x - 0 = x", Law.EXACT, (Subtract,), _subtract_zero, lambda x, y, s, c: x - 0.0),
    Rule("x + (-y) = x - y", Law.EXACT, (Add,), _add_negative, lambda x, y, s, c: x + -y),
    Rule("(-x) + y = y - x", Law.EXACT, (Add,), _negative_first, lambda x, y, s, c: -x + y),
    Rule("x - (-y) = x + y", Law.EXACT, (Subtract,), _subtract_negative, lambda x, y, s, c: x - -y),
    Rule("0 - x = -x", Law.ZEROS, (Subtract,), _subtract_from_zero, lambda x, y, s, c: 0.0 - x),
    Rule("-(x - y) = y - x", Law.ZEROS, (Negative,), _negative_difference, lambda x, y, s, c: -(x - y)),
    Rule("x * 1 = x", Law.EXACT, (Multiply,), _times_one, lambda x, y, s, c: x * 1.0),
    Rule("x / 1 = x", Law.EXACT, (Divide,), _over_one, lambda x, y, s, c: x / 1.0),
    Rule("x * -1 = -x", Law.EXACT, (Multiply,), _times_minus_one, lambda x, y, s, c: -1.0 * x),
    Rule("(-x) * (-y) = x * y", Law.EXACT, (Multiply,), _two_negatives, lambda x, y, s, c: -x * -y),
    Rule("(-x) / (-y) = x / y", Law.EXACT, (Divide,), _two_negatives, lambda x, y, s, c: -x / -y),
    Rule("(-x) * number = x * (-number)", Law.EXACT, (Multiply,), _negative_times_number, lambda x, y, s, c: -x * 0.1),
    Rule("-(x * number) = x * (-number)", Law.EXACT, (Negative,), _negative_of_scaled, lambda x, y, s, c: -(x * 0.1)),
    Rule("x / 2**k = x * 2**-k", Law.EXACT, (Divide,), _over_power_of_two, lambda x, y, s, c: x / -8.0),
    Rule("x * (1 / s) = x / s", Law.ROUNDS_LESS, (Multiply,), _times_reciprocal, lambda x, y, s, c: x * (1.0 / s)),
    Rule("-(-x) = x", Law.EXACT, (Negative,), _undone, lambda x, y, s, c: Negative()(-x)),
    Rule("not not c = c", Law.EXACT, (LogicalNot,), _undone, lambda x, y, s, c: LogicalNot()(LogicalNot()(c))),
    Rule("|-x| = |x|, ||x|| = |x|", Law.EXACT, (Absolute,), _absolute_of, lambda x, y, s, c: Absolute()(-x)),
    Rule("stop_gradient(x) = x", Law.EXACT, (StopGradient,), _first, lambda x, y, s, c: ew.stop_gradient(x)),
    Rule("cast(cast(x, wider), t) = cast(x, t)", Law.EXACT, (Cast,), _cast_chain, lambda x, y, s, c: _again(x)),
    Rule("where(True, x, y) = x", Law.EXACT, (Where,), _where_known,
         lambda x, y, s, c: ew.where(broadcast_to(constant(True), c.shape), x, y)),
    Rule("where(c, x, x) = x", Law.EXACT, (Where,), _where_same, lambda x, y, s, c: ew.where(c, x, x)),
    Rule("where(not c, x, y) = where(c, y, x)", Law.EXACT, (Where,), _where_not,
         lambda x, y, s, c: ew.where(LogicalNot()(c), x, y)),
    Rule("where(c, where(c, x, _), y) = where(c, x, y)", Law.EXACT, (Where,), _where_again,
         lambda x, y, s, c: ew.where(c, ew.where(c, x, 0.0), ew.where(c, 1.0, y))),
    Rule("transpose(transpose(x)) is one or none", Law.EXACT, (Transpose,), _transposes,
         lambda x, y, s, c: transpose(transpose(expand_dims(x, 1)))),
    Rule("squeeze(expand_dims(x)) = x", Law.EXACT, (Squeeze,), _squeeze_expanded,
         lambda x, y, s, c: squeeze(expand_dims(x, 1), 1)),
    Rule("expand_dims(squeeze(x)) = x", Law.EXACT, (ExpandDims,), _expand_squeezed,
         lambda x, y, s, c: expand_dims(squeeze(broadcast_to(s, (1,)), 0), 0)),
    Rule("broadcast(broadcast(x)), broadcast(expand_dims(x)) is one or none", Law.EXACT, (Broadcast,), _broadcasts,
         lambda x, y, s, c: broadcast_to(expand_dims(x, 0), (3, *x.shape))),
    Rule("f(expand_dims(x), expand_dims(y)) = expand_dims(f(x, y))", Law.EXACT, (Elementwise, Cast), _without_ones,
         lambda x, y, s, c: expand_dims(x, 1) * expand_dims(y, 1)),
    Rule("sum, mean over axes of size 1 = squeeze", Law.ZEROS, (Sum, Mean), _reduce_ones,
         lambda x, y, s, c: mean_(expand_dims(x, 1), axis=1)),
    Rule("max over axes of size 1 = squeeze", Law.EXACT, (Max,), _reduce_ones,
         lambda x, y, s, c: Max((1,))(expand_dims(x, 1))),
    Rule("sum of n equal values = n * x", Law.ROUNDS_LESS, (Sum,), _sum_of_repeated,
         lambda x, y, s, c: sum_(broadcast_to(expand_dims(x, 1), (*x.shape, 7)), axis=1)),
    Rule("mean of equal values = x", Law.ROUNDS_LESS, (Mean,), _max_of_repeated,
         lambda x, y, s, c: mean_(broadcast_to(x, (7, *x.shape)), axis=0)),
    Rule("max of equal values = x", Law.EXACT, (Max,), _max_of_repeated,
         lambda x, y, s, c: Max((0,))(broadcast_to(x, (7, *x.shape)))),
)  # fmt: skip
