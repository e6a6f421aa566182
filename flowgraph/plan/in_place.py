"""The order of calls, and which updates are made in the memory of the old value: a step's of parameters, a turn's of
what a loop carries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flowgraph.graph.order import reaches
from flowgraph.graph.tensor import Tensor
from flowgraph.index_notation import Index, Load, walk
from flowgraph.kernels.build import build_copy
from flowgraph.kernels.kernel import Call, Kernel, KernelCall, LoopCall, Nest
from flowgraph.plan.order import launch_order
from flowgraph.plan.place import given_place


def in_order(
    calls: Sequence[Call], updates: Sequence[tuple[Tensor, Tensor]], kept: set[Tensor], copy: bool
) -> tuple[list[Call], list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor, str]]]:
    """The calls in order; which updates (old, new) are made in the old value's memory; and which are not, and why:
    these are copied at the end if `copy`. Of what is `kept` there is an old and a new value to the end."""
    calls = list(calls)
    after = _dependencies(calls)
    in_place: list[tuple[Tensor, Tensor]] = []
    producer = {t: k for k, call in enumerate(calls) for t in call.outputs}
    readers: dict[Tensor, list[int]] = {}
    for k, call in enumerate(calls):
        for t in call.inputs:
            readers.setdefault(t, []).append(k)
    copies: list[tuple[Tensor, Tensor, str]] = []
    for old, new in updates:
        writer = producer[new]
        making = calls[writer]
        waits = [k for k in readers.get(old, ()) if k != writer]
        why_not = ""
        if isinstance(making, LoopCall):
            why_not = "a loop makes its new value"
        elif not may_overwrite(making, old, new):
            why_not = "its kernel reads other elements of the old value than the one it writes, or reads them later"
        elif new in kept:
            why_not = "its new value is an output, too"
        elif any(reaches(after, writer, k) for k in waits):
            why_not = "a kernel that comes after the new value is computed reads the old one"
        if not why_not:
            assert isinstance(making, KernelCall)
            after[writer].update(waits)
            in_place.append((old, new))
            calls[writer] = start_from_old(making, old, new)
        else:
            copies.append((old, new, why_not))
    if copy:
        for old, new, _ in copies:
            after.append({producer[new], *readers.get(old, ())})
            calls.append(build_copy(new, old))
    written = {new: old for old, new in in_place}
    given = {t for c in calls for t in (*c.inputs, *c.outputs) if given_place(written.get(t, t)) or t in written}
    order = launch_order(calls, after, given, kept)
    return [calls[k] for k in order], in_place, copies


def _dependencies(calls: Sequence[Call]) -> list[set[int]]:
    """For each call the calls whose results it reads."""
    producer = {t: k for k, call in enumerate(calls) for t in call.outputs}
    return [{producer[t] for t in call.inputs if t in producer} for call in calls]


def may_overwrite(call: KernelCall, old: Tensor, new: Tensor) -> bool:
    """Whether a kernel may write `new` over `old`: it reads each old element only to compute the same element, before
    storing it, and never again. (A kernel that does not read `old` may write over it at any time.)"""
    kernel = call.kernel
    target = kernel.outputs[call.outputs.index(new)].name
    if old not in call.inputs:
        return True
    source, view = kernel.inputs[call.inputs.index(old)].name, kernel.inputs[call.inputs.index(old)].type.shape
    if call.inputs.count(old) > 1 or view != kernel.buffer(target).type.shape:
        return False  # read under another shape: other elements at the same point
    storing = [n for n, nest in enumerate(kernel.nests) for s in nest.stores if s.buffer == target]
    if not storing:
        return False
    first = kernel.nests[storing[0]]
    written = next(s for s in first.stores if s.buffer == target)
    if any(s.add for nest in kernel.nests for s in nest.stores if s.buffer == target):
        # a scatter starts by copying the old table, element by element: in place that copy does nothing
        return _only_copied(kernel, source, target)
    for number, nest in enumerate(kernel.nests):
        loads = [e for expr in nest.expressions() for e in walk(expr) if isinstance(e, Load) and e.source == source]
        for e in loads:
            # one point of the kernel's axes: an inner loop would read elements that an earlier turn wrote
            if number > storing[0] or e.index != written.index or not _same_point(kernel, nest, first, e):
                return False
    return len(storing) == 1


def _same_point(kernel: Kernel, reading: Nest, writing: Nest, load: Load) -> bool:
    own = {*map(Index, kernel.axes), *(map(Index, reading.axes) if reading is writing else ())}
    return all(i in own for i in load.index) and len(set(load.index)) == len(load.index)


def _first_storing(kernel: Kernel, target: str) -> int:
    """The number of the nest that stores an output first; those before may look up row numbers."""
    return next(k for k, nest in enumerate(kernel.nests) if any(s.buffer == target for s in nest.stores))


def _only_copied(kernel: Kernel, source: str, target: str) -> bool:
    loads = [e for expr in kernel.expressions() for e in walk(expr) if isinstance(e, Load) and e.source == source]
    first = kernel.nests[_first_storing(kernel, target)].stores[0]
    return (
        first.buffer == target
        and isinstance(first.value, Load)
        and loads == [first.value]
        and first.value.index == first.index
    )


def start_from_old(call: KernelCall, old: Tensor, new: Tensor) -> KernelCall:
    """A scatter into the memory of the table it starts from: the nest that copies that table is left out."""
    kernel = call.kernel
    target = kernel.outputs[call.outputs.index(new)].name
    adds = any(s.add for nest in kernel.nests for s in nest.stores if s.buffer == target)
    if not adds or old not in call.inputs:
        return call
    source = kernel.inputs[call.inputs.index(old)].name
    assert _only_copied(kernel, source, target)
    kept = [k for k, buffer in enumerate(kernel.inputs) if buffer.name != source]
    copying = _first_storing(kernel, target)
    nests = (*kernel.nests[:copying], *kernel.nests[copying + 1 :])
    kernel = replace(kernel, nests=nests, inputs=tuple(kernel.inputs[k] for k in kept))
    return replace(call, kernel=kernel, inputs=tuple(call.inputs[k] for k in kept))
