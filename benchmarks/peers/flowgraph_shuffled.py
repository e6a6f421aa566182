"""flowgraph's trainer as a user calls it: a new order each epoch."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.peers import flowgraph_network
from benchmarks.workload import Data

ORDER = "own"


def build(batch: int, hidden: int, data: Data) -> Callable[[int], float]:
    return flowgraph_network.build(batch, hidden, data, shuffle=True)
