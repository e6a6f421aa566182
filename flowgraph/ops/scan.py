"""Loops: a body graph, applied turn by turn along an axis.

    carry[0] = init;  carry[t + 1], y[t] = body(carry[t], x[t], given)

`scan` traces a function of the user's once, on *slots*: leaves that stand for what a turn is given. What the function
computes of none of them is computed once, outside; it reaches the body as a given value. A body is plain data; two
bodies are equal if they compute the same, whatever their slots are called.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np

from flowgraph.errors import DTypeError, GraphError, InputError, ShapeError
from flowgraph.graph import origin as origins
from flowgraph.graph.graph import Graph, clone, topological
from flowgraph.graph.size import Size, as_size, evaluate, floor_divide, names_in, show_shape
from flowgraph.graph.tensor import Node, Tensor, apply
from flowgraph.graph.types import TensorType
from flowgraph.ops.base import Op, Sample, concrete, evaluate_node, values
from flowgraph.ops.contraction import mul
from flowgraph.ops.elementwise import add, multiply
from flowgraph.ops.functions import tanh
from flowgraph.ops.leaf import Constant, Leaf, as_tensor
from flowgraph.ops.pieces import concatenate
from flowgraph.ops.random import Draw, TurnStates
from flowgraph.ops.shape import Broadcast, reshape
from flowgraph.ops.slicing import Slice
from flowgraph.ops.tree import flatten, require_same_structure

_keys = itertools.count(1)


@dataclass(frozen=True)
class Slot(Leaf):
    """What a turn of a loop is given: the value carried to it, an element of a sequence, or a value from outside."""

    name: ClassVar[str] = "slot"
    label: str
    type: TensorType = field(repr=False)
    key: int = field(repr=False, default=0)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        return (self.type,)


def slot(label: str, type_: TensorType) -> Tensor:
    """A new slot."""
    return apply(Slot(label, type_, next(_keys)))[0].named(label)


@dataclass(frozen=True, eq=False)
class Body:
    """What one turn computes. `carries`, `elements` and `given` are its slots; `nexts` are the values carried on, one
    for each carry and of its type; `emits` are kept from every turn, stacked."""

    carries: tuple[Tensor, ...]
    elements: tuple[Tensor, ...]
    given: tuple[Tensor, ...]
    nexts: tuple[Tensor, ...]
    emits: tuple[Tensor, ...]

    @property
    def slots(self) -> tuple[Tensor, ...]:
        return (*self.carries, *self.elements, *self.given)

    @cached_property
    def graph(self) -> Graph:
        return Graph((*self.nexts, *self.emits))

    def with_results(self, results: Sequence[Tensor]) -> Body:
        """The same loop computing these values instead."""
        count = len(self.nexts)
        return dataclasses.replace(self, nexts=tuple(results[:count]), emits=tuple(results[count:]))

    def with_sizes(self, sizes: Mapping[str, int]) -> Body:
        """The body with its named sizes replaced by their values; itself if it has none."""
        return _with_sizes(self, tuple(sorted(sizes.items())))

    @cached_property
    def key(self) -> tuple[Any, ...]:
        """Equal for bodies that do the same: every node as its op and the numbers of what it reads."""
        number: dict[Tensor, int] = {t: k for k, t in enumerate(self.slots)}
        steps: list[Any] = [tuple(t.type for t in part) for part in (self.carries, self.elements, self.given)]
        for node in topological(self.graph.roots, given=number):
            if node.outputs[0] in number:
                continue
            steps.append((node.op, tuple(number[t] for t in node.inputs)))
            for tensor in node.outputs:
                number[tensor] = len(number)
        return (*steps, tuple(number[t] for t in self.nexts), tuple(number[t] for t in self.emits))

    @cached_property
    def _hash(self) -> int:
        return hash(self.key)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Body) and self._hash == other._hash and self.key == other.key)

    def __repr__(self) -> str:
        return f"{len(self.graph.nodes())} nodes"


@dataclass(frozen=True)
class Scan(Op):
    """A loop. Operands: what each carry begins with, the sequences, the given values. Results: what each carry ends
    with, and the stacked values of every turn.

    A `reverse` loop begins at the last element; what it stacks lies at the element's place. A `frugal` one keeps for
    its gradient only what was carried, and computes each turn again: nothing is taken out of it that would be kept for
    every turn.
    """

    name: ClassVar[str] = "scan"
    family: ClassVar[str] = "loop"
    inner: Body = field(repr=False)
    length: Size
    reverse: bool = False
    frugal: bool = False

    def loop(self) -> Body:
        """What the op means."""
        return self.inner

    def subgraphs(self) -> tuple[Graph, ...]:
        return (self.inner.graph,)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        body = self.inner
        wanted = (
            *(t.type for t in body.carries),
            *(TensorType((self.length, *t.shape), t.dtype) for t in body.elements),
            *(t.type for t in body.given),
        )
        if types != wanted:
            shown = [", ".join(map(str, found)) for found in (types, wanted)]
            raise ShapeError(f"scan takes {shown[1]}, got {shown[0]}")
        for slot_, new in zip(body.carries, body.nexts, strict=True):
            if slot_.type != new.type:
                raise ShapeError(f"scan carries {slot_.type} and makes {new.type} of it", where=new.origin)
        stacked = (TensorType((self.length, *t.shape), t.dtype) for t in body.emits)
        return (*(t.type for t in body.nexts), *stacked)

    def reference(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        body = self.inner
        shapes = ((evaluate(self.length, {}), *(evaluate(s, {}) for s in t.shape)) for t in body.emits)
        stacked = [np.empty(shape, t.dtype.numpy) for shape, t in zip(shapes, body.emits, strict=True)]
        carried = arrays[: len(body.carries)]
        for turn, found in self.turns(*arrays):
            carried = tuple(found[t] for t in body.nexts)
            for stack, tensor in zip(stacked, body.emits, strict=True):
                stack[turn] = found[tensor]
        return (*carried, *stacked)

    def turns(self, *arrays: np.ndarray) -> Iterator[tuple[int, dict[Tensor, np.ndarray]]]:
        """The places of the turns along the sequences, in the order in which they are made, and all values of each."""
        body, count = self.inner, evaluate(self.length, {})
        first, second = len(body.carries), len(body.carries) + len(body.elements)
        carried, sequences = arrays[:first], arrays[first:second]
        nodes = topological(body.graph.roots, given=body.slots)
        for turn in reversed(range(count)) if self.reverse else range(count):
            elements = (s[turn] for s in sequences)
            found = dict(zip(body.slots, (*carried, *elements, *arrays[second:]), strict=True))
            for node in (n for n in nodes if n.outputs[0] not in found):
                found.update(evaluate_node(node, node.op, [found[t] for t in node.inputs]))
            yield turn, found
            carried = tuple(found[t] for t in body.nexts)

    @classmethod
    def samples(cls) -> list[Sample]:
        made = []
        for reverse, turns, rows, width in ((False, 5, 3, 20), (True, 4, 1, 16), (False, 1, 2, 5)):
            op = _cell(turns, rows, width, reverse)
            shapes = ((rows, width), (turns, rows, width), (width, width))
            made.append(Sample(op, tuple(values(*s, low=-0.5, high=0.5, seed=k) for k, s in enumerate(shapes))))
        made.append(Sample(_map(6, 7), (values(6, 7), values(7, seed=1))))
        return made

    def named_sizes(self) -> frozenset[str]:
        inner = (node.op.named_sizes() for node in self.inner.graph.nodes())
        shapes = (names_in(s) for n in self.inner.graph.nodes() for t in n.outputs for s in t.shape)
        return names_in(self.length).union(*inner, *shapes)

    def nonnegative(self, *types: TensorType) -> Mapping[Size, str]:
        return {self.length: "a loop cannot have fewer than no turns"}


def _cell(turns: int, rows: int, width: int, reverse: bool) -> Scan:
    """h = tanh(x + h w), and every h stacked: a sample."""
    h, x, w = (slot(n, TensorType(s)) for n, s in (("h", (rows, width)), ("x", (rows, width)), ("w", (width, width))))
    new = tanh(add(x, mul(h, w)))
    return Scan(Body((h,), (x,), (w,), (new,), (new,)), turns, reverse)


def _map(turns: int, width: int) -> Scan:
    """Nothing is carried: a sample."""
    x, w = (slot(n, TensorType((width,))) for n in ("x", "w"))
    return Scan(Body((), (x,), (w,), (), (multiply(tanh(x), w),)), turns)


@lru_cache(maxsize=256)
def _with_sizes(body: Body, sizes: tuple[tuple[str, int], ...]) -> Body:
    """Every node anew, of ops and types without names."""
    known = dict(sizes)
    inside = (t for node in body.graph.all_nodes() for t in node.outputs)
    if not any(names_in(s) for t in (*body.slots, *inside) for s in t.shape):
        return body

    def fixed(type_: TensorType) -> TensorType:
        return TensorType(tuple(evaluate(s, known) for s in type_.shape), type_.dtype)

    return rebuilt(body, fixed, lambda op: concrete(op, known))


def rebuilt(body: Body, type_of: Callable[[TensorType], TensorType], op_of: Callable[[Any], Any]) -> Body:
    """A body with slots of other types, of other ops: of every node what `op_of` makes of its op."""
    new = {t: slot(t.label or "slot", type_of(t.type)) for t in body.slots}
    for node in topological(body.graph.roots, given=body.slots):
        if node.outputs[0] not in new:
            with origins.at(node.origin):
                made = apply(op_of(node.op), *(new[t] for t in node.inputs))
            new.update(zip(node.outputs, made, strict=True))
    parts = (body.carries, body.elements, body.given, body.nexts, body.emits)
    return Body(*(tuple(new[t] for t in part) for part in parts))


def moved(roots: Sequence[Tensor], new: Mapping[Tensor, Tensor], fresh: bool = False) -> list[Tensor]:
    """The roots, computed from other tensors than they were; `fresh` makes every node on the way anew."""
    known = dict(new)
    for node in topological(roots, given=new):
        if any(t in known for t in node.outputs):
            continue
        inputs = tuple(known[t] for t in node.inputs)
        changed = fresh or inputs != node.inputs
        known.update(zip(node.outputs, clone(node, inputs) if changed else node.outputs, strict=True))
    return [known[t] for t in roots]


def own_copy(body: Body) -> Body:
    """An equal body, made of tensors of its own."""
    slots = [clone(t.node, ())[0] for t in body.slots]
    made = moved(body.graph.roots, dict(zip(body.slots, slots, strict=True)), fresh=True)
    parts = (body.carries, body.elements, body.given, body.nexts, body.emits)
    tensors = iter((*slots, *made))
    return Body(*(tuple(next(tensors) for _ in part) for part in parts))


def operands(node: Node) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The operands of a loop: initial values, sequences, given values."""
    body = node.op.inner
    first, second = len(body.carries), len(body.carries) + len(body.elements)
    return node.inputs[:first], node.inputs[first:second], node.inputs[second:]


def results(node: Node) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The results of a loop: final values, stacked values."""
    count = len(node.op.inner.carries)
    return node.outputs[:count], node.outputs[count:]


def scan(
    step: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    *,
    length: Any = None,
    reverse: bool = False,
    checkpoint: int | None = None,
) -> tuple[Any, Any]:
    """A loop along the first axis: `carry, y = step(carry, x)`, turn by turn; returns the last carry and all ys.

    `init` and `xs` are tensors, or tuples, lists and dicts of them, nested at will; `step` gets the carry, in the
    structure of `init`, and an element of every sequence of `xs`, without its first axis, and returns the next carry,
    of the same shapes and dtypes, and any structure of values to be stacked along a new first axis (None for nothing).
    `step` is called once, to be traced (with `checkpoint`, once more for the turns that are left over): the loop is
    compiled once, however many turns it makes, and is differentiated as a loop. `length`, a number or a named size, is
    needed only without `xs`. With `reverse` the loop begins at the last element; ys lie where their elements lie.

    For its gradient a loop keeps what its backward pass reads of every turn. With `checkpoint=k` it keeps the carries
    of every k-th turn only, and computes k turns at a time again: the memory of T turns becomes that of T/k carries
    and k turns. Random draws inside of `step` differ from turn to turn, and are others with another `checkpoint`.

    Raises GraphError for a structure that differs, ShapeError or DTypeError where the next carry has another type.

    >>> import flowgraph as fg, numpy as np
    >>> x = fg.input("x", ("time", 2))
    >>> total, sums = fg.scan(lambda s, x: (s + x, s + x), fg.constant([0.0, 0.0]), x)
    >>> last, every = fg.compile(outputs=[total, sums], device="reference")(x=np.float32([[1, 2], [3, 4], [5, 6]]))
    >>> every.tolist()
    [[1.0, 2.0], [4.0, 6.0], [9.0, 12.0]]
    """
    sequences, build_element = flatten(xs, lambda v: as_tensor(v, what="scan's xs"))
    turns = _length(sequences, length)
    if checkpoint is None:
        return _traced(step, init, xs, turns, reverse)
    return _in_segments(step, init, sequences, build_element, turns, reverse, checkpoint)


def _traced(
    step: Callable[[Any, Any], tuple[Any, Any]], init: Any, xs: Any, turns: Size, reverse: bool, frugal: bool = False
) -> tuple[Any, Any]:
    """The loop of a function, called once, on slots."""
    inits, build_carry = flatten(init, lambda v: as_tensor(v, what="scan's init"))
    sequences, build_element = flatten(xs, lambda v: as_tensor(v, what="scan's xs"))
    carry, element = _called(step)
    carries = [slot(f"{carry}{k or ''}", t.type) for k, t in enumerate(inits)]
    elements = [slot(f"{element}{k or ''}", TensorType(t.shape[1:], t.dtype)) for k, t in enumerate(sequences)]
    begun = slot("begun", TensorType(())).node.serial
    result = step(build_carry(iter(carries)), build_element(iter(elements)))
    if not isinstance(result, tuple) or len(result) != 2:
        raise GraphError(
            f"the function of a scan returns a pair, the next carry and what to stack, got {result!r}",
            where=origins.here(),
            hint="return carry, None if nothing is to be stacked",
        )
    require_same_structure("the next carry of a scan", result[0], init)
    found, _ = flatten(result[0], lambda v: v)
    nexts = [as_tensor(v, old, "the next carry of a scan") for v, old in zip(found, inits, strict=True)]
    emits, build_emits = flatten(result[1], lambda v: as_tensor(v, what="what a scan stacks"))
    for k, (old, new) in enumerate(zip(inits, nexts, strict=True)):
        if old.type != new.type:
            error = DTypeError if old.dtype != new.dtype else ShapeError
            raise error(
                f"carry {k} of a scan begins as {old.type}, and a turn makes it {new.type}",
                where=new.origin,
                hint="every turn gives the next one a value of the same shape and dtype",
            )
    loop = Loop(tuple(carries), tuple(elements), tuple(nexts), tuple(emits))
    made = make_loop(loop, inits, sequences, turns, reverse, frugal, begun)
    return build_carry(iter(made[: len(inits)])), build_emits(iter(made[len(inits) :]))


def _called(step: Callable[[Any, Any], tuple[Any, Any]]) -> tuple[str, str]:
    """What a function calls what a turn is given: for pictures and listings."""
    code = getattr(step, "__code__", None)
    names = list(code.co_varnames[: code.co_argcount]) if code is not None else []
    return (names[-2], names[-1]) if len(names) >= 2 else ("carry", "element")


@dataclass(frozen=True)
class Loop:
    """A turn as it was traced: it may still read values from outside."""

    carries: tuple[Tensor, ...]
    elements: tuple[Tensor, ...]
    nexts: tuple[Tensor, ...]
    emits: tuple[Tensor, ...]


def make_loop(
    loop: Loop,
    inits: Sequence[Tensor],
    sequences: Sequence[Tensor],
    turns: Size,
    reverse: bool = False,
    frugal: bool = False,
    since: int | None = None,
) -> tuple[Tensor, ...]:
    """The results of a loop: what its turn reads from outside becomes a given value, and what it computes of such
    values alone is computed outside. Draws made after the serial `since` are drawn anew in each turn."""
    own = [*loop.carries, *loop.elements]
    elements, sequences = list(loop.elements), list(sequences)
    new: dict[Tensor, Tensor] = {t: t for t in own}
    given: dict[Tensor, Tensor] = {}
    states: dict[tuple[Tensor, int], Tensor] = {}

    def inside(tensor: Tensor) -> Tensor:
        """What stands in the body for a value."""
        if tensor in new or _is_number(tensor):
            return new.get(tensor, tensor)
        if tensor not in given:
            given[tensor] = slot(tensor.label or tensor.op.name, tensor.type)
        return given[tensor]

    def state_of_turn(state: Tensor, draw: Draw) -> Tensor:
        level = draw.level + 1 if isinstance(draw, TurnStates) else 0
        if (state, level) not in states:
            sequences.append(TurnStates(draw.stream, turns, level)(state))
            elements.append(slot("random_state", state.type))
            states[state, level] = elements[-1]
        return states[state, level]

    for node in topological((*loop.nexts, *loop.emits), given=own):
        fresh_draw = since is not None and isinstance(node.op, Draw) and node.serial > since
        if node.outputs[0] in new or not (fresh_draw or any(t in new for t in node.inputs)):
            continue
        with origins.at(node.origin):
            inputs = list(map(inside, node.inputs[:-1] if fresh_draw else node.inputs))
            if fresh_draw:
                inputs.append(state_of_turn(node.inputs[-1], node.op))
        outputs = node.outputs if tuple(inputs) == node.inputs else clone(node, inputs)
        new.update(zip(node.outputs, outputs, strict=True))
    nexts, emits = tuple(map(inside, loop.nexts)), tuple(map(inside, loop.emits))
    body = Body(loop.carries, tuple(elements), tuple(given.values()), nexts, emits)
    return apply(Scan(body, turns, reverse, frugal), *inits, *sequences, *given)


def _is_number(tensor: Tensor) -> bool:
    """Whether a value is one number, repeated perhaps: written into the body, it takes no memory, and loops that differ
    in such values alone still read the same."""
    source = tensor.node.inputs[0] if isinstance(tensor.op, Broadcast) else tensor
    return isinstance(source.op, Constant) and source.type.count == 1


def _length(sequences: Sequence[Tensor], length: Any) -> Size:
    """How many turns: what all sequences, and `length`, agree on."""
    sizes = {}
    for k, t in enumerate(sequences):
        if not t.rank:
            raise ShapeError(f"sequence {k} of a scan is a scalar", where=origins.here(), hint="it needs a first axis")
        sizes[f"sequence {k} with shape {show_shape(t.shape)}"] = t.shape[0]
    if length is not None:
        sizes[f"length={length!r}"] = as_size(length)
    if not sizes:
        raise GraphError("a scan needs xs, or length=", where=origins.here())
    if len(set(sizes.values())) > 1:
        raise ShapeError(
            f"a scan's sequences have one length, got {' and '.join(sizes)}",
            where=origins.here(),
            hint="the first axis of every sequence is the one that the loop runs along",
        )
    return next(iter(sizes.values()))


def _in_segments(
    step: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    sequences: Sequence[Tensor],
    build: Callable[[Any], Any],
    turns: Size,
    reverse: bool,
    every: Any,
) -> tuple[Any, Any]:
    """A loop over segments of loops; what is left over is a loop of its own, at the end that is reached last."""
    if not isinstance(every, int) or isinstance(every, bool) or every < 1:
        raise InputError(f"checkpoint is a whole number of at least 1, got {every!r}", where=origins.here())
    if isinstance(turns, int) and turns <= every:
        return _traced(step, init, build(iter(sequences)), turns, reverse)
    segments = floor_divide(turns, every)
    whole = segments * every
    rest = turns - whole
    bounds = (rest, turns) if reverse else (0, whole)
    inner = [reshape(_part(t, *bounds), (segments, every, *t.shape[1:])) for t in sequences]

    def segment(carry: Any, part: Any) -> tuple[Any, Any]:
        return _traced(step, carry, part, every, reverse)

    carry, ys = _traced(segment, init, build(iter(inner)), segments, reverse, frugal=True)
    stacked, build_ys = flatten(ys, lambda t: t)
    stacked = [reshape(t, (whole, *t.shape[2:])) for t in stacked]
    if rest != 0:
        bounds = (0, rest) if reverse else (whole, turns)
        carry, more = _traced(step, carry, build(_part(t, *bounds) for t in sequences), rest, reverse)
        others, _ = flatten(more, lambda t: t)
        pairs = zip(others, stacked, strict=True) if reverse else zip(stacked, others, strict=True)
        stacked = [concatenate(pair, 0) for pair in pairs]
    return carry, build_ys(iter(stacked))


def _part(x: Tensor, start: Size, stop: Size) -> Tensor:
    """Elements `start` to `stop` of the first axis."""
    others = x.shape[1:]
    return Slice((start, *(0 for _ in others)), (stop - start, *others), (1,) * x.rank)(x)
