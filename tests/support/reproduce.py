"""From a graph that fails on a path to the smallest one that still does, printed so that a person can start
from it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flowgraph.graph.graph import Graph, substitute
from flowgraph.graph.tensor import Tensor
from flowgraph.graph.text import to_text
from flowgraph.kernels.build import build_kernels
from flowgraph.kernels.kernel import kernel_calls
from flowgraph.ops.leaf import Input, Leaf, Parameter, input
from tests.support.compare import Oracle, evaluate
from tests.support.paths import Path, optimise
from tests.support.random_graphs import Case


def failure(case: Case, path: Path) -> str:
    """What is wrong with a path's results for a case; empty if nothing is."""
    try:
        got = path(case.graph, case.feeds, case.sizes)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return Oracle(case.graph, case.feeds, case.sizes).mismatch(got)


def shrink(case: Case, path: Path) -> Case:
    """One root, the earliest value that is wrong; then as much as possible of what it depends on fed instead
    of computed.
    """
    for smaller in (*_single_roots(case), *_inner_values(case)):
        if len(smaller.graph.nodes()) < len(case.graph.nodes()) and failure(smaller, path):
            case = smaller
    position = 0
    while True:  # from the root backwards: the first cut that works removes most
        nodes = [
            n
            for n in reversed(case.graph.nodes())
            if not isinstance(n.op, Leaf) and n.outputs[0] not in case.graph.roots
        ]
        if position >= len(nodes):
            return case
        smaller = _cut(case, nodes[position].outputs[0])
        if failure(smaller, path):
            case = smaller
        else:
            position += 1


def _inner_values(case: Case) -> list[Case]:
    computed = [n.outputs[0] for n in case.graph.nodes() if not isinstance(n.op, Leaf)]
    return [replace(case, graph=Graph((t,))) for t in reversed(computed)]


def _single_roots(case: Case) -> list[Case]:
    graph = case.graph
    alone = [Graph((t,)) for t in dict.fromkeys(graph.outputs)] + [
        Graph((), (pair,)) for pair in graph.updates
    ]
    return [replace(case, graph=g) for g in alone]


def _cut(case: Case, tensor: Tensor) -> Case:
    """The case with a tensor fed instead of computed."""
    fed = input(f"cut{tensor.node.serial}", tensor.shape, tensor.dtype)
    (value,) = evaluate(Graph((tensor,)), case.feeds, case.sizes)
    graph = substitute(case.graph, {tensor: fed})
    return replace(case, graph=graph, feeds={**case.feeds, fed: value})


def report(case: Case, path_name: str, path: Path) -> str:
    """All there is to know of a failing case, small: graph, kernels, data, and how to get the original
    again.
    """
    small = shrink(case, path)
    graph, parts = (
        small.graph,
        [f"seed {case.seed} on path {path_name!r}: {failure(small, path)}", "", to_text(small.graph)],
    )
    parts.append(f"sizes {small.sizes}")
    with np.printoptions(precision=9, threshold=60):
        for node in graph.nodes():
            if isinstance(node.op, (Input, Parameter)):
                fed = (
                    node.op.storage.read() if isinstance(node.op, Parameter) else small.feeds[node.outputs[0]]
                )
                parts.append(f"{node.outputs[0].label} = {fed!r}")
    try:
        parts += ["", "kernels:", *(str(call.kernel) for call in kernel_calls(build_kernels(optimise(graph))))]
    except Exception as error:  # the failure itself, or a second one: say so
        parts.append(f"no kernels: {type(error).__name__}: {error}")
    again = f"--operations {case.operations} --seed {case.seed} --count 1 --paths {path_name}"
    parts.append(f"again: random_case({case.seed}, {case.operations}), or python -m tests.fuzz {again}")
    return "\n".join(parts)
