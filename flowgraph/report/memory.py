"""Where the bytes of a step go at given sizes: parameters, inputs, constants, and every value of the arena."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flowgraph.graph.graph import Graph
from flowgraph.graph.names import names
from flowgraph.graph.printable import printable
from flowgraph.graph.size import evaluate, show_shape
from flowgraph.graph.tensor import Tensor
from flowgraph.ops.leaf import Constant, Input, Leaf, Parameter
from flowgraph.plan.arena import Working, lay_out
from flowgraph.plan.plan import Plan
from flowgraph.report.table import table


@dataclass(frozen=True)
class Value:
    """One value. `kind` is "parameter", "input", "constant", "arena", "working" (a launch's own memory) or "value" (of
    a backend that plans nothing). In the arena it has an offset in bytes, and lives from launch `first` to launch
    `last`, both included; an output's `last` is the number of launches."""

    name: str
    kind: str
    type: str
    bytes: int
    line: str
    offset: int | None = None
    first: int | None = None
    last: int | None = None


@dataclass(frozen=True)
class Memory:
    """All values of a step. `arena` is its size in bytes; `bound` is what is alive at once at most, so that no layout
    could be smaller; both None for a backend that plans nothing."""

    values: tuple[Value, ...]
    launches: tuple[str, ...]  # the kernels' names, in order
    sizes: Mapping[str, int]
    arena: int | None
    bound: int | None

    def bytes(self, kind: str) -> int:
        """The bytes of all values of a kind."""
        return sum(v.bytes for v in self.values if v.kind == kind)

    @property
    def peak(self) -> int:
        """All the memory of a step: what is given, and the arena (or every value, where nothing is planned)."""
        given = sum(self.bytes(kind) for kind in ("parameter", "input", "constant", "value"))
        return given + (self.arena or 0)

    def alive(self, launch: int) -> tuple[Value, ...]:
        """What is in the arena during a launch."""
        return tuple(v for v in self.values if v.first is not None and v.first <= launch <= (v.last or 0))

    def __str__(self) -> str:
        at = ", ".join(f"{name} = {value}" for name, value in sorted(self.sizes.items()))
        lines = [f"memory of a step{f' at {at}' if at else ''}: {self.peak:,} bytes"]
        for kind in ("parameter", "input", "constant", "value"):
            count = sum(v.kind == kind for v in self.values)
            if count:
                lines.append(f"  {self.bytes(kind):>14,}  {count} {kind}{'s' * (count > 1)}")
        if self.arena is not None:
            kept = self.bytes("arena") + self.bytes("working")
            lines.append(
                f"  {self.arena:>14,}  the arena, shared by values of {kept:,} bytes"
                f" (alive at once: {self.bound or 0:,})"
            )
        rows = [
            (
                v.name,
                v.kind,
                v.type,
                f"{v.bytes:,}",
                "" if v.offset is None else f"{v.offset:,}",
                "" if v.first is None else _span(v.first, v.last or 0, len(self.launches)),
                v.line,
            )
            for v in sorted(self.values, key=_by_kind)
        ]
        head = ("name", "kind", "type", "bytes", "offset", "launches", "declared")
        return "\n".join(lines) + "\n\n" + table(head, rows, right=(3, 4)) + "\n"


_KINDS = ("parameter", "input", "constant", "arena", "working", "value")


def _by_kind(value: Value) -> tuple[int, int, int]:
    return _KINDS.index(value.kind), value.first if value.first is not None else 0, value.offset or 0


def _span(first: int, last: int, launches: int) -> str:
    if last == launches:
        return f"{first} to the end"
    return f"{first}" if first == last else f"{first} to {last}"


def memory_of(graph: Graph, plan: Plan, working: Working | None, sizes: Mapping[str, int]) -> Memory:
    """The memory of a plan; of the values of a graph where `working` is None: then nothing is planned."""
    called = names(graph)

    def value(tensor: Tensor, kind: str, **place: int) -> Value:
        shape = tuple(evaluate(size, sizes) for size in tensor.shape)
        label = tensor.op.label if isinstance(tensor.op, (Input, Parameter)) else called.get(tensor, tensor.op.name)
        line = tensor.origin.lines[0].short if tensor.origin.lines else ""
        nbytes = evaluate(plan.bytes_of(tensor), sizes)
        return Value(printable(label), kind, f"{tensor.dtype}{show_shape(shape)}", nbytes, line, **place)

    launches = tuple(call.kernel.name for call in plan.calls)
    if working is None:
        tensors = [t for node in graph.nodes() for t in node.outputs]
        tensors += [p for p, _ in graph.updates if p not in set(tensors)]
        return Memory(tuple(value(t, _kind(t)) for t in tensors), launches, dict(sizes), None, None)
    arena = lay_out(plan, working, sizes)
    given = {p.of: p.kind for p in plan.places.values() if p.kind != "arena"}
    found = [value(t, kind) for t, kind in given.items()]
    for tensor, block in arena.values.items():
        found.append(value(tensor, "arena", offset=arena.offsets[tensor], first=block.first, last=block.last))
    for number, (offsets, needs) in enumerate(zip(arena.working, working, strict=True)):
        for name, offset in offsets.items():
            found.append(Value(f"{name} of launch {number}", "working", "", needs[name], "", offset, number, number))
    return Memory(tuple(found), launches, dict(sizes), arena.total, arena.bound)


def _kind(tensor: Tensor) -> str:
    if not isinstance(tensor.op, Leaf):
        return "value"
    kinds = ((Parameter, "parameter"), (Input, "input"), (Constant, "constant"))
    return next((kind for op, kind in kinds if isinstance(tensor.op, op)), "value")
