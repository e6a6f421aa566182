"""P, the plan: in which order the kernels run, where every value lives, which updates happen in place.

Symbolic: sizes are still names here. `layout.py` packs the arena once the sizes are known. Knows no device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from flowgraph.errors import VerificationError
from flowgraph.graph.graph import Graph
from flowgraph.graph.size import Size, estimate, evaluate, is_multiple
from flowgraph.graph.tensor import Tensor
from flowgraph.kernels.kernel import Buffer, Call, KernelCall
from flowgraph.ops.leaf import Parameter
from flowgraph.plan.flat import Flat
from flowgraph.plan.in_place import in_order
from flowgraph.plan.layout import Block, liveness_bound
from flowgraph.plan.place import Place, PlannedLoop
from flowgraph.plan.turns import Turning


@dataclass(frozen=True)
class Plan:
    """Calls in order, which of them are one launch, where each tensor lies, the first and last call that may run while
    memory of the arena is needed. Calls of a loop are there once."""

    calls: tuple[KernelCall, ...]
    launches: tuple[range, ...]  # of calls: those of one launch run at the same time
    places: dict[Tensor, Place]
    lifetimes: dict[Tensor, tuple[int, int]]
    in_place: tuple[tuple[Tensor, Tensor], ...]  # (parameter, its new value): written straight into the parameter
    outputs: tuple[Tensor, ...]
    copied: tuple[tuple[Tensor, Tensor, str], ...] = ()  # updates that are not, and why: copied at the step's end
    loops: tuple[PlannedLoop, ...] = ()

    def bytes_of(self, tensor: Tensor) -> Size:
        return tensor.type.count * tensor.dtype.itemsize

    def owners(self, kind: str) -> list[Tensor]:
        """What has memory of a kind."""
        return list(dict.fromkeys(place.of for place in self.places.values() if place.kind == kind))

    def touches(self, call: KernelCall) -> tuple[list[Tensor], list[Tensor]]:
        """The memory that a call reads and writes: a parameter's is one, whichever value lies in it."""
        reads, writes = ([self.places[t].of for t in tensors] for tensors in (call.inputs, call.outputs))
        return reads, writes

    def times(self, call: int, sizes: Mapping[str, int]) -> int:
        """How often a step makes a call: once, but for those in loops."""
        return math.prod(loop.turns for loop in self.turning(sizes) if loop.first <= call < loop.stop)

    def turning(self, sizes: Mapping[str, int]) -> list[Turning]:
        """The loops at these sizes."""
        return [Turning(loop.first, loop.stop, evaluate(loop.turns, sizes)) for loop in self.loops]

    def bytes_alive(self) -> int:
        """The most bytes alive at once, at guessed sizes."""
        sizes = ((estimate(self.bytes_of(t)), span) for t, span in self.lifetimes.items())
        return liveness_bound([Block(size, *span) for size, span in sizes])

    def in_order(self, launches: Sequence[Sequence[int]]) -> Plan:
        """The plan, which has no loops, with its calls in another order, some of them as one launch."""
        calls = tuple(self.calls[k] for launch in launches for k in launch)
        stops = list(accumulate(map(len, launches)))
        ranges = tuple(range(stop - len(launch), stop) for stop, launch in zip(stops, launches, strict=True))
        lifetimes = _lifetimes(calls, ranges, self.places, self.outputs)
        return replace(self, calls=calls, launches=ranges, lifetimes=lifetimes)


def make_plan(graph: Graph, calls: Sequence[Call]) -> Plan:
    """Order the kernels, put updates in place where that is safe, and find every value's lifetime."""
    ordered, in_place, copies = in_order(calls, graph.updates, set(graph.outputs), copy=True)
    flat = Flat({new: parameter for parameter, new in in_place})
    flat.add_all(ordered, (), graph.roots)
    places = flat.places
    for tensor in graph.outputs:
        flat.place(tensor)
    launches = tuple(range(k, k + 1) for k in range(len(flat.calls)))
    lifetimes = _lifetimes(flat.calls, launches, places, graph.outputs, flat.around)
    aligned = tuple(_aligned(call, places) for call in flat.calls)
    return verify_plan(
        Plan(
            aligned, launches, places, lifetimes, tuple(in_place), graph.outputs, tuple(copies),
            tuple(flat.loops),
        ),
        graph,
    )  # fmt: skip


ALIGNED = 4  # elements that memory begins at multiples of, if wide accesses are to be possible


def _aligned(call: KernelCall, places: Mapping[Tensor, Place]) -> KernelCall:
    """The call with a kernel that knows which of its buffers may begin anywhere."""
    tensors = (*call.inputs, *call.outputs)
    if not any(places[t].start != 0 or places[t].steps for t in tensors):
        return call

    def buffer(made: Buffer, tensor: Tensor) -> Buffer:
        place = places[tensor]
        moves = (place.start, *(step.by for step in place.steps))
        return replace(made, aligned=all(is_multiple(by, ALIGNED) for by in moves))

    kernel = call.kernel
    inputs = tuple(map(buffer, kernel.inputs, call.inputs))
    outputs = tuple(map(buffer, kernel.outputs, call.outputs))
    return replace(call, kernel=replace(kernel, inputs=inputs, outputs=outputs))


def _lifetimes(
    calls: Sequence[KernelCall],
    launches: Sequence[range],
    places: dict[Tensor, Place],
    outputs: Sequence[Tensor],
    around: Callable[[Tensor, int], tuple[int, int] | None] = lambda owner, call: None,
) -> dict[Tensor, tuple[int, int]]:
    """What a call touches must be there, and nothing else be in its memory, while any call of its launch runs, and any
    call of a loop around it that the memory outlives a turn of."""
    found: dict[Tensor, tuple[int, int]] = {}
    for launch in launches:
        for number in launch:
            for tensor in (*calls[number].inputs, *calls[number].outputs):
                if places[tensor].kind == "arena":
                    owner = places[tensor].of
                    first, last = around(owner, number) or (launch.start, launch.stop - 1)
                    begun, ended = found.get(owner, (first, last))
                    found[owner] = (min(first, begun), max(last, ended))
    for tensor in outputs:
        if places[tensor].kind == "arena":
            found[places[tensor].of] = (found[places[tensor].of][0], len(calls))
    return found


def verify_plan(plan: Plan, graph: Graph) -> Plan:
    """Every value is written before it is read, and an updated parameter is not read as "old" after it was written."""
    written: set[Tensor] = set()
    replaced: set[Tensor] = set()  # parameters that hold their new value already
    target = {new: parameter for parameter, new in plan.in_place}
    for call in plan.calls:
        for tensor in call.inputs:
            if plan.places[tensor].kind == "arena" and plan.places[tensor].of not in written:
                raise VerificationError(f"plan: {call.kernel.name} reads {tensor} before it is written")
            if tensor in replaced:
                raise VerificationError(f"plan: {call.kernel.name} reads {tensor.label} after it was replaced")
        for tensor in call.outputs:
            written.add(plan.places[tensor].of)
            if tensor in target:
                replaced.add(target[tensor])
            elif isinstance(tensor.op, Parameter):  # a copy into the parameter
                replaced.add(tensor)
    missing = {p for p, _ in graph.updates} - replaced
    if missing:
        raise VerificationError(f"plan: {missing} would not be updated")
    return plan
