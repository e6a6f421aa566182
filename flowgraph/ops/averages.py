"""Running averages: what a statistic of minibatches becomes where a trained model is used.

An average is a parameter that no gradient moves: a training's step updates it, by `running_updates`. A `Trainer` does
so by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from flowgraph.errors import GraphError
from flowgraph.graph.graph import Graph, topological
from flowgraph.graph.origin import at
from flowgraph.graph.tensor import Tensor
from flowgraph.graph.types import TensorType
from flowgraph.ops.base import Cotangents, Op, Sample, require_float, require_same, values
from flowgraph.ops.elementwise import add, multiply, subtract
from flowgraph.ops.leaf import Parameter


@dataclass(frozen=True)
class Averaged(Op):
    """A statistic of a minibatch, and the parameter that is its running average: the statistic in training, the average
    where the model is used. A step of training makes the average momentum · average + (1 - momentum) · statistic.
    """

    name: ClassVar[str] = "averaged"
    family: ClassVar[str] = "elementwise"
    momentum: float

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_float(self, *types)
        require_same(self, *types)
        return (types[0],)

    def expand(self, *inputs: Tensor) -> Tensor:
        return inputs[0]

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        return cotangents[0], None

    def at_inference(self, *inputs: Tensor) -> Tensor:
        return inputs[1]

    def reference(self, statistic: np.ndarray, average: np.ndarray) -> np.ndarray:
        return statistic.copy()

    @classmethod
    def samples(cls) -> list[Sample]:
        return [Sample(cls(0.9), (values(*shape), values(*shape, seed=1)), smooth=(0,)) for shape in ((17,), (3, 5))]


def running_updates(*tensors: Tensor) -> dict[Tensor, Tensor]:
    """What a step of training makes of the running averages that these tensors, a cost for instance, depend on: for the
    `updates` of `fg.compile`, where no `Trainer` makes the step. Empty where there are none.

    An average that several minibatches' statistics belong to, of a layer that is applied twice, takes up one after the
    other. Raises GraphError for statistics within a loop, which has no one value of them in a step.

    >>> import flowgraph as fg
    >>> layer = fg.nn.BatchNorm("norm", 8)
    >>> [average.label for average in fg.nn.running_updates(layer(fg.input("x", ("batch", 8))))]
    ['norm/mean', 'norm/variance']
    """
    new: dict[Tensor, Tensor] = {}
    for node in topological(tensors):
        if any(_within(graph) for graph in node.op.subgraphs()):
            raise GraphError(
                "a running average within a loop: its turns would all have to update it",
                where=node.origin,
                hint="normalise before or after the loop; fg.nn.LayerNorm keeps no averages",
            )
        if isinstance(node.op, Averaged):
            statistic, average = node.inputs
            if not isinstance(average.op, Parameter):
                raise GraphError("a running average is a parameter", where=node.origin)
            with at(node.origin.by("running average")):
                old = new.get(average, average)
                new[average] = add(old, multiply(1 - node.op.momentum, subtract(statistic, old)))
    return new


def _within(graph: Graph) -> bool:
    return any(
        isinstance(node.op, Averaged) or any(_within(inner) for inner in node.op.subgraphs()) for node in graph.nodes()
    )
