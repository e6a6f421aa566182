"""The front door: `grad` and `compile`. From tensors to a program, through every stage."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from flowgraph import autodiff
from flowgraph.anomaly import WatchedProgram
from flowgraph.backends import select
from flowgraph.backends.known import require_device
from flowgraph.errors import DTypeError, GraphError, ShapeError, shown
from flowgraph.graph import origin as origins
from flowgraph.graph.graph import Graph, topological
from flowgraph.graph.names import adopt_names
from flowgraph.graph.tensor import Tensor
from flowgraph.kernels.build import build_kernels
from flowgraph.kernels.horizontal import join_side_by_side
from flowgraph.kernels.kernel import Call, LoopCall
from flowgraph.kernels.layout import choose_orders
from flowgraph.ops.leaf import Input, Parameter, as_tensor
from flowgraph.ops.random import advanced, states_of
from flowgraph.ops.shape import broadcast_to
from flowgraph.passes.guard import guard_indices
from flowgraph.passes.pipeline import before_differentiation, optimise, run_passes
from flowgraph.passes.watch import Watch, watch_row_numbers
from flowgraph.program import Program, whole_number
from flowgraph.report.debug import level_asked, tell_compiled
from flowgraph.schedule.cost import walk_of
from flowgraph.schedule.kind import kind_of


def grad(cost: Tensor, wrt: Tensor | Sequence[Tensor]) -> Any:
    """The gradient of a scalar cost with respect to a tensor, or to each of several: tensors of their shapes.

    The forward graph is stabilised first, so the gradient of `cross_ent(softmax(a), y)` is P - Y. The result
    is a graph like any other and may be differentiated again. Raises ShapeError unless the cost is a scalar.
    """
    targets = several(wrt, "what to differentiate by")
    for tensor in (cost, *targets):
        if not isinstance(tensor, Tensor):
            hint = "fg.grad(cost, [w, b]) or fg.grad(cost, layer.parameters)"
            raise GraphError(f"grad takes tensors, got {shown(tensor)}", where=origins.here(), hint=hint)
    declared = Graph((cost, *targets))
    adopt_names(declared)
    stable = before_differentiation(declared, targets)
    gradients = autodiff.backward(stable.outputs[0], stable.outputs[1:])
    return gradients[0] if isinstance(wrt, Tensor) else gradients


def compile(
    inputs: Sequence[Tensor] | None = None,
    outputs: Tensor | Sequence[Tensor] = (),
    updates: Mapping[Tensor, Any] | None = None,
    device: select.Device = "auto",
    threads: int | None = None,
    check: bool = False,
    detect_anomaly: bool = False,
) -> Program:
    """Compile a step: what to feed, what to return, which parameters get which new values.

    `inputs` fixes what the program takes (all inputs the graph uses, by default); `updates` maps parameters
    to tensors of their type, all computed from the values before the step. Called, the program returns a tuple of
    arrays, of one output too: `(y,) = program(x=...)`. `device` is "cpu", "cuda",
    "reference", "auto", or an opened CUDA device. `check` runs the verifier after every stage.

    With `detect_anomaly`, a step that makes an output or an updated parameter NaN or infinite raises an error
    that names the op that began it, its line, the element and the step; it costs a copy of what is updated a call.

    A random state that has no update gets one: every step counts it one on.

    Raises GraphError for an update of something that is no parameter, for an input that is not listed and for
    two inputs or two parameters of one name, ShapeError or DTypeError for an update of another type,
    DeviceError for a device that cannot be used; InputError for a FLOWGRAPH_DEBUG that is no level.
    """
    threads = checked_threads(device, threads)
    level, start = level_asked(), time.perf_counter()
    declared = declare(inputs, outputs, updates)
    require_distinct("inputs", declared.inputs, "rename one")
    updated = (target for target, _ in declared.updates)
    state = [n.outputs[0] for n in topological((*declared.roots, *updated)) if isinstance(n.op, Parameter)]
    require_distinct(
        "parameters", state, "rename one, or declare it in a scope of its own: with fg.scope('name')"
    )
    optimised, records = run_passes(declared, optimise(select.wants_blocks(select.kind(device))), check=check)
    optimised, watch, calls = _kernels(optimised)
    executor = select.make_executor(device, optimised, calls, threads)
    kind = WatchedProgram if detect_anomaly else Program
    guarded = next(record.after for record in records if record.name == guard_indices.__name__)
    program = kind(declared, optimised, guarded, calls, records, executor, watch, debug=level)
    if level:
        seconds = time.perf_counter() - start
        tell_compiled(level, declared, optimised, calls, records, executor.files, executor.device, seconds)
    return program


def arrange(calls: Sequence[Call], graph: Graph) -> list[Call]:
    """Kernels joined where they walk the same memory, then their loops and what lies between them in the best order;
    inside of loops too."""
    calls = [
        replace(call, calls=tuple(arrange(call.calls, call.body.graph))) if isinstance(call, LoopCall) else call
        for call in calls
    ]
    joined = join_side_by_side(calls, graph.updates, cache(kind_of))  # equal layers have equal kernels
    return choose_orders(joined, graph.roots, walk_of)


def sources(program: Program, device: str) -> dict[str, str]:
    """The source that a device ("cpu", "cuda", "reference", "auto") would run for the same step, by file name; no such
    device is needed. Raises DeviceError for a name that is none."""
    device = select.kind(device)
    graph, _, calls = _kernels(run_passes(program.declared, optimise(select.wants_blocks(device)))[0])
    return select.generated_source(device, graph, calls)


def _kernels(optimised: Graph) -> tuple[Graph, Watch | None, list[Call]]:
    """An optimised graph as it runs, with what notes row numbers that are out of range, and its kernels."""
    graph, watch = watch_row_numbers(optimised)
    return graph, watch, arrange(build_kernels(graph), graph)


def declare(
    inputs: Sequence[Tensor] | None, outputs: Tensor | Sequence[Tensor], updates: Mapping[Tensor, Any] | None
) -> Graph:
    """The graph a program is compiled from, checked."""
    results = tuple(as_tensor(t, what="an output") for t in several(outputs, "outputs"))
    pairs = []
    if not isinstance(updates or {}, Mapping):
        raise GraphError(
            f"updates are a dict of new values by parameter, got {type(updates).__name__}",
            where=origins.here(),
        )
    for target, value in (updates or {}).items():
        if not isinstance(target, Tensor) or not isinstance(target.op, Parameter):
            raise GraphError(
                f"only parameters can be updated, got {shown(target)}",
                where=origins.here(),
                hint="declare it with fg.parameter",
            )
        new = as_tensor(value, target, "an update")
        if new.dtype != target.dtype or new.shape not in (target.shape, ()):
            wrong = DTypeError if new.dtype != target.dtype else ShapeError
            raise wrong(
                f"the update of {target.op.label!r} has type {new.type}, the parameter {target.type}",
                where=new.origin,
            )
        pairs.append((target, broadcast_to(new, target.shape)))
    given = {target for target, _ in pairs}
    for state in states_of([*results, *(new for _, new in pairs)]):
        if state not in given:
            with origins.at(state.origin.by("random")):
                pairs.append((state, advanced(state)))
    if not results and not pairs:
        raise GraphError("nothing to compute: no outputs and no updates", where=origins.here())
    graph = Graph(results, tuple(pairs))
    adopt_names(graph)
    used = [n.outputs[0] for n in topological(graph.roots) if isinstance(n.op, Input)]
    if inputs is None:
        inputs = sorted(used, key=lambda t: t.node.serial)
    inputs = several(inputs, "inputs")
    for tensor in inputs:
        if not isinstance(tensor, Tensor) or not isinstance(tensor.op, Input):
            raise GraphError(
                f"{tensor!r} is not an input", where=origins.here(), hint="declare it with fg.input"
            )
    for tensor in used:
        if tensor not in inputs:
            raise GraphError(
                f"the graph reads input {tensor.op.label!r}, which is not among `inputs`",
                where=tensor.origin,
                hint="add it to inputs=[...]",
            )
    return Graph(results, tuple(pairs), tuple(inputs))


def checked_threads(device: select.Device, threads: Any) -> int | None:
    """The number of threads, for a device that can be used: DeviceError for any other, InputError for no number."""
    require_device(device)
    return None if threads is None else whole_number(threads, "threads", least=1)


def several(given: Any, what: str) -> list[Any]:
    """A list of one tensor or of several."""
    if isinstance(given, Tensor):
        return [given]
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise GraphError(f"{what}: a tensor or a list of tensors, got {shown(given)}", where=origins.here())
    return list(given)


def require_distinct(what: str, tensors: Iterable[Tensor], hint: str) -> None:
    """Inputs are fed by name; parameters are drawn and saved by it."""
    first: dict[str, Tensor] = {}
    for tensor in tensors:
        other = first.setdefault(tensor.op.label, tensor)
        if other.op is not tensor.op:
            problem = f"two {what} are called {tensor.op.label!r}; the other is at {other.origin}"
            raise GraphError(problem, where=tensor.origin, hint=hint)
