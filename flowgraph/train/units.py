"""What units of a network see: the inputs that most excite them, and the part of an input that they depend on.

The first is computed natively, a maximum and its place for every example. The second follows from the graph alone: from
an element of a tensor back through the index notation of every op, with an interval for each axis.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from flowgraph.compile import compile
from flowgraph.errors import GraphError, InputError, ShapeError, shown
from flowgraph.graph import origin as origins
from flowgraph.graph.graph import Graph, topological
from flowgraph.graph.size import as_size, evaluate, product, show_shape
from flowgraph.graph.tensor import Node, Tensor
from flowgraph.index_notation import Apply, Axis, Const, Expr, Extent, Index, Load, walk
from flowgraph.ops.leaf import as_tensor
from flowgraph.ops.pieces import Pad
from flowgraph.ops.reduce import max as max_
from flowgraph.ops.shape import Reshape, reshape
from flowgraph.ops.statistics import argmax
from flowgraph.passes.expand import expand_composites
from flowgraph.passes.inference import inference
from flowgraph.program import solve_sizes, whole_number
from flowgraph.train.data import Data, as_mapping, check_data
from flowgraph.train.sweep import batch_axis, inputs_of

Interval = tuple[int, int]  # first and last
Box = tuple[Interval, ...]


@dataclass(frozen=True)
class Strongest:
    """The examples that most excite a unit, the strongest first: their numbers in the data (k,), the unit's values
    (k,), and at which position of the unit's map each is found, (k, axes of the map). Of equal values the first counts.
    """

    examples: np.ndarray
    values: np.ndarray
    positions: np.ndarray
    tensor: Tensor
    unit: int
    data: Mapping[str, np.ndarray]

    def patches(self, name: str | None = None) -> list[np.ndarray]:
        """What the unit saw of an input in each example, of the input's axes but the batch, with zeros where its field
        reaches beyond the edge. `name` may be left out where there is one input."""
        inputs = {x.op.label: x for x in inputs_of((self.tensor,)) if x.rank}
        if name is None and len(inputs) == 1:
            (name,) = inputs
        if name is None or name not in inputs:
            problem = f"patches are of one of the inputs {', '.join(map(repr, inputs))}, got {shown(name)}"
            raise InputError(problem, where=origins.here())
        sizes = solve_sizes(inputs, {n: self.data[n] for n in inputs}, {})
        found = []
        for example, place in zip(self.examples, self.positions, strict=True):
            field = receptive_field(self.tensor, inputs[name], (self.unit, *map(int, place)), sizes)
            found.append(_cut(self.data[name][example], field))
        return found


def strongest(
    tensor: Tensor,
    data: Data,
    unit: int,
    k: int = 9,
    *,
    batch_size: int = 256,
    device: str = "auto",
    threads: int | None = None,
) -> Strongest:
    """The k examples of `data` that most excite a unit of `tensor`, (batch, units) or (batch, units, *map), as a layer
    or a convolution gives. Of a map its largest element counts, so no example is there twice.

    Dropout is left out. Raises ShapeError for a tensor of another form, InputError for a unit or k out of range.

    >>> import numpy as np, flowgraph as fg
    >>> x = fg.input("x", ("batch", 1, 4, 4))
    >>> corner = fg.conv2d(x, np.float32([[[[1, 1], [1, -3]]]]))
    >>> images = np.zeros((5, 1, 4, 4), np.float32)
    >>> images[3, 0, 1:3, 2] = images[3, 0, 1, 3] = 1
    >>> found = fg.strongest(corner, {"x": images}, unit=0, k=1, device="reference")
    >>> found.examples.tolist(), found.values.tolist(), found.positions.tolist()
    ([3], [3.0], [[1, 2]])
    >>> found.patches()[0].tolist()
    [[[1.0, 1.0], [1.0, 0.0]]]
    """
    tensor = as_tensor(tensor, what="strongest")
    batch = as_size(batch_axis(inputs_of((tensor,))))
    if tensor.rank < 2 or tensor.shape[0] != batch or not tensor.dtype.is_float:
        raise ShapeError(
            f"strongest needs values ({batch}, units, ...), got {tensor.type}",
            where=tensor.origin,
            hint="reshape it: examples first, then units",
        )
    units = tensor.shape[1]
    unit = whole_number(unit, "unit", 0, units - 1 if isinstance(units, int) else None)
    k, batch_size = whole_number(k, "k", least=1), whole_number(batch_size, "batch_size", least=1)
    flat = reshape(inference(tensor)[:, unit], (batch, product(tensor.shape[2:])))
    program = compile(outputs=[max_(flat, axis=1), argmax(flat, axis=1)], device=device, threads=threads)
    known = {name: array for name, array in as_mapping(data, program.inputs).items() if name in program.inputs}
    arrays, count = check_data(known, program.inputs)
    if k > count:
        raise InputError(f"k is {k}, and there are {count} examples", where=origins.here())
    values, places = [], []
    for start in range(0, count, batch_size):
        rows = {n: a[start : start + batch_size] if a.ndim else a for n, a in arrays.items()}
        best, place = program(**rows)
        values.append(best)
        places.append(place)
    value, where = np.concatenate(values), np.concatenate(places)
    order = np.argsort(-value, kind="stable")[:k]
    sizes = solve_sizes(program.inputs, arrays, {})
    extents = tuple(evaluate(s, sizes) for s in tensor.shape[2:])
    positions = np.stack(np.unravel_index(where[order], extents), axis=1) if extents else np.empty((k, 0), np.int64)
    return Strongest(order, value[order], positions, tensor, unit, arrays)


def receptive_field(
    tensor: Tensor, source: Tensor, position: tuple[int, ...], sizes: Mapping[str, int] | None = None
) -> tuple[slice, ...]:
    """The part of an example of an input that an element of a tensor may depend on: slices of the axes of `source`
    behind the batch, for the element at `position` of those of `tensor`.

    Slices begin below 0 or end beyond the input where windows reach into padding. `sizes` are those of named axes other
    than the batch. What is looked up, cumulated, sorted, or goes through a loop, depends on all. Raises GraphError
    where the tensor does not depend on the source.

    >>> import flowgraph as fg
    >>> x = fg.input("x", ("batch", 1, 28, 28))
    >>> w = fg.parameter("w", (4, 1, 3, 3))
    >>> h = fg.max_pool2d(fg.relu(fg.conv2d(x, w, padding="same")), 2)
    >>> fg.receptive_field(h, x, (0, 5, 0))
    (slice(0, 1, None), slice(9, 13, None), slice(-1, 3, None))
    """
    if len(position) != tensor.rank - 1:
        raise ShapeError(
            f"a position of {len(position)} axes in {show_shape(tensor.shape)}",
            where=origins.here(),
            hint="one number for every axis behind the batch",
        )
    batch = batch_axis([source])
    known = {**(sizes or {}), batch: 1}
    graph = expand_composites(Graph((inference(tensor),)))
    boxes: dict[Tensor, Box] = {graph.outputs[0]: ((0, 0), *((p, p) for p in position))}
    for node in reversed(topological(graph.outputs)):
        for output in node.outputs:
            if output in boxes:
                for operand, box in _reads(node, boxes[output], known):
                    old = boxes.get(operand, box)
                    boxes[operand] = tuple((min(a, c), max(b, d)) for (a, b), (c, d) in zip(old, box, strict=True))
    if source not in boxes:
        problem = f"{tensor.label or tensor.op.display!r} does not depend on {source.op.label!r}"
        raise GraphError(problem, where=tensor.origin)
    return tuple(slice(first, last + 1) for first, last in boxes[source][1:])


def _reads(node: Node, box: Box, sizes: Mapping[str, int]) -> list[tuple[Tensor, Box]]:
    """What a node reads of its operands for a box of its output."""
    op, types = node.op, [t.type for t in node.inputs]
    if isinstance(op, Pad):
        parts = zip(box, op.before, op.steps, strict=True)
        return [(node.inputs[0], tuple(_unpadded(b, evaluate(n, sizes), s) for b, n, s in parts))]
    if isinstance(op, Reshape):
        whole, shape = _all(node.inputs[0], sizes), tuple(evaluate(n, sizes) for n in node.outputs[0].shape)
        return [(node.inputs[0], _reshaped(box, shape, tuple(last + 1 for _, last in whole)))]
    if op.meaning() != "body" or len(node.outputs) != 1:
        return [(t, _all(t, sizes)) for t in node.inputs]
    body = op.body(*types)
    axes = dict(zip(body.axes, box, strict=True)) | {a: (0, evaluate(a.extent, sizes) - 1) for a in body.reduce}
    found = []
    for load in walk(body.value):
        if isinstance(load, Load):
            assert isinstance(load.source, int)
            operand = node.inputs[load.source]
            ranges = (_interval(e, axes, sizes) for e in load.index)
            whole = _all(operand, sizes)
            found.append((operand, tuple(r or w for r, w in zip(ranges, whole, strict=True))))
    return found


def _all(tensor: Tensor, sizes: Mapping[str, int]) -> Box:
    return tuple((0, evaluate(n, sizes) - 1) for n in tensor.shape)


def _unpadded(interval: Interval, before: int, step: int) -> Interval:
    """Where an interval of a padded axis lies in the axis itself, beyond its ends too."""
    first, last = interval
    return -((before - first) // step), (last - before) // step


def _reshaped(box: Box, shape: tuple[int, ...], into: tuple[int, ...]) -> Box:
    """A box of an array of one shape in the same array of another: axes that both have at an end are the same."""
    if box and into and shape[-1] == into[-1]:
        return (*_reshaped(box[:-1], shape[:-1], into[:-1]), box[-1])
    if box and into and shape[0] == into[0]:
        return (box[0], *_reshaped(box[1:], shape[1:], into[1:]))
    first = last = 0
    for (a, b), size in zip(box, shape, strict=True):
        first, last = first * size + a, last * size + b
    found, rest = [], math.prod(into)
    for size in into:
        rest //= size
        found.append((first // rest, last // rest))
        first, last = (first % rest, last % rest) if first // rest == last // rest else (0, rest - 1)
    return tuple(found)


def _interval(expr: Expr, axes: Mapping[Axis, Interval], sizes: Mapping[str, int]) -> Interval | None:
    """The values that an index may have; None if they are not known."""
    if isinstance(expr, Const):
        return int(expr.value), int(expr.value)
    if isinstance(expr, Index):
        return axes[expr.axis]
    if isinstance(expr, Extent):
        return (evaluate(expr.size, sizes),) * 2
    if not isinstance(expr, Apply):
        return None
    parts = [_interval(e, axes, sizes) for e in expr.arguments]
    if any(part is None for part in parts):
        return None
    (a, b), (c, d) = parts[0], parts[-1]  # type: ignore[misc]
    if expr.function == "add":
        return a + c, b + d
    if expr.function == "sub":
        return a - d, b - c
    if expr.function == "neg":
        return -b, -a
    if expr.function == "cast":
        return a, b
    if expr.function == "mul":
        ends = (a * c, a * d, b * c, b * d)
        return min(ends), max(ends)
    if expr.function == "floordiv" and c == d > 0:
        return a // c, b // c
    if expr.function == "mod" and c == d > 0:
        return (a % c, b % c) if a // c == b // c else (0, c - 1)
    return None


def _cut(array: np.ndarray, field: tuple[slice, ...]) -> np.ndarray:
    """The field of an array, with zeros beyond its edges."""
    found = np.zeros([s.stop - s.start for s in field], array.dtype)
    inside = [slice(max(s.start, 0), min(s.stop, n)) for s, n in zip(field, array.shape, strict=True)]
    place = tuple(slice(i.start - s.start, i.stop - s.start) for i, s in zip(inside, field, strict=True))
    found[place] = array[tuple(inside)]
    return found
