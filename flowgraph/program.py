"""A compiled program: checks what is fed, runs, returns NumPy arrays. How it runs is the executor's part."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from flowgraph.errors import DTypeError, InputError, OutOfRangeError, ShapeError, listed, nearest, shown
from flowgraph.graph import origin as origins
from flowgraph.graph.graph import Graph
from flowgraph.graph.origin import Origin
from flowgraph.graph.size import Shape, Size, can_be_negative, evaluate, is_name, names_in, show_shape
from flowgraph.graph.tensor import Tensor
from flowgraph.kernels.kernel import Call, kernel_calls
from flowgraph.ops.base import Op, concrete
from flowgraph.ops.elementwise import Cast
from flowgraph.ops.leaf import Constant, as_array, fits
from flowgraph.passes.guard import View, view_of_input
from flowgraph.passes.pipeline import Record
from flowgraph.passes.watch import Watch
from flowgraph.plan.plan import Plan, make_plan
from flowgraph.report.debug import Tally, tell_first_run
from flowgraph.report.explain import Explanation, explain
from flowgraph.report.memory import Memory, memory_of
from flowgraph.report.profile import Profile, Timed, profile_of

Sizes = Mapping[str, int]
OnChunk = Callable[[int], None]


class Executor(Protocol):
    """What a backend gives: run the step `steps` times on the same inputs, updating parameters in place."""

    device: str

    @property
    def plan(self) -> Plan | None:
        """What is launched and where values live; None where nothing is planned."""
        ...

    def run(
        self, sizes: Sizes, inputs: Mapping[Tensor, np.ndarray], steps: int, on_chunk: OnChunk | None
    ) -> tuple[np.ndarray, ...]:
        """Returns the last step's outputs; `on_chunk(done)` is told now and then how many steps are done."""
        ...

    def profile(self, sizes: Sizes, inputs: Mapping[Tensor, np.ndarray], steps: int) -> Timed:
        """`run`, and what every part of it took."""
        ...

    def working(self, sizes: Sizes) -> list[dict[str, int]] | None:
        """Bytes that every launch of the plan needs for itself, by name; None where nothing is planned."""
        ...

    def files(self) -> dict[str, str]:
        """The generated code, for people, by file name."""
        ...

    def to_compile(self) -> int:
        """How many kernels the first run will compile, which may take a while; 0 where nobody knows."""
        ...

    def tally(self) -> Tally | None:
        """What was done so far, in this process, to have native kernels; None where nobody counts."""
        ...


@dataclass(frozen=True)
class Bound:
    """Integers of an input or a constant, those that a view shows, must lie in [lowest, limit): they select rows or
    classes at `origin`."""

    limit: Size
    op: str
    origin: Origin
    view: View
    lowest: int = 0
    advice: str = ""  # for what is out of range, if the op has any; {last} is the largest allowed


@dataclass(frozen=True)
class Nonempty:
    """A size that may not be 0 where a result of this shape has elements."""

    size: Size
    shape: Shape
    problem: str
    origin: Origin


class Program:
    """A compiled step. Called with inputs by name, it returns the outputs and has updated the parameters."""

    def __init__(
        self,
        declared: Graph,
        optimised: Graph,
        guarded: Graph,
        calls: Sequence[Call],
        passes: Sequence[Record],
        executor: Executor,
        watch: Watch | None = None,
        debug: int = 0,
    ) -> None:
        self.declared, self.graph, self.calls, self.passes = declared, optimised, tuple(calls), tuple(passes)
        self.executor, self.watch = executor, watch
        self._debug = debug  # see report.debug
        self._ran: set[tuple[tuple[str, int], ...]] = set()  # sizes whose first run was reported
        self.inputs: dict[str, Tensor] = {tensor.op.label: tensor for tensor in declared.inputs}
        self._sizes = sizes_of(optimised)
        of_inputs = (names_in(size) for tensor in declared.inputs for size in tensor.shape)
        self.sizes = frozenset(sizes_of(declared)).union(self._sizes, *of_inputs)  # names that may be given
        self._nonempty = nonempty_sizes(optimised)
        self._nonnegative = nonnegative_sizes(declared)
        self._bounds = index_bounds(declared, guarded)
        for tensor in [t for t in self._bounds if isinstance(t.op, Constant)]:
            for bound in self._bounds[tensor]:
                if isinstance(bound.limit, int):  # known now, and for good
                    _check_bound("a constant", tensor.op.array, bound, {})
            self._bounds[tensor] = [b for b in self._bounds[tensor] if not isinstance(b.limit, int)]

    @property
    def device(self) -> str:
        return self.executor.device

    @property
    def kernels(self) -> tuple[Any, ...]:
        """The kernels, in order, those of loops once."""
        return tuple(call.kernel for call in kernel_calls(self.calls))

    def source(self) -> str:
        """The generated kernels and the table that runs them, as a readable step."""
        return "\n\n".join(self.executor.files().values())

    @cached_property
    def plan(self) -> Plan:
        """The order of launches, which calls are one, and what lives where; of the reference, as it could be."""
        return self.executor.plan or make_plan(self.graph, self.calls)

    def explain(self) -> Explanation:
        """What shares a kernel and what does not and why, what is stored and for whom, which updates are in place, and
        what the passes changed; names the user's lines. Prints as text, its parts are data."""
        return explain(self.graph, self.plan, self.passes)

    def memory(self, sizes: Sizes | None = None) -> Memory:
        """Where the bytes of a step go, at these values of the named sizes. Prints as a table, its parts are data.

        Raises InputError for a size that is unknown, or has no value.

        >>> import flowgraph as fg
        >>> x, w = fg.input("x", ("batch", 64)), fg.parameter("w", (64, 8))
        >>> memory = fg.compile(outputs=fg.tanh(x @ w), device="cpu").memory({"batch": 10})
        >>> memory.bytes("parameter"), memory.bytes("input"), memory.arena
        (2048, 2560, 320)
        """
        found = self._given(sizes or {})
        missing = [name for name in self._sizes if name not in found]
        if missing:
            raise InputError(
                f"the size {missing[0]!r} has no value",
                where=self._sizes[missing[0]],
                hint=f"program.memory({{{', '.join(f'{name!r}: ...' for name in sorted(self._sizes))}}})",
            )
        return memory_of(self.graph, self.plan, self.executor.working(found), found)

    def write_source(self, folder: str | Path) -> list[Path]:
        """Write the generated source: a file a kernel, named after what it computes, and the launches."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        written = []
        for name, text in self.executor.files().items():
            (target / name).write_text(text, encoding="utf-8")
            written.append(target / name)
        return written

    def __reduce__(self) -> Any:
        raise TypeError(
            "a compiled program can be neither copied nor pickled: it holds machine code and memory of this process; "
            "compile again from the same graph"
        )

    def __repr__(self) -> str:
        inputs = ", ".join(f"{name}: {tensor.type}" for name, tensor in self.inputs.items())
        outputs = ", ".join(str(tensor.type) for tensor in self.declared.outputs)
        updates = listed(parameter.op.label for parameter, _ in self.declared.updates)
        return f"<Program({inputs}) -> ({outputs}), updates {updates or 'nothing'}, on {self.device}>"

    def __call__(self, /, *positional: Any, **inputs: Any) -> tuple[np.ndarray, ...]:
        """Run one step on arrays of the declared dtypes and shapes; they also give named sizes a value.

        Returns the outputs as a tuple, of one output too: `(y,) = program(x=...)`.
        """
        if positional:
            raise InputError(
                f"inputs are given by name, got {shown(positional[0])} without one",
                where=origins.here(),
                hint=f"program({', '.join(f'{name}=...' for name in self.inputs)})",
            )
        return self.run(1, inputs)

    def run(
        self,
        steps: int,
        inputs: Mapping[str, Any],
        *,
        sizes: Sizes | None = None,
        on_chunk: OnChunk | None = None,
    ) -> tuple[np.ndarray, ...]:
        """Run the step `steps` times on the same inputs and return the outputs of the last.

        `sizes` gives named sizes that no input determines. On a native device nothing of Python runs between
        the steps.
        """
        steps = whole_number(steps, "the number of steps", least=1)
        arrays, found = self.check(inputs, sizes)
        run = self._run_and_tell if self._debug else self._run
        return run(steps, arrays, found, on_chunk)

    def profile(self, steps: int, inputs: Mapping[str, Any], *, sizes: Sizes | None = None) -> Profile:
        """`run`, measured: the time of every launch, and of the user's lines. Parameters are updated as by `run`; the
        last step's outputs are the profile's. The first steps may find caches cold: make many. Nothing is watched for
        NaN and infinity.

        >>> import flowgraph as fg, numpy as np
        >>> x, w = fg.input("x", ("batch", 64)), fg.parameter("w", (64, 8))
        >>> program = fg.compile(outputs=fg.tanh(x @ w), device="cpu")
        >>> profile = program.profile(100, {"x": np.ones((10, 64), np.float32)})
        >>> profile.launches[0].operations, profile.launches[0].bytes
        (10320, 4928)
        """
        steps = whole_number(steps, "the number of steps", least=1)
        arrays, found = self.check(inputs, sizes)
        timed = self.executor.profile(found, arrays, steps)
        self._require_rows(steps, found)
        return profile_of(self.graph, self.plan, timed, steps, found)

    def _run(
        self, steps: int, arrays: Mapping[Tensor, np.ndarray], found: Sizes, on_chunk: OnChunk | None
    ) -> tuple[np.ndarray, ...]:
        outputs = self.executor.run(found, arrays, steps, on_chunk)
        self._require_rows(steps, found)
        return outputs

    def _require_rows(self, steps: int, sizes: Sizes) -> None:
        """Raise OutOfRangeError if the steps just made had to clip a row number that they computed."""
        noted = None if self.watch is None else self.watch.noted()
        if noted is None:
            return
        lookup, ago, number = noted
        limit = evaluate(lookup.limit, sizes)
        allowed = f"takes integers from 0 to {limit - 1}" if limit else "has no rows"
        raise OutOfRangeError(
            f"a computed row number is out of range: {lookup.reader} {allowed}, got {number}",
            steps - ago,
            steps,
            where=lookup.origin,
            hint="the nearest row was taken, and the steps were made; keep it in range, for example with fg.clip",
        )

    def _run_and_tell(
        self, steps: int, arrays: Mapping[Tensor, np.ndarray], found: Sizes, on_chunk: OnChunk | None
    ) -> tuple[np.ndarray, ...]:
        """Run, and say so if it is the first time at these sizes."""
        key = tuple(sorted(found.items()))
        if key in self._ran:
            return self._run(steps, arrays, found, on_chunk)
        before, start = self.executor.tally(), time.perf_counter()
        outputs = self._run(steps, arrays, found, on_chunk)
        seconds = time.perf_counter() - start
        after = self.executor.tally()
        done = None if before is None or after is None else after - before
        tell_first_run(self._debug, self.plan, self.memory(found), done, seconds)
        self._ran.add(key)
        return outputs

    def check(
        self, inputs: Mapping[str, Any], sizes: Sizes | None = None
    ) -> tuple[dict[Tensor, np.ndarray], dict[str, int]]:
        """Compare data with the declaration; returns arrays by tensor and the value of every named size."""
        require_names(inputs, self.inputs)
        by_name = {name: as_declared(name, tensor, inputs[name]) for name, tensor in self.inputs.items()}
        found = solve_sizes(self.inputs, by_name, self._given(sizes or {}))
        for name, origin in self._sizes.items():
            if name not in found:
                raise InputError(
                    f"the size {name!r} has no value: no input has it",
                    where=origin,
                    hint="give it with run(..., sizes={...})",
                )
        arrays = {self.inputs[name]: array for name, array in by_name.items()}
        for tensor, bounds in self._bounds.items():
            fixed = isinstance(tensor.op, Constant)
            if fixed or tensor in arrays:
                array, name = (tensor.op.array, "a constant") if fixed else (arrays[tensor], tensor.op.label)
                for bound in bounds:
                    _check_bound(name, array, bound, found)
        for size, problem, origin, remedy in self._nonnegative:
            if evaluate(size, found) < 0:
                named = ", ".join(f"{name} = {found[name]}" for name in sorted(names_in(size)))
                raise InputError(f"{problem}: {size} is negative where {named}", where=origin, hint=remedy)
        for need in self._nonempty:
            if evaluate(need.size, found) == 0 and all(evaluate(s, found) for s in need.shape):
                named = "" if isinstance(need.size, int) else f": {need.size} = 0"
                raise InputError(need.problem + named, where=need.origin, hint="feed at least one element")
        return arrays, found

    def _given(self, sizes: Sizes) -> dict[str, int]:
        unknown = [name for name in sizes if name not in self.sizes]
        if unknown:
            raise InputError(
                f"unknown size{'s' * (len(unknown) > 1)} {', '.join(map(repr, unknown))}",
                where=origins.here(),
                hint=f"this program has {', '.join(map(repr, sorted(self.sizes))) or 'no named sizes'}",
            )
        return {name: whole_number(value, f"the size {name!r}", least=0) for name, value in sizes.items()}


def require_names(given: Mapping[str, Any], inputs: Mapping[str, Tensor]) -> None:
    """Raise InputError unless exactly these inputs are given."""
    missing, unknown = [n for n in inputs if n not in given], [n for n in given if n not in inputs]
    if not missing and not unknown:
        return
    wrong = [(what, names) for what, names in (("missing", missing), ("unknown", unknown)) if names]
    parts = [f"{what} input{'s' * (len(names) > 1)} {listed(names)}" for what, names in wrong]
    meant = nearest(unknown[0], missing or inputs) if unknown else None
    hint = (f"did you mean {meant!r}? " if meant else "") + f"this program takes {listed(inputs) or 'no inputs'}"
    if any(isinstance(name, Tensor) for name in unknown):
        hint = f"data are given by name, not by tensor: {{{', '.join(f'{name!r}: ...' for name in inputs)}}}"
    where = inputs[missing[0]].origin if missing else origins.here()
    raise InputError(" and ".join(parts), where=where, hint=hint)


def solve_sizes(
    inputs: Mapping[str, Tensor], arrays: Mapping[str, np.ndarray], given: Mapping[str, int]
) -> dict[str, int]:
    """The value of every named size that the inputs' shapes have; ShapeError where arrays contradict these."""
    found, source = dict(given), dict.fromkeys(given, "the sizes given")
    pending: list[tuple[str, Tensor, int, Size, int]] = []
    for name, tensor in inputs.items():
        for axis, (size, actual) in enumerate(zip(tensor.shape, arrays[name].shape, strict=True)):
            known = is_name(size)
            if known and known not in found:
                found[known], source[known] = actual, f"axis {axis} of {name!r}"
            pending.append((name, tensor, axis, size, actual))
    for name, tensor, axis, size, actual in pending:
        unknown = names_in(size) - set(found)
        if unknown:
            raise InputError(f"the size {sorted(unknown)[0]!r} has no value", where=tensor.origin)
        expected = evaluate(size, found)
        if expected != actual:
            by = [f"{n} = {found[n]} by {source[n]}" for n in sorted(names_in(size))]
            raise ShapeError(
                f"input {name!r} is declared with shape {show_shape(tensor.shape)}, "
                f"got {show_shape(arrays[name].shape)}: axis {axis} is {actual}, not {expected}"
                + (f" ({', '.join(by)})" if by else ""),
                where=tensor.origin,
                hint="feed arrays whose sizes agree",
            )
    return found


def as_declared(name: str, tensor: Tensor, value: Any) -> np.ndarray:
    """What is fed to an input as a contiguous array of its dtype and rank. Only numbers and lists, which have
    no dtype of their own, are converted.
    """
    array = as_array(value, f"input {name!r}", tensor.origin)
    has_dtype = hasattr(value, "dtype")
    last = ", ".join([":"] * tensor.rank)
    if not has_dtype and fits(array, tensor.dtype):
        array = array.astype(tensor.dtype.numpy)
    if array.dtype != tensor.dtype.numpy:
        raise DTypeError(
            f"input {name!r} is declared {tensor.dtype}, got {array.dtype}",
            where=tensor.origin,
            hint=f"one-hot rows become class numbers by {name}.argmax({tensor.rank}).astype('{tensor.dtype}')"
            if tensor.dtype.kind == "int" and array.dtype.kind == "f" and array.ndim == tensor.rank + 1
            else f"convert it: {name}.astype('{tensor.dtype}')"
            if has_dtype
            else f"give {tensor.dtype} numbers",
        )
    if array.ndim != tensor.rank:
        raise ShapeError(
            f"input {name!r} is declared with shape {show_shape(tensor.shape)}, "
            f"got {show_shape(array.shape)}",
            where=tensor.origin,
            hint=f"take the last axis off: {name}[{last}, 0]"
            if tensor.rank and array.ndim == tensor.rank + 1 and array.shape[-1] == 1
            else f"it needs {tensor.rank} axes",
        )
    return np.asarray(array, order="C")  # ascontiguousarray makes scalars vectors


def whole_number(value: Any, what: str, least: int, most: int | None = None) -> int:
    """An int from an int of any make; InputError for anything else, and outside of [least, most]."""
    is_whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not is_whole or value < least or (most is not None and value > most):
        limits = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise InputError(f"{what} is a whole number {limits}, got {shown(value)}", where=origins.here())
    return int(value)


def _check_bound(name: str, array: np.ndarray, bound: Bound, sizes: Sizes) -> None:
    limit = evaluate(bound.limit, sizes)

    def with_sizes(op: Op) -> Op:
        return concrete(op, sizes)

    with np.errstate(invalid="ignore"):  # NaN, to be cast to an integer, is bad
        seen = bound.view.of(array, with_sizes)
    bad = ~((seen >= bound.lowest) & (seen < limit))
    if bad.any():
        places = replace(bound.view, ops=tuple(op for op in bound.view.ops if not isinstance(op, Cast)))
        numbers = places.of(np.arange(array.size).reshape(array.shape), with_sizes)
        place = tuple(int(k) for k in np.unravel_index(int(numbers[bad].min()), array.shape))
        shown = f"[{', '.join(map(str, place))}]" if place else ""
        allowed = f"takes integers from {bound.lowest} to {limit - 1}" if limit else "has no rows"
        count = f" ({int(bad.sum())} of {seen.size} are out of range)" if array.ndim else ""
        declared = bound.origin.lines[0].short if bound.origin.lines else "the op"
        usual = f"check the data, or the {limit} classes or rows declared at {declared}"
        hint = bound.advice.format(last=limit - 1) or usual
        problem = f"{name}{shown} = {array[place]} is out of range: {bound.op} {allowed}{count}"
        raise InputError(problem, where=bound.origin, hint=hint)


def index_bounds(*graphs: Graph) -> dict[Tensor, list[Bound]]:
    """The ranges that ops demand of integer inputs and constants: those of the user's graph, whose errors say most, and
    of the guarded one, whose kernels rely on them."""
    found: dict[Tensor, list[Bound]] = {}
    for node in (node for graph in graphs for node in graph.all_nodes()):
        bounds = getattr(node.op, "index_bounds", None)
        if bounds is None:
            continue
        for operand, limit in bounds(*(t.type for t in node.inputs)).items():
            view = view_of_input(node.inputs[operand])
            if view is None:
                continue
            lowest, advice = getattr(node.op, "lowest", 0), getattr(node.op, "advice", "")
            bound = Bound(limit, node.op.display, node.origin, view, lowest, advice)
            known = found.setdefault(view.source, [])
            alike = [(b.limit, b.view, b.lowest) == (limit, view, bound.lowest) for b in known]
            same = alike.index(True) if any(alike) else None
            if same is None:
                known.append(bound)
            elif known[same].origin.passes and not bound.origin.passes:
                known[same] = bound  # the user's own op says more than what was made from it
    return found


def nonempty_sizes(graph: Graph) -> list[Nonempty]:
    """The sizes that ops cannot take as 0."""
    return [
        Nonempty(size, node.outputs[0].shape, problem, node.origin)
        for node in graph.all_nodes()
        for size, problem in node.op.nonempty(*(t.type for t in node.inputs)).items()
        if size == 0 or not isinstance(size, int)
    ]


def nonnegative_sizes(graph: Graph) -> list[tuple[Size, str, Origin, str]]:
    """The sizes that might be negative and may not, what is wrong if one is, where, and what to do then."""
    return [
        (size, problem, node.origin, node.op.remedy)
        for node in graph.all_nodes()
        for size, problem in node.op.nonnegative(*(t.type for t in node.inputs)).items()
        if can_be_negative(size)
    ]


def sizes_of(graph: Graph) -> dict[str, Origin]:
    """The named sizes a graph depends on, by its shapes and its ops, and where each is first needed."""
    found: dict[str, Origin] = {}
    for node in graph.all_nodes():
        shapes = (size for t in node.outputs for size in t.shape)
        for name in sorted(node.op.named_sizes().union(*map(names_in, shapes))):
            found.setdefault(name, node.origin)
    return found
