"""Sums of products over named axes: batched products, transposed ones, and whatever `einsum` can say.

One op for two operands: out[...] = the sum, over all labels that the result does not have, of x[...] * y[...]. Its
derivatives are sums of products again.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from flowgraph.errors import DTypeError, ShapeError
from flowgraph.graph import origin as origins
from flowgraph.graph.size import Shape, Size, product, show_shape
from flowgraph.graph.tensor import Tensor
from flowgraph.graph.types import TensorType
from flowgraph.index_notation import Axis, Body, Index, call
from flowgraph.ops.base import Cotangents, Op, Sample, load, require_float, values
from flowgraph.ops.contraction import Mul
from flowgraph.ops.elementwise import equal, where
from flowgraph.ops.leaf import arange, as_operands
from flowgraph.ops.reduce import sum as sum_
from flowgraph.ops.shape import Transpose, expand_dims, reshape, squeeze, transpose


@dataclass(frozen=True)
class Einsum(Op):
    """The sum of products of x and y over labelled axes: `einsum[ij,jk->ik]` is the matrix product.

    No label occurs twice in one operand, and every label of x or y is in the result or in the other operand.
    """

    name: ClassVar[str] = "einsum"
    family: ClassVar[str] = "contraction"
    first: str
    second: str
    result: str

    def attributes(self) -> str:
        return f"{self.first},{self.second}->{self.result}"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        x, y = types
        require_float(self, x, y)
        if x.dtype != y.dtype:
            raise DTypeError(f"einsum needs equal dtypes, got {x} and {y}", hint="convert one with fg.cast")
        sizes = _sizes(str(self.attributes()), ((self.first, x.shape), (self.second, y.shape)))
        return (TensorType(tuple(sizes[c] for c in self.result), x.dtype),)

    def body(self, *types: TensorType) -> Body:
        x, y = types
        sizes = _sizes(self.attributes(), ((self.first, x.shape), (self.second, y.shape)))
        axes = {c: Axis(c, n) for c, n in sizes.items()}
        value = call(
            "mul",
            load(0, x, [Index(axes[c]) for c in self.first]),
            load(1, y, [Index(axes[c]) for c in self.second]),
        )
        summed = tuple(axes[c] for c in sizes if c not in self.result)
        return Body(tuple(axes[c] for c in self.result), value, summed, "sum" if summed else "")

    def over_turns(self, inputs: Sequence[Tensor], stacked: Sequence[bool], turns: Size) -> Tensor | None:
        turn = next(c for c in string.ascii_letters if c not in self.first + self.second)
        first, second = (turn * s + labels for s, labels in zip(stacked, (self.first, self.second), strict=True))
        return Einsum(first, second, turn + self.result)(*inputs)

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,), (x, y) = cotangents, inputs
        by_x = Einsum(self.result, self.second, self.first)(g, y)
        return by_x, Einsum(self.result, self.first, self.second)(g, x)

    def reference(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.einsum(self.attributes(), x, y)

    @classmethod
    def samples(cls) -> list[Sample]:
        cases = [
            ("bij,bjk->bik", (3, 9, 17), (3, 17, 20)),
            ("bqd,bkd->bqk", (2, 5, 33), (2, 18, 33)),
            ("bhqk,bkhd->bqhd", (2, 3, 4, 5), (2, 5, 3, 17)),
            ("ik,jk->ij", (19, 40), (7, 40)),
            ("ij,ij->ij", (5, 18), (5, 18)),
            ("i,j->ij", (5,), (20,)),
            ("ij,j->i", (20, 33), (33,)),
            ("i,i->", (70,), (70,)),
        ]
        made = []
        for text, *shapes in cases:
            operands, result = text.split("->")
            first, second = operands.split(",")
            made.append(Sample(cls(first, second, result), tuple(values(*s, seed=k) for k, s in enumerate(shapes))))
        wide = (values(2, 6, 7, dtype="float64"), values(2, 7, 18, dtype="float64"))
        return [*made, Sample(cls("bij", "bjk", "bik"), wide)]


def _sizes(text: str, operands: Sequence[tuple[str, Shape]]) -> dict[str, Size]:
    """The size of every label, in the order of appearance; ShapeError where two differ."""
    found: dict[str, Size] = {}
    for labels, shape in operands:
        if len(labels) != len(shape):
            raise ShapeError(f"einsum {text}: {labels!r} has {len(labels)} axes, its operand {show_shape(shape)}")
        for label, size in zip(labels, shape, strict=True):
            if found.setdefault(label, size) != size:
                shapes = " and ".join(show_shape(s) for _, s in operands)
                problem = f"einsum {text}: {label!r} is {found[label]} and {size} in shapes {shapes}"
                raise ShapeError(problem, where=origins.here(), hint="a label stands for one size")
    return found


def einsum(subscripts: str, *operands: Any) -> Tensor:
    """Sums of products by labels of axes, as NumPy's einsum: `einsum("bqd,bkd->bqk", queries, keys)`.

    Labels that the result lacks are summed; without `->` the result has the labels that occur once, in alphabetical
    order. `...` stands for the leading axes that all operands share by broadcasting of static 1s. A label twice in one
    operand takes its diagonal. More than two operands are multiplied from left to right.

    Raises ShapeError where labels and shapes do not fit.
    """
    tensors = list(as_operands("einsum", operands))
    labels, result = _parsed(subscripts, tensors)
    terms = [_without_repeats(t, text) for t, text in zip(tensors, labels, strict=True)]
    _sizes(subscripts, [(text, t.shape) for t, text in terms])
    while len(terms) > 1:
        (x, first), (y, second), *rest = terms
        needed = set(result).union(*(text for _, text in rest))
        x, first = _summed(x, first, needed | set(second))
        y, second = _summed(y, second, needed | set(first))
        kept = "".join(dict.fromkeys(c for c in first + second if c in needed))
        if not rest:
            kept = result
        terms = [(_product(x, first, y, second, kept), kept), *rest]
    (x, text) = terms[0]
    x, text = _summed(x, text, set(result))
    return transpose(x, [text.index(c) for c in result]) if text != result else x


def _product(x: Tensor, first: str, y: Tensor, second: str, kept: str) -> Tensor:
    """The product of two, by the lecture's `mul` where it is one; neighbours that are summed together are one axis."""
    run = _joint(first, second, kept)
    if len(run) > 1:
        x, first = _merged(x, first, run)
        y, second = _merged(y, second, run)
    if len(first) == len(second) == len(kept) == 2 and kept == first[0] + second[1] and first[1] == second[0]:
        return Mul()(x, y)
    return Einsum(first, second, kept)(x, y)


def _joint(first: str, second: str, kept: str) -> str:
    """The longest run of summed labels that stand side by side, in one order, in both."""
    runs = (first[i:j] for i in range(len(first)) for j in range(i + 1, len(first) + 1))
    fitting = [r for r in runs if r in second and not set(r) & set(kept)]
    return max(fitting, key=len, default="")


def _merged(x: Tensor, labels: str, run: str) -> tuple[Tensor, str]:
    at = labels.index(run)
    size = product(x.shape[at : at + len(run)])
    return reshape(x, (*x.shape[:at], size, *x.shape[at + len(run) :])), labels.replace(run, run[0])


def _summed(x: Tensor, labels: str, needed: set[str]) -> tuple[Tensor, str]:
    """The tensor summed over the labels that nobody needs."""
    alone = [k for k, c in enumerate(labels) if c not in needed]
    if not alone:
        return x, labels
    return sum_(x, axis=alone), "".join(c for c in labels if c in needed)


def _without_repeats(x: Tensor, labels: str) -> tuple[Tensor, str]:
    """The diagonal along axes of one label."""
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            a = labels.index(label)
            b = labels.index(label, a + 1)
            if x.shape[a] != x.shape[b]:
                raise ShapeError(
                    f"einsum: {label!r} is {x.shape[a]} and {x.shape[b]} in shape {show_shape(x.shape)}",
                    where=origins.here(),
                )
            shapes = [[1] * x.rank, [1] * x.rank]
            places = []
            for axis, shape in zip((a, b), shapes, strict=True):
                missing = [k for k in range(len(shape)) if k != axis]
                places.append(expand_dims(arange(x.shape[axis]), missing))
            x = sum_(where(equal(*places), x, 0.0), axis=b)
            labels = labels[:b] + labels[b + 1 :]
    return x, labels


def _parsed(subscripts: str, tensors: list[Tensor]) -> tuple[list[str], str]:
    """Labels of every operand and of the result, with letters for `...`; of those, axes of size 1 that are broadcast
    are taken away."""

    def wrong(problem: str) -> ShapeError:
        return ShapeError(f"einsum {subscripts!r}: {problem}", where=origins.here())

    text = subscripts.replace(" ", "")
    before, arrow, after = text.partition("->")
    given = before.split(",")
    if len(given) != len(tensors):
        raise wrong(f"{len(given)} operands are named, {len(tensors)} given")
    letters = text.replace("->", "").replace(",", "").replace("...", "")
    if not all(c in string.ascii_letters for c in letters):
        raise wrong("labels are letters")
    spare = [c for c in string.ascii_uppercase + string.ascii_lowercase if c not in letters]
    hidden = [t.rank - len(g.replace("...", "")) for t, g in zip(tensors, given, strict=True) if "..." in g]
    leading = max(hidden, default=0)
    block = "".join(spare[:leading])
    sizes = [
        dict(zip(block[leading - count :], t.shape[g.index("...") :], strict=False))
        for t, g in zip(tensors, given, strict=True)
        if "..." in g and (count := max(t.rank - len(g.replace("...", "")), 0))
    ]
    wide = {letter for found in sizes for letter, size in found.items() if size != 1}
    labels = []
    for k, (tensor, part) in enumerate(zip(tensors, given, strict=True)):
        if "..." in part:
            count = tensor.rank - len(part.replace("...", ""))
            if count < 0:
                raise wrong(f"{part!r} has more axes than shape {show_shape(tensor.shape)}")
            mine = block[leading - count :]
            at = part.index("...")
            ones = [at + n for n in range(count) if tensor.shape[at + n] == 1 and mine[n] in wide]
            if ones:
                mine = "".join(c for n, c in enumerate(mine) if at + n not in ones)
                tensors[k] = squeeze(tensor, ones)
            part = part.replace("...", mine)
        if len(part) != tensors[k].rank:
            raise wrong(f"{part!r} has {len(part)} axes, its operand shape {show_shape(tensors[k].shape)}")
        labels.append(part)
    every = "".join(labels)
    if arrow:
        result = after.replace("...", block)
    else:
        result = block + "".join(sorted(c for c in set(every) - set(block) if every.count(c) == 1))
    unknown = [c for c in result if c not in every]
    if unknown or len(set(result)) != len(result):
        raise wrong(f"the result {after!r} has a label that no operand has, or one twice")
    return labels, result


def tensordot(x: Any, y: Any, axes: int | tuple[Sequence[int], Sequence[int]] = 2) -> Tensor:
    """The sum of products over axes of x and axes of y: the last and first `axes`, or the pairs given. As NumPy's."""
    x, y = as_operands("tensordot", (x, y))
    if isinstance(axes, int):
        pairs = list(zip(range(x.rank - axes, x.rank), range(axes), strict=True))
    else:
        pairs = [(a % x.rank, b % y.rank) for a, b in zip(*axes, strict=True)]
    first = list(string.ascii_lowercase[: x.rank])
    second = list(string.ascii_lowercase[x.rank : x.rank + y.rank])
    for a, b in pairs:
        second[b] = first[a]
    kept = [c for c in first if c not in second] + [c for c in second if c not in first]
    return einsum(f"{''.join(first)},{''.join(second)}->{''.join(kept)}", x, y)


def matmul(x: Any, y: Any) -> Tensor:
    """The matrix product over the last two axes, as NumPy's matmul and `@`; leading axes are batches, and broadcast.

    A vector stands for a row on the left and for a column on the right, and that axis is gone from the result.
    """
    x, y = as_operands("matmul", (x, y))
    if x.rank == 2 and y.rank == 2:
        return Mul()(x, y)
    if x.rank == 0 or y.rank == 0:
        shapes = f"{show_shape(x.shape)} and {show_shape(y.shape)}"
        raise ShapeError(f"matmul needs axes, got shapes {shapes}", where=origins.here(), hint="* is elementwise")
    problem = _misfit(x.shape, y.shape)
    if problem:
        shapes = f"{show_shape(x.shape)} and {show_shape(y.shape)}"
        raise ShapeError(
            f"matmul: shapes {shapes} do not fit: {problem}", where=origins.here(), hint=_transposed_hint(x, y)
        )
    left = "j" if x.rank == 1 else "...ij"
    right = "j" if y.rank == 1 else "...jk"
    result = "..." + ("" if x.rank == 1 else "i") + ("" if y.rank == 1 else "k")
    if x.rank == 1 and y.rank == 1:
        result = ""
    return einsum(f"{left},{right}->{result}", x, y)


def _misfit(x: Shape, y: Shape) -> str:
    """Why matmul cannot multiply these shapes; "" if it can."""
    rows, place = (y[0], "only axis") if len(y) == 1 else (y[-2], "last axis but one")
    if x[-1] != rows:
        return f"the last axis of the first is {x[-1]}, the {place} of the second {rows}"
    first, second = x[:-2], y[:-2]
    pairs = zip(reversed(first), reversed(second), strict=False)
    if any(a != b and 1 not in (a, b) for a, b in pairs):
        return f"the leading axes {show_shape(first)} and {show_shape(second)} do not broadcast"
    return ""


def _transposed_hint(x: Tensor, y: Tensor) -> str:
    """Which factor should have had its last two axes exchanged, if that makes them fit."""
    for name, wrong in (("second", y), ("first", x)):
        op = wrong.op
        reversed_ = isinstance(op, Transpose) and wrong.rank > 2 and op.axes == tuple(reversed(range(wrong.rank)))
        given = (wrong.node.inputs[0] if reversed_ else wrong).shape
        if len(given) > 1:
            swapped = (*given[:-2], given[-1], given[-2])
            if not (_misfit(x.shape, swapped) if wrong is y else _misfit(swapped, y.shape)):
                why = "; .T reverses all axes" if reversed_ else ""
                return f"fg.swapaxes(x, -1, -2) of the {name} exchanges its last two axes{why}"
    return "(..., i, j) @ (..., j, k); a static 1 among leading axes broadcasts"
