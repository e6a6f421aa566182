"""The reference backend: every node of the optimised graph by its op's NumPy reference. Slow, simple, the oracle."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from flowgraph.graph.graph import Graph
from flowgraph.graph.tensor import Node, Tensor
from flowgraph.graph.text import to_text
from flowgraph.ops.base import concrete, evaluate_node
from flowgraph.ops.leaf import Input, Leaf, Parameter
from flowgraph.ops.scan import Slot
from flowgraph.program import OnChunk, Sizes
from flowgraph.report.debug import Tally
from flowgraph.report.profile import Timed


def evaluate_graph(
    graph: Graph, sizes: Sizes, values: Mapping[Tensor, np.ndarray], spent: dict[Node, float] | None = None
) -> dict[Tensor, np.ndarray]:
    """Every tensor of a graph, given the values of its inputs (and, optionally, of its parameters). The seconds that
    every op took are added to `spent`."""
    found: dict[Tensor, np.ndarray] = dict(values)
    for node in graph.nodes():
        tensor = node.outputs[0]
        if tensor in found:
            continue
        if isinstance(node.op, Parameter):
            found[tensor] = node.op.storage.read()
            continue
        start = 0.0 if spent is None else time.perf_counter()
        op = node.op if isinstance(node.op, Leaf) else concrete(node.op, sizes)
        assert not isinstance(op, (Input, Slot)), f"{op} has no value"
        found.update(evaluate_node(node, op, [found[t] for t in node.inputs]))
        if spent is not None:
            spent[node] = spent.get(node, 0.0) + time.perf_counter() - start
    return found


class ReferenceExecutor:
    """Runs a graph node by node."""

    device = "reference"
    plan = None

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def run(
        self, sizes: Sizes, inputs: Mapping[Tensor, np.ndarray], steps: int, on_chunk: OnChunk | None
    ) -> tuple[np.ndarray, ...]:
        return self._run(sizes, inputs, steps, on_chunk, None)

    def profile(self, sizes: Sizes, inputs: Mapping[Tensor, np.ndarray], steps: int) -> Timed:
        spent: dict[Node, float] = {}
        start = time.perf_counter()
        outputs = self._run(sizes, inputs, steps, None, spent)
        seconds = time.perf_counter() - start
        work = np.array([list(spent.values())])
        clock = "Python's clock, around every op's NumPy reference"
        return Timed(tuple(spent), work, np.zeros_like(work), np.zeros(1), seconds, clock, outputs)

    def _run(
        self,
        sizes: Sizes,
        inputs: Mapping[Tensor, np.ndarray],
        steps: int,
        on_chunk: OnChunk | None,
        spent: dict[Node, float] | None,
    ) -> tuple[np.ndarray, ...]:
        outputs: tuple[np.ndarray, ...] = ()
        for done in range(1, steps + 1):
            found = evaluate_graph(self.graph, sizes, inputs, spent)
            outputs = tuple(np.array(found[t]) for t in self.graph.outputs)
            fresh = [(p.op.storage, np.array(found[new])) for p, new in self.graph.updates]
            for storage, value in fresh:  # all updates read the values from before the step
                storage.write(value)
            if on_chunk is not None:
                on_chunk(done)
        return outputs

    def working(self, sizes: Sizes) -> list[dict[str, int]] | None:
        """None: every value of a step has memory of its own, as NumPy gives it."""
        return None

    def to_compile(self) -> int:
        return 0

    def tally(self) -> Tally | None:
        """None: nothing is compiled."""
        return None

    def files(self) -> dict[str, str]:
        """What runs is the graph itself, as text."""
        return {"graph.txt": to_text(self.graph)}
