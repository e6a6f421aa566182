"""flowgraph's trainer on the examples as given; it gathers its minibatches even so."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.peers import flowgraph_network
from benchmarks.workload import Data

ORDER = "given"


def build(batch: int, hidden: int, data: Data) -> Callable[[int], float]:
    return flowgraph_network.build(batch, hidden, data, shuffle=False)
