"""Checks of what is fed to a sweep, made once for a whole fit. Comes in: what the user gave. Goes out:
arrays.

Sizes and the range of class numbers are checked by the program itself, where it has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from flowgraph.datasets.dataset import Dataset
from flowgraph.errors import InputError, NumericsError, ShapeError
from flowgraph.graph import origin as origins
from flowgraph.graph.tensor import Tensor
from flowgraph.program import as_declared


def check_data(
    data: Mapping[str, Any] | Dataset, inputs: Mapping[str, Tensor]
) -> tuple[dict[str, np.ndarray], int]:
    """The arrays, contiguous and finite, and how many examples they are.

    Raises InputError for missing or unknown names or no examples, DTypeError and ShapeError for what is not
    as declared and for arrays of different lengths, NumericsError for a NaN or infinity, naming the element.
    """
    given = data.arrays if isinstance(data, Dataset) else data
    if not isinstance(given, Mapping):
        raise InputError(
            f"data are a dict of arrays by input name, got {type(data).__name__}", where=origins.here()
        )
    for problem, names in (
        ("missing", [n for n in inputs if n not in given]),
        ("unknown", [n for n in given if n not in inputs]),
    ):
        if names:
            raise InputError(
                f"{problem} data: {', '.join(map(repr, names))}",
                where=inputs[names[0]].origin if problem == "missing" else origins.here(),
                hint=f"give {', '.join(map(repr, inputs))}",
            )
    arrays: dict[str, np.ndarray] = {}
    for name, tensor in inputs.items():
        arrays[name] = as_declared(name, tensor, given[name])
        _require_finite(name, arrays[name], tensor)
    (first, count), *others = ((name, len(array)) for name, array in arrays.items())
    for name, length in others:
        if length != count:
            raise ShapeError(
                f"data {first!r} have {count} examples, {name!r} {length}: "
                f"shapes {arrays[first].shape} and {arrays[name].shape}",
                where=inputs[name].origin,
                hint="the first axis counts the examples",
            )
    if count == 0:
        raise InputError("no examples: the first axis of the data has length 0", where=origins.here())
    return arrays, count


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
            hint="clean the data; flowgraph does not train on NaN or infinity",
        )
