"""The NumPy interpreter of K: the fast oracle for fusion. Knows no schedule and no device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod

import numpy as np

from flowgraph.graph.size import evaluate
from flowgraph.graph.tensor import Tensor
from flowgraph.index_notation import COMBINERS, RANDOM, Apply, Axis, Const, Expr, Extent, Index, Load, Var
from flowgraph.kernels.kernel import Call, Kernel, LoopCall
from flowgraph.ops.leaf import Constant
from flowgraph.ops.random_bits import uniform
from flowgraph.ops.slicing import memory_of
from flowgraph.ops.sorting import stable_order


def _logistic(x: np.ndarray) -> np.ndarray:
    small = np.exp(-np.abs(x))  # a form by tanh loses all digits below -10
    return np.where(x >= 0, 1, small) / (1 + small)


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(x, 0)


def _erf(x: np.ndarray) -> np.ndarray:
    from math import erf

    return np.vectorize(erf, otypes=[np.float64])(x)


FUNCTIONS: dict[str, Callable[..., np.ndarray]] = {
    "add": np.add, "accumulate": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide,
    "neg": np.negative, "floordiv": np.floor_divide, "mod": np.mod, "floor_divide": np.floor_divide,
    "remainder": np.remainder, "power": np.power,
    "minimum": np.minimum, "maximum": np.maximum,
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
    "ge": np.greater_equal, "and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor, "not": np.logical_not,
    "select": np.where, "absolute": np.abs, "sign": np.sign, "floor": np.floor, "round": np.rint,
    "sqrt": np.sqrt,
    "exp": np.exp, "log": np.log, "log1p": np.log1p, "expm1": np.expm1, "tanh": np.tanh, "erf": _erf,
    "sin": np.sin, "cos": np.cos, "logistic": _logistic, "softplus": _softplus,
}  # fmt: skip


def interpret(kernel: Kernel, inputs: Sequence[np.ndarray], sizes: Mapping[str, int]) -> tuple[np.ndarray, ...]:
    """Run a kernel on NumPy arrays (one per input buffer, in order); returns its outputs.

    Every value is computed at all points of its axes at once, so a product of m×k and k×n takes m·n·k
    elements.
    """
    memory: dict[str, np.ndarray] = {}
    for buffer, array in zip(kernel.inputs, inputs, strict=True):
        memory[buffer.name] = array.reshape([evaluate(s, sizes) for s in buffer.type.shape])
    for buffer in kernel.outputs:
        shape = tuple(evaluate(s, sizes) for s in buffer.type.shape)
        memory[buffer.name] = np.zeros(shape, buffer.type.dtype.numpy)
    scalars: dict[str, np.ndarray] = {}
    outer = len(kernel.axes)
    for nest in kernel.nests:
        axes = (*kernel.axes, *nest.axes)
        extents = tuple(evaluate(a.extent, sizes) for a in axes)
        inner = tuple(range(outer, len(axes)))
        point = _Point(axes, extents, memory, sizes)
        point.values.update({n: v.reshape(v.shape + (1,) * len(inner)) for n, v in scalars.items()})
        for let in nest.lets:
            point.values[let.name] = point.evaluate(let.value)
            if not inner:
                scalars[let.name] = np.broadcast_to(point.values[let.name], extents)
        for reduction in nest.reductions:
            full = np.broadcast_to(point.evaluate(reduction.value), extents)
            ufunc = FUNCTIONS[COMBINERS[reduction.combiner]]
            assert isinstance(ufunc, np.ufunc)
            if reduction.running:
                point.values[reduction.name] = ufunc.accumulate(full, axis=outer, dtype=full.dtype)
            scalars[reduction.name] = ufunc.reduce(full, axis=inner, dtype=full.dtype) if inner else full
        for sort in nest.sorts:
            index = tuple(np.broadcast_to(point.evaluate(e), extents) for e in sort.index)
            keys = np.broadcast_to(point.evaluate(sort.key), extents)
            memory[sort.buffer][index] = stable_order(keys, outer, sort.descending)
        for store in nest.stores:
            target = memory[store.buffer]
            index = tuple(np.broadcast_to(point.evaluate(e), extents) for e in store.index)
            value = np.broadcast_to(point.evaluate(store.value), extents)
            if store.add:
                np.add.at(target, index, value)
            else:
                target[index] = value
    return tuple(memory[b.name] for b in kernel.outputs)


def interpret_calls(calls: Iterable[Call], memory: dict[Tensor, np.ndarray], sizes: Mapping[str, int]) -> None:
    """Kernels and loops one after the other, each seeing only what is in memory; what they make is put there."""
    for call in calls:
        if isinstance(call, LoopCall):
            made: Sequence[np.ndarray] = _loop(call, [_part(t, memory, sizes) for t in call.node.inputs], sizes)
        else:
            made = interpret(call.kernel, [memory[t] for t in call.inputs], sizes)
        memory.update(zip(call.outputs, made, strict=True))


def _part(tensor: Tensor, memory: Mapping[Tensor, np.ndarray], sizes: Mapping[str, int]) -> np.ndarray:
    """A tensor that is a part of what is in memory."""
    source, start = memory_of(tensor)
    shape = [evaluate(s, sizes) for s in tensor.shape]
    first = evaluate(start, sizes)
    return memory[source].ravel()[first : first + prod(shape)].reshape(shape)


def _loop(call: LoopCall, inputs: Sequence[np.ndarray], sizes: Mapping[str, int]) -> list[np.ndarray]:
    op, body = call.node.op, call.body
    turns, count, first = evaluate(op.length, sizes), len(body.carries), len(body.carries) + len(body.elements)
    carried, sequences = list(inputs[:count]), inputs[count:first]
    stacked = [np.zeros((turns, *(evaluate(s, sizes) for s in t.shape)), t.dtype.numpy) for t in body.emits]
    for turn in reversed(range(turns)) if op.reverse else range(turns):
        memory = dict(zip(body.slots, (*carried, *(s[turn] for s in sequences), *inputs[first:]), strict=True))
        memory |= {n.outputs[0]: n.op.array for n in body.graph.nodes() if isinstance(n.op, Constant)}
        interpret_calls(call.calls, memory, sizes)
        carried = [memory[t] for t in body.nexts]
        for stack, tensor in zip(stacked, body.emits, strict=True):
            stack[turn] = memory[tensor]
    return [*carried, *stacked]


class _Point:
    """Expressions evaluated at all points of some axes, as arrays that broadcast to those axes."""

    def __init__(
        self,
        axes: Sequence[Axis],
        extents: Sequence[int],
        memory: Mapping[str, np.ndarray],
        sizes: Mapping[str, int],
    ) -> None:
        self.axes, self.extents, self.memory, self.sizes = list(axes), extents, memory, sizes
        self.values: dict[str, np.ndarray] = {}
        self._memo: dict[Expr, np.ndarray] = {}

    def evaluate(self, expr: Expr) -> np.ndarray:
        if isinstance(expr, Var):
            return self.values[expr.name]
        if isinstance(expr, Load):
            return self._load(expr)  # never remembered: a store may come between
        if expr not in self._memo:
            self._memo[expr] = self._compute(expr)
        return self._memo[expr]

    def _compute(self, expr: Expr) -> np.ndarray:
        rank = len(self.axes)
        if isinstance(expr, Const):
            return np.full((1,) * rank, expr.value, expr.dtype.numpy)
        if isinstance(expr, Extent):
            return np.full((1,) * rank, evaluate(expr.size, self.sizes), np.int64)
        if isinstance(expr, Index):
            place = self.axes.index(expr.axis)
            shape = tuple(-1 if k == place else 1 for k in range(rank))
            return np.arange(self.extents[place], dtype=np.int64).reshape(shape)
        assert isinstance(expr, Apply)
        arguments = [self.evaluate(a) for a in expr.arguments]
        with np.errstate(all="ignore"):
            if expr.function in RANDOM:
                seed, step, stream, element = arguments
                return uniform(seed, step, stream, element, RANDOM[expr.function], expr.dtype.itemsize == 8)
            if expr.function == "cast":
                return arguments[0].astype(expr.dtype.numpy)
            return np.asarray(FUNCTIONS[expr.function](*arguments)).astype(expr.dtype.numpy, copy=False)

    def _load(self, expr: Load) -> np.ndarray:
        array = self.memory[str(expr.source)]
        if not expr.index:
            return array.reshape((1,) * len(self.axes))
        return array[tuple(np.broadcast_arrays(*(self.evaluate(e) for e in expr.index)))]
