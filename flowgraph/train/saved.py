"""Parameters alone in a file: safetensors, whole or not there, by the parameters' names or the caller's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flowgraph.errors import CheckpointError, GraphError, listed, shown
from flowgraph.graph import origin as origins
from flowgraph.graph.tensor import Tensor
from flowgraph.ops.leaf import Parameter
from flowgraph.train.checkpoint import read_arrays, restore, write

Parameters = Iterable[Tensor] | Mapping[str, Tensor]


def save(path: str | Path, parameters: Parameters) -> None:
    """Write the values of parameters to a safetensors file, in place of what was there, all or nothing. Its folder must
    be there.

    `parameters` are a list, each kept under its own name, or a dict of parameters by the names to keep them under.
    Anything that reads safetensors can read the file. Raises GraphError for what is no parameter and for two of one
    name, CheckpointError where the file cannot be written.

    >>> import flowgraph as fg, tempfile, pathlib
    >>> w = fg.parameter("w", (2,), init=[1.0, 2.0])
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "model.safetensors"
    >>> fg.save(file, [w])
    >>> w.value = [0.0, 0.0]
    >>> names = fg.load(file, [w])
    >>> sorted(names), w.value
    (['w'], array([1., 2.], dtype=float32))
    """
    write(path, {name: storage.read() for name, storage in _storages(parameters).items()}, {})


def load(path: str | Path, parameters: Parameters | None = None, strict: bool = True) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file by name: `save`'s, a training's checkpoint, or another program's.

    With `parameters`, a list or a dict by the names in the file, they get these values: all, or none and an error. With
    `strict=False` names that only one side has are left alone; a shape or a dtype that differs is always an error.

    Raises CheckpointError for a file that is not there, is damaged or does not fit.
    """
    arrays = read_arrays(path)
    if parameters is not None:
        targets = _storages(parameters)
        both = targets.keys() & arrays.keys()
        if not both and targets and not strict:
            raise CheckpointError(
                f"{path} has none of the parameters {listed(sorted(targets), 5)}",
                where=origins.here(),
                hint=f"it has {listed(sorted(arrays), 5)}; give a dict of parameters by these names",
            )
        if not strict:
            targets = {name: storage for name, storage in targets.items() if name in both}
        wanted = arrays if strict else {name: arrays[name] for name in both}
        hint = "strict=False leaves alone what only one side has, such as the optimiser's state in a checkpoint"
        restore(targets, wanted, path, hint=hint if both else "give a dict of parameters by the names in the file")
    return arrays


def _storages(parameters: Parameters) -> dict[str, Any]:
    if isinstance(parameters, Tensor):
        parameters = [parameters]
    named = parameters.items() if isinstance(parameters, Mapping) else ((None, tensor) for tensor in parameters)
    found: dict[str, Any] = {}
    for name, tensor in named:
        if not isinstance(tensor, Tensor) or not isinstance(tensor.op, Parameter):
            raise GraphError(
                f"only parameters are saved and loaded, got {shown(tensor)}",
                where=origins.here(),
                hint="layer.parameters are a layer's",
            )
        key = tensor.op.label if name is None else name
        if key in found:
            raise GraphError(
                f"two parameters are called {key!r}", where=tensor.origin, hint="give a dict of parameters by name"
            )
        found[key] = tensor.op.storage
    return found
