"""Random graphs over every op of the registry, with data: seed in, a `Case` out. Knows no path and no
backend.

A graph grows op by op beside its float64 values, and what would make two correct float32 evaluations differ
by more than rounding is not built: a float comparison, maximum or kink is only applied where no value is near
its jump, and an op only where its operands lie in the range its own samples cover. Nothing is thrown away
afterwards.

A new elementwise op takes part by itself (its samples say where it is smooth); any other op needs an entry in
`STEPS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any

import numpy as np

from flowgraph.autodiff import backward
from flowgraph.graph.graph import Graph, topological
from flowgraph.graph.size import Shape, Size, evaluate, named
from flowgraph.graph.tensor import Tensor
from flowgraph.graph.types import boolean, float32, float64
from flowgraph.ops import (
    averages,
    bounds,
    classification,
    contraction,
    elementwise,
    functions,
    indexing,
    leaf,
    logic,
    piecewise,
    random,
    reduce,
    shape,
    statistics,
)
from flowgraph.ops.base import Op, concrete
from flowgraph.ops.leaf import Leaf
from tests.support import random_lookups, random_loops, random_products, random_shapes, random_windows
from tests.support.compare import widened

LARGEST = 30.0  # magnitude of values in the forward graph
MARGIN = 1e-3  # distance from a jump: ten thousand float32 roundings
SMALL = 30  # operations: up to here a few outputs are picked, beyond all that is left over
MOST_ROWS = 12  # looked up at once, as a rule
HOT_ROWS = 300  # now and then, most of them the same: the oracle allows a rounding an addition (see compare)
STATIC: tuple[Size, ...] = (1, 2, 3, 5, 17)  # 17: one more than the 16 lanes of a CPU kernel


@dataclass
class Case:
    """A graph with everything it needs to run; `seed` and `operations` make it again."""

    seed: int
    operations: int
    graph: Graph
    feeds: dict[Tensor, np.ndarray]
    sizes: dict[str, int]


def random_case(seed: int, operations: int = 12) -> Case:
    """A graph of up to so many drawn ops (some are compositions), its backward graph, updates, and data."""
    return _Grower(seed, operations).grow()


@dataclass
class _Grower:
    seed: int
    operations: int
    random: Random = field(init=False)
    floats: list[Tensor] = field(default_factory=list)
    integers: list[Tensor] = field(default_factory=list)
    flags: list[Tensor] = field(default_factory=list)
    feeds: dict[Tensor, np.ndarray] = field(default_factory=dict)
    parameters: list[Tensor] = field(default_factory=list)
    values: dict[Tensor, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.numbers = np.random.default_rng(self.seed)
        self.sizes = {"batch": self.random.choice((1, 2, 4, 7)), "time": self.random.choice((1, 3, 6))}
        self.dims: tuple[Size, ...] = (*STATIC, named("batch"), named("batch"), named("time"))

    def grow(self) -> Case:
        for _ in range(self.random.randint(1, 3)):
            self.new_float(self.some_shape())
        if self.operations > SMALL:
            self.grow_large()
            return self.finish(self.unread())
        for _ in range(self.random.randint(1, self.operations)):
            made = self.random.choice(STEPS)(self)
            if made is not None and self.fits(made):
                self.pool(made).append(made)
        return self.finish()

    def grow_large(self) -> None:
        """So many steps that lead somewhere, or nearly: what cannot be applied is drawn anew a few times."""
        for _ in range(self.random.randint(self.operations // 2, self.operations)):
            for _ in range(4):
                made = self.random.choice(STEPS)(self)
                if made is not None and self.fits(made):
                    self.pool(made).append(made)
                    break

    def unread(self) -> list[Tensor]:
        """What was computed and nothing computed reads: as outputs, they keep the whole graph alive."""
        computed = [t for t in (*self.floats, *self.integers, *self.flags) if not isinstance(t.op, Leaf)]
        read = {t for node in topological(computed) for t in node.inputs}
        return [t for t in dict.fromkeys(computed) if t not in read]

    # values

    def value(self, tensor: Tensor) -> np.ndarray:
        """The tensor in float64."""
        found = self.values.get(tensor)
        if found is None:
            node, op = tensor.node, tensor.op
            if not isinstance(op, Leaf):
                op = widened(concrete(op, self.sizes))
            with np.errstate(all="ignore"):
                made = op.reference(*map(self.value, node.inputs))
            for each, array in zip(node.outputs, made if isinstance(made, tuple) else (made,), strict=True):
                self.values[each] = np.asarray(array, np.float64 if each.dtype.is_float else None)
        return self.values[tensor]

    def fits(self, tensor: Tensor) -> bool:
        value = self.value(tensor)
        return value.size <= 4000 and (value.dtype == bool or bool((np.abs(value) <= LARGEST).all()))

    def pool(self, tensor: Tensor) -> list[Tensor]:
        return {"float": self.floats, "int": self.integers, "bool": self.flags}[tensor.dtype.kind]

    # leaves

    def some_shape(self, rank: int | None = None) -> Shape:
        rank = self.random.choice((0, 1, 2, 2, 2, 3)) if rank is None else rank
        return tuple(self.random.choice(self.dims) for _ in range(rank))

    def counts(self, dims: Sequence[Size]) -> tuple[int, ...]:
        return tuple(evaluate(d, self.sizes) for d in dims)

    def leaf(self, dims: Shape, array: np.ndarray, dtype: Any) -> Tensor:
        """An input or, where the shape is static, perhaps a parameter or a constant."""
        kind = self.random.choice(("input", "parameter", "parameter", "constant"))
        array = array.astype(dtype)
        name = f"{'w' if kind == 'parameter' else 'x'}{len(self.values)}"
        if not all(isinstance(d, int) for d in dims) or kind == "input":
            tensor = leaf.input(name, dims, dtype)
            self.feeds[tensor] = array
        elif kind == "parameter":
            tensor = leaf.parameter(name, dims, array, dtype)
            self.parameters.append(tensor)
        else:
            tensor = leaf.constant(array)
        self.values[tensor] = array.astype(np.float64) if array.dtype.kind == "f" else array
        self.pool(tensor).append(tensor)
        return tensor

    def new_float(self, dims: Shape, low: float = -2.0, high: float = 2.0, dtype: str = "float32") -> Tensor:
        return self.leaf(dims, self.numbers.uniform(low, high, self.counts(dims)), dtype)

    def new_integers(self, dims: Shape, limit: int) -> Tensor:
        array = np.asarray(self.numbers.integers(0, limit, self.counts(dims)))
        return self.leaf(dims, array, self.random.choice(("int32", "int64")))

    def state(self) -> Tensor:
        """A random state that is fed."""
        found = next((t for t in self.feeds if t.op.label == "state"), None)
        if found is None:
            found = leaf.input("state", (2,), "int64")
            self.feeds[found] = self.values[found] = np.array([self.seed, 3], np.int64)
        return found

    # operands

    def any_float(self, rank: int | None = None, at_least: int = 0) -> Tensor:
        """Mostly something computed lately."""
        found = [t for t in self.floats[-6:] if t.rank >= at_least and rank in (None, t.rank)]
        if found and self.random.random() < 0.85:
            return self.random.choice(found)
        return self.new_float(
            self.some_shape(rank if rank is not None else max(at_least, self.random.randint(0, 3)))
        )

    def partner(self, x: Tensor, pool: list[Tensor]) -> Tensor | None:
        """A tensor of x's dtype that broadcasts with x."""
        found = [t for t in pool if t.dtype == x.dtype and _broadcast(t.shape, x.shape)]
        return self.random.choice(found[-5:]) if found else None

    def within(self, x: Tensor, low: float, high: float) -> Tensor:
        """x itself if its values lie in the range, else x squeezed into it."""
        value = self.value(x)
        if ((value >= low) & (value <= high)).all():
            return x
        middle, half = (low + high) / 2, 0.98 * (high - low) / 2
        return functions.tanh(x) * half + middle

    def finish(self, outputs: list[Tensor] | None = None) -> Case:
        """Choose outputs if there are none, differentiate, update parameters: sometimes by one another's values."""
        pick = self.random
        computed = [t for t in (*self.floats, *self.integers, *self.flags) if not isinstance(t.op, Leaf)]
        if not outputs and computed:
            outputs = [pick.choice(computed[-6:]) for _ in range(pick.randint(1, 3))]
        outputs = outputs or [self.floats[0]]
        gradients: dict[Tensor, Tensor] = {}
        floats = [t for t in self.floats if t.dtype is float32]
        if pick.random() < 0.7 and floats:
            cost = self.cost(floats)
            wanted = [t for t in (*self.parameters, *self.feeds, *computed[-2:]) if t.dtype is float32]
            wanted = pick.sample(wanted, min(len(wanted), 3))
            gradients = dict(zip(wanted, backward(cost, wanted), strict=True))
            outputs.append(cost)
        updates: dict[Tensor, Tensor] = {}
        for target, gradient in gradients.items():
            if not self.moderate(gradient):
                continue
            if target in self.parameters:
                updates[target] = target - 0.1 * gradient
            else:
                outputs.append(gradient)
        for a in self.parameters:
            for b in self.parameters:
                if (
                    a is not b
                    and a.type == b.type
                    and a not in updates
                    and b not in updates
                    and pick.random() < 0.5
                ):
                    updates |= {a: b, b: a}
        for k, value in enumerate(pick.sample(computed, min(len(computed), 2))):  # may be one value twice
            if pick.random() < 0.3 and all(isinstance(s, int) for s in value.shape) and self.moderate(value):
                state = self.state_like(value, k)
                updates[state] = value
                outputs.append(state)  # the value from before the step
        for target in self.parameters:
            if target not in updates and pick.random() < 0.5:
                new = self.replacement(target, list(gradients.values()))
                if new is not None:
                    updates[target] = new
        return Case(
            self.seed,
            self.operations,
            Graph(tuple(outputs), tuple(updates.items()), tuple(self.feeds)),
            self.feeds,
            self.sizes,
        )

    def state_like(self, value: Tensor, k: int) -> Tensor:
        """A parameter of a tensor's type that nothing has read yet."""
        start = self.numbers.integers(0, 2, self.counts(value.shape)).astype(value.dtype.numpy)
        return leaf.parameter(f"state{k}", value.shape, start, value.dtype)

    def replacement(self, target: Tensor, gradients: list[Tensor]) -> Tensor | None:
        """Any tensor of a parameter's type: computed, fed, constant, a gradient, another parameter; or one of
        them with rows added to it.
        """
        known = (*self.floats, *self.integers, *self.flags, *gradients)
        found = [t for t in known if t.type == target.type and t is not target and self.moderate(t)]
        if target.rank and target.dtype.is_float and self.random.random() < 0.5:
            return _accumulate(self, self.random.choice(found or [target]))
        return self.random.choice(found) if found else None

    def cost(self, floats: list[Tensor]) -> Tensor:
        chosen = self.random.sample(floats[-4:], min(len(floats), self.random.randint(1, 2), 4))
        combine = self.random.choice((reduce.mean, reduce.sum))
        total = combine(chosen[0])
        for other in chosen[1:]:
            total = total + reduce.mean(other)
        return total

    def moderate(self, tensor: Tensor) -> bool:
        """Whether no path can overflow where another does not."""
        value = self.value(tensor)
        return bool(np.isfinite(value).all() and (np.abs(value) < 1e15).all())


def _broadcast(a: Shape, b: Shape) -> bool:
    return all(p == q or p == 1 or q == 1 for p, q in zip(reversed(a), reversed(b), strict=False))


# One function a kind of step: an op applied to what there is, or None where it cannot be.

Step = Callable[[_Grower], "Tensor | None"]
COVERED_BY_STEP = {
    "broadcast", "transpose", "expand_dims", "squeeze", "copy", "cast", "sum", "mean", "max", "mul",
    "add_bias", "gather", "scatter_add", "clip_index", "outside", "one_hot", "softmax", "cross_ent",
    "cross_ent_of_softmax", "where", "greater", "greater_equal", "less", "less_equal", "equal", "not_equal", "size",
    "arange", "min", "any", "all", "argmax", "argmin", "logsumexp", "log_softmax", "cross_ent_of_logistic",
    "masked_softmax", "averaged", "binary_cross_ent", "random_uniform", "bernoulli", "dropout",
    "logical_and", "logical_or", "logical_xor", "logical_not", "stop_gradient",
    *random_shapes.COVERED, *random_lookups.COVERED, *random_products.COVERED, *random_loops.COVERED,
    *random_windows.COVERED,
}  # fmt: skip


@cache
def smooth_elementwise() -> dict[str, tuple[type[Op], tuple[tuple[float, float], ...]]]:
    """Elementwise float ops by name, with the range of each operand that their samples cover."""
    found: dict[str, tuple[type[Op], tuple[tuple[float, float], ...]]] = {}
    for name, cls in Op.registry.items():
        if not issubclass(cls, elementwise.Elementwise) or name in COVERED_BY_STEP:
            continue
        samples = [s for s in cls.samples() if s.arrays[0].dtype.kind == "f" and s.operands]
        if not samples:
            continue
        arity = len(samples[0].arrays)
        found[name] = (
            cls,
            tuple(
                (
                    min(float(s.arrays[k].min()) for s in samples),
                    max(float(s.arrays[k].max()) for s in samples),
                )
                for k in range(arity)
            ),
        )
    return found


def _elementwise(g: _Grower) -> Tensor | None:
    op_class, ranges = g.random.choice(list(smooth_elementwise().values()))
    x = g.any_float()
    others = [g.partner(x, g.floats) for _ in ranges[1:]]
    operands = [x, *(o for o in others if o is not None)]
    if len(operands) != len(ranges):
        return None
    if op_class not in (elementwise.Add, elementwise.Subtract, elementwise.Multiply, elementwise.Negative):
        operands = [g.within(t, *r) for t, r in zip(operands, ranges, strict=True)]
    operands = list(shape.broadcast_operands(op_class.name, *operands))
    if len(operands) > 1 and _broadcast_all(operands) is None:
        return None
    return op_class()(*operands) if _clear_of_kinks(op_class(), [g.value(t) for t in operands]) else None


def _broadcast_all(operands: list[Tensor]) -> Shape | None:
    first = operands[0].shape
    return first if all(t.shape == first for t in operands) else None


def _clear_of_kinks(op: Op, values: list[np.ndarray]) -> bool:
    """No second difference of the size of a first one: what a kink or a jump within the margin would give."""
    for k in range(len(values)):
        low, high = ([v + s * MARGIN if j == k else v for j, v in enumerate(values)] for s in (-1, 1))
        with np.errstate(all="ignore"):
            bend = op.reference(*low) - 2 * op.reference(*values) + op.reference(*high)
        if (np.abs(bend) > 0.1 * MARGIN).any():
            return False
    return True


def _with_number(g: _Grower) -> Tensor | None:
    x = g.any_float()
    number = g.random.choice((0.0, 1.0, -1.0, 0.5, 2.0, -3.0, 0.1))
    forms = [
        lambda: x + number,
        lambda: number - x,
        lambda: x * number,
        lambda: x - number,
        lambda: -x,
        lambda: elementwise.Copy()(x),
    ]
    if number:
        forms += [lambda: x / number, lambda: x * (1.0 / leaf.size_of("batch", x.dtype))]
    return g.random.choice(forms)()


def _integers(g: _Grower) -> Tensor | None:
    x = (
        g.random.choice(g.integers)
        if g.integers and g.random.random() < 0.7
        else g.new_integers(g.some_shape(), 5)
    )
    y = g.partner(x, g.integers)
    form = g.random.choice((*INTEGER_FORMS, None))
    if form is None or y is None:
        return g.random.choice(
            (
                lambda: -x,
                lambda: abs(x),
                lambda: reduce.sum(x),
                lambda: elementwise.cast(x, "float32"),
                lambda: elementwise.stop_gradient(x) + 1,
                lambda: piecewise.sign(x),
            )
        )()
    return form(x, y)


INTEGER_FORMS = (
    elementwise.add,
    elementwise.subtract,
    elementwise.multiply,
    logic.floor_divide,
    logic.remainder,
    piecewise.minimum,
    piecewise.maximum,
)


def _logic(g: _Grower) -> Tensor | None:
    x = g.random.choice(g.flags) if g.flags else _compare(g)
    if x is None:
        return None
    y = g.partner(x, g.flags)
    form = g.random.choice((logic.logical_and, logic.logical_or, logic.logical_xor, None))
    return logic.logical_not(x) if form is None or y is None else form(x, y)


def _compare(g: _Grower) -> Tensor | None:
    name = g.random.choice(("greater", "greater_equal", "less", "less_equal", "equal", "not_equal"))
    x = g.random.choice(g.integers) if g.integers and g.random.random() < 0.3 else g.any_float()
    y: Any = g.partner(x, g.pool(x)) if g.random.random() < 0.6 else 0
    if y is None:
        return None
    distance = np.abs(g.value(x) - (g.value(y) if isinstance(y, Tensor) else y))
    if x.dtype.is_float and (distance < MARGIN).any():
        return None
    return getattr(elementwise, name)(x, y)


def _choose(g: _Grower) -> Tensor | None:
    condition = g.random.choice(g.flags) if g.flags else None
    x = g.any_float()
    y = g.partner(x, g.floats) if g.random.random() < 0.6 else 0.0
    if condition is None or y is None or not _broadcast(condition.shape, x.shape):
        return None
    joint = shape.common_shape("where", x.shape, condition.shape)
    if isinstance(y, Tensor) and not _broadcast(joint, y.shape):
        return None
    return elementwise.where(condition, x, y)


def _convert(g: _Grower) -> Tensor | None:
    kind = g.random.choice(("flag", "integer", "wide", "narrow"))
    if kind == "flag" and g.flags:
        return elementwise.cast(g.random.choice(g.flags), g.random.choice(("float32", "int32", "int64")))
    if kind == "integer" and g.integers:
        return elementwise.cast(g.random.choice(g.integers), g.random.choice(("float32", "bool", "int64")))
    wide = [t for t in g.floats if t.dtype is float64]
    if wide:  # back soon: most of what there is to meet is float32
        return elementwise.cast(g.random.choice(wide), "float32")
    return elementwise.cast(g.any_float(), "float64") if g.random.random() < 0.5 else None


def _product(g: _Grower) -> Tensor | None:
    x = g.any_float(rank=2)
    if g.random.random() < 0.4:
        x = shape.transpose(x)
    inner = x.shape[1]
    found = [t for t in g.floats if t.rank == 2 and t.dtype == x.dtype and inner in t.shape]
    if found and g.random.random() < 0.6:
        y = g.random.choice(found)
    else:
        other = g.random.choice(g.dims)
        y = g.new_float((inner, other) if g.random.random() < 0.6 else (other, inner), -1, 1, x.dtype.name)
    if y.shape[0] != inner or (y.shape[1] == inner and g.random.random() < 0.5):
        y = shape.transpose(y)
    return contraction.mul(x, y)


def _bias(g: _Grower) -> Tensor | None:
    x = g.any_float(at_least=1)
    found = [t for t in g.floats if t.shape == x.shape[-1:] and t.dtype == x.dtype]
    b = (
        g.random.choice(found)
        if found and g.random.random() < 0.5
        else g.new_float(x.shape[-1:], -1, 1, x.dtype.name)
    )
    return contraction.add_bias(x, b)


def _reduction(g: _Grower) -> Tensor | None:
    x = g.any_float(at_least=1)
    axes = tuple(k for k in range(x.rank) if g.random.random() < 0.5) or (x.rank - 1,)
    form = g.random.choice(
        (
            *(reduce.sum, reduce.mean, reduce.max) * 2, reduce.min, statistics.argmax, statistics.argmin,
            statistics.logsumexp, statistics.var,
        )
    )  # fmt: skip
    if form in (reduce.max, reduce.min, statistics.argmax, statistics.argmin):
        ordered = np.sort(
            np.moveaxis(g.value(x), axes, range(len(axes))).reshape(-1, *_rest(g.value(x), axes)), axis=0
        )
        ordered = ordered if form in (reduce.max, statistics.argmax) else -ordered[::-1]
        if len(ordered) > 1 and (ordered[-1] - ordered[-2] < MARGIN).any():
            return None
    return form(x, axes, keepdims=g.random.random() < 0.4)


def _whole_reduction(g: _Grower) -> Tensor | None:
    pool = g.random.choice([p for p in (g.integers, g.flags) if p] or [[]])
    found = [t for t in pool if t.rank]
    if not found:
        return None
    x = g.random.choice(found)
    axes = tuple(k for k in range(x.rank) if g.random.random() < 0.5) or (x.rank - 1,)
    whole = (reduce.sum, reduce.max, reduce.min, statistics.argmax, statistics.argmin)
    form = g.random.choice((reduce.any, reduce.all) if x.dtype is boolean else whole)
    return form(x, axes, keepdims=g.random.random() < 0.4)


def _rest(value: np.ndarray, axes: Sequence[int]) -> tuple[int, ...]:
    return tuple(s for k, s in enumerate(value.shape) if k not in axes)


def _view(g: _Grower) -> Tensor | None:
    x = g.any_float()
    kind = g.random.choice(("transpose", "expand", "squeeze", "broadcast", "columns"))
    if kind == "transpose" and x.rank > 1:
        return shape.transpose(x, g.random.sample(range(x.rank), x.rank))
    if kind == "expand" and x.rank < 3:
        return shape.expand_dims(x, g.random.randint(0, x.rank))
    ones = [k for k, s in enumerate(x.shape) if s == 1]
    if kind == "squeeze" and ones:
        return shape.squeeze(x, g.random.choice(ones))
    if kind == "broadcast" and x.rank < 3:
        target = tuple(g.random.choice(g.dims) if s == 1 else s for s in x.shape)
        return shape.broadcast_to(x, (*g.some_shape(1), *target) if g.random.random() < 0.7 else target)
    if kind == "columns" and x.rank in (2, 3) and isinstance(columns := x.shape[-1], int) and columns:
        widths = [n for n in range(1, columns + 1) if columns % n == 0]
        return shape.JoinedColumns()(x if x.rank == 3 else shape.ColumnBlocks(g.random.choice(widths))(x))
    return None


def _softmax(g: _Grower) -> Tensor | None:
    x = g.any_float(at_least=1)
    axis = g.random.choice((-1, -1, -1, 0))
    if g.random.random() < 0.3:
        masks = [t for t in g.flags[-5:] if _broadcast(t.shape, x.shape) and t.rank <= x.rank]
        masks = [t for t in masks if shape.common_shape("mask", t.shape, x.shape) == x.shape]
        mask = g.random.choice(masks) if masks else elementwise.equal(g.new_integers(x.shape, 2), 1)
        return classification.masked_softmax(x, mask, axis)
    form = g.random.choice((classification.softmax, classification.softmax, classification.log_softmax, None))
    return form(x, axis) if form else functions.log(classification.softmax(x, axis))


def _yes_or_no(g: _Grower) -> Tensor | None:
    x = g.any_float()
    if g.random.random() < 0.5:
        y = g.new_integers(x.shape, 2)
    else:
        y = functions.logistic(g.new_float(x.shape, -1, 1, x.dtype.name))
    form = g.random.choice(("of_logistic", "logistic", "probabilities"))
    if form == "of_logistic":
        return classification.cross_ent_of_logistic(x, y)
    # beyond, logistic(x) is 1 in float32: only the stabilised form, which paths may use or not, is finite there
    p = functions.logistic(g.within(x, -10.0, 10.0)) if form == "logistic" else g.within(x, 0.05, 0.95)
    return classification.binary_cross_ent(p, y)


def _cross_entropy(g: _Grower) -> Tensor | None:
    x = g.any_float(at_least=1)
    classes = x.shape[-1]
    form = g.random.choice(("of_softmax", "softmax", "probabilities"))
    target = g.random.choice(("numbers", "numbers", "distribution"))
    if target == "numbers":
        y = g.new_integers(x.shape[:-1], g.counts((classes,))[0])
    else:
        y = classification.softmax(g.new_float(x.shape, -1, 1, x.dtype.name))
    if form == "of_softmax":
        return classification.cross_ent_of_softmax(x, y)
    p = classification.softmax(x) if form == "softmax" else g.within(x, 0.05, 1.0)
    return classification.cross_ent(p, y)


def _lookup(g: _Grower) -> Tensor | None:
    table = g.any_float(at_least=1)
    is_hot = g.random.random() < 0.3
    dims = (17, *g.some_shape(1))[: 4 - table.rank] if is_hot else g.some_shape(g.random.randint(0, 2))
    if table.rank - 1 + len(dims) > 3:
        return None
    ids = _row_numbers(g, dims, table.shape[0], is_hot)
    return None if ids is None else indexing.gather(table, ids)


def _accumulate(g: _Grower, base: Tensor | None = None) -> Tensor | None:
    base = g.any_float(at_least=1) if base is None else base
    added = g.any_float(at_least=1)
    lead = added.rank - (base.rank - 1)
    if added.dtype != base.dtype or lead < 0 or added.shape[lead:] != base.shape[1:]:
        lead = 1
        added = g.new_float((*g.some_shape(1), *base.shape[1:]), -1, 1, base.dtype.name)
    ids = _row_numbers(g, added.shape[:lead], base.shape[0], g.random.random() < 0.3)
    return None if ids is None else indexing.scatter_add(base, ids, added)


def _row_numbers(g: _Grower, dims: Shape, rows: Size, is_hot: bool) -> Tensor | None:
    """Numbers of rows: given, or whatever there is of this shape, clipped. If hot, many are the same."""
    count, limit = int(np.prod(g.counts(dims))), g.counts((rows,))[0]
    if count > (HOT_ROWS if is_hot else MOST_ROWS):
        return None
    found = [t for t in g.integers if t.shape == dims]
    if found and g.random.random() < 0.5:
        return bounds.ClipIndex(rows, trusted=True)(g.random.choice(found))
    return g.new_integers(dims, min(limit, 2) if is_hot else limit)


def _clip(g: _Grower) -> Tensor | None:
    """Moved into a range, or the one furthest out of it."""
    limit = g.random.choice(g.dims)
    op = bounds.ClipIndex(limit, trusted=True) if g.random.random() < 0.5 else bounds.Outside(limit)
    return op(g.random.choice(g.integers)) if g.integers else None


def _classes(g: _Grower) -> Tensor | None:
    depth = g.random.choice(g.dims)
    ids = g.new_integers(g.some_shape(g.random.randint(0, 2)), g.counts((depth,))[0])
    return indexing.one_hot(ids, depth, g.random.choice(("float32", "float32", "float64")))


def _draw(g: _Grower) -> Tensor | None:
    """Numbers and masks of a state that is fed: a stream each, so that any order of the graph draws the same."""
    state = g.state()
    stream, dims = len(g.values), g.some_shape()
    form = g.random.choice(("uniform", "uniform", "bernoulli", "dropout"))
    if form == "dropout":
        return random.Dropout(stream, 0.3)(g.any_float(), state)
    if form == "bernoulli":
        return random.Bernoulli(stream, dims, 0.4)(state)
    return random.RandomUniform(stream, dims, g.random.randint(0, 1), g.random.random() < 0.3, float32)(state)


def _average(g: _Grower) -> Tensor | None:
    """A statistic, which is itself in training, whatever its running average is."""
    x = g.any_float()
    return averages.Averaged(0.9)(x, g.new_float(x.shape, dtype=x.dtype.name))


def _sizes(g: _Grower) -> Tensor | None:
    size = g.random.choice(g.dims)
    dtype = g.random.choice(("float32", "float32", "int64"))
    return leaf.size_of(size, dtype) if g.random.random() < 0.4 else leaf.arange(size, dtype)


STEPS: tuple[Step, ...] = (
    *(_elementwise,) * 6, *(_with_number,) * 2, *(_product,) * 3, *(_reduction,) * 3, *(_view,) * 2,
    *random_shapes.STEPS, *random_lookups.STEPS, *random_products.STEPS, *random_loops.STEPS,
    *random_windows.STEPS,
    _choose, _choose, _bias, _softmax, _cross_entropy, _yes_or_no, _whole_reduction, _lookup, _lookup,
    _accumulate, _accumulate, _classes, _draw, _average,
    _sizes, _integers, _integers, _compare, _compare, _logic, _logic, _convert, _clip,
)  # fmt: skip
