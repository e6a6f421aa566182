"""A compiled program: checks what is fed, runs, returns NumPy arrays. How it runs is an executor's business."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from flowgraph.errors import DTypeError, GraphError, InputError, ShapeError
from flowgraph.graph import origin as origins
from flowgraph.graph.graph import Graph
from flowgraph.graph.origin import Origin
from flowgraph.graph.size import Size, evaluate, is_name, names_in, show_shape
from flowgraph.graph.tensor import Node, Tensor
from flowgraph.kernels.kernel import KernelCall
from flowgraph.ops.elementwise import Cast
from flowgraph.ops.indexing import Gather
from flowgraph.ops.leaf import Input
from flowgraph.ops.shape import Injective
from flowgraph.passes.pipeline import Record

Sizes = Mapping[str, int]
OnChunk = Callable[[int], None]


class Executor(Protocol):
    """What a backend gives: run the step `steps` times on the same inputs, updating parameters in place."""

    device: str

    def run(
        self, sizes: Sizes, inputs: Mapping[Tensor, np.ndarray], steps: int, on_chunk: OnChunk | None
    ) -> tuple[np.ndarray, ...]:
        """Returns the outputs of the last step; `on_chunk(done)` is called now and then with the steps done so far."""
        ...

    def files(self) -> dict[str, str]:
        """The generated code, for people, by file name."""
        ...


@dataclass(frozen=True)
class Bound:
    """Integers of an input must lie in [0, limit): they select rows or classes at `origin`."""

    limit: Size
    op: str
    origin: Origin


class Program:
    """A compiled step. Call it with the inputs by name; it returns the outputs and has updated the parameters."""

    def __init__(
        self,
        declared: Graph,
        optimised: Graph,
        calls: Sequence[KernelCall],
        passes: Sequence[Record],
        executor: Executor,
    ) -> None:
        self.declared, self.graph, self.calls, self.passes = declared, optimised, tuple(calls), tuple(passes)
        self.executor = executor
        self.inputs: dict[str, Tensor] = {}
        for tensor in declared.inputs:
            label = tensor.op.label
            if label in self.inputs:
                raise GraphError(f"two inputs are called {label!r}", where=tensor.origin, hint="rename one")
            self.inputs[label] = tensor
        self._bounds = index_bounds(declared)
        self._sizes = sizes_of(optimised)

    @property
    def device(self) -> str:
        return self.executor.device

    @property
    def kernels(self) -> tuple[Any, ...]:
        """The kernels, in order."""
        return tuple(call.kernel for call in self.calls)

    def source(self) -> str:
        """The generated kernels and the table that runs them, as a readable step."""
        return "\n\n".join(self.executor.files().values())

    def write_source(self, folder: str | Path) -> list[Path]:
        """Write the generated source as files: one a kernel, named after what it computes, and the table of launches."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        written = []
        for name, text in self.executor.files().items():
            (target / name).write_text(text, encoding="utf-8")
            written.append(target / name)
        return written

    def __call__(self, **inputs: Any) -> tuple[np.ndarray, ...]:
        """Run one step. Arrays must have the declared dtypes and shapes; named sizes take their value from them."""
        return self.run(1, inputs)

    def run(
        self, steps: int, inputs: Mapping[str, Any], *, sizes: Sizes | None = None, on_chunk: OnChunk | None = None
    ) -> tuple[np.ndarray, ...]:
        """Run the step `steps` times on the same inputs and return the outputs of the last.

        `sizes` gives named sizes that no input determines. Nothing of Python runs between the steps on a native device.
        """
        if steps < 1:
            raise InputError(f"cannot run {steps} steps")
        arrays, found = self.check(inputs, sizes)
        return self.executor.run(found, arrays, steps, on_chunk)

    def check(self, inputs: Mapping[str, Any], sizes: Sizes | None = None) -> tuple[dict[Tensor, np.ndarray], dict[str, int]]:
        """Validate data against the declaration; returns arrays by tensor and the value of every named size."""
        unknown = [name for name in inputs if name not in self.inputs]
        missing = [name for name in self.inputs if name not in inputs]
        if unknown or missing:
            problem = " and ".join(
                f"{what} input{'s' * (len(n) > 1)} {', '.join(map(repr, n))}" for what, n in (("missing", missing), ("unknown", unknown)) if n
            )
            where = self.inputs[missing[0]].origin if missing else origins.here()
            raise InputError(problem, where=where, hint=f"this program takes {', '.join(map(repr, self.inputs)) or 'no inputs'}")
        arrays = {tensor: self._array(name, tensor, inputs[name]) for name, tensor in self.inputs.items()}
        found = self._solve(arrays, sizes or {})
        for tensor, bounds in self._bounds.items():
            if tensor in arrays:
                for bound in bounds:
                    self._check_bound(tensor, arrays[tensor], bound, found)
        return arrays, found

    def _array(self, name: str, tensor: Tensor, value: Any) -> np.ndarray:
        array = np.asarray(value)
        if not isinstance(value, (np.ndarray, np.generic)) and np.can_cast(array.dtype, tensor.dtype.numpy, "same_kind"):
            array = array.astype(tensor.dtype.numpy)  # numbers and lists have no dtype of their own
        if array.dtype != tensor.dtype.numpy:
            raise DTypeError(
                f"input {name!r} is declared {tensor.dtype}, got {array.dtype}",
                where=tensor.origin,
                hint=f"convert it: {name}.astype('{tensor.dtype}')",
            )
        if array.ndim != tensor.rank:
            raise ShapeError(
                f"input {name!r} is declared with shape {show_shape(tensor.shape)}, got {show_shape(array.shape)}",
                where=tensor.origin,
                hint=f"it needs {tensor.rank} axes",
            )
        return np.asarray(array, order="C")  # ascontiguousarray makes scalars vectors

    def _solve(self, arrays: Mapping[Tensor, np.ndarray], given: Sizes) -> dict[str, int]:
        found, source = dict(given), {name: "the sizes given" for name in given}
        pending: list[tuple[str, Tensor, int, Size, int]] = []
        for name, tensor in self.inputs.items():
            for axis, (size, actual) in enumerate(zip(tensor.shape, arrays[tensor].shape, strict=True)):
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
                    f"input {name!r} is declared with shape {show_shape(tensor.shape)}, got {show_shape(arrays[tensor].shape)}: "
                    f"axis {axis} is {actual}, not {expected}" + (f" ({', '.join(by)})" if by else ""),
                    where=tensor.origin,
                    hint="feed arrays whose sizes agree",
                )
        for name, origin in self._sizes.items():
            if name not in found:
                raise InputError(
                    f"the size {name!r} has no value: no input has it",
                    where=origin,
                    hint="give it with run(..., sizes={...})",
                )
        return found

    def _check_bound(self, tensor: Tensor, array: np.ndarray, bound: Bound, sizes: Sizes) -> None:
        limit = evaluate(bound.limit, sizes)
        bad = (array < 0) | (array >= limit)
        if bad.any():
            place = tuple(int(k) for k in np.argwhere(bad)[0])
            shown = f"[{', '.join(map(str, place))}]" if place else ""
            raise InputError(
                f"{tensor.op.label}{shown} = {array[place]} is out of range: {bound.op} takes integers from 0 to {limit - 1} "
                f"({int(bad.sum())} of {array.size} are out of range)",
                where=bound.origin,
                hint=f"check the data, or the {limit} classes or rows declared at {bound.origin.lines[0].short if bound.origin.lines else 'the op'}",
            )


def index_bounds(graph: Graph) -> dict[Tensor, list[Bound]]:
    """The ranges that ops demand of integer inputs, traced back through views and lookups."""
    found: dict[Tensor, list[Bound]] = {}

    def trace(tensor: Tensor, bound: Bound) -> None:
        node: Node = tensor.node
        if isinstance(node.op, Input):
            known = found.setdefault(tensor, [])
            if all(b.limit != bound.limit for b in known):
                known.append(bound)
        elif isinstance(node.op, (Injective, Gather, Cast)):
            trace(node.inputs[0], bound)

    for node in graph.nodes():
        bounds = getattr(node.op, "index_bounds", None)
        if bounds is not None:
            for operand, limit in bounds(*(t.type for t in node.inputs)).items():
                trace(node.inputs[operand], Bound(limit, node.op.display, node.origin))
    return found


def sizes_of(graph: Graph) -> dict[str, Origin]:
    """The named sizes a graph depends on, by its shapes and its ops, and where each is first needed."""
    found: dict[str, Origin] = {}
    for node in graph.nodes():
        shapes = (size for t in node.outputs for size in t.shape)
        for name in sorted(node.op.named_sizes().union(*map(names_in, shapes))):
            found.setdefault(name, node.origin)
    return found


def concrete(op: Any, sizes: Sizes) -> Any:
    """The op with every symbolic size among its attributes replaced by its value."""

    def value(attribute: Any) -> Any:
        if isinstance(attribute, tuple):
            return tuple(map(value, attribute))
        return evaluate(attribute, sizes) if hasattr(attribute, "terms") else attribute

    changes = {f.name: value(getattr(op, f.name)) for f in dataclasses.fields(op)}
    return dataclasses.replace(op, **changes)
