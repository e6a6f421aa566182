"""What a kernel does at given sizes, read off K: floating-point operations, and bytes that must be moved.

Operations are additions, subtractions, multiplications, divisions and functions, one each; comparisons, choices and
arithmetic on indices are none. Bytes are those of the distinct elements that are read and written, however often:
what a cache as large as the arrays would leave. Where an index is not affine, each point counts as an element of its
own, and no array counts for more than it holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from flowgraph.graph.size import evaluate
from flowgraph.graph.tensor import Tensor
from flowgraph.index_notation import ARITHMETIC, TRANSCENDENTAL, Apply, Axis, Expr, Index, Load, Var, reindex, walk
from flowgraph.kernels.kernel import KernelCall

COUNTED = ARITHMETIC | TRANSCENDENTAL

Sizes = Mapping[str, int]


@dataclass(frozen=True)
class Work:
    """Of one launch."""

    operations: int
    read: int  # bytes
    written: int  # bytes

    @property
    def bytes(self) -> int:
        return self.read + self.written

    def times(self, count: int) -> Work:
        """Of as many launches."""
        return Work(count * self.operations, count * self.read, count * self.written)


def points(axes: Iterable[Axis], sizes: Sizes) -> int:
    """How often a loop over these axes is at its innermost."""
    return prod(evaluate(axis.extent, sizes) for axis in axes)


def operations_in(*values: Expr) -> int:
    """The floating-point operations of expressions, equal parts counted once in each."""
    found = (e for value in values for e in walk(value))
    return sum(isinstance(e, Apply) and e.dtype.is_float and e.function in COUNTED for e in found)


def work_of(call: KernelCall, sizes: Sizes) -> Work:
    """The work of a launch at these values of the named sizes."""
    kernel, tensor_of = call.kernel, call.operands()
    outer = points(kernel.axes, sizes)
    inputs = {b.name for b in kernel.inputs}
    read: dict[Tensor, dict[tuple[Expr, ...], int]] = {}  # by tensor, by index: how many elements are touched
    written: dict[Tensor, dict[tuple[Expr, ...], int]] = {}
    depends: dict[str, frozenset[Axis]] = {}  # the axes that a named value changes along
    operations = 0

    def axes_in(exprs: Iterable[Expr]) -> frozenset[Axis]:
        found: set[Axis] = set()
        for expr in exprs:
            for e in walk(expr):
                if isinstance(e, Index):
                    found.add(e.axis)
                elif isinstance(e, Var):
                    found |= depends[e.name]
        return frozenset(found)

    for nest in kernel.nests:
        here = outer * points(nest.axes, sizes)
        # Two nests that walk the same elements name their axes differently.
        alike: dict[Axis, Expr] = {a: Index(Axis(f"_{k}", a.extent)) for k, a in enumerate(nest.axes)}

        def touch(
            into: dict[Tensor, dict[tuple[Expr, ...], int]],
            name: str,
            index: tuple[Expr, ...],
            alike: dict[Axis, Expr] = alike,
        ) -> None:
            key = tuple(reindex(e, alike) for e in index)
            into.setdefault(tensor_of[name], {})[key] = points(axes_in(index), sizes)

        for let in nest.lets:
            depends[let.name] = axes_in([let.value])
            operations += here * operations_in(let.value)
        for reduction in nest.reductions:
            depends[reduction.name] = frozenset((*kernel.axes, *(nest.axes if reduction.running else ())))
            combines = reduction.value.dtype.is_float and reduction.combiner == "sum"
            operations += here * (operations_in(reduction.value) + combines)
        for store in nest.stores:
            operations += here * (operations_in(store.value) + (store.add and store.value.dtype.is_float))
            touch(written, store.buffer, store.index)
        for sort in nest.sorts:
            touch(written, sort.buffer, sort.index)
        for expr in nest.expressions():
            for e in walk(expr):
                if isinstance(e, Load) and str(e.source) in inputs:  # what it stored itself is not read anew
                    touch(read, str(e.source), e.index)

    def nbytes(touched: dict[Tensor, dict[tuple[Expr, ...], int]]) -> int:
        return sum(
            min(sum(counts.values()), evaluate(t.type.count, sizes)) * t.dtype.itemsize for t, counts in touched.items()
        )

    return Work(operations, nbytes(read), nbytes(written))
