"""The explanation of a program: what shares a kernel and what does not and why, what is stored, what is in place.

Nothing here is guessed: fusion records every refusal (`kernels.fuse.Apart`), the plan every update it copies. Fusion is
a function of the graph, so it is asked again and gives what the program was made from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flowgraph.graph.graph import Graph
from flowgraph.graph.names import names
from flowgraph.graph.tensor import Node, Tensor
from flowgraph.graph.text import show_op
from flowgraph.kernels.fuse import Fusion, fuse
from flowgraph.kernels.group import Group, reads_of
from flowgraph.ops.leaf import Parameter
from flowgraph.ops.shape import Injective
from flowgraph.passes.pipeline import Record
from flowgraph.plan.plan import Plan


@dataclass(frozen=True)
class Reader:
    """A kernel that reads a stored value, for `name`, and why that is not computed where the value is."""

    name: str
    kernel: int
    line: str
    why: str

    def __str__(self) -> str:
        return f"{_quoted(self.name, self.line)} in kernel {self.kernel}{f': {self.why}' if self.why else ''}"


@dataclass(frozen=True)
class Stored:
    """A value that a kernel writes to memory: for whom."""

    name: str
    line: str
    asked: str  # "an output", "the new value of w", or ""
    readers: tuple[Reader, ...]

    def __str__(self) -> str:
        value = _quoted(self.name, self.line)
        if not self.readers:
            return f"{value} is stored: it is {self.asked}"
        first = f"it is {self.asked}, and " if self.asked else ""
        count = "a reader" if len(self.readers) == 1 else f"{len(self.readers)} readers"
        return f"{value} is stored: {first}it has {count} in other kernels" + "".join(
            f"\n    {reader}" for reader in self.readers
        )


@dataclass(frozen=True)
class Recomputed:
    """A value that is computed where it is read, again for every reader, since that is cheaper than to store it."""

    name: str
    line: str
    kernels: tuple[int, ...]
    sources: tuple[str, ...]

    def __str__(self) -> str:
        where = f"kernel{'s' * (len(self.kernels) > 1)} {_and(map(str, self.kernels))}"
        return (
            f"{_quoted(self.name, self.line)} is computed in {where} rather than stored: "
            f"a few cheap operations on {_and(f'`{s}`' for s in self.sources) or 'constants'}"
        )


@dataclass(frozen=True)
class KernelStory:
    """One kernel, by its number in the order of launches: what it computes, why so, and what it stores."""

    number: int
    name: str
    computes: tuple[str, ...]
    lines: tuple[str, ...]
    why: tuple[str, ...]
    stores: tuple[Stored, ...]

    def __str__(self) -> str:
        at = f"  ({', '.join(self.lines)})" if self.lines else ""
        parts = [*self.why, *map(str, self.stores)]
        return f"kernel {self.number}: {self.name}{at}\n" + "".join(f"  {part}\n" for part in parts)


@dataclass(frozen=True)
class Update:
    """How a parameter gets its new value: in place by kernel `kernel`, or copied by it, and then why."""

    parameter: str
    kernel: int
    why_copied: str

    @property
    def in_place(self) -> bool:
        return not self.why_copied

    def __str__(self) -> str:
        if self.in_place:
            return f"`{self.parameter}` is updated in place by kernel {self.kernel}"
        return f"`{self.parameter}` is not updated in place, but copied by kernel {self.kernel}: {self.why_copied}"


@dataclass(frozen=True)
class Explanation:
    """Prints as text; the parts are data."""

    kernels: tuple[KernelStory, ...]
    recomputed: tuple[Recomputed, ...]
    updates: tuple[Update, ...]
    passes: tuple[Record, ...]

    def __str__(self) -> str:
        changed = [str(record) for record in self.passes if record.changed]
        sections = (
            (f"{len(self.kernels)} kernels, in the order of launches", [str(k).rstrip() for k in self.kernels]),
            ("Computed again rather than stored", list(map(str, self.recomputed))),
            ("Updates", list(map(str, self.updates))),
            (f"Passes that changed something ({len(changed)} of {len(self.passes)})", changed),
        )
        return "\n".join(f"{title}\n\n" + "\n".join(lines) + "\n" for title, lines in sections if lines)


def explain(graph: Graph, plan: Plan, passes: Sequence[Record]) -> Explanation:
    """Explain a plan made from an optimised graph, and what the passes did before."""
    return _Explainer(graph, plan).explanation(passes)


def whole_fusion(graph: Graph, plan: Plan) -> Fusion:
    """The fusion of a graph and of all loops in it, as one."""
    whole = fuse(graph)
    for loop in plan.loops:
        inner, before = fuse(loop.body), len(whole.groups)
        whole = Fusion(
            (*whole.groups, *inner.groups),
            whole.member_of | {t: before + number for t, number in inner.member_of.items()},
            whole.stored | inner.stored,
            whole.inlined | inner.inlined,
            whole.recomputed | inner.recomputed,
            (*whole.apart, *inner.apart),
        )
    return whole


def kernels_of_groups(plan: Plan, fusion: Fusion) -> dict[int, int]:
    """The launch that each group of fusion became, by its number: several groups may have become one. A loop is where
    its first launch is."""
    writer = {t: k for k, call in enumerate(plan.calls) for t in call.outputs}
    loops = {loop.node: loop.first for loop in plan.loops}
    found = {number: writer[t] for t, number in fusion.member_of.items() if t in fusion.stored and t in writer}
    for number, group in enumerate(fusion.groups):
        if group.kind == "loop":
            found[number] = loops[group.nodes[0]]
    return found


class _Explainer:
    def __init__(self, graph: Graph, plan: Plan) -> None:
        self.graph, self.plan = graph, plan
        self.fusion = fusion = whole_fusion(graph, plan)
        self.called = {t: name for each in self._graphs() for t, name in names(each).items()}
        self.writer = {t: k for k, call in enumerate(plan.calls) for t in call.outputs}
        self.kernel_of = kernels_of_groups(plan, fusion)
        self.readers: dict[Tensor, list[Node]] = {}
        for group in fusion.groups:
            for node in group.nodes:
                for tensor in dict.fromkeys(t for t, _ in reads_of(node, fusion.inlined)):
                    self.readers.setdefault(tensor, []).append(node)
        self.why = {(a.node, a.producer): a.why for a in fusion.apart}

    def _graphs(self) -> list[Graph]:
        """Those of loops, and the one they are in."""
        return [*(loop.body for loop in self.plan.loops), self.graph]

    def explanation(self, passes: Sequence[Record]) -> Explanation:
        copied = {parameter: why for parameter, _, why in self.plan.copied}
        in_place = dict(self.plan.in_place)
        updates = []
        for parameter, _ in self.graph.updates:
            kernel = self.writer[in_place.get(parameter, parameter)]
            updates.append(Update(self.called[parameter], kernel, copied.get(parameter, "")))
        stories = tuple(self._kernel(k) for k in range(len(self.plan.calls)))
        return Explanation(stories, tuple(self._recomputed()), tuple(updates), tuple(passes))

    def _kernel(self, number: int) -> KernelStory:
        call = self.plan.calls[number]
        groups = [
            g for k, g in enumerate(self.fusion.groups) if self.kernel_of.get(k) == number and g.kind != "loop"
        ]
        nodes = [node for group in groups for node in group.nodes]
        why = [self._shared(group) for group in groups]
        if len(groups) > 1:
            why.append("these walk the same points and share what they read, and none waits for another: one kernel")
        if not groups and isinstance(call.outputs[0].op, Parameter):
            why.append(f"copies `{self.called[call.inputs[0]]}` at the step's end")
        elif not groups:
            why.append(f"copies `{call.inputs[0].label or call.inputs[0].op.name}`: {call.kernel.reason}")
        return KernelStory(
            number,
            call.kernel.name,
            tuple(self.called[node.outputs[0]] for node in nodes),
            tuple(dict.fromkeys(line.short for node in nodes for line in node.origin.lines)),
            tuple(why),
            tuple(self._stored(t) for t in call.outputs if t in self.fusion.stored),
        )

    def _shared(self, group: Group) -> str:
        """What a group computes together, and why it does not begin in another kernel."""
        first, rest = group.nodes[0], group.nodes[1:]
        ops = _and(self._op(node) for node in group.nodes)
        if group.kind in ("contraction", "reduction"):
            what = "is a product, a register tile of its own" if group.kind == "contraction" else group.reason
            verb = "are its epilogue" if len(rest) > 1 else "is its epilogue"
            return f"{self._op(first)} {what}" + (f"; {_and(map(self._op, rest))} {verb}" if rest else "")
        if group.kind == "row":
            members = {t for node in group.nodes for t in node.outputs}
            reads = dict.fromkeys(t for node in group.nodes for t, _ in reads_of(node, self.fusion.inlined))
            rows = [f"`{self.called[t]}`" for t in reads if t not in members and t.rank > len(group.shape)]
            return f"{ops} {'are' if rest else 'is'} one kernel over rows" + (f" of {_and(rows)}" if rows else "")
        if group.kind == "pointwise":
            return f"{ops} {'are' if rest else 'is'} computed point by point: {group.reason}"
        return f"{ops}: {group.reason}"

    def _op(self, node: Node) -> str:
        made = "the gradient's " if "backward" in node.origin.passes else ""
        name, op = self.called[node.outputs[0]], show_op(node)
        return f"{made}{op}" if name.rstrip("_0123456789") == node.op.name else f"{made}{op} (`{name}`)"

    def _stored(self, tensor: Tensor) -> Stored:
        own = self.writer[tensor]
        readers = []
        for node in self.readers.get(tensor, ()):
            kernel = self.kernel_of[self.fusion.member_of[node.outputs[0]]]
            if kernel != own:
                why = self.why.get((node, tensor.node), "") or self._through(node, tensor)
                if node.op.meaning() == "loop":
                    why = "a loop reads it, turn by turn"
                readers.append(Reader(self.called[node.outputs[0]], kernel, _line(node), why))
        asked = "an output" if tensor in self.graph.outputs else ""
        if any(tensor in loop.body.roots for loop in self.plan.loops):
            asked = "what a turn of its loop makes"
        for parameter, new in self.graph.updates:
            if new is tensor and not asked:
                asked = f"the new value of `{self.called[parameter]}`"
        return Stored(self.called[tensor], _line(tensor.node), asked, tuple(readers))

    def _through(self, node: Node, tensor: Tensor) -> str:
        """What a node reads instead of a tensor, if that is computed from it on the way."""
        between = [t.node for t in node.inputs if t.node in self.fusion.recomputed]
        found = [n for n in between if tensor in dict(reads_of(n, self.fusion.inlined))]
        return f"it computes {_and(f'`{self.called[n.outputs[0]]}`' for n in found)} from it" if found else ""

    def _recomputed(self) -> Iterable[Recomputed]:
        consumers = {t: nodes for each in self._graphs() for t, nodes in each.consumers().items()}
        for node in sorted(self.fusion.recomputed, key=lambda n: n.serial):
            tensor = node.outputs[0]
            if isinstance(node.op, Injective) or all(c in self.fusion.recomputed for c in consumers[tensor]):
                continue  # a part of another one
            kernels: set[int] = set()
            stack, seen = [tensor], set[Tensor]()
            while stack:
                for reader in consumers[stack.pop()]:
                    result = reader.outputs[0]
                    if reader in self.fusion.inlined and result not in seen:
                        seen.add(result)
                        stack.append(result)
                    elif result in self.fusion.member_of:
                        kernels.add(self.kernel_of[self.fusion.member_of[result]])
            sources = dict.fromkeys(self.called[t] for t, _ in reads_of(node, self.fusion.inlined))
            yield Recomputed(self.called[tensor], _line(node), tuple(sorted(kernels)), tuple(sources))


def _line(node: Node) -> str:
    return node.origin.lines[0].short if node.origin.lines else ""


def _quoted(name: str, line: str) -> str:
    return f"`{name}` ({line})" if line else f"`{name}`"


def _and(parts: Iterable[str]) -> str:
    found = list(parts)
    return " and ".join([*([", ".join(found[:-1])] if len(found) > 1 else []), *found[-1:]])
