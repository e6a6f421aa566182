"""Calls and loops of calls as one row of calls, every value with its place.

A carry lies in one of three ways: in one place, where every turn updates it; in two, which turns use in turn; or, if
what is carried is stacked, in the stack itself, one element longer than the loop has turns: a turn reads one element
and writes the next, so that stacking costs nothing.
"""

from __future__ import annotations

from flowgraph.graph import origin as origins
from flowgraph.graph.size import Size, floor_divide
from flowgraph.graph.tensor import Tensor
from flowgraph.graph.types import TensorType
from flowgraph.kernels.build import build_copy
from flowgraph.kernels.kernel import Call, KernelCall, LoopCall
from flowgraph.ops.scan import operands, results, slot
from flowgraph.plan.in_place import in_order
from flowgraph.plan.place import Place, PlannedLoop, Step, given_place

Path = tuple[int, ...]  # loops, outermost first


class Flat:
    """Built by adding calls in order. `written` are updates (new value: parameter) made in place."""

    def __init__(self, written: dict[Tensor, Tensor]) -> None:
        self.calls: list[KernelCall] = []
        self.loops: list[PlannedLoop] = []
        self.places: dict[Tensor, Place] = {new: Place("parameter", old) for new, old in written.items()}
        self._path: list[Path] = []  # of each call
        self._scope: dict[Tensor, Path] = {}  # the loops that memory belongs to a turn of

    def add(self, call: Call, path: Path = ()) -> None:
        """Add what comes next, inside of the loops of a path."""
        if isinstance(call, LoopCall):
            self._add_loop(call, path)
            return
        for tensor in (*call.inputs, *call.outputs):
            self.place(tensor, path)
        self.calls.append(call)
        self._path.append(path)

    def place(self, tensor: Tensor, path: Path = ()) -> Place:
        """Where a tensor lies; in memory of its own if that was not decided yet."""
        if tensor not in self.places:
            given = given_place(tensor)
            self.places[tensor] = given or Place("arena", tensor)
            if given is None:
                self._scope[tensor] = path
        return self.places[tensor]

    def around(self, owner: Tensor, call: int) -> tuple[int, int] | None:
        """The first and last call of the outermost loop around a call that memory outlives the turns of."""
        path, depth = self._path[call], len(self._scope[owner])
        if len(path) == depth:
            return None
        loop = self.loops[path[depth]]
        return loop.first, loop.stop - 1

    def _add_loop(self, call: LoopCall, path: Path) -> None:
        op, body, node = call.node.op, call.body, call.node
        turns, number = op.length, len(self.loops)
        inits, sequences, given = operands(node)
        finals, stacks = results(node)
        self.loops.append(PlannedLoop(0, 0, turns, node))  # in order of their beginnings
        inner = (*path, number)

        for slot_, outside in zip(body.given, given, strict=True):
            self.places[slot_] = self.place(outside, path)
        for slot_, outside in zip(body.elements, sequences, strict=True):
            self.places[slot_] = self._element(self.place(outside, path), slot_, op.reverse, turns, number)

        stacked = dict(zip(body.emits, stacks, strict=True))
        carried = list(zip(body.carries, body.nexts, strict=True))
        moving = [(old, new) for old, new in carried if old not in stacked and new not in stacked]
        ordered, in_place, _ = in_order(call.calls, moving, set(), copy=False)
        ends: list[Place] = []
        after: list[tuple[Place, Tensor]] = []  # what must lie elsewhere in the end
        for (old, new), begin in zip(carried, inits, strict=True):
            n = old.type.count
            if (old, new) in in_place:
                owner, starts, by, swings = self._memory(old, 0, path), (0, 0, 0), 0, False
            elif old in stacked or new in stacked:
                owner, by, swings = self._memory(old, turns + 1, path), -n if op.reverse else n, False
                starts = (turns * n, (turns - 1) * n, 0) if op.reverse else (0, n, turns * n)
                for value, first in ((old, n if op.reverse else 0), (new, 0 if op.reverse else n)):
                    if value in stacked:
                        self._result(stacked.pop(value), owner.at(first), after)
            else:
                owner, by, swings = self._memory(old, 2, path), n, True
                starts = (0, n, (turns - 2 * floor_divide(turns, 2)) * n)
            read, write, end = (owner.at(start) for start in starts)
            self._copy(self.place(begin, path), begin.type, read, path, "a loop begins with it")
            self.places[old] = read.at(0, Step(number, by, swings)) if by != 0 else read
            self.places[new] = write.at(0, Step(number, -by if swings else by, swings)) if by != 0 else write
            ends.append(end)
        for value, stack in stacked.items():
            self.places[value] = self._element(self.place(stack, path), value, op.reverse, turns, number)

        first = len(self.calls)
        for each in ordered:
            self.add(each, inner)
        self.loops[number] = PlannedLoop(first, len(self.calls), turns, node)
        for final, end in zip(finals, ends, strict=True):
            self._result(final, end, after)
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
        self.add(build_copy(old, new, why), path)
