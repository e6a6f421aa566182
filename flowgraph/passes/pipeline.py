"""The one ordered list of passes, and the observer that records what each of them did.

Nothing else orders passes. `before_differentiation` runs on the forward graph, `optimise` on the whole step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flowgraph.graph.graph import Graph, verify
from flowgraph.graph.tensor import Tensor
from flowgraph.graph.text import to_text
from flowgraph.passes.algebra import simplify_algebra
from flowgraph.passes.block_weights import block_weights
from flowgraph.passes.continue_sums import continue_sums
from flowgraph.passes.cse import eliminate_common_subexpressions
from flowgraph.passes.expand import expand_composites
from flowgraph.passes.fold import fold_constants
from flowgraph.passes.guard import guard_indices
from flowgraph.passes.hoist import hoist, hoist_lookups
from flowgraph.passes.join_pads import join_pads
from flowgraph.passes.loops import inside, join_loops, materialise_loops, tidy_loops
from flowgraph.passes.materialise import materialise_roots
from flowgraph.passes.one_hot import look_up_one_hot
from flowgraph.passes.rows import row_updates
from flowgraph.passes.sparse import sparse_updates
from flowgraph.passes.stabilise import stabilise
from flowgraph.passes.streams import number_streams

Pass = Callable[[Graph], Graph]


def before_differentiation(graph: Graph, targets: Sequence[Tensor]) -> Graph:
    """The forward graph made stable. Gradients are asked for tensors, not for values: a target must stay on
    its way to the cost and must not become one with another of equal value, so folding and CSE wait for
    `OPTIMISE`.
    """
    stable = stabilise(graph, keep=frozenset(targets))
    stable = look_up_one_hot(stable, keep=frozenset(stable.outputs[1:]))
    stable = inside((*SIMPLIFY, stabilise, tidy_loops, hoist_lookups), "simplify_bodies")(stable)
    return hoist_lookups(tidy_loops(stable, keep=frozenset(stable.outputs[1:])))


SIMPLIFY: tuple[Pass, ...] = (fold_constants, simplify_algebra, eliminate_common_subexpressions)

OPTIMISE: tuple[Pass, ...] = (
    number_streams,
    *SIMPLIFY,
    stabilise,
    look_up_one_hot,
    inside((*SIMPLIFY, stabilise, tidy_loops, hoist), "simplify_bodies"),
    tidy_loops,
    hoist,
    *SIMPLIFY,
    tidy_loops,
    join_loops,
    tidy_loops,
    *SIMPLIFY,
    guard_indices,
    sparse_updates,
    row_updates,
    continue_sums,
    join_pads,
    expand_composites,
    *SIMPLIFY,
    inside((guard_indices, join_pads, expand_composites, *SIMPLIFY, tidy_loops), "optimise_bodies"),
    eliminate_common_subexpressions,
    tidy_loops,
    materialise_roots,
    materialise_loops,
)


def optimise(blocks: bool) -> tuple[Pass, ...]:
    """`OPTIMISE`, for a device that wants the weights of loops in blocks of columns, or for one that does not."""
    if not blocks:
        return OPTIMISE
    last = OPTIMISE.index(materialise_roots)
    return (*OPTIMISE[:last], block_weights, eliminate_common_subexpressions, *OPTIMISE[last:])


@dataclass(frozen=True)
class Record:
    """What one pass did."""

    name: str
    seconds: float
    nodes_before: int
    nodes_after: int
    changed: bool
    before: Graph
    after: Graph

    def __str__(self) -> str:
        change = f"{self.nodes_before} -> {self.nodes_after} nodes" if self.changed else "(unchanged)"
        return f"{self.name:<34} {1e3 * self.seconds:7.2f} ms  {change}"

    def text(self) -> str:
        """Before and after, in the text form."""
        return f"== before {self.name}\n{to_text(self.before)}== after {self.name}\n{to_text(self.after)}"


def run_passes(graph: Graph, passes: Sequence[Pass], *, check: bool = False) -> tuple[Graph, list[Record]]:
    """Apply the passes in order, verified after each if `check`. Returns the graph and what happened."""
    records = []
    for function in passes:
        start = time.perf_counter()
        after = function(graph)
        seconds = time.perf_counter() - start
        if check:
            verify(after, function.__name__)
        records.append(
            Record(
                function.__name__,
                seconds,
                len(graph.nodes()),
                len(after.nodes()),
                after is not graph,
                graph,
                after,
            )
        )
        graph = after
    return graph, records
