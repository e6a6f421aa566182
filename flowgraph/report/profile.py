"""Where the time of a step goes: measured by launch, divided over the ops of each kernel, added up by the user's lines.

A backend measures (`Timed`); this module attributes. A launch's time is what was measured. Inside a kernel nothing is:
its time is divided over its ops in proportion to what each is estimated to cost (`estimate`), so lines that share a
kernel share its time by estimate, and the table says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flowgraph.graph.graph import Graph
from flowgraph.graph.names import names
from flowgraph.graph.origin import SourceLine
from flowgraph.graph.size import evaluate
from flowgraph.graph.tensor import Node
from flowgraph.index_notation import CHEAP, DIVIDING, FREE, RANDOM, Apply, Axis, Expr, walk
from flowgraph.kernels.fuse import Fusion
from flowgraph.kernels.group import body_of, is_contraction
from flowgraph.kernels.kernel import KernelCall
from flowgraph.kernels.work import Work, operations_in, points, work_of
from flowgraph.ops.leaf import Leaf
from flowgraph.plan.plan import Plan
from flowgraph.report.explain import kernels_of_groups, whole_fusion
from flowgraph.report.table import table

# Of one operation on one element, in multiples of an addition in a vector; rough. TILE is a multiplication and an
# addition in a product, MEMORY the store of a result.
DIVISION, FUNCTION, DRAW, TILE, MEMORY = 2.0, 8.0, 30.0, 0.6, 1.0
MOST_CODE = 72  # characters of a line that are shown


@dataclass(frozen=True)
class Timed:
    """What a backend measured in all steps together. `parts` are the plan's launches or, where nothing is planned, the
    nodes it evaluated; `work` and `wait` are seconds by [thread, part]; `rest` by [thread]: at the end of a step."""

    parts: Sequence[KernelCall | Node]
    work: np.ndarray
    wait: np.ndarray
    rest: np.ndarray
    seconds: float  # from the first step's beginning to the last one's end
    clock: str  # how it was measured
    outputs: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class LaunchTime:
    """A launch, or an op of a backend that has no kernels; of one step. `seconds` are those of the thread that works
    longest, `work` those of all threads, `wait` those that threads spend at the barrier before it."""

    number: int
    name: str
    lines: tuple[str, ...]
    seconds: float
    work: float
    wait: float
    operations: int
    bytes: int

    @property
    def operation_rate(self) -> float:
        """Floating-point operations a second; 0 where no time was measured."""
        return self.operations / self.seconds if self.seconds else 0.0

    @property
    def byte_rate(self) -> float:
        """Bytes a second; 0 where no time was measured."""
        return self.bytes / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class OpTime:
    """An op's share of a launch, by estimate; of one step."""

    name: str
    op: str
    line: SourceLine | None
    backward: bool
    launch: int
    seconds: float


@dataclass(frozen=True)
class LineTime:
    """A line of the user's: what it declared, and the gradients of that; of one step."""

    line: SourceLine | None
    forward: float
    backward: float

    @property
    def seconds(self) -> float:
        return self.forward + self.backward


@dataclass(frozen=True)
class Profile:
    """Prints as tables, its parts are data. All seconds are of one step, on average."""

    steps: int
    sizes: Mapping[str, int]
    threads: int
    seconds: float
    launches: tuple[LaunchTime, ...]
    ops: tuple[OpTime, ...]
    rest: float  # seconds of all threads at the ends of steps
    planned: bool  # whether launches are kernels; else they are ops
    clock: str
    outputs: tuple[np.ndarray, ...]  # of the last step

    @property
    def lines(self) -> tuple[LineTime, ...]:
        """The user's lines, the slowest first."""
        found: dict[tuple[str, int] | None, list[float]] = {}
        lines: dict[tuple[str, int] | None, SourceLine | None] = {}
        for op in self.ops:
            place = (op.line.file, op.line.line) if op.line else None  # whatever the column
            lines.setdefault(place, op.line)
            found.setdefault(place, [0.0, 0.0])[op.backward] += op.seconds
        made = [LineTime(lines[place], *both) for place, both in found.items()]
        return tuple(sorted(made, key=lambda line: -line.seconds))

    @property
    def waiting(self) -> float:
        """Seconds that threads wait for one another, added up: before launches, and at the ends of steps."""
        return sum(launch.wait for launch in self.launches) + self.rest if self.threads > 1 else 0.0

    def __str__(self) -> str:
        at = ", ".join(f"{name} = {value}" for name, value in sorted(self.sizes.items()))
        spent = self.threads * self.seconds
        work = sum(launch.work for launch in self.launches)

        def share(seconds: float) -> str:
            return f"{100 * seconds / spent:.1f} %" if spent else "-"

        count = f"{self.steps} step{'s' * (self.steps > 1)}"
        head = f"profile of {count}{f' at {at}' if at else ''}: {_us(self.seconds)} us a step"
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}"
        head += (
            f"\n  time of {threads}: {share(work)} work, {share(self.waiting)} waiting for one another, "
            f"{share(spent - work - self.waiting)} else\n  measured by {self.clock}"
        )
        busy = sum(launch.seconds for launch in self.launches)
        launches = [
            (
                str(one.number),
                one.name,
                _us(one.seconds),
                _percent(one.seconds, busy),
                _us(one.wait),
                f"{one.bytes:,}",
                _giga(one.byte_rate),
                f"{one.operations:,}",
                _giga(one.operation_rate),
                ", ".join(one.lines[:3]) + (", ..." if len(one.lines) > 3 else ""),
            )
            for one in self.launches
        ]
        what = "kernel" if self.planned else "op"
        columns = ("", what, "us", "%", "wait us", "bytes", "GB/s", "operations", "GF/s", "lines")
        lines = [
            (
                _us(one.seconds),
                _percent(one.seconds, busy),
                _us(one.forward),
                _us(one.backward),
                one.line.short if one.line else "(no line)",
                _short(one.line.code) if one.line else "",
            )
            for one in self.lines
        ]
        of_lines = ("us", "%", "forward", "backward", "line", "")
        return (
            f"{head}\n\n{table(columns, launches, right=(0, 2, 3, 4, 5, 6, 7, 8))}\n\n"
            f"by line{' (lines that share a kernel share its time by estimate)' if self.planned else ''}\n\n"
            f"{table(of_lines, lines, right=(0, 1, 2, 3))}\n"
        )


def _short(code: str) -> str:
    return code if len(code) <= MOST_CODE else code[: MOST_CODE - 3] + "..."


def _us(seconds: float) -> str:
    return f"{1e6 * seconds:,.2f}"


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f}" if whole else "-"


def _giga(rate: float) -> str:
    return f"{rate / 1e9:.2f}" if rate else "-"


def profile_of(graph: Graph, plan: Plan, timed: Timed, steps: int, sizes: Mapping[str, int]) -> Profile:
    """Attribute what a backend measured in `steps` steps of a graph."""
    graphs = (*(loop.body for loop in plan.loops), graph)
    called = {t: name for each in graphs for t, name in names(each).items()}
    members = _members(graph, plan)
    seconds = timed.work.max(axis=0, initial=0.0) / steps
    launches, ops = [], []
    for number, part in enumerate(timed.parts):
        if isinstance(part, KernelCall):
            name, work = part.kernel.name, work_of(part, sizes).times(plan.times(number, sizes))
            shares = members[number] or {part.outputs[0].node: 1.0}  # a copy: of whom it copies to
            lines = part.kernel.origin.lines
        else:
            name, work, shares, lines = called[part.outputs[0]], _node_work(part, sizes), {part: 1.0}, part.origin.lines
        shares = _weighed(shares, sizes) if len(shares) > 1 else dict.fromkeys(shares, 1.0)
        launches.append(
            LaunchTime(
                number,
                name,
                tuple(dict.fromkeys(line.short for line in lines)),
                float(seconds[number]),
                float(timed.work[:, number].sum() / steps),
                float(timed.wait[:, number].sum() / steps),
                work.operations,
                work.bytes,
            )
        )
        total = sum(shares.values())
        for node, share in shares.items():
            line = node.origin.lines[0] if node.origin.lines else None
            backward = "backward" in node.origin.passes
            tensor = node.outputs[0]
            spent = float(seconds[number]) * share / total
            ops.append(OpTime(called.get(tensor, tensor.op.name), node.op.name, line, backward, number, spent))
    return Profile(
        steps,
        dict(sizes),
        len(timed.work),
        timed.seconds / steps,
        tuple(launches),
        tuple(ops),
        float(timed.rest.sum() / steps),
        all(isinstance(part, KernelCall) for part in timed.parts),
        timed.clock,
        timed.outputs,
    )


def _members(graph: Graph, plan: Plan) -> list[dict[Node, float]]:
    """The ops that each launch computes, with what they read through: how often each stores its result."""
    fusion = whole_fusion(graph, plan)
    found: list[dict[Node, float]] = [{} for _ in plan.calls]
    for number, kernel in kernels_of_groups(plan, fusion).items():
        for node in (n for n in fusion.groups[number].nodes if n.op.meaning() != "loop"):
            found[kernel][node] = float(node.outputs[0] in fusion.stored)
            for read in _read_through(node, fusion):
                found[kernel].setdefault(read, 0.0)
    return found


def _read_through(node: Node, fusion: Fusion) -> Iterable[Node]:
    stack, seen = list(node.inputs), set[Node]()
    while stack:
        inner = stack.pop().node
        if inner in fusion.inlined and inner not in seen:
            seen.add(inner)
            stack.extend(inner.inputs)
            yield inner


def _weighed(members: Mapping[Node, float], sizes: Mapping[str, int]) -> dict[Node, float]:
    """What the ops of a kernel are estimated to cost; equal shares where nothing is computed at all."""
    found = {node: estimate(node, sizes) + MEMORY * stores * _count(node, sizes) for node, stores in members.items()}
    return found if any(found.values()) else dict.fromkeys(members, 1.0)


def _count(node: Node, sizes: Mapping[str, int]) -> int:
    return evaluate(node.outputs[0].type.count, sizes)


def estimate(node: Node, sizes: Mapping[str, int]) -> float:
    """What the arithmetic of an op costs, in additions in a vector; rough, and only good for comparing."""
    return sum(
        points(axes, sizes) * (TILE if tile else sum(map(_price, values)) + combines)
        for axes, values, combines, tile in _loops(node)
    )


def _loops(node: Node) -> list[tuple[tuple[Axis, ...], tuple[Expr, ...], int, bool]]:
    """The loops of an op's meaning: axes, values, whether they are combined, whether it is a product."""
    types = [t.type for t in node.inputs]
    match node.op.meaning():
        case "body":
            body = body_of(node)
            return [((*body.axes, *body.reduce), (body.value,), bool(body.reduce), is_contraction(node))]
        case "scatter":
            made = node.op.scatter(*types)
            return [((*made.parallel, *made.sequential), (made.value, *made.index), 1, False)]
        case "pieces":
            parallel, pieces = node.op.pieces(*types)
            return [((*parallel, *piece.axes), (piece.value,), 0, False) for piece in pieces]
        case "running":
            made = node.op.running(*types)
            return [(made.axes, (made.value,), 1, False)]
        case "sorting":
            made = node.op.sorting(*types)
            return [(made.axes, (made.key,), 1, False)]
    return []


def _price(value: Expr) -> float:
    return sum(_price_of(e.function) for e in walk(value) if isinstance(e, Apply))


def _price_of(function: str) -> float:
    if function in FREE:
        return 0.0
    if function in CHEAP:
        return 1.0
    return DIVISION if function in DIVIDING else DRAW if function in RANDOM else FUNCTION


def _node_work(node: Node, sizes: Mapping[str, int]) -> Work:
    """The work of an op alone: all of its operands and results are moved."""
    operations = 0
    if not isinstance(node.op, Leaf):
        is_float = node.outputs[0].dtype.is_float
        for axes, values, combines, _ in _loops(node):
            operations += points(axes, sizes) * (operations_in(*values) + (combines if is_float else 0))
    read = sum(evaluate(t.type.count, sizes) * t.dtype.itemsize for t in dict.fromkeys(node.inputs))
    return Work(operations, read, sum(evaluate(t.type.count, sizes) * t.dtype.itemsize for t in node.outputs))
