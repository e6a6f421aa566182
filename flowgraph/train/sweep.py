"""A sweep: one pass over a data set as a native program. Minibatching is expressed in the graph itself.

Comes in: values to record and updates to make, in terms of inputs whose first axis is the batch. Goes out: a
program that takes the whole arrays and an order of examples instead, and finds its own batch at every step:

    ids = gather(order, step·batch + (0, 1, ... batch-1))    x = gather(all of x, ids)    step <- step + 1

so many steps run in one native call, and no step is special. The last, smaller batch is a run with another
size. Knows nothing of epochs, optimisers or costs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from flowgraph.anomaly import AnomalyError
from flowgraph.compile import compile, require_distinct
from flowgraph.errors import GraphError, OutOfRangeError, ShapeError
from flowgraph.graph import origin as origins
from flowgraph.graph.graph import Graph, substitute, topological
from flowgraph.graph.origin import scope
from flowgraph.graph.size import Size, as_size, is_name, names_in, show_shape
from flowgraph.graph.tensor import Tensor
from flowgraph.ops.bounds import ClipIndex
from flowgraph.ops.elementwise import add, cast, multiply
from flowgraph.ops.indexing import Gather, scatter_add
from flowgraph.ops.leaf import Input, Parameter, arange, input, parameter, size_of
from flowgraph.ops.random import Generator, states_of
from flowgraph.ops.reduce import mean
from flowgraph.ops.shape import expand_dims
from flowgraph.program import Program

CAPACITY = 1024  # most steps of one native call: what the records hold
ORDER = "order of examples"  # no identifier, so it meets no input of the user's by accident

Values = Mapping[str, np.ndarray]


@dataclass
class Log:
    """Values recorded at every step, with the number of examples each stands for."""

    sizes: list[int] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=dict)

    def append(self, size: int, recorded: Values) -> None:
        for name, steps in recorded.items():
            self.values.setdefault(name, []).extend(steps.astype(np.float64).tolist())
        self.sizes += [size] * max((len(steps) for steps in recorded.values()), default=0)

    def copy(self) -> Log:
        return Log(list(self.sizes), {name: list(steps) for name, steps in self.values.items()})

    def means(self, by: str | None = None, which: Collection[str] = ()) -> dict[str, float]:
        """The mean of every value over the examples: each step counts by its batch size, or, of those in `which`, by
        what was recorded as `by`."""
        found = {}
        for name, steps in self.values.items():
            weights = np.asarray(self.values[by] if by is not None and name in which else self.sizes, np.float64)
            total = float(weights.sum())
            found[name] = float(np.dot(steps, weights)) / total if total else 0.0
        return found


class Sweep:
    """A compiled pass over a data set that records `values` at every step and makes `updates`.

    A value is a scalar, or one number an example, of which the mean is recorded. Random draws are those of `seed`, from
    step 0 on.
    """

    def __init__(
        self,
        values: Mapping[str, Tensor],
        updates: Mapping[Tensor, Tensor],
        device: str,
        threads: int | None = None,
        seed: int = 0,
        detect_anomaly: bool = False,
    ) -> None:
        self._running: tuple[Log, int] | None = None  # the records of a native call that is under way
        roots = (*values.values(), *updates.values())
        wanted = inputs_of(roots)
        require_distinct("inputs", wanted, "rename one")
        self.batch = batch_axis(wanted)
        used = {
            name for node in topological(roots) for t in node.outputs for s in t.shape for name in names_in(s)
        }
        examples, ordered = _fresh("examples", used), _fresh("ordered", used)
        with scope("sweep"), origins.at(wanted[0].origin.by("minibatch")):
            self.step = parameter("step", (), np.zeros((), np.int64), "int64")
            with origins.at(wanted[0].origin.by("order")):
                order = input(ORDER, (ordered,), "int32")
            position = multiply(self.step, size_of(self.batch, "int64"))
            place = add(position, arange(self.batch))  # within the order: `run` makes no more steps than fit
            ids = Gather(exhaustive=True)(order, ClipIndex(ordered, trusted=True)(place))
            replacements: dict[Tensor, Tensor] = {}
            self.declared = {x.op.label: x for x in wanted}
            self.inputs = dict(self.declared)  # a scalar is the same at every step
            for x in (x for x in wanted if x.rank):
                with origins.at(x.origin.by("minibatch")):
                    whole = self.inputs[x.op.label] = input(x.op.label, (examples, *x.shape[1:]), x.dtype)
                    replacements[x] = Gather(exhaustive=True)(whole, ids)
            for number, state in enumerate(states_of(roots)):  # its own: nobody else's draws change a training
                own = Generator(seed, "random" if number == 0 else f"random{number}").state
                replacements[state] = own
            self.records: dict[str, Tensor] = {}
            everything = dict(updates) | {self.step: add(self.step, 1)}
            for name, value in values.items():
                with origins.at(value.origin.by("record")):
                    value = scalar(value, self.batch, name)
                    record = self.records[name] = parameter(name, (CAPACITY,), dtype=value.dtype)
                    row = ClipIndex(CAPACITY, trusted=True)(expand_dims(self.step, 0))
                    everything[record] = scatter_add(record, row, expand_dims(value, 0))
        graph = substitute(Graph((), tuple(everything.items())), replacements)
        self.program: Program = compile(
            inputs=[*self.inputs.values(), order],
            updates=dict(graph.updates),
            device=device,
            threads=threads,
            detect_anomaly=detect_anomaly,
        )

    def check(self, data: Values, examples: int, batch_size: int) -> None:
        """Raise for data that a pass would refuse, before it runs."""
        for size in dict.fromkeys(size for *_, size in pieces(examples, batch_size)):
            order = np.arange(size, dtype=np.int32)
            self.program.check({**data, ORDER: order}, sizes={self.batch: size})

    def run(
        self,
        data: Values,
        order: np.ndarray,
        batch_size: int,
        log: Log,
        on_steps: Callable[[int], None] | None = None,
    ) -> None:
        """One pass over the examples in `order` (int32), from where `log` ends: what it holds was done before. What is
        recorded goes to `log`, even if stopped.

        `on_steps(done)` is called now and then with the steps done so far; then `so_far` tells what is recorded.
        """
        before = len(log.sizes)
        for start, stop, size in pieces(len(order), batch_size, before):
            steps = (stop - start) // size
            for state in (self.step, *self.records.values()):
                state.op.storage.write(np.zeros((), state.dtype.numpy))
            self._running = log, size
            report = (lambda done, before=before: on_steps(before + done)) if on_steps else None
            try:
                self.program.run(
                    steps, {**data, ORDER: order[start:stop]}, sizes={self.batch: size}, on_chunk=report
                )
            except (AnomalyError, OutOfRangeError) as error:
                error.step += before
                raise
            finally:
                self._record(log, size)
                self._running = None
            before += steps
            if on_steps:
                on_steps(before)

    def so_far(self, log: Log) -> Log:
        """What is recorded of a pass that has its records in `log`: asked for between native calls, too."""
        found = log.copy()
        if self._running is not None:
            self._record(found, self._running[1])
        return found

    def _record(self, log: Log, size: int) -> None:
        done = int(self.step.op.storage.read())
        log.append(size, {name: r.op.storage.read()[:done] for name, r in self.records.items()})

    @property
    def state(self) -> list[Tensor]:
        """Every parameter that the program reads or changes, but for what belongs to a single pass."""
        own = {self.step, *self.records.values()}
        graph = self.program.declared
        found = {n.outputs[0] for n in topological(graph.roots) if isinstance(n.op, Parameter)}
        found |= {target for target, _ in graph.updates}
        return sorted(found - own, key=lambda t: t.op.label)


def pieces(examples: int, batch_size: int, skipped: int = 0) -> Iterator[tuple[int, int, int]]:
    """The native calls of one pass, after so many steps: (first example, end, batch size), each a whole number of
    batches.

    >>> list(pieces(100, 32))
    [(0, 96, 32), (96, 100, 4)]
    >>> list(pieces(100, 32, skipped=2))
    [(64, 96, 32), (96, 100, 4)]
    """
    whole = examples - examples % batch_size
    for start in range(skipped * batch_size, whole, CAPACITY * batch_size):
        yield start, min(start + CAPACITY * batch_size, whole), batch_size
    if whole < examples and skipped * batch_size <= whole:
        yield whole, examples, examples - whole


def inputs_of(roots: tuple[Tensor, ...]) -> list[Tensor]:
    """The inputs these tensors depend on, as declared."""
    found = [n.outputs[0] for n in topological(roots) if isinstance(n.op, Input)]
    return sorted(found, key=lambda t: t.node.serial)


def batch_axis(inputs: list[Tensor]) -> str:
    """The name of the size that all inputs but scalars have first: the batch."""
    arrays = [x for x in inputs if x.rank]
    if not arrays:
        raise GraphError(
            "this depends on no input that has examples: there is nothing to feed",
            where=inputs[0].origin if inputs else origins.here(),
        )
    first = arrays[0]
    for x in arrays:
        others = ", ".join(['"batch"', *map(str, x.shape[1:])])
        hint = f'declare it as fg.input("{x.op.label}", ({others}{"," * (x.rank == 1)}))'
        name = is_name(x.shape[0])
        if name is None:
            raise ShapeError(
                f"the first size of input {x.op.label!r}, {show_shape(x.shape)}, needs a name, the batch: "
                "a trainer says how many examples a step has",
                where=x.origin,
                hint=hint,
            )
        if x.shape[0] != first.shape[0]:
            raise ShapeError(
                "all inputs must have the same named size first, the batch: "
                f"{first.op.label!r} is {show_shape(first.shape)}, {x.op.label!r} {show_shape(x.shape)}",
                where=x.origin,
                hint=hint,
            )
        if any(name in names_in(s) for s in x.shape[1:]):
            raise ShapeError(f"input {x.op.label!r} has the batch in two axes", where=x.origin)
    return str(is_name(first.shape[0]))


def scalar(value: Tensor, batch: str, name: str) -> Tensor:
    """A floating-point scalar: the value itself, or the mean of one number an example."""
    with origins.at(value.origin):
        if not value.dtype.is_float:
            value = cast(value, "float32")
        if value.shape == (as_size(batch),):
            value = mean(value)
    if value.shape != ():
        raise ShapeError(
            f"{name} must be a scalar or one number an example, ({batch},), got {show_shape(value.shape)}",
            where=value.origin,
            hint="reduce it, for example fg.mean(...)"
            + ("; fg.nn.sequence_cross_ent leaves out padding" if value.rank > 1 else ""),
        )
    return value


def _fresh(name: str, used: set[str]) -> Size:
    """A named size that the user's graph does not have."""
    while name in used:
        name += "_"
    return as_size(name)
