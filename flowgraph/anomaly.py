"""Where a NaN or an infinity came from: the first bad op, the user's line, the step.

A watched program runs as fast as any, but keeps a copy of what it updates; after every native call it looks at outputs
and updated parameters. If one is not finite it goes back to the copy, makes the steps one by one, and evaluates the
first bad one op by op in the reference. From the bad element it walks to the operand that made it bad: the one which,
were it finite, would leave the result finite. So a value that `where` does not choose is never blamed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from flowgraph.backends.reference import evaluate_graph
from flowgraph.errors import NumericsError
from flowgraph.graph.origin import Origin
from flowgraph.graph.tensor import Node, Tensor
from flowgraph.ops.base import concrete, evaluate_node
from flowgraph.ops.leaf import Input, Leaf, Parameter
from flowgraph.ops.scan import Scan
from flowgraph.program import OnChunk, Program, Sizes

Values = Mapping[Tensor, np.ndarray]


class AnomalyError(NumericsError):
    """A NaN or infinity, traced; `step` counts from 0 within the run, `origin` is the op's."""

    def __init__(self, problem: str, step: int, origin: Origin, hint: str = "") -> None:
        super().__init__(problem, where=origin, hint=hint)
        self.step, self.origin = step, origin


class WatchedProgram(Program):
    """A program that raises AnomalyError for the first step that makes anything infinite or NaN, and leaves the
    parameters as they were before that step.
    """

    def run(
        self, steps: int, inputs: Mapping[str, Any], *, sizes: Sizes | None = None, on_chunk: OnChunk | None = None
    ) -> tuple[np.ndarray, ...]:
        state = [p for p, _ in self.declared.updates]
        before = {p: p.op.storage.read().copy() for p in state}
        outputs = super().run(steps, inputs, sizes=sizes, on_chunk=on_chunk)
        if all(map(is_finite, (*outputs, *(p.op.storage.read() for p in state)))):
            return outputs
        for p, value in before.items():
            p.op.storage.write(value)
        for step in range(steps):
            before = {p: p.op.storage.read().copy() for p in state}
            outputs = super().run(1, inputs, sizes=sizes)
            if not all(map(is_finite, (*outputs, *(p.op.storage.read() for p in state)))):
                after = [p.op.storage.read().copy() for p in state]
                for p, value in before.items():
                    p.op.storage.write(value)
                arrays, found = self.check(inputs, sizes)
                raise explain(self, step, found, arrays, (*outputs, *after))
        return outputs  # what was infinite on the way is finite again


def is_finite(array: np.ndarray) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def explain(
    program: Program, step: int, sizes: Sizes, inputs: Values, results: tuple[np.ndarray, ...]
) -> AnomalyError:
    """The error for a step whose results are not finite; parameters hold what they held before it."""
    for graph in (program.graph, program.declared):  # what runs, then what was written
        with np.errstate(all="ignore"):
            values = evaluate_graph(graph, sizes, inputs)
        root = next((t for t in graph.roots if not is_finite(values[t])), None)
        if root is not None:
            return _describe(*first_bad(root, values, sizes), step)
    roots = program.graph.roots[: len(results)]  # what the compiler itself updates comes last
    bad = next(t for t, array in zip(roots, results, strict=True) if not is_finite(array))
    return AnomalyError(
        f"{bad.label or bad.op.display} is not finite, but is so in the reference: by rounding alone", step, bad.origin
    )


def first_bad(root: Tensor, values: Values, sizes: Sizes) -> tuple[Tensor, tuple[int, ...], Values]:
    """The tensor, and the element of it, where what is bad in a root came from; and the values of its graph: those of a
    turn, if it is in a loop."""
    tensor, place = root, _first(values[root])
    while True:
        node = tensor.node
        if isinstance(node.op, Scan):
            inside = _in_loop(node, values, sizes)
            if not isinstance(inside, Tensor):
                return inside
            tensor, place = inside, _first(values[inside])
            continue
        suspects = [t for t in dict.fromkeys(node.inputs) if not is_finite(values[t])]
        if isinstance(node.op, Leaf) or not suspects:
            return tensor, place, values
        op = concrete(node.op, sizes)

        def result(cured: set[Tensor], op: Any = op, tensor: Tensor = tensor) -> np.ndarray:
            arrays = (_cured(values[t]) if t in cured else values[t] for t in tensor.node.inputs)
            with np.errstate(all="ignore"):
                return evaluate_node(tensor.node, op, list(arrays))[tensor]

        if not np.isfinite(result(set(suspects))[place]):
            return tensor, place, values  # bad whatever its operands
        guilty = next((t for t in suspects if np.isfinite(result({t})[place])), suspects[0])
        same = guilty.shape == tensor.shape and not np.isfinite(values[guilty][place])
        tensor, place = guilty, place if same else _first(values[guilty])


def _in_loop(node: Node, values: Values, sizes: Sizes) -> tuple[Tensor, tuple[int, ...], Values] | Tensor:
    """Where in the first turn with bad results these come from; an operand of the loop, if from there."""
    op: Scan = concrete(node.op, sizes)
    outside = dict(zip(op.inner.slots, node.inputs, strict=True))
    with np.errstate(all="ignore"):
        for _, found in op.turns(*(values[t] for t in node.inputs)):
            root = next((t for t in op.inner.graph.roots if not is_finite(found[t])), None)
            if root is not None:
                tensor, place, seen = first_bad(root, found, sizes)
                return outside.get(tensor, (tensor, place, seen))
    raise AssertionError(f"no turn of {node} is bad")


def _cured(array: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(array), array, 1).astype(array.dtype)


def _first(array: np.ndarray) -> tuple[int, ...]:
    return tuple(int(k) for k in np.argwhere(~np.isfinite(array))[0]) if array.ndim else ()


def _describe(tensor: Tensor, place: tuple[int, ...], values: Values, step: int) -> AnomalyError:
    node, found = tensor.node, values[tensor]
    name = tensor.label or node.op.display
    element = f"[{', '.join(map(str, place))}]" if place else ""
    count = f", the first of {int((~np.isfinite(found)).sum())} such elements" if found.ndim else ""
    if isinstance(node.op, (Input, Parameter)):
        what = "the input" if isinstance(node.op, Input) else "the parameter"
        problem = f"{what} {node.op.label!r}{element} is {found[place]}{count}"
        return AnomalyError(problem, step, node.origin, hint="look at the data, or at who set it")
    operands = []
    for k, t in enumerate(node.inputs):
        value = values[t]
        at = value[place] if value.shape == found.shape else value[()] if value.ndim == 0 else None
        spread = f"from {np.nanmin(value)} to {np.nanmax(value)}" if value.size else "empty"
        shown = spread if at is None else f"{at}"
        operands.append(f"{t.label or t.op.display or f'operand {k}'} = {shown}")
    where = "in the backward graph, " if "backward" in node.origin.passes else ""
    problem = f"{where}{node.op.display} made {name}{element} {found[place]}{count}: {', '.join(operands)}"
    return AnomalyError(problem, step, node.origin)
