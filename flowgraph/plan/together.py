"""Launches that run as one: calls of one compiled kernel that do not wait for one another, whatever their sizes.

In: a plan, and for each of its calls what it has in common with others (equal for calls of the same compiled code) and
whether it may be put off. Out: the plan in an order in which such calls stand side by side, and which of them are one
launch. A step of an optimiser over a hundred small parameters becomes a few launches. No order is taken that needs more
memory at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from heapq import heappop, heappush

from flowgraph.errors import VerificationError
from flowgraph.graph.tensor import Tensor
from flowgraph.plan.plan import Plan

MOST_KINDS = 8  # that are tried: the time stays near linear


def launch_together(
    plan: Plan, alike: Sequence[Hashable], may_wait: Sequence[bool], spare: int
) -> tuple[Plan, list[int]]:
    """The plan with its calls in groups, and the number that each of its calls had before.

    Putting a call off keeps what it reads alive: at most `spare` bytes more may be needed at once (at guessed sizes).
    """
    waits = _waits(plan)
    allowed = plan.bytes_alive() + spare
    kinds = Counter(kind for kind, may in zip(alike, may_wait, strict=True) if may)
    several = [kind for kind, count in kinds.most_common() if count > 1]
    launches = _neighbours(waits, alike)
    chosen: set[Hashable] = set()
    for kind in several[:MOST_KINDS]:
        patient = [may and other in {*chosen, kind} for other, may in zip(alike, may_wait, strict=True)]
        trial = _put_off(waits, alike, patient)
        if len(trial) < len(launches) and plan.in_order(trial).bytes_alive() <= allowed:
            launches = trial
            chosen.add(kind)
    made = plan.in_order(launches)
    if made.bytes_alive() > allowed:  # neighbours: what one of them frees, another one may have used
        return plan, list(range(len(plan.calls)))
    return verify_together(made), [k for launch in launches for k in launch]


def _waits(plan: Plan) -> list[set[int]]:
    """For each call the calls before it that it must come after: one writes what the other one touches."""
    waits: list[set[int]] = []
    writer: dict[Tensor, int] = {}
    readers: dict[Tensor, list[int]] = {}
    for number, call in enumerate(plan.calls):
        reads, writes = plan.touches(call)
        found = {writer[m] for m in (*reads, *writes) if m in writer}
        for memory in writes:
            found.update(readers.pop(memory, ()))
            writer[memory] = number
        for memory in reads:
            readers.setdefault(memory, []).append(number)
        waits.append(found - {number})
    return waits


def _put_off(waits: Sequence[set[int]], alike: Sequence[Hashable], patient: Sequence[bool]) -> list[list[int]]:
    """Launches in an order. A patient call is put off as long as another one can start; then all that are alike and
    ready start as one."""
    followers: list[list[int]] = [[] for _ in waits]
    for number, earlier in enumerate(waits):
        for before in earlier:
            followers[before].append(number)
    missing = [len(earlier) for earlier in waits]
    left = Counter(alike)  # calls of a kind that have not started
    eager: list[int] = []  # a heap of those that are ready and not to be put off, in the order of the plan
    waiting: dict[Hashable, list[int]] = {}  # those that are

    def now_ready(number: int) -> None:
        if patient[number] and left[alike[number]] > 1:
            waiting.setdefault(alike[number], []).append(number)
        else:
            heappush(eager, number)

    for number, count in enumerate(missing):
        if count == 0:
            now_ready(number)
    launches: list[list[int]] = []
    while eager or waiting:
        if eager:
            launch = [heappop(eager)]
            launch += waiting.pop(alike[launch[0]], ())
        else:
            launch = waiting.pop(max(waiting, key=lambda kind: (len(waiting[kind]), -waiting[kind][0])))
        launch.sort()
        launches.append(launch)
        left[alike[launch[0]]] -= len(launch)
        for number in launch:
            for follower in followers[number]:
                missing[follower] -= 1
                if missing[follower] == 0:
                    now_ready(follower)
    return launches


def _neighbours(waits: Sequence[set[int]], alike: Sequence[Hashable]) -> list[list[int]]:
    """The order as it is; neighbours that are alike and do not wait for one another are one launch."""
    launches: list[list[int]] = []
    for number, kind in enumerate(alike):
        if launches and alike[launches[-1][0]] == kind and waits[number].isdisjoint(launches[-1]):
            launches[-1].append(number)
        else:
            launches.append([number])
    return launches


def verify_together(plan: Plan) -> Plan:
    """Calls of one launch run at the same time: none may write what another one touches, nor its memory be reused."""
    if [k for launch in plan.launches for k in launch] != list(range(len(plan.calls))):
        raise VerificationError(f"plan: launches {plan.launches} are not its {len(plan.calls)} calls in order")
    for launch in plan.launches:
        written: set[Tensor] = set()
        read: set[Tensor] = set()
        for call in (plan.calls[k] for k in launch):
            reads, writes = plan.touches(call)
            if written & {*reads, *writes} or read & set(writes):
                raise VerificationError(f"plan: {call.kernel.name} cannot run at the same time as others of its launch")
            written.update(writes)
            read.update(reads)
        for tensor in (t for k in launch for t in (*plan.calls[k].inputs, *plan.calls[k].outputs)):
            first, last = plan.lifetimes.get(tensor, (launch.start, launch.stop))
            if first > launch.start or last < launch.stop - 1:
                raise VerificationError(f"plan: {tensor} does not live as long as the launch {launch} that touches it")
    return plan
