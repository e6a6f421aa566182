"""Checks of what is fed to a sweep, made once for a whole fit. Comes in: what the user gave. Goes out:
arrays.

The range of class numbers is checked by the program itself, where it has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from flowgraph.datasets.dataset import Dataset
from flowgraph.errors import FlowgraphError, InputError, NumericsError, ShapeError, listed, shown
from flowgraph.graph import origin as origins
from flowgraph.graph.size import Size
from flowgraph.graph.tensor import Tensor
from flowgraph.ops.leaf import as_array
from flowgraph.program import as_declared, require_names, solve_sizes
from flowgraph.train.costs import WEIGHT

Data = Mapping[str, Any] | Dataset


@contextmanager
def errors_of(what: str) -> Iterator[None]:
    """Errors raised inside say which data they are about."""
    try:
        yield
    except FlowgraphError as error:
        error.problem = f"{what}: {error.problem}"
        raise


def check_data(
    data: Data, inputs: Mapping[str, Tensor], least: int = 1
) -> tuple[dict[str, np.ndarray], int]:
    """The arrays, contiguous and finite, and how many examples they are.

    Raises InputError for missing or unknown names or fewer than `least` examples, DTypeError and ShapeError for what
    is not as declared and for arrays of different lengths, NumericsError for a NaN or infinity, naming the element.
    """
    arrays = _declared(data, inputs)
    for name, tensor in inputs.items():
        _require_finite(name, arrays[name], tensor)
    (first, count), *others = ((name, len(array)) for name, array in arrays.items() if array.ndim)
    for name, length in others:
        if length != count:
            raise ShapeError(
                f"data {first!r} have {count} examples, {name!r} {length}: "
                f"shapes {arrays[first].shape} and {arrays[name].shape}",
                where=inputs[name].origin,
                hint="the first axis counts the examples",
            )
    solve_sizes(inputs, arrays, {})
    if count < least:
        raise InputError("no examples: the first axis of the data has length 0", where=origins.here())
    return arrays, count


def _declared(data: Data, inputs: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    given = as_mapping(data, inputs)
    require_names(given, inputs)
    return {name: as_declared(name, tensor, given[name]) for name, tensor in inputs.items()}


def _require_finite(name: str, array: np.ndarray, tensor: Tensor) -> None:
    if array.dtype.kind != "f":
        return
    bad = ~np.isfinite(array)
    if bad.any():
        place = tuple(int(k) for k in np.unravel_index(int(np.argmax(bad)), array.shape))
        raise NumericsError(
            f"{name}[{', '.join(map(str, place))}] = {array[place]} "
            f"({int(bad.sum())} of {array.size} values are not finite)",
            where=tensor.origin,
            hint="clean the data: no NaN, no infinity",
        )


def held_out_part(
    data: Data, validation: Data | float | None, seed: int, inputs: Mapping[str, Tensor]
) -> tuple[Data, Data | None]:
    """(training data, validation data); a fraction is split off the data, the same one for the same seed."""
    if not isinstance(validation, (int, float, np.number)):
        return data, validation
    if not 0.0 < validation < 1.0:
        raise InputError(f"the fraction for validation is between 0 and 1, got {validation}", where=origins.here())
    arrays = _declared(data, inputs)
    count = min((len(array) for array in arrays.values() if array.ndim), default=0)
    kept = round(count * (1 - validation))
    if not 0 < kept < count:
        raise InputError(f"{validation} of {count} examples leaves none on one side", where=origins.here())
    bits = np.random.Philox(key=np.array([seed, 2**63], np.uint64))
    order = np.random.Generator(bits).permutation(count)
    first, second = np.sort(order[:kept]), np.sort(order[kept:])

    def part(rows: np.ndarray) -> Data:
        return {name: array[rows] if array.ndim else array for name, array in arrays.items()}

    return part(first), part(second)


def with_weights(
    data: Data,
    inputs: Mapping[str, Tensor],
    sample_weight: Any,
    class_weight: Mapping[int, float] | str | None,
    targets: Mapping[str, Size | None],
) -> Data:
    """The data with `sample_weight`: one for every example, times what is given, times that of its class.

    `targets` are the inputs of class numbers that the cost compares with, and how many classes there are, if known.
    """
    arrays = dict(as_mapping(data))
    if sample_weight is None:
        sample_weight = arrays.pop(WEIGHT, None)
    named = [name for name, tensor in inputs.items() if name in arrays and tensor.rank]
    first = as_array(arrays[named[0]], f"input {named[0]!r}") if named else np.empty(0)
    count = len(first) if first.ndim else 0
    weights = np.ones(count) if sample_weight is None else as_array(sample_weight, WEIGHT)
    if weights.shape != (count,) or weights.dtype.kind not in "fiub":
        raise InputError(
            f"sample_weight is one number for each of {count} examples, got {weights.dtype}{weights.shape}",
            where=origins.here(),
        )
    given = weights
    with np.errstate(over="ignore"):
        weights = given.astype(np.float32)
    bad = ~(np.isfinite(weights) & (weights >= 0))
    if bad.any():
        place = int(np.argmax(bad))
        problem = f"sample_weight[{place}] = {given[place]:g}: weights are at least 0, and finite as float32"
        raise InputError(problem, where=origins.here())
    if class_weight is not None:
        weights = weights * _by_class(arrays, inputs, class_weight, targets)
    if count and not weights.any():
        raise InputError(
            f"the weights of all {count} examples are 0: there is nothing to learn from",
            where=origins.here(),
            hint="give some examples a sample_weight, and their class a class_weight, above 0",
        )
    return {**arrays, WEIGHT: weights}


def _by_class(
    arrays: Mapping[str, Any], inputs: Mapping[str, Tensor], class_weight: Any, targets: Mapping[str, Size | None]
) -> np.ndarray:
    """The weight of every example's class."""
    if len(targets) != 1:
        raise InputError(
            f"class_weight needs one input of class numbers, (batch,), that the cost compares with: it has "
            f"{listed(targets) or 'none'}",
            where=origins.here(),
            hint="give each example its weight: sample_weight=weights[y]",
        )
    (label,) = targets
    if label not in arrays:
        return np.ones(1, np.float32)  # what is missing is said where all data are checked
    y, classes = as_declared(label, inputs[label], arrays[label]), targets[label]
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            problem = f"class_weight is a dict or 'balanced', got {shown(class_weight)}"
            raise InputError(problem, where=origins.here())
        kinds, place, counts = np.unique(y, return_inverse=True, return_counts=True)
        return (len(y) / (len(kinds) * counts))[place].astype(np.float32)
    if not isinstance(class_weight, Mapping):
        problem = f"class_weight is a dict of numbers by class, or 'balanced', got {shown(class_weight)}"
        raise InputError(problem, where=origins.here(), hint="class_weight={0: 1.0, 1: 5.0}")
    for kind, weight in class_weight.items():
        if not isinstance(kind, (int, np.integer)):
            problem = f"the classes of class_weight are whole numbers, got {shown(kind)}"
            raise InputError(problem, where=origins.here(), hint="class_weight={0: 1.0, 1: 5.0}")
        if kind < 0 or (isinstance(classes, int) and kind >= classes):
            last = f" to {classes - 1}" if isinstance(classes, int) else ""
            problem = f"class_weight has class {kind}; those of {label!r} are from 0{last}"
            raise InputError(problem, where=origins.here())
        if not isinstance(weight, (int, float, np.number)) or not (np.isfinite(weight) and weight >= 0):
            problem = f"class_weight of class {kind} is {shown(weight)}: it must be finite and at least 0"
            raise InputError(problem, where=origins.here())
    missing = sorted({int(c) for c in np.unique(y)} - set(class_weight))
    if missing:
        raise InputError(f"class_weight has no number for class {missing[0]}", where=origins.here())
    return np.array([class_weight[int(c)] for c in y], np.float32)


def as_mapping(data: Data, names: Iterable[str] = ()) -> Mapping[str, Any]:
    """The arrays by name; InputError for anything that has no names."""
    given: Any = data.arrays if isinstance(data, Dataset) else data
    if not isinstance(given, Mapping):
        example = ", ".join(f"{name!r}: ..." for name in names) or "'x': ..., 'y': ..."
        raise InputError(
            f"data are one dict of arrays by input name, got {shown(given)}",
            where=origins.here(),
            hint=f"in one: {{{example}}}",
        )
    return given
