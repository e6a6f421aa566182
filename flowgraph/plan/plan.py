"""P, the plan: in which order the kernels run, where every value lives, which updates happen in place.

Symbolic: sizes are still names here. `layout.py` packs the arena once the sizes are known. Knows no device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from flowgraph.errors import VerificationError
from flowgraph.graph.graph import Graph
from flowgraph.graph.order import reaches
from flowgraph.graph.size import Size, estimate
from flowgraph.graph.tensor import Tensor
from flowgraph.index_notation import Index, Load, walk
from flowgraph.kernels.build import build_copy
from flowgraph.kernels.kernel import Kernel, KernelCall, Nest
from flowgraph.ops.leaf import Constant, Input, Parameter
from flowgraph.plan.layout import Block, liveness_bound
from flowgraph.plan.order import launch_order


@dataclass(frozen=True)
class Place:
    """Where a tensor lives: "input", "parameter", "constant" (given memory, `of` names it) or "arena"."""

    kind: str
    of: Tensor


@dataclass(frozen=True)
class Plan:
    """Calls in order, which of them are one launch, where each tensor lives, the first and last call that may run while
    an arena value is needed."""

    calls: tuple[KernelCall, ...]
    launches: tuple[range, ...]  # of calls: those of one launch run at the same time
    places: dict[Tensor, Place]
    lifetimes: dict[Tensor, tuple[int, int]]
    in_place: tuple[tuple[Tensor, Tensor], ...]  # (parameter, its new value): written straight into the parameter
    outputs: tuple[Tensor, ...]
    copied: tuple[tuple[Tensor, Tensor, str], ...] = ()  # updates that are not, and why: copied at the step's end

    def bytes_of(self, tensor: Tensor) -> Size:
        return tensor.type.count * tensor.dtype.itemsize

    def touches(self, call: KernelCall) -> tuple[list[Tensor], list[Tensor]]:
        """The memory that a call reads and writes: a parameter's is one, whichever value lies in it."""
        reads, writes = ([self.places[t].of for t in tensors] for tensors in (call.inputs, call.outputs))
        return reads, writes

    def bytes_alive(self) -> int:
        """The most bytes alive at once, at guessed sizes."""
        sizes = ((estimate(self.bytes_of(t)), span) for t, span in self.lifetimes.items())
        return liveness_bound([Block(size, *span) for size, span in sizes])

    def in_order(self, launches: Sequence[Sequence[int]]) -> Plan:
        """The plan with its calls in another order, some of them as one launch."""
        calls = tuple(self.calls[k] for launch in launches for k in launch)
        stops = list(accumulate(map(len, launches)))
        ranges = tuple(range(stop - len(launch), stop) for stop, launch in zip(stops, launches, strict=True))
        lifetimes = _lifetimes(calls, ranges, self.places, self.outputs)
        return replace(self, calls=calls, launches=ranges, lifetimes=lifetimes)


def make_plan(graph: Graph, calls: Sequence[KernelCall]) -> Plan:
    """Order the kernels, put updates in place where that is safe, and find every value's lifetime."""
    calls = list(calls)
    after = _dependencies(calls)
    in_place: list[tuple[Tensor, Tensor]] = []
    producer = {t: k for k, call in enumerate(calls) for t in call.outputs}
    readers: dict[Tensor, list[int]] = {}
    for k, call in enumerate(calls):
        for t in call.inputs:
            readers.setdefault(t, []).append(k)
    copies: list[tuple[Tensor, Tensor, str]] = []
    for parameter, new in graph.updates:
        writer = producer[new]
        waits = [k for k in readers.get(parameter, ()) if k != writer]
        why_not = ""
        if not may_overwrite(calls[writer], parameter, new):
            why_not = "its kernel reads other elements of the old value than the one it writes, or reads them later"
        elif new in graph.outputs:
            why_not = "its new value is an output, too"
        elif any(reaches(after, writer, k) for k in waits):
            why_not = "a kernel that comes after the new value is computed reads the old one"
        if not why_not:
            after[writer].update(waits)
            in_place.append((parameter, new))
            calls[writer] = start_from_old(calls[writer], parameter, new)
        else:
            copies.append((parameter, new, why_not))
    for parameter, new, _ in copies:
        after.append({producer[new], *readers.get(parameter, ())})
        calls.append(build_copy(new, parameter))

    written = {new: parameter for parameter, new in in_place}
    elsewhere = {t for call in calls for t in (*call.inputs, *call.outputs) if _place(t, written).kind != "arena"}
    order = launch_order(calls, after, elsewhere, set(graph.outputs))
    ordered = tuple(calls[k] for k in order)
    places: dict[Tensor, Place] = {}
    for call in ordered:
        for tensor in (*call.inputs, *call.outputs):
            places[tensor] = _place(tensor, written)
    launches = tuple(range(k, k + 1) for k in range(len(ordered)))
    lifetimes = _lifetimes(ordered, launches, places, graph.outputs)
    plan = Plan(ordered, launches, places, lifetimes, tuple(in_place), graph.outputs, tuple(copies))
    return verify_plan(plan, graph)


def _lifetimes(
    calls: Sequence[KernelCall], launches: Sequence[range], places: dict[Tensor, Place], outputs: Sequence[Tensor]
) -> dict[Tensor, tuple[int, int]]:
    """What a call touches must be there, and nothing else be in its memory, while any call of its launch runs."""
    found: dict[Tensor, tuple[int, int]] = {}
    for launch in launches:
        for call in (calls[k] for k in launch):
            for tensor in (*call.inputs, *call.outputs):
                if places[tensor].kind == "arena":
                    first, _ = found.get(tensor, (launch.start, 0))
                    found[tensor] = (first, launch.stop - 1)
    for tensor in outputs:
        found[tensor] = (found[tensor][0], len(calls))
    return found


def _place(tensor: Tensor, written: dict[Tensor, Tensor]) -> Place:
    if tensor in written:
        return Place("parameter", written[tensor])
    for kind, op in (("input", Input), ("parameter", Parameter), ("constant", Constant)):
        if isinstance(tensor.op, op):
            return Place(kind, tensor)
    return Place("arena", tensor)


def _dependencies(calls: Sequence[KernelCall]) -> list[set[int]]:
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


def verify_plan(plan: Plan, graph: Graph) -> Plan:
    """Every value is written before it is read, and an updated parameter is not read as "old" after it was written."""
    written: set[Tensor] = set()
    replaced: set[Tensor] = set()  # parameters that hold their new value already
    target = {new: parameter for parameter, new in plan.in_place}
    for call in plan.calls:
        for tensor in call.inputs:
            if plan.places[tensor].kind == "arena" and tensor not in written:
                raise VerificationError(f"plan: {call.kernel.name} reads {tensor} before it is written")
            if tensor in replaced:
                raise VerificationError(f"plan: {call.kernel.name} reads {tensor.label} after it was replaced")
        for tensor in call.outputs:
            written.add(tensor)
            if tensor in target:
                replaced.add(target[tensor])
            elif isinstance(tensor.op, Parameter):  # a copy into the parameter
                replaced.add(tensor)
    missing = {p for p, _ in graph.updates} - replaced
    if missing:
        raise VerificationError(f"plan: {missing} would not be updated")
    return plan
