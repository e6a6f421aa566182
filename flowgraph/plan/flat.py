"""Calls and loops of calls as one row of calls, every value with its place.

A carry lies in one of three ways: in one place, where every turn updates it; in two, which turns use in turn; or, if
what is carried is stacked, in the stack itself, one element longer than the loop has turns: a turn reads one element
and writes the next, so that stacking costs nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from flowgraph.graph import origin as origins
from flowgraph.graph.size import Size, floor_divide
from flowgraph.graph.tensor import Node, Tensor
from flowgraph.graph.types import TensorType
from flowgraph.kernels.build import build_copy
from flowgraph.kernels.kernel import Call, KernelCall, LoopCall
from flowgraph.ops.scan import operands, results, slot
from flowgraph.ops.slicing import memory_of
from flowgraph.plan.in_place import in_order
from flowgraph.plan.place import Place, PlannedLoop, Step, given_place

Path = tuple[int, ...]  # loops, outermost first


@dataclass(frozen=True)
class Carry:
    """Where a carry lies: before the first turn, where that writes the next one, and in the end; how far both move on
    each turn; and, if what is carried is stacked, where the stacks of what turns are given and what they give lie."""

    begin: Place
    write: Place
    end: Place
    by: Size
    swings: bool = False
    stacks: tuple[Place, ...] = ()

    def at(self, loop: int) -> tuple[Place, Place]:
        """The places of what a turn is given, and gives."""
        if self.by == 0:
            return self.begin, self.write
        back = -1 if self.swings else 1
        steps = Step(loop, self.by, self.swings), Step(loop, back * self.by, self.swings)
        return self.begin.at(0, steps[0]), self.write.at(0, steps[1])


class Flat:
    """Built by adding calls in order. `written` are updates (new value: parameter) made in place."""

    def __init__(self, written: dict[Tensor, Tensor]) -> None:
        self.calls: list[KernelCall] = []
        self.loops: list[PlannedLoop] = []
        self.places: dict[Tensor, Place] = {new: Place("parameter", old) for new, old in written.items()}
        self._path: list[Path] = []  # of each call
        self._scope: dict[Tensor, Path] = {}  # the loops that memory belongs to a turn of
        self._prepared: dict[Node, tuple[list[Carry], list[Call]]] = {}

    def add_all(self, calls: Sequence[Call], path: Path, kept: Collection[Tensor]) -> None:
        """Add what comes next, in order, inside of the loops of a path; what is `kept` is needed afterwards, too."""
        self._make_there(calls, path, kept)
        for call in calls:
            self._add(call, path)

    def _add(self, call: Call, path: Path) -> None:
        if isinstance(call, LoopCall):
            self._add_loop(call, path)
            return
        for tensor in (*call.inputs, *call.outputs):
            self.place(tensor, path)
        self.calls.append(call)
        self._path.append(path)

    def _make_there(self, calls: Sequence[Call], path: Path, kept: Collection[Tensor]) -> None:
        """What only begins a loop is made where the loop carries it."""
        uses = Counter(t for call in calls for t in call.inputs)
        kernels = (call for call in calls if isinstance(call, KernelCall))
        made = {t for call in kernels for t in call.outputs if given_place(t) is None}
        for call in calls:
            if isinstance(call, LoopCall):
                found = self._carries(call, path)
                for begin, carry in zip(call.node.inputs, found, strict=False):
                    if begin in made and uses[begin] == 1 and begin not in kept and begin not in self.places:
                        self.places[begin] = carry.begin

    def place(self, tensor: Tensor, path: Path = ()) -> Place:
        """Where a tensor lies; in memory of its own if that was not decided yet."""
        if tensor not in self.places:
            given = given_place(tensor)
            self.places[tensor] = given or Place("arena", tensor)
            if given is None:
                self._scope[tensor] = path
        return self.places[tensor]

    def _operand(self, tensor: Tensor, path: Path) -> Place:
        """Where a loop's operand lies, which may be a part of something."""
        source, start = memory_of(tensor)
        return self.place(source, path).at(start)

    def around(self, owner: Tensor, call: int) -> tuple[int, int] | None:
        """The first and last call of the outermost loop around a call that memory outlives the turns of."""
        path, depth = self._path[call], len(self._scope[owner])
        if len(path) == depth:
            return None
        loop = self.loops[path[depth]]
        return loop.first, loop.stop - 1

    def _carries(self, call: LoopCall, path: Path) -> list[Carry]:
        """Where a loop's carries lie."""
        pairs = list(zip(call.body.carries, call.body.nexts, strict=True))
        moving = [(old, new) for old, new in pairs if not {old, new} & set(call.body.emits)]
        ordered, in_place, _ = in_order(call.calls, moving, set(), copy=False)
        found = [self._carry(call, old, new, (old, new) in in_place, path) for old, new in pairs]
        self._prepared[call.node] = found, ordered
        return found

    def _carry(self, call: LoopCall, old: Tensor, new: Tensor, in_place: bool, path: Path) -> Carry:
        op, n, turns = call.node.op, old.type.count, call.node.op.length
        if old in call.body.emits or new in call.body.emits:
            stack = self._memory(old, turns + 1, path)
            if op.reverse:
                return Carry(stack.at(turns * n), stack.at((turns - 1) * n), stack, -n, stacks=(stack.at(n), stack))
            return Carry(stack, stack.at(n), stack.at(turns * n), n, stacks=(stack, stack.at(n)))
        if in_place:
            one = self._memory(old, 0, path)
            return Carry(one, one, one, 0)
        pair = self._memory(old, 2, path)
        return Carry(pair, pair.at(n), pair.at((turns - 2 * floor_divide(turns, 2)) * n), n, swings=True)

    def _add_loop(self, call: LoopCall, path: Path) -> None:
        op, body, node = call.node.op, call.body, call.node
        turns, number = op.length, len(self.loops)
        inits, sequences, given = operands(node)
        finals, stacks = results(node)
        self.loops.append(PlannedLoop(0, 0, turns, node, body.graph))  # in order of their beginnings
        inner = (*path, number)

        for slot_, outside in zip(body.given, given, strict=True):
            self.places[slot_] = self._operand(outside, path)
        for slot_, outside in zip(body.elements, sequences, strict=True):
            self.places[slot_] = self._element(self._operand(outside, path), slot_, op.reverse, turns, number)

        stacked = dict(zip(body.emits, stacks, strict=True))
        carries, ordered = self._prepared[node]
        carried = list(zip(body.carries, body.nexts, carries, strict=True))
        after: list[tuple[Place, Tensor]] = []  # what must lie elsewhere in the end
        for (old, new, carry), begin in zip(carried, inits, strict=True):
            for value, place in zip((old, new), carry.stacks, strict=False):
                if value in stacked:
                    self._result(stacked.pop(value), place, after)
            if self._operand(begin, path) != carry.begin:
                self._copy(self._operand(begin, path), begin.type, carry.begin, path, "a loop begins with it")
            self.places[old], self.places[new] = carry.at(number)
        for value, stack in stacked.items():
            self.places[value] = self._element(self.place(stack, path), value, op.reverse, turns, number)

        first = len(self.calls)
        self.add_all(ordered, inner, body.graph.roots)
        self.loops[number] = PlannedLoop(first, len(self.calls), turns, node, body.graph)
        for final, (_, _, carry) in zip(finals, carried, strict=True):
            self._result(final, carry.end, after)
        for source, target in after:
            self._copy(source, target.type, self.places[target], path, "what a loop made is needed elsewhere")

    def _result(self, tensor: Tensor, place: Place, after: list[tuple[Place, Tensor]]) -> None:
        """A loop's result lies where the loop leaves it, unless something around wants it elsewhere."""
        if tensor in self.places:
            after.append((place, tensor))
        else:
            self.places[tensor] = place

    def _memory(self, carry: Tensor, count: Size, path: Path) -> Place:
        """Room for as many values like a carry (one, without an axis, if 0)."""
        shape = carry.shape if count == 0 else (count, *carry.shape)
        with origins.at(carry.origin):
            owner = slot(f"{carry.label}", TensorType(shape, carry.dtype))
        return self.place(owner, path)

    def _element(self, place: Place, element: Tensor, reverse: bool, turns: Size, number: int) -> Place:
        n = element.type.count
        return place.at((turns - 1) * n, Step(number, -n)) if reverse else place.at(0, Step(number, n))

    def _copy(self, source: Place, type_: TensorType, target: Place, path: Path, why: str) -> None:
        """A kernel that copies from one place to another."""
        with origins.at(source.of.origin):
            old, new = (slot(place.of.label or place.of.op.name, type_) for place in (source, target))
        self.places |= {old: source, new: target}
        self._add(build_copy(old, new, why), path)
