"""Orders: which of a kernel's loops is innermost, and in which order a stored value's axes lie in memory.

In: kernels, and an account of how one walks memory (which this room cannot know). Out: the same kernels, some with
their outer loops in another order, some with a buffer whose axes lie in another order, for all that touch it. A graph's
types know nothing of it. What others see keeps its order (inputs, parameters, outputs), and what is read under another
shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TypeAlias

from flowgraph.graph.size import show_shape
from flowgraph.graph.tensor import Tensor
from flowgraph.index_notation import Axis, Expr, Load, transform
from flowgraph.kernels.kernel import Buffer, Call, Kernel, KernelCall, LoopCall, Nest, verify_kernel

_Parts: TypeAlias = "tuple[tuple[Nest, ...], tuple[Buffer, ...], tuple[Buffer, ...]]"
Permuted: TypeAlias = "Callable[[Kernel, frozenset[str], tuple[int, ...]], _Parts]"
WORTH = 0.9  # a change must leave at most this much of what was out of order


@dataclass(frozen=True)
class Walk:
    """How a kernel walks memory: by buffer the elements that are fetched or stored one by one, not side by side; and
    what kind of register tiles it is made in, if any, which it had better stay."""

    single: Mapping[str, float]
    tiled: str

    @property
    def total(self) -> float:
        return sum(self.single.values())


def choose_orders(
    calls: Sequence[Call], fixed: Iterable[Tensor], walk_of: Callable[[Kernel], Walk]
) -> list[Call]:
    """Kernels with fewer accesses out of order; the tensors in `fixed` stay in memory as they are."""
    walk, permuted = cache(walk_of), cache(_permuted)  # equal layers have equal kernels

    @cache
    def best_innermost(kernel: Kernel) -> Axis | None:
        """The outer loop that had better be innermost; None: it may stay as it is."""
        now = walk(kernel)
        if not now.total or any(nest.in_order for nest in kernel.nests):
            return None
        walks = {axis: walk(_with_innermost(kernel, axis)) for axis in kernel.axes[:-1] if axis.extent != 1}
        totals = {axis: other.total for axis, other in walks.items() if other.tiled == now.tiled}
        best = min(totals, key=totals.__getitem__, default=None)
        return best if best is not None and totals[best] <= WORTH * now.total else None

    def loops_in_best_order(kernel: Kernel) -> Kernel:
        axis = best_innermost(kernel)
        return kernel if axis is None else _with_innermost(kernel, axis)

    looped = [call for call in calls if isinstance(call, LoopCall)]
    fixed = {*fixed, *(t for call in looped for t in (*call.inputs, *call.outputs))}
    kernels = [call for call in calls if isinstance(call, KernelCall)]
    made = [replace(call, kernel=loops_in_best_order(call.kernel)) for call in kernels]
    touching: dict[Tensor, list[int]] = {}
    for k, call in enumerate(made):
        for tensor in dict.fromkeys((*call.inputs, *call.outputs)):
            touching.setdefault(tensor, []).append(k)
    free = _free(made, fixed)
    for tensor in free:
        places = touching[tensor]
        if not any(walk(made[k].kernel).single[name] for k in places for name in _names(made[k], tensor)):
            continue
        before = sum(walk(made[k].kernel).total for k in places)
        choices = []
        for order in _orders(tensor.rank):
            changed = [stored_in_order(made[k], tensor, order, permuted) for k in places]
            changed = [replace(call, kernel=loops_in_best_order(call.kernel)) for call in changed]
            choices.append((sum(walk(call.kernel).total for call in changed), changed))
        after, chosen = min(choices, key=lambda choice: choice[0])
        if after <= WORTH * before:
            for k, call in zip(places, chosen, strict=True):
                made[k] = replace(call, kernel=verify_kernel(call.kernel))
    ordered = iter(made)
    return [call if isinstance(call, LoopCall) else next(ordered) for call in calls]


def _free(calls: Sequence[KernelCall], fixed: Iterable[Tensor]) -> list[Tensor]:
    """Values between kernels whose axes may lie in any order, producers first."""
    bound = set(fixed)
    for call in calls:
        for name, tensor in call.operands().items():
            if call.kernel.buffer(name).type.shape != tensor.shape:
                bound.add(tensor)  # the same memory under another shape
        sorts = {sort.buffer for nest in call.kernel.nests for sort in nest.sorts}
        bound.update(t for name, t in call.operands().items() if name in sorts)
    return [t for call in calls for t in call.outputs if t.rank > 1 and t not in bound]


def _names(call: KernelCall, tensor: Tensor) -> Iterator[str]:
    return (name for name, operand in call.operands().items() if operand is tensor)


def _with_innermost(kernel: Kernel, axis: Axis) -> Kernel:
    """The kernel with one of its outer loops innermost."""
    axes = (*(a for a in kernel.axes if a != axis), axis)
    return replace(kernel, axes=axes, reason=f"{kernel.reason}; {axis.name} innermost: memory is walked in order")


def _orders(rank: int) -> Iterator[tuple[int, ...]]:
    """Each axis last, the others as they were."""
    for last in range(rank - 1):
        yield (*(k for k in range(rank) if k != last), last)


def stored_in_order(
    call: KernelCall, tensor: Tensor, order: tuple[int, ...], permuted: Permuted | None = None
) -> KernelCall:
    """The kernel with the tensor's axes in another order in memory: axis order[0] outermost."""
    kernel, names = call.kernel, frozenset(_names(call, tensor))
    nests, inputs, outputs = (permuted or _permuted)(kernel, names, order)
    shape = show_shape(tuple(tensor.shape[k] for k in order))
    reason = f"{kernel.reason}; {', '.join(sorted(names))} lies in memory as {shape}, as it is walked"
    return replace(call, kernel=replace(kernel, nests=nests, inputs=inputs, outputs=outputs, reason=reason))


def _permuted(kernel: Kernel, names: frozenset[str], order: tuple[int, ...]) -> _Parts:
    """A kernel's nests, inputs and outputs with the axes of some buffers in another order."""

    def permuted(index: tuple[Expr, ...]) -> tuple[Expr, ...]:
        return tuple(index[k] for k in order)

    def adapt(expr: Expr) -> Expr:
        def rule(e: Expr) -> Expr | None:
            if isinstance(e, Load) and e.source in names:
                return replace(e, index=permuted(tuple(map(adapt, e.index))))
            return None

        return transform(expr, rule)

    def stored(nest: Nest) -> Nest:
        stores = (replace(s, index=permuted(s.index)) if s.buffer in names else s for s in nest.stores)
        return replace(nest, stores=tuple(stores))

    def buffer(b: Buffer) -> Buffer:
        if b.name not in names:
            return b
        return replace(b, type=replace(b.type, shape=tuple(b.type.shape[k] for k in order)))

    nests = tuple(stored(nest.mapped(adapt)) for nest in kernel.nests)
    return nests, tuple(map(buffer, kernel.inputs)), tuple(map(buffer, kernel.outputs))
