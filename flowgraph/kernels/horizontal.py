"""Kernels side by side: two that do not wait for each other and walk the same memory at the same points become one.

In: kernels, producers first, and a `kind` that says how a kernel would be scheduled (which this room does not know).
Out: fewer kernels, each scheduled as both would have been alone. What it saves is a launch and reading the shared
memory twice.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

from flowgraph.graph.order import reaches, stable_order
from flowgraph.graph.tensor import Tensor
from flowgraph.index_notation import Axis, Expr, Index, Load, Var, transform
from flowgraph.kernels.group import MAX_INPUTS, MAX_NODES
from flowgraph.kernels.kernel import (
    Buffer,
    Call,
    Kernel,
    KernelCall,
    Let,
    LoopCall,
    Nest,
    Reduction,
    Store,
    verify_kernel,
)
from flowgraph.kernels.merge import join_nests, merge_nests

Kind = Callable[[Kernel], Hashable | None]  # None: not to be joined with anything
RECENT = 4  # kernels that are tried for each input: the work stays linear


@dataclass
class _Joined:
    """A kernel, perhaps of several, and those it waits for."""

    call: Call
    kind: Hashable | None
    waits: set[int]
    ancestors: int = 0  # a bit a kernel


def _kind(call: Call, kind: Kind) -> Hashable | None:
    """None too for loops, and for what runs along an axis or sorts: there is little to share."""
    if isinstance(call, LoopCall):
        return None
    kernel = call.kernel
    return None if any(nest.running or nest.sorts for nest in kernel.nests) else kind(kernel)


def join_side_by_side(
    calls: Sequence[Call], updates: Iterable[tuple[Tensor, Tensor]], kind: Kind
) -> list[Call]:
    """Join kernels of equal points and kind that read the same array and do not wait for one another.

    A kernel that writes an update also waits for the other readers of its parameter, if it can: so that joining takes
    no update out of its parameter's memory.
    """
    waits = _waits(calls, updates)
    number_of: dict[int, int] = {}  # where a call went
    made: list[_Joined] = []
    readers: dict[Hashable, list[int]] = {}
    for number in stable_order(waits):
        call = calls[number]
        new = _Joined(call, _kind(call, kind), {number_of[k] for k in waits[number]})
        for k in new.waits:
            new.ancestors |= 1 << k | made[k].ancestors
        place = len(made)
        if new.kind is not None:
            assert isinstance(call, KernelCall)
            keys = [(t, tuple(a.extent for a in call.kernel.axes), new.kind) for t in call.inputs if t.rank]
            candidates = {p for key in keys for p in readers.get(key, ())[-RECENT:]}
            for p in sorted(candidates, reverse=True):
                joined = None if new.ancestors >> p & 1 else _try(made[p], new, kind)
                if joined is not None:
                    place = p
                    made[p] = joined
                    _tell(made, p)
                    break
            for key in keys:
                found = readers.setdefault(key, [])
                if place not in found:
                    found.append(place)
        if place == len(made):
            made.append(new)
        number_of[number] = place
    order = stable_order([m.waits for m in made])
    return [made[k].call for k in order]


def _waits(calls: Sequence[Call], updates: Iterable[tuple[Tensor, Tensor]]) -> list[set[int]]:
    """For each call the producers of what it reads and, where that is no circle, the readers of what it overwrites."""
    producer = {t: k for k, call in enumerate(calls) for t in call.outputs}
    waits = [{producer[t] for t in call.inputs if t in producer} for call in calls]
    readers: dict[Tensor, list[int]] = {}
    for k, call in enumerate(calls):
        for t in call.inputs:
            readers.setdefault(t, []).append(k)
    for parameter, new in updates:
        writer = producer[new]
        before = [k for k in readers.get(parameter, ()) if k != writer]
        if not any(reaches(waits, writer, k) for k in before):
            waits[writer].update(before)
    return waits


def _tell(made: list[_Joined], place: int) -> None:
    """Those that wait for a kernel wait for all that it waits for."""
    for later in made:
        if later.ancestors >> place & 1:
            later.ancestors |= made[place].ancestors


def _try(first: _Joined, second: _Joined, kind: Kind) -> _Joined | None:
    """Both as one, if that is no larger than a kernel may be and is scheduled as each of them was."""
    assert isinstance(first.call, KernelCall) and isinstance(second.call, KernelCall)
    nests = (*first.call.kernel.nests, *second.call.kernel.nests)
    size = sum(len(n.lets) + len(n.reductions) + len(n.stores) for n in nests)
    if size > MAX_NODES or len({*first.call.inputs, *second.call.inputs}) > MAX_INPUTS:
        return None
    call = join_calls(first.call, second.call)
    if kind(call.kernel) != first.kind:
        return None
    waits, ancestors = first.waits | second.waits, first.ancestors | second.ancestors
    return _Joined(call, first.kind, waits, ancestors)


def join_calls(first: KernelCall, second: KernelCall) -> KernelCall:
    """One kernel doing what two do that do not wait for each other and have the same outer extents."""
    a, b = first.kernel, second.kernel
    inputs, outputs = list(a.inputs), list(a.outputs)
    operands = list(first.inputs)
    called: dict[str, str] = {}  # the second kernel's buffers, by their new names
    for buffer, tensor in zip(b.inputs, second.inputs, strict=True):
        for known, operand in zip(inputs, operands, strict=True):
            if operand is tensor and known.type == buffer.type:
                called[buffer.name] = known.name
                break
        else:
            called[buffer.name] = f"x{len(inputs)}"
            inputs.append(Buffer(called[buffer.name], buffer.type))
            operands.append(tensor)
    for buffer in b.outputs:
        called[buffer.name] = f"y{len(outputs)}"
        outputs.append(Buffer(called[buffer.name], buffer.type))
    nests = (*a.nests, *_renamed(b, a.axes, called, _names(a)))
    words: dict[str, None] = dict.fromkeys(f"{a.name}_{b.name}".replace("_kernel", "").split("_"))
    kernel = replace(
        a,
        nests=nests,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        name="_".join(words)[:60].rstrip("_") + "_kernel",
        origin=a.origin.merge(b.origin),
        comments=_comments(a, b, called),
        reason=f"{a.reason}; joined by what reads the same memory at the same points",
    )
    kernel = verify_kernel(join_nests(merge_nests(kernel)))
    return KernelCall(kernel, tuple(operands), (*first.outputs, *second.outputs))


def _names(kernel: Kernel) -> set[str]:
    lets = {let.name for nest in kernel.nests for let in nest.lets}
    return lets | {reduction.name for nest in kernel.nests for reduction in nest.reductions}


def _renamed(kernel: Kernel, axes: Sequence[Axis], buffers: dict[str, str], taken: set[str]) -> list[Nest]:
    """A kernel's nests over other axes and buffers, none of its values called like those that are taken."""
    points: dict[Axis, Expr] = {old: Index(new) for old, new in zip(kernel.axes, axes, strict=True)}
    own = _names(kernel)
    values: dict[str, str] = {}
    for name in sorted(own):
        count, fresh = 1, name
        while fresh in taken or (fresh != name and fresh in own):
            fresh = f"{name.rstrip('_')}_{count}"
            count += 1
        values[name] = fresh
        taken.add(fresh)

    def rule(e: Expr) -> Expr | None:
        if isinstance(e, Index):
            return points.get(e.axis)
        if isinstance(e, Var):
            return Var(values[e.name], e.dtype)
        if isinstance(e, Load):
            return Load(buffers[str(e.source)], tuple(map(adapt, e.index)), e.dtype)
        return None

    def adapt(expr: Expr) -> Expr:
        return transform(expr, rule)

    return [
        Nest(
            nest.axes,
            tuple(Let(values[x.name], adapt(x.value)) for x in nest.lets),
            tuple(Reduction(values[r.name], r.combiner, adapt(r.value)) for r in nest.reductions),
            tuple(Store(buffers[s.buffer], tuple(map(adapt, s.index)), adapt(s.value), s.add) for s in nest.stores),
        )
        for nest in kernel.nests
    ]


def _comments(first: Kernel, second: Kernel, called: dict[str, str]) -> tuple[str, ...]:
    """What both compute, then their buffers under the names they have now."""
    lines: list[str] = []
    buffers: list[str] = []
    for kernel, names in ((first, {x.name: x.name for x in first.buffers}), (second, called)):
        for line in kernel.comments:
            name, verb, rest = line.partition(" is ")
            if verb and name in names:
                buffers.append(f"{names[name]} is {rest}")
            else:
                lines.append(line)
    return tuple(dict.fromkeys((*lines, *buffers)))
