"""Equal kernels are prepared once, however many calls they have, and calls of one code are launched together. Knows no
device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from flowgraph.graph.graph import Graph
from flowgraph.kernels.kernel import Call, Kernel, KernelCall
from flowgraph.plan.plan import Plan, make_plan
from flowgraph.plan.together import launch_together

Prepared = TypeVar("Prepared", bound=Any)  # a dataclass with fields `call`, and `source`: its code


def prepare_once(calls: Sequence[KernelCall], prepare: Callable[[KernelCall], Prepared]) -> list[Prepared]:
    """What `prepare` makes of each call, in order."""
    known: dict[tuple[Kernel, str], Prepared] = {}
    made: list[Prepared] = []
    for call in calls:
        key = call.kernel, call.kernel.name
        if key not in known:
            known[key] = prepare(call)
        made.append(replace(known[key], call=call))
    return made


def plan_launches(
    graph: Graph,
    calls: Sequence[Call],
    prepare: Callable[[KernelCall], Prepared],
    may_wait: Callable[[KernelCall], bool],
    spare: int,
    alone: Callable[[Prepared], bool] = lambda prepared: False,
) -> tuple[Plan, list[Prepared]]:
    """The plan of a graph's kernels, calls of equal source that need not wait for one another in one launch, for which
    `spare` bytes may be spent, but for those that are better launched `alone`; and what `prepare` makes of each call,
    in the plan's order."""
    plan = make_plan(graph, calls)
    prepared = prepare_once(plan.calls, prepare)
    if plan.loops:  # turns are short: what runs together in them would have to wait for what it is to run with
        return plan, prepared
    alike = [number if alone(p) else p.source for number, p in enumerate(prepared)]
    plan, order = launch_together(plan, alike, [may_wait(call) for call in plan.calls], spare)
    return plan, [prepared[number] for number in order]
