"""What a trainer minimises: one cost or several, of all examples alike or by weight; and by which parameters."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from flowgraph.errors import GraphError, ShapeError, listed, shown
from flowgraph.graph import origin as origins
from flowgraph.graph.graph import topological
from flowgraph.graph.size import Size, as_size, show_shape
from flowgraph.graph.tensor import Tensor
from flowgraph.ops.bounds import Lengths
from flowgraph.ops.classification import BinaryCrossEnt, CrossEnt, CrossEntOfLogistic, CrossEntOfSoftmax
from flowgraph.ops.elementwise import Cast, add, divide, equal, multiply, where
from flowgraph.ops.indexing import OneHot
from flowgraph.ops.leaf import Input, Parameter, as_tensor, input
from flowgraph.ops.reduce import sum as sum_
from flowgraph.ops.shape import ExpandDims, Reshape, Squeeze
from flowgraph.train.optim.base import require
from flowgraph.train.sweep import batch_axis, inputs_of, scalar

WEIGHT = "sample_weight"
YES_OR_NO = (CrossEntOfLogistic, BinaryCrossEnt)
COMPARE = (CrossEnt, CrossEntOfSoftmax, *YES_OR_NO)  # predictions with targets
REWRITTEN = (Cast, OneHot, ExpandDims, Squeeze, Reshape)  # what leaves class numbers recognisable


def by_name(what: str, given: Any) -> dict[str, Tensor]:
    """Losses or metrics as users give them, tensors by name."""
    example = f'{what}s={{"name": tensor}}' if what == "metric" else '{"name": tensor}'
    if not isinstance(given, Mapping):
        raise GraphError(f"{what}s are a dict of tensors, got {shown(given)}", where=origins.here(), hint=example)
    for name in given:
        if not isinstance(name, str):
            raise GraphError(f"a {what} is named by a string, got {shown(name)}", where=origins.here(), hint=example)
    return {name: as_tensor(value, what=f"the {what} {name!r}") for name, value in given.items()}


def total_cost(
    costs: Mapping[str, Tensor], factors: Mapping[str, float], weighted: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """The scalar to minimise, and its parts by name if there are several.

    `factors` multiply the parts (1 by default). If `weighted`, each is one number an example, (batch,), and becomes
    sum(weight * cost) / sum(weight); 0 where all weights are 0.
    """
    if not costs:
        raise GraphError("a trainer needs a cost", where=origins.here())
    if not isinstance(factors, Mapping):
        raise GraphError(f"loss_weights are a dict of numbers by loss, got {shown(factors)}", where=origins.here())
    for name, factor in factors.items():
        if name not in costs:
            problem = f"loss_weights has {shown(name)}, which is no loss"
            raise GraphError(problem, where=origins.here(), hint=f"there are {listed(costs)}")
        require(f"the weight of the loss {name!r}", factor)
    batch = batch_axis(inputs_of(tuple(costs.values())))
    by = input(WEIGHT, (batch,)) if weighted else None
    parts = {}
    for name, cost in costs.items():
        what = "the cost" if len(costs) == 1 else f"the loss {name!r}"
        if by is not None:
            cost = _weighted_mean(cost, by, batch, what)
        parts[name] = scalar(cost, batch, what)
    total: Tensor | None = None
    for name, part in parts.items():
        with origins.at(part.origin):
            scaled = multiply(float(factors[name]), part) if name in factors else part
            total = scaled if total is None else add(total, scaled)
    assert total is not None
    return total, parts if len(parts) > 1 else {}


def total_weight(cost: Tensor) -> Tensor:
    """The sum of the weights of a batch, of a cost weighted by them."""
    by = next(t for t in inputs_of((cost,)) if t.op.label == WEIGHT)
    with origins.at(cost.origin):
        return sum_(by)


def targets_of(cost: Tensor) -> dict[str, Size | None]:
    """The inputs of class numbers, (batch,), that a cost compares predictions with, by name: of how many classes each
    is, or None if that is not known. Of a cost that is written by hand they are all such inputs but lengths."""
    compared: list[tuple[Tensor, Size | None] | None] = []
    lengths: set[Tensor] = set()
    for node in topological([cost]):
        if isinstance(node.op, COMPARE):
            predictions, y = node.inputs
            compared.append(_class_numbers(y, 2 if isinstance(node.op, YES_OR_NO) else predictions.shape[-1]))
        elif isinstance(node.op, Lengths):
            lengths.update(node.inputs)
    if compared:
        return {found[0].op.label: found[1] for found in compared if found is not None}
    others = (x for x in inputs_of((cost,)) if x not in lengths)
    return {x.op.label: None for x in others if x.dtype.kind == "int" and x.rank == 1}


def _class_numbers(y: Tensor, classes: Size) -> tuple[Tensor, Size | None] | None:
    """The input of one class number an example that targets are made of, and how many classes there are."""
    while isinstance(y.op, REWRITTEN):
        classes = y.op.depth if isinstance(y.op, OneHot) else classes
        y = y.node.inputs[0]
    return (y, classes) if isinstance(y.op, Input) and y.dtype.kind == "int" and y.rank == 1 else None


def _weighted_mean(cost: Tensor, by: Tensor, batch: str, what: str) -> Tensor:
    if cost.shape != (as_size(batch),):
        raise ShapeError(
            f"{what} must be one number an example, ({batch},), to be weighted, got {show_shape(cost.shape)}",
            where=cost.origin,
            hint="leave out the mean over the batch",
        )
    with origins.at(cost.origin):
        total = sum_(by)
        return divide(sum_(multiply(cost, by)), where(equal(total, 0.0), 1.0, total))


def unfrozen(parameters: Sequence[Tensor], freeze: Tensor | str | Sequence[Tensor | str]) -> list[Tensor]:
    """The parameters but for those that are named, as tensors or by patterns such as "embedding/*"."""
    frozen: set[Tensor] = set()
    one = isinstance(freeze, (str, Tensor)) or not isinstance(freeze, Iterable)
    for which in [freeze] if one else freeze:
        if not isinstance(which, (str, Tensor)):
            raise GraphError(
                f"freeze takes parameters and patterns of their names, got {shown(which)}",
                where=origins.here(),
                hint='of a layer freeze=layer.parameters, or freeze="name/*"',
            )
        found = [
            p for p in parameters if (p is which if isinstance(which, Tensor) else fnmatchcase(p.op.label, which))
        ]
        if not found:
            name = which if isinstance(which, str) else which.label
            raise GraphError(
                f"freeze: {name!r} is no parameter that the cost depends on",
                where=origins.here(),
                hint=f"there are {listed(p.op.label for p in parameters)}",
            )
        frozen.update(found)
    kept = [p for p in parameters if p not in frozen]
    if not kept:
        raise GraphError("every parameter is frozen: there is nothing to train", where=origins.here())
    return kept


def trainable(cost: Tensor, others: Collection[Tensor] = ()) -> list[Tensor]:
    """The floating-point parameters a cost depends on, as declared, but for `others`."""
    leaves = [n.outputs[0] for n in topological([cost]) if isinstance(n.op, Parameter)]
    found = [p for p in leaves if p.dtype.is_float and p not in others]
    if not found:
        raise GraphError("the cost depends on no parameter, so there is nothing to train", where=cost.origin)
    return sorted(found, key=lambda t: t.node.serial)
