"""A .fg file -> what the commands need: its cost, metrics, training step, and which data go where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from flowgraph.compile import compile, grad
from flowgraph.datasets import Digits
from flowgraph.datasets.catalogue import CATALOGUE
from flowgraph.errors import FlowgraphError, GraphError, ShapeError
from flowgraph.graph import origin as origins
from flowgraph.graph.graph import topological
from flowgraph.graph.size import as_size
from flowgraph.graph.tensor import Tensor
from flowgraph.nn.metrics import accuracy
from flowgraph.notation import parse, read_text
from flowgraph.ops.classification import CrossEnt, CrossEntOfSoftmax
from flowgraph.ops.leaf import Input
from flowgraph.program import Program
from flowgraph.train.costs import trainable
from flowgraph.train.optim import SGD
from flowgraph.train.sweep import batch_axis, inputs_of, scalar

Shapes = Mapping[str, tuple[int | str, ...]]


@dataclass(frozen=True)
class Model:
    """The named values of a file; `cost` is a scalar or one number an example."""

    values: Mapping[str, Tensor]
    cost: Tensor

    @property
    def metrics(self) -> dict[str, Tensor]:
        """The accuracy, where the cost compares classes."""
        for node in topological([self.cost]):
            if isinstance(node.op, (CrossEnt, CrossEntOfSoftmax)):
                with origins.at(node.origin):
                    return {"accuracy": accuracy(*node.inputs)}
        return {}

    @property
    def inputs(self) -> list[Tensor]:
        return inputs_of((self.cost,))

    def sgd(self, rate: float, momentum: float = 0.0) -> SGD:
        """The optimiser, which no line of the file declares: errors of these numbers name none."""
        with origins.at(origins.Origin()):
            return SGD(rate, momentum)

    def step(self, rate: float, device: str, threads: int | None = None) -> Program:
        """One step of gradient descent on the mean cost of a batch."""
        cost = scalar(self.cost, batch_axis(self.inputs), "the cost")
        parameters = trainable(cost)
        updates = self.sgd(rate).updates(parameters, grad(cost, parameters))
        return compile(outputs=cost, updates=updates, device=device, threads=threads)


def read_model(path: Path, shapes: Shapes, cost: str | None) -> Model:
    """Raises ParseError with line and column, or for a file that cannot be read."""
    return model_of(read_text(path), str(path), shapes, cost)


def model_of(text: str, filename: str, shapes: Shapes, cost: str | None = None) -> Model:
    values = parse(text, shapes=shapes, filename=filename)
    if cost is not None and cost not in values:
        raise GraphError(f"{filename} defines no {cost!r}", hint=f"it defines {', '.join(values)}")
    found = values[cost] if cost is not None else last_cost(values)
    if found is None:
        raise GraphError(f"{filename} has no cost to minimise", hint="end it with one, such as C = crossEntY(P)")
    return Model(values, found)


def last_cost(values: Mapping[str, Tensor]) -> Tensor | None:
    """The last value that is one number, or one an example, and depends on a parameter and on data."""
    for value in reversed(list(values.values())):
        inputs = inputs_of((value,))
        if inputs and value.dtype.is_float and value.shape in ((), inputs[0].shape[:1]) and not _given(value):
            return value
    return None


def _given(value: Tensor) -> bool:
    return isinstance(value.op, Input)


def parse_shapes(options: Sequence[str]) -> dict[str, tuple[int | str, ...]]:
    """--shape W1=64,128 --shape X=batch,64"""
    shapes: dict[str, tuple[int | str, ...]] = {}
    for option in options:
        name, given, sizes = option.partition("=")
        parts = [part.strip() for part in sizes.split(",") if part.strip()]
        if not given or not name.isidentifier():
            raise ShapeError(f"--shape {option!r} is not NAME=SIZES", hint="for example --shape W1=64,128")
        shapes[name] = tuple(int(part) if part.lstrip("-").isdigit() else part for part in parts)
    return shapes


def feed_digits(model: Model, digits: Digits) -> dict[str, np.ndarray]:
    """Images to the input of 64 floats, labels to class numbers or to a distribution over 10 classes."""
    fed: dict[str, np.ndarray] = {}
    for x in model.inputs:
        if x.dtype.kind == "int" and x.rank == 1:
            fed[x.op.label] = digits.labels.astype(x.dtype.numpy)
        elif x.dtype.is_float and x.shape[1:] == (as_size(64),):
            fed[x.op.label] = digits.images.astype(x.dtype.numpy)
        elif x.dtype.is_float and x.shape[1:] == (as_size(10),):
            fed[x.op.label] = np.eye(10, dtype=x.dtype.numpy)[digits.labels]
        else:
            raise ShapeError(
                f"the digits have nothing for {x.op.label!r} of type {x.type}",
                where=x.origin,
                hint="they are images (batch, 64) and labels (batch,) or (batch, 10)",
            )
    return fed


def read_arrays(path: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, by name; nothing in it is run."""
    try:
        with np.load(path, allow_pickle=False) as found:
            if not hasattr(found, "files"):
                raise FlowgraphError(f"{path} is one array without a name", hint="write it with numpy.savez")
            return {name: found[name] for name in found.files}
    except FileNotFoundError as error:
        hint = "--data is 'digits' or an .npz file, written with numpy.savez"
        if path in CATALOGUE:
            hint += f"; {path} is a data set for Python: fg.datasets.load_{path}()"
        raise FlowgraphError(f"there is no file {path}", hint=hint) from error
    except (ValueError, EOFError, BadZipFile) as error:  # whose text is of pickles, which nobody spoke of
        hint = "--data is 'digits' or an .npz file, written with numpy.savez"
        raise FlowgraphError(f"cannot read {path}: it is no .npz file of arrays", hint=hint) from error
