"""The front door: `grad` and `compile`. From tensors to a program, through every stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flowgraph import autodiff
from flowgraph.backends.select import Device, make_executor
from flowgraph.errors import GraphError, ShapeError
from flowgraph.graph import origin as origins
from flowgraph.graph.graph import Graph, topological
from flowgraph.graph.names import adopt_names
from flowgraph.graph.tensor import Tensor
from flowgraph.kernels.build import build_kernels
from flowgraph.ops.leaf import Input, Parameter
from flowgraph.ops.shape import as_tensor, broadcast_to
from flowgraph.passes.pipeline import OPTIMISE, before_differentiation, run_passes
from flowgraph.program import Program


def grad(cost: Tensor, wrt: Tensor | Sequence[Tensor]) -> Any:
    """The gradient of a scalar cost with respect to a tensor, or to each of several: tensors of their shapes.

    The forward graph is stabilised first, so the gradient of `cross_ent(softmax(a), y)` is P - Y. The result is a graph
    like any other and may be differentiated again. Raises ShapeError unless the cost is a scalar.
    """
    targets = [wrt] if isinstance(wrt, Tensor) else list(wrt)
    declared = Graph((cost, *targets))
    adopt_names(declared)
    stable = before_differentiation(declared, targets)
    gradients = autodiff.backward(stable.outputs[0], stable.outputs[1:])
    return gradients[0] if isinstance(wrt, Tensor) else gradients


def compile(
    inputs: Sequence[Tensor] | None = None,
    outputs: Tensor | Sequence[Tensor] = (),
    updates: Mapping[Tensor, Any] | None = None,
    device: Device = "auto",
    threads: int | None = None,
    check: bool = False,
) -> Program:
    """Compile a step: what to feed, what to return, which parameters get which new values.

    `inputs` fixes what the program takes (all inputs the graph uses, by default); `updates` maps parameters to tensors
    of their type, all computed from the values before the step. `device` is "cpu", "cuda", "reference", "auto", or an
    opened CUDA device.
    `check` runs the verifier after every stage.

    Raises GraphError for an update of something that is no parameter or for an input that is not listed, ShapeError
    for an update of another shape, DeviceError for a device that cannot be used.
    """
    declared = declare(inputs, outputs, updates)
    optimised, records = run_passes(declared, OPTIMISE, check=check)
    calls = build_kernels(optimised)
    executor = make_executor(device, optimised, calls, threads)
    return Program(declared, optimised, calls, records, executor)


def declare(
    inputs: Sequence[Tensor] | None, outputs: Tensor | Sequence[Tensor], updates: Mapping[Tensor, Any] | None
) -> Graph:
    """The graph a program is compiled from, checked."""
    results = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
    pairs = []
    for target, value in (updates or {}).items():
        if not isinstance(target, Tensor) or not isinstance(target.op, Parameter):
            raise GraphError(
                f"only parameters can be updated, got {target!r}", where=origins.here(), hint="declare it with fg.parameter"
            )
        new = as_tensor(value, target, "an update")
        if new.dtype != target.dtype or new.rank > target.rank or (new.shape != target.shape and new.shape != ()):
            raise ShapeError(
                f"the update of {target.op.label!r} has type {new.type}, the parameter {target.type}", where=new.origin
            )
        pairs.append((target, broadcast_to(new, target.shape)))
    if not results and not pairs:
        raise GraphError("nothing to compute: no outputs and no updates", where=origins.here())
    graph = Graph(results, tuple(pairs))
    adopt_names(graph)
    used = [n.outputs[0] for n in topological(graph.roots) if isinstance(n.op, Input)]
    if inputs is None:
        inputs = sorted(used, key=lambda t: t.node.serial)
    for tensor in inputs:
        if not isinstance(tensor, Tensor) or not isinstance(tensor.op, Input):
            raise GraphError(f"{tensor!r} is not an input", where=origins.here(), hint="declare it with fg.input")
    for tensor in used:
        if tensor not in inputs:
            raise GraphError(
                f"the graph reads input {tensor.op.label!r}, which is not among `inputs`", where=tensor.origin, hint="add it to inputs=[...]"
            )
    return Graph(results, tuple(pairs), tuple(inputs))
