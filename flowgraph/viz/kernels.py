"""Kernels -> Picture: one box a kernel, one oval for every buffer in memory, inputs and parameters at the
top.

What has no oval here is never written to memory: the picture shows what fusion saved.
"""

from __future__ import annotations

from collections.abc import Sequence

from flowgraph.graph.graph import Graph
from flowgraph.graph.size import show_shape
from flowgraph.graph.tensor import Tensor
from flowgraph.index_notation import Apply
from flowgraph.kernels.kernel import Call, Kernel, LoopCall, kernel_calls
from flowgraph.viz.graphs import display_names, phases, type_note
from flowgraph.viz.picture import Edge, Picture, Vertex, unique

_KINDS = {"input": "input", "parameter": "parameter", "constant": "constant"}


TITLE = 32  # characters


def from_kernels(graph: Graph, calls: Sequence[Call], title: str = "kernels") -> Picture:
    """The kernels of an optimised graph, in the order they run."""
    called, phase = display_names(graph), phases(graph)
    next_values = {new: parameter for parameter, new in graph.updates}
    ovals: dict[Tensor, str] = {}
    vertices: list[Vertex] = []
    edges: list[Edge] = []

    def oval(tensor: Tensor) -> str:
        if tensor not in ovals:
            ovals[tensor] = f"v{len(ovals)}"
            kind = _KINDS.get(tensor.op.name) or ("output" if tensor in graph.outputs else "value")
            note = type_note(tensor)
            label = called[tensor]
            tooltip = f"{label}: {tensor.type}"
            vertices.append(
                Vertex(ovals[tensor], label, kind, phase.get(tensor.node, "forward"), "", note, tooltip)
            )
        return ovals[tensor]

    for number, call in enumerate(calls):
        id = f"kernel{number}"
        in_place = {
            next_values[t] for t in call.outputs if t in next_values
        }  # one arrow says read and written
        edges += [Edge(oval(t), id) for t in call.inputs if t not in in_place]
        where = phase[call.outputs[0].node]
        vertices.append(_loop(id, call, where) if isinstance(call, LoopCall) else _box(id, call.kernel, where))
        for tensor in call.outputs:
            if tensor in next_values:
                edges.append(Edge(id, oval(next_values[tensor]), "update"))
            if tensor not in next_values or tensor in graph.outputs:
                edges.append(Edge(id, oval(tensor)))
    return Picture(title, tuple(vertices), unique(edges))


def _box(id: str, kernel: Kernel, where: str) -> Vertex:
    tooltip = "\n".join([kernel.name, *kernel.comments])
    return Vertex(id, _title(kernel), "op", where, _family(kernel), _extent(kernel), tooltip)


def _loop(id: str, call: LoopCall, where: str) -> Vertex:
    inner = [each.kernel for each in kernel_calls([call])]
    title = f"loop of {len(inner)} kernel{'s' * (len(inner) != 1)}"
    tooltip = "\n".join(line for kernel in inner for line in (kernel.name, *kernel.comments))
    return Vertex(id, title, "op", where, "loop", f"{call.node.op.length} turns", tooltip)


def _extent(kernel: Kernel) -> str:
    """The points a kernel runs over in parallel."""
    return f"over {show_shape(tuple(a.extent for a in kernel.axes))}" if kernel.axes else ""


def _family(kernel: Kernel) -> str:
    """What dominates a kernel's work, as the family of ops it is coloured like."""
    reductions = [r for nest in kernel.nests for r in nest.reductions]
    if any(
        isinstance(r.value, Apply) and r.combiner == "sum" and r.value.function == "mul" for r in reductions
    ):
        return "contraction"
    if any(store.add for nest in kernel.nests for store in nest.stores):
        return "indexing"
    return "reduce" if reductions else "elementwise"


def _title(kernel: Kernel) -> str:
    """The kernel's ops, as many as fit a box."""
    words = kernel.name.removesuffix("_kernel").split("_")
    shown = " ".join(words)
    return shown if len(shown) <= TITLE else shown[:TITLE].rsplit(" ", 1)[0] + " ..."
