"""When two results are the same: against float64 truth, with the float32 reference's own error as the
yardstick.

A path may be wrong by 8 times what correct float32 arithmetic is wrong by, plus 4 ulp. What float32 is wrong
by is the error of the float32 reference; where that was lucky (a sum that happened to round well), it is the
error of evaluations in which every operand and every result of every op is off by up to one rounding. That
follows the conditioning of the graph, so neither a cancelling sum nor a long chain needs a tolerance of its
own. Integers and bools must be exact.

A sum of n products, one after the other, rounds its partial sums, which a product of the same numbers elsewhere need
not: a random walk, of n·u/√6 times the terms' root mean square (Higham 2002, section 4.2, in the mean).

Rows that are added one by one to the same row are many roundings, not one: up to n·u·(|base| + Σ|values|) for
n additions of unit roundoff u (Higham 2002, section 4.2). A weight and the sum that is taken from it may be
one such chain (see passes/sparse), so the bound holds for the difference, too.

The logarithm of a sum of exponentials makes of the sum's relative error, one rounding a term, an absolute one, however
small the result: of logits (-4.4, 1.3, 6.3) the sum is 1.0066, its logarithm 0.0065, and unless the 1 is added last,
that is off by two roundings of 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flowgraph.graph.graph import Graph
from flowgraph.graph.size import evaluate as size_value
from flowgraph.graph.tensor import Node, Tensor
from flowgraph.graph.types import DType, TensorType, float32, float64
from flowgraph.index_notation import COMPARISONS, LOGICAL, RANDOM, Apply, walk
from flowgraph.ops.base import Op, concrete
from flowgraph.ops.classification import CrossEntOfSoftmax, LogSoftmax
from flowgraph.ops.elementwise import Add, Multiply, Negative, Subtract
from flowgraph.ops.indexing import AddAlongAxis, ScatterAdd
from flowgraph.ops.leaf import Constant, Parameter
from flowgraph.ops.reduce import Mean, Sum
from flowgraph.ops.scan import Scan, rebuilt
from flowgraph.ops.statistics import LogSumExp

FACTOR = 8.0  # of the reference's own error
ULPS = 4.0
SAMPLES = 8  # of rounding errors, where the reference itself was lucky
DEVIATIONS = 4.0  # of the error of a sum of products from its mean, which a large result may well have somewhere


class Oracle:
    """What a graph's roots are: `truth` in float64, `own` in the declared dtypes, `error` what rounding may
    do to each.
    """

    def __init__(self, graph: Graph, feeds: Mapping[Tensor, np.ndarray], sizes: Mapping[str, int]) -> None:
        self.graph, self.feeds, self.sizes = graph, feeds, sizes
        self.truth = evaluate(graph, feeds, sizes, wide=True)
        self.own = evaluate(graph, feeds, sizes)
        self._noise: list[np.ndarray] | None = None

    def mismatch(self, got: Sequence[np.ndarray]) -> str:
        """Empty if `got` are the graph's roots; else what is wrong with which."""
        for k, tensor in enumerate(self.graph.roots):
            problem = self._mismatch(k, np.asarray(got[k]), tensor.dtype)
            if problem:
                return f"root {k} ({tensor.label or tensor.op.name}: {tensor.type}): {problem}"
        return ""

    def _mismatch(self, k: int, got: np.ndarray, dtype: DType) -> str:
        truth, own = self.truth[k], self.own[k]
        if got.shape != own.shape or got.dtype != dtype.numpy:
            return f"{got.dtype}{got.shape}, not {dtype}{own.shape}"
        if not dtype.is_float:
            bad = got != own
            return _first(bad, got, own, "exactly") if bad.any() else ""
        special = ~np.isfinite(own)
        bad = special & ~((got == own) | (np.isnan(got) & np.isnan(own)))
        bad |= ~special & ~np.isfinite(got)
        if bad.any():
            return _first(bad, got, own, "exactly")
        clean = ~special & np.isfinite(truth)
        got, own, truth = (np.where(clean, a, 0).astype(np.float64) for a in (got, own, truth))
        error = np.abs(got - truth)
        allowed = tolerance(truth, own - truth, dtype)
        if (error <= allowed).all():
            return ""
        if self._noise is None:
            self._noise = self._rounding_errors()
        allowed = tolerance(truth, np.where(clean, self._noise[k], 0), dtype)
        bad = error > allowed
        return _first(bad, got, truth, f"to {allowed[bad].flat[0]:.3g}") if bad.any() else ""

    def _rounding_errors(self) -> list[np.ndarray]:
        """The largest error of each element of each root under random rounding."""
        with np.errstate(invalid="ignore"):
            worst = [
                np.abs(np.nan_to_num(o.astype(np.float64) - t))
                for o, t in zip(self.own, self.truth, strict=True)
            ]
        for seed in range(SAMPLES):
            noisy = evaluate(self.graph, self.feeds, self.sizes, wide=True, noise=np.random.default_rng(seed))
            for k, value in enumerate(noisy):
                if self.graph.roots[k].dtype.is_float:
                    worst[k] = np.maximum(worst[k], np.abs(np.nan_to_num(value - self.truth[k])))
        return worst


def tolerance(truth: np.ndarray, own_error: np.ndarray, dtype: DType) -> np.ndarray:
    """What each element may be off by."""
    with np.errstate(over="ignore"):
        ulp = np.spacing(np.abs(truth).astype(dtype.numpy)).astype(np.float64)
    return FACTOR * np.abs(own_error) + ULPS * np.nan_to_num(ulp)


def _first(bad: np.ndarray, got: np.ndarray, expected: np.ndarray, how: str) -> str:
    place = tuple(int(k) for k in np.argwhere(bad)[0]) if bad.ndim else ()
    count = f"{int(bad.sum())} of {bad.size} wrong"
    return f"element {place} is {got[place]!r}, expected {expected[place]!r} {how} ({count})"


def evaluate(
    graph: Graph,
    feeds: Mapping[Tensor, np.ndarray],
    sizes: Mapping[str, int],
    *,
    wide: bool = False,
    noise: np.random.Generator | None = None,
) -> list[np.ndarray]:
    """The roots by the ops' references; `wide` computes every float in float64, `noise` rounds at random on
    the way.
    """
    given = dict(feeds)
    for node in graph.nodes():
        if isinstance(node.op, Parameter):
            given[node.outputs[0]] = node.op.storage.read()
        elif isinstance(node.op, Constant):
            given[node.outputs[0]] = node.op.array
    with np.errstate(all="ignore"):
        found = _values(graph, given, sizes, wide, noise)
    return [found[t] for t in graph.roots]


def _values(
    graph: Graph,
    given: Mapping[Tensor, np.ndarray],
    sizes: Mapping[str, int],
    wide: bool,
    noise: np.random.Generator | None,
) -> dict[Tensor, np.ndarray]:
    """Every tensor of a graph, in the dtype it is computed in."""

    def kept(value: Any, tensor: Tensor) -> np.ndarray:
        return np.asarray(value, (float64 if wide and tensor.dtype.is_float else tensor.dtype).numpy)

    found: dict[Tensor, np.ndarray] = {t: kept(value, t) for t, value in given.items()}
    sums: Sums = {}
    for node in graph.nodes():
        tensor, op = node.outputs[0], node.op
        if tensor in found:
            continue
        if isinstance(op, Constant):
            found[tensor] = kept(op.array, tensor)
            continue
        if isinstance(op, Scan):
            made = _loop(op, [found[t] for t in node.inputs], sizes, wide, noise)
            found.update((t, kept(value, t)) for t, value in zip(node.outputs, made, strict=True))
            continue
        op = concrete(op, sizes)
        op = widened(op) if wide else op
        local = noise if noise is not None and rounds(node) else None
        value = np.asarray(op.reference(*(_rounded(found[t], t.dtype, local) for t in node.inputs)))
        value = _rounded(value, tensor.dtype, local)
        chain = _additions(node, op, found, sums) if noise is not None and tensor.dtype.is_float else None
        if chain is not None and noise is not None:
            unit = float(np.finfo(tensor.dtype.numpy).eps) / 2
            bound = unit * chain / FACTOR  # times FACTOR again in `tolerance`: the bound is no estimate
            value = value + noise.choice((-1.0, 1.0), np.shape(value)) * bound
        found[tensor] = kept(value, tensor)
    return found


def _loop(
    op: Scan, arrays: Sequence[np.ndarray], sizes: Mapping[str, int], wide: bool, noise: np.random.Generator | None
) -> list[np.ndarray]:
    """A loop, every op of every turn by itself."""
    body, turns = op.inner, size_value(op.length, sizes)
    count, first = len(body.carries), len(body.carries) + len(body.elements)
    carried: Sequence[np.ndarray] = arrays[:count]
    stacked: list[list[np.ndarray]] = [[np.zeros(0)] * turns for _ in body.emits]
    for turn in reversed(range(turns)) if op.reverse else range(turns):
        values = (*carried, *(s[turn] for s in arrays[count:first]), *arrays[first:])
        found = _values(body.graph, dict(zip(body.slots, values, strict=True)), sizes, wide, noise)
        carried = [found[t] for t in body.nexts]
        for stack, tensor in zip(stacked, body.emits, strict=True):
            stack[turn] = found[tensor]
    shapes = ([turns, *(size_value(s, sizes) for s in t.shape)] for t in body.emits)
    return [*carried, *(np.reshape(np.array(stack), shape) for stack, shape in zip(stacked, shapes, strict=True))]


EXACT = (
    frozenset({"select", "cast", "neg", "maximum", "minimum", "absolute", "sign", "floor", "round", *RANDOM})
    | COMPARISONS
    | LOGICAL
)


def rounds(node: Node) -> bool:
    """Whether an op does arithmetic; moving, choosing and comparing elements is exact."""
    if node.op.meaning() != "body":
        return node.op.meaning() != "pieces"
    body = node.op.body(*(t.type for t in node.inputs))
    return body.combiner == "sum" or any(
        isinstance(e, Apply) and e.function not in EXACT for e in walk(body.value)
    )


Sums = dict[Tensor, tuple[np.ndarray, np.ndarray]]  # (additions, sum of magnitudes) of an element


def _additions(node: Node, op: Op, found: Mapping[Tensor, np.ndarray], sums: Sums) -> np.ndarray | None:
    """Additions times magnitudes where an op may add one by one; `sums` follows the multiples of scattered rows to the
    weight they are added to.
    """
    operands = [found[t] for t in node.inputs]
    if isinstance(op, (ScatterAdd, AddAlongAxis)):
        base, ids, added = operands
        count = op.reference(np.zeros_like(base), ids, np.ones_like(added))
        sums[node.outputs[0]] = count, op.reference(np.abs(base), ids, np.abs(added))
        return np.multiply(*sums[node.outputs[0]])
    if isinstance(op, (Sum, Mean)):  # equal terms round alike: half of what n growing partial sums may lose
        (x,) = operands
        return op.reference(np.abs(x)) * _one_by_one(x, op.axes) / 2
    if isinstance(op, (LogSoftmax, LogSumExp)):
        (x,) = operands
        return np.asarray(_one_by_one(x, op.axes if isinstance(op, LogSumExp) else (op.axis,)))
    if isinstance(op, CrossEntOfSoftmax):
        logits, y = operands
        return _one_by_one(logits, (-1,)) * (np.ones(y.shape) if y.dtype.kind == "i" else np.abs(y).sum(axis=-1))
    if op.family == "contraction":
        terms = op.reference(*map(np.ones_like, operands))
        squares = op.reference(*map(np.square, operands))
        return DEVIATIONS * np.sqrt(np.minimum(terms, 256) / 6 * squares)
    place = next((k for k, t in enumerate(node.inputs) if t in sums), None)
    if place is None or not isinstance(op, (Add, Subtract, Multiply, Negative)):
        return None
    count, magnitude = sums[node.inputs[place]]
    other = np.abs(operands[1 - place]) if len(operands) == 2 else np.ones(())
    if isinstance(op, (Add, Subtract)):
        return count * (other + magnitude)
    sums[node.outputs[0]] = count, other * magnitude
    return None


def _one_by_one(x: np.ndarray, axes: tuple[int, ...]) -> float:
    """Additions one after the other in a sum over axes, which adds blocks of 512 terms, then the blocks."""
    terms = x.size // max(1, int(np.prod(np.delete(x.shape, axes))))
    return min(terms, 512) + terms / 512


def widened(op: Any) -> Any:
    """The op making float64 where it made float32."""
    if isinstance(op, Scan):
        return dataclasses.replace(op, inner=rebuilt(op.inner, _wide_type, widened))
    if isinstance(op, Constant) and op.type.dtype is float32:
        return Constant(_wide_type(op.type), op.array.astype(np.float64).tobytes())
    changes = {f.name: float64 for f in dataclasses.fields(op) if getattr(op, f.name) is float32}
    return dataclasses.replace(op, **changes) if changes else op


def _wide_type(type_: TensorType) -> TensorType:
    return TensorType(type_.shape, float64) if type_.dtype is float32 else type_


def _rounded(value: np.ndarray, dtype: DType, noise: np.random.Generator | None) -> np.ndarray:
    """The value off by up to half a unit in the last place of its declared dtype, at random."""
    if noise is None or not dtype.is_float:
        return value
    half_ulp = float(np.finfo(dtype.numpy).eps) / 2
    return value * (1 + noise.uniform(-half_ulp, half_ulp, np.shape(value)))
