"""Kernels -> Picture: one box a kernel, one oval for every buffer in memory, inputs and parameters at the
top.

What has no oval here is never written to memory: the picture shows what fusion saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flowgraph.graph.graph import Graph
from flowgraph.graph.size import show_shape
from flowgraph.graph.tensor import Tensor
from flowgraph.index_notation import Apply
from flowgraph.kernels.kernel import Call, Kernel, LoopCall, kernel_calls
from flowgraph.ops.leaf import Input, Parameter
from flowgraph.viz.fold import is_bookkeeping, made_by, recorded
from flowgraph.viz.graphs import phases, type_note
from flowgraph.viz.naming import as_in_text
from flowgraph.viz.picture import PHASES, Edge, Picture, Vertex, unique

_KINDS = {"input": "input", "parameter": "parameter", "constant": "constant"}


TITLE = 32  # characters


def from_kernels(graph: Graph, calls: Sequence[Call], title: str = "kernels", *, detail: bool = False) -> Picture:
    """The kernels of an optimised graph, in the order they run.

    What an optimiser keeps is said in the boxes of the kernels that keep it, and the kernels of a trainer's counters
    and records are one box; with `detail` all have boxes, and ovals, of their own.
    """
    return _Drawing(graph, calls, detail).picture(title)


class _Drawing:
    def __init__(self, graph: Graph, calls: Sequence[Call], detail: bool) -> None:
        self.graph, self.calls = graph, calls
        self.values = recorded(graph)
        self.called, self.phase = as_in_text(graph, self.values), phases(graph)
        self.next_values = {new: parameter for parameter, new in graph.updates}
        self.hidden: set[Tensor] = set()
        for call in () if detail else calls:
            self.hidden.update(t for t in (*call.inputs, *call.outputs) if self._is_aside(t))
        self.ovals: dict[Tensor, str] = {}
        self.maker: dict[Tensor, str] = {}  # the box that makes what has no oval
        self.vertices: list[Vertex] = []
        self.edges: list[Edge] = []

    def picture(self, title: str) -> Picture:
        folded = [call for call in self.calls if self._is_bookkeeping_call(call)]
        for number, call in enumerate(self.calls):
            if call not in folded:
                self._draw(f"kernel{number}", call)
        if folded:
            self._fold(folded)
        return Picture(title, tuple(self.vertices), unique(self.edges))

    def _is_aside(self, tensor: Tensor) -> bool:
        """Is it an optimiser's or a trainer's own, not the model's?"""
        kept = self.next_values.get(tensor, tensor)
        if isinstance(kept.op, Input):
            return made_by(kept.node, "order")
        if isinstance(kept.op, Parameter):
            return made_by(kept.node, "optimizer") or is_bookkeeping(kept)
        own = made_by(tensor.node, "diagnostics") or (not tensor.rank and made_by(tensor.node, "optimizer"))
        return own and self.phase[tensor.node] == "update"

    def _is_bookkeeping_call(self, call: Call) -> bool:
        """Is it a trainer's bookkeeping, or what an optimiser counts: computed from its own state alone?"""
        if not self.hidden.issuperset(call.outputs):
            return False
        kept = [self.next_values.get(t, t) for t in call.outputs]
        return all(map(is_bookkeeping, kept)) or self.hidden.issuperset(call.inputs)

    def _oval(self, tensor: Tensor) -> str:
        if tensor not in self.ovals:
            self.ovals[tensor] = f"v{len(self.ovals)}"
            is_output = tensor in self.graph.outputs or tensor in self.values
            kind = _KINDS.get(tensor.op.name) or ("output" if is_output else "value")
            label, phase = self.called[tensor], self.phase.get(tensor.node, "forward")
            tooltip = f"{label}: {tensor.type}"
            self.vertices.append(Vertex(self.ovals[tensor], label, kind, phase, "", type_note(tensor), tooltip))
        return self.ovals[tensor]

    def _reads(self, call: Call, id: str) -> list[Edge]:
        """Arrows from the buffers a kernel reads, and from the kernels that make what has no oval."""
        in_place = {self.next_values[t] for t in call.outputs if t in self.next_values}  # one arrow says both
        shown = [t for t in call.inputs if t not in in_place and t not in self.hidden]
        return [Edge(self._oval(t), id) for t in shown] + [
            Edge(self.maker[t], id) for t in call.inputs if self.maker.get(t, id) != id
        ]

    def _draw(self, id: str, call: Call) -> None:
        self.edges += self._reads(call, id)
        where = min((self.phase[t.node] for t in call.outputs), key=PHASES.index)  # that it is needed for first
        kept = [self.next_values.get(t, t) for t in (*call.inputs, *call.outputs) if t in self.hidden]
        names = [(t.label or "").rsplit("/", 1)[-1] for t in kept if t.rank and isinstance(t.op, Parameter)]
        keeps = ", ".join(dict.fromkeys(names))
        box = _loop(id, call, where) if isinstance(call, LoopCall) else _box(id, call.kernel, where)
        self.vertices.append(replace(box, note=f"{box.note}, {keeps}" if box.note else keeps) if keeps else box)
        for tensor in call.outputs:
            if tensor in self.hidden:
                self.maker[tensor] = id
                continue
            if tensor in self.next_values:
                self.edges.append(Edge(id, self._oval(self.next_values[tensor]), "update"))
            if tensor not in self.next_values or tensor in self.graph.outputs:
                self.edges.append(Edge(id, self._oval(tensor)))

    def _fold(self, calls: Sequence[Call]) -> None:
        """Counters and records: one box for all of their kernels."""
        tooltip = "\n".join(kernel.kernel.name for kernel in kernel_calls(calls))
        label = f"{len(calls)} more kernel{'s' * (len(calls) != 1)}"
        self.vertices.append(Vertex("more", label, "op", "update", "optimizer", "counters, records", tooltip))
        for call in calls:
            self.edges += self._reads(call, "more")


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
