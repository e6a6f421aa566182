"""Equal kernels are prepared once, however many launches they have. Knows no device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from flowgraph.kernels.kernel import Kernel, KernelCall

Prepared = TypeVar("Prepared", bound=Any)  # a dataclass with a field `call`


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
