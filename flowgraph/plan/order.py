"""The order of launches: as given, or so that memory is freed early, whichever needs less memory at once.

Sizes are still names when this is decided; each is guessed.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence

from flowgraph.graph.order import stable_order
from flowgraph.graph.size import estimate
from flowgraph.graph.tensor import Tensor
from flowgraph.kernels.kernel import Call
from flowgraph.plan.layout import Block, liveness_bound


def launch_order(
    calls: Sequence[Call], waits: Sequence[Collection[int]], given: Collection[Tensor], kept: Collection[Tensor]
) -> list[int]:
    """Numbers of the calls, each after those in `waits[number]`. `given` tensors have memory of their own, `kept` ones
    live until the end."""
    size = {t: estimate(t.type.count) * t.dtype.itemsize for c in calls for t in c.outputs if t not in given}
    plain = stable_order(waits)
    freeing = _freeing_order(calls, waits, size, kept)
    return min(plain, freeing, key=lambda order: _most_alive(calls, order, size, kept))  # the plain one if equal


def _most_alive(
    calls: Sequence[Call], order: Sequence[int], size: dict[Tensor, int], kept: Collection[Tensor]
) -> int:
    spans: dict[Tensor, tuple[int, int]] = {}
    for position, number in enumerate(order):
        for tensor in (*calls[number].inputs, *calls[number].outputs):
            if tensor in size:
                last = len(order) if tensor in kept else position
                spans[tensor] = (spans.get(tensor, (position, 0))[0], last)
    return liveness_bound([Block(size[t], *span) for t, span in spans.items()])


def _freeing_order(
    calls: Sequence[Call], waits: Sequence[Collection[int]], size: dict[Tensor, int], kept: Collection[Tensor]
) -> list[int]:
    """Always the launch that adds the fewest bytes to those alive, the first of them if there are several."""
    readers: dict[Tensor, set[int]] = {}
    for number, call in enumerate(calls):
        for tensor in call.inputs:
            if tensor in size and tensor not in kept:
                readers.setdefault(tensor, set()).add(number)
    waiting = [len(w) for w in waits]
    followers: list[list[int]] = [[] for _ in waits]
    for number, earlier in enumerate(waits):
        for before in earlier:
            followers[before].append(number)

    def added(number: int) -> int:
        call = calls[number]
        new = sum(size.get(t, 0) for t in call.outputs)
        return new - sum(size[t] for t in set(call.inputs) if readers.get(t) == {number})

    ready = [(added(number), number) for number, count in enumerate(waiting) if count == 0]
    heapq.heapify(ready)
    order: list[int] = []
    done: set[int] = set()
    while ready:
        _, number = heapq.heappop(ready)
        if number in done:
            continue  # an entry from before it became cheaper
        done.add(number)
        order.append(number)
        cheaper = set[int]()
        for tensor in set(calls[number].inputs):
            if tensor in readers:
                readers[tensor].discard(number)
                if len(readers[tensor]) == 1:
                    cheaper |= {r for r in readers[tensor] if waiting[r] == 0}
        for follower in followers[number]:
            waiting[follower] -= 1
            if waiting[follower] == 0:
                cheaper.add(follower)
        for other in cheaper:
            heapq.heappush(ready, (added(other), other))
    return order
