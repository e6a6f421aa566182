"""Every way flowgraph has to run a graph, under one signature: `path(graph, feeds, sizes) -> arrays of
graph.roots`.

`graph` is declared (not optimised), `feeds` gives the inputs, parameters hold their own values and keep them.
A path that this installation does not have is not in `PATHS`; to add one, write a function here and enter it
in the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from flowgraph.backends.reference import evaluate_graph
from flowgraph.compile import arrange, compile
from flowgraph.graph.graph import Graph
from flowgraph.graph.tensor import Tensor, apply
from flowgraph.graph.types import TensorType
from flowgraph.kernels.build import build_kernels, loop_call
from flowgraph.kernels.interpret import interpret, interpret_calls
from flowgraph.kernels.kernel import Call, Kernel
from flowgraph.ops.leaf import Constant, Input, Leaf, Parameter
from flowgraph.ops.scan import Scan
from flowgraph.passes.pipeline import OPTIMISE, run_passes

Feeds = Mapping[Tensor, np.ndarray]
Sizes = Mapping[str, int]
Path = Callable[[Graph, Feeds, Sizes], list[np.ndarray]]


@lru_cache(maxsize=2)  # one graph goes down several paths, one after the other
def optimise(graph: Graph) -> Graph:
    """The declared graph after every pass, verified after each."""
    return run_passes(graph, OPTIMISE, check=True)[0]


# The oracle and the passes alone


def declared(graph: Graph, feeds: Feeds, sizes: Sizes) -> list[np.ndarray]:
    """The graph as declared, op by op, by the ops' references."""
    found = evaluate_graph(graph, sizes, feeds)
    return [found[t] for t in graph.roots]


def optimised(graph: Graph, feeds: Feeds, sizes: Sizes) -> list[np.ndarray]:
    """The optimised graph, op by op, by the ops' references."""
    return declared(optimise(graph), feeds, sizes)


# Kernels in the NumPy interpreter


def unfused(graph: Graph, feeds: Feeds, sizes: Sizes) -> list[np.ndarray]:
    """The optimised graph, one kernel a node."""
    graph = optimise(graph)
    memory = leaves(graph, feeds)
    for node in graph.nodes():
        if isinstance(node.op, Scan):
            interpret_calls([loop_call(node)], memory, sizes)
        elif not isinstance(node.op, Leaf):
            kernel, operands = single_kernel(node.op, tuple(t.type for t in node.inputs))
            (memory[node.outputs[0]],) = interpret(kernel, [memory[node.inputs[k]] for k in operands], sizes)
    return [memory[t] for t in graph.roots]


def fused(graph: Graph, feeds: Feeds, sizes: Sizes) -> list[np.ndarray]:
    """The optimised graph in fused kernels."""
    graph = optimise(graph)
    return run_calls(graph, arrange(build_kernels(graph), graph), feeds, sizes)


def run_calls(graph: Graph, calls: Sequence[Call], feeds: Feeds, sizes: Sizes) -> list[np.ndarray]:
    """Kernels one after the other, each seeing only what leaves and earlier kernels gave it."""
    memory = leaves(graph, feeds)
    interpret_calls(calls, memory, sizes)
    return [memory[t] for t in graph.roots]


def leaves(graph: Graph, feeds: Feeds) -> dict[Tensor, np.ndarray]:
    """The values of a graph's inputs, parameters and constants."""
    found: dict[Tensor, np.ndarray] = dict(feeds)
    for node in graph.nodes():
        if isinstance(node.op, Parameter):
            found[node.outputs[0]] = node.op.storage.read()
        elif isinstance(node.op, Constant):
            found[node.outputs[0]] = node.op.array
    return found


@lru_cache(maxsize=4096)
def single_kernel(op: Any, types: tuple[TensorType, ...]) -> tuple[Kernel, tuple[int, ...]]:
    """The kernel of one op on its own, and which operand each of its input buffers is."""
    inputs = [apply(Input(f"operand{k}", t, -1 - k))[0] for k, t in enumerate(types)]
    (call,) = build_kernels(Graph(apply(op, *inputs)))
    return call.kernel, tuple(inputs.index(t) for t in call.inputs)


# Whole programs


def runner(device: Any, graph: Graph, feeds: Feeds, sizes: Sizes) -> Callable[..., list[np.ndarray]]:
    """The graph compiled for a device: `run(steps, ...)` makes one call after the other, each of so many
    steps, returns the outputs of the last and the parameters after it, and puts the parameters back.
    """
    inputs = [n.outputs[0] for n in graph.nodes() if isinstance(n.op, Input)]
    program = compile(inputs, graph.outputs, dict(graph.updates), device=device, check=True)
    data = {t.op.label: feeds[t] for t in inputs}
    known = {name: sizes[name] for name in program.sizes}

    def run(*calls: int) -> list[np.ndarray]:
        before = {p: p.op.storage.read().copy() for p, _ in graph.updates}
        try:
            for steps in calls:
                outputs = program.run(steps, data, sizes=known)
            return [*outputs, *(p.op.storage.read().copy() for p, _ in graph.updates)]
        finally:
            for parameter, value in before.items():
                parameter.op.storage.write(value)

    return run


def through_program(device: Any) -> Path:
    """The path of users: compile for a device, feed by name, read the parameters afterwards."""
    return lambda graph, feeds, sizes: runner(device, graph, feeds, sizes)(1)


PROGRAMS: dict[str, Any] = {"reference": "reference"}  # paths that are whole programs, and their devices
if find_spec("flowgraph.backends.cpu.executor") is not None:
    PROGRAMS["cpu"] = "cpu"
if find_spec("numba_cuda") is not None:  # generated CUDA kernels, their own IR run on the CPU
    from flowgraph.backends.cuda.emulator import EmulatedDevice

    PROGRAMS["cuda"] = EmulatedDevice()

PATHS: dict[str, Path] = {
    "optimised": optimised,
    "unfused": unfused,
    "fused": fused,
    **{name: through_program(device) for name, device in PROGRAMS.items()},
}
