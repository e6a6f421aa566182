"""Diagnostics: what activations, parameters and their gradients look like while a network is trained.

Comes in: tensors of the model, by name. Goes out: updates that the training step makes beside the optimiser's, and the
numbers that they leave. Everything is reduced inside the compiled step, where the values are; what is copied is a few
numbers for every row of the table. A tensor is summed up in `moments`, (rows, 4) float64:

    elements, their sum, the sum of their squares, how many are saturated

and in counts (rows, edges) of elements at or above each edge, of which a histogram is the differences.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flowgraph.errors import GraphError, listed, nearest, shown
from flowgraph.graph import origin as origins
from flowgraph.graph.origin import scope
from flowgraph.graph.size import product
from flowgraph.graph.tensor import Tensor
from flowgraph.ops.elementwise import add, cast, greater_equal, less_equal, multiply
from flowgraph.ops.functions import Logistic, Softsign, Tanh, square
from flowgraph.ops.indexing import scatter_add
from flowgraph.ops.leaf import as_tensor, constant, parameter, size_of
from flowgraph.ops.logic import floor_divide, logical_or, remainder
from flowgraph.ops.pieces import stack
from flowgraph.ops.piecewise import Relu
from flowgraph.ops.reduce import mean
from flowgraph.ops.reduce import sum as sum_
from flowgraph.ops.shape import expand_dims, reshape
from flowgraph.ops.statistics import var
from flowgraph.program import whole_number
from flowgraph.train.callbacks import Callback
from flowgraph.train.history import Row, as_frame, text_table, write_csv
from flowgraph.train.optim.base import require
from flowgraph.train.sweep import CAPACITY

if TYPE_CHECKING:
    from flowgraph.train.trainer import Trainer

Bounds = tuple[float | None, float | None]

BOUNDS: dict[type, Bounds] = {Tanh: (-1.0, 1.0), Softsign: (-1.0, 1.0), Logistic: (0.0, 1.0), Relu: (0.0, None)}


def symmetric_log(least: float, most: float, per_decade: int = 3) -> np.ndarray:
    """Edges of bins for numbers of both signs and of any magnitude: so many to a power of ten, and one bin around 0.

    >>> symmetric_log(0.01, 1.0, per_decade=1).round(2).tolist()
    [-1.0, -0.1, -0.01, 0.01, 0.1, 1.0]
    """
    require("least", least, above=0.0, below=most)
    count = round(np.log10(most / least) * whole_number(per_decade, "per_decade", least=1))
    positive = np.geomspace(least, most, count + 1)
    return np.concatenate([-positive[::-1], positive])


@dataclass(frozen=True)
class Spread:
    """How the elements of a tensor lie, in each row of the table.

    `counts` (rows, edges + 1) are histograms: below the first edge, between neighbours (the left one belongs to the
    bin), from the last edge on. They are empty where no histogram was asked for.
    """

    mean: np.ndarray
    std: np.ndarray
    counts: np.ndarray
    edges: np.ndarray

    def share(self, low: float, high: float) -> np.ndarray:
        """The share of elements in bins that lie between low and high, in each row."""
        inside = (self.edges[:-1] >= low) & (self.edges[1:] <= high)
        return self.counts[:, 1:-1][:, inside].sum(1) / self.counts.sum(1)

    @property
    def is_symmetric(self) -> bool:
        """Whether the edges lie alike on both sides of 0, which is none of them."""
        return len(self.edges) % 2 == 0 and bool(np.array_equal(self.edges, -self.edges[::-1]))

    def magnitudes(self) -> tuple[np.ndarray, np.ndarray]:
        """(edges, counts) of absolute values, for symmetric edges: what is nearer to 0 than the first is left out."""
        if not self.is_symmetric:
            raise GraphError("these edges are not symmetric around 0", where=origins.here(), hint="symmetric_log(...)")
        half, inner = len(self.edges) // 2, self.counts[:, 1:-1]
        return self.edges[half:], inner[:, half:] + inner[:, : half - 1][:, ::-1]


@dataclass(frozen=True)
class Measured:
    """One tensor over the training: its values, the share of them that is saturated (NaN where it has no bounds), and
    the gradient of the cost by it."""

    values: Spread
    saturated: np.ndarray
    gradient: Spread


class Diagnostics(Callback):
    """Statistics of tensors while they are trained: `fg.Trainer(cost, ..., diagnostics=fg.Diagnostics({...}))`.

    `tensors` are activations or parameters by name, floating-point ones that the cost depends on. Of each there are
    mean and standard deviation of the values and of the cost's gradient by them, over all elements; which share of the
    values is saturated; and, with `histograms`, counts of both. A row of the table sums up `every` steps, by default an
    epoch: all their minibatches, before each step's update. Steps that do not fill a row by the end of a fit are in the
    next fit's first one.

    A value is saturated where it is within `margin`, a share of the range, of the bounds of what computed it: of tanh,
    softsign and logistic; of relu, where it is 0. `bounds` gives others by name, with None where there is none. `edges`
    gives edges of bins by name, for values; `gradient_edges` those of all gradients.

    The gradient is that of the mean over the minibatch: by an activation, of one example, it is smaller the larger the
    batch is. Measuring changes nothing in the training but, perhaps, the last digits, as other kernels are made of it.

    >>> import numpy as np, flowgraph as fg
    >>> x, w = fg.input("x", ("batch", 2)), fg.parameter("w", (2, 3), fg.init.normal())
    >>> h = fg.tanh(x @ w)
    >>> watch = fg.Diagnostics({"h": h, "w": w})
    >>> trainer = fg.Trainer(fg.mean(h * h), fg.optim.SGD(0.1), diagnostics=watch, device="reference")
    >>> _ = trainer.fit({"x": np.ones((8, 2), np.float32)}, epochs=5, progress=False)
    >>> watch["h"].values.std.shape, bool(watch["w"].gradient.std[-1] < watch["w"].gradient.std[0])
    ((5,), True)
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        *,
        every: int | None = None,
        histograms: bool = True,
        bounds: Mapping[str, Bounds] | None = None,
        margin: float = 0.01,
        edges: Mapping[str, Sequence[float]] | None = None,
        gradient_edges: Sequence[float] | None = None,
    ) -> None:
        self.tensors = _checked(tensors)
        self.every = None if every is None else whole_number(every, "every", least=1)
        require("margin", margin, low=0.0, below=0.5)
        own_bounds, own_edges = _by_name("bounds", bounds, self.tensors), _by_name("edges", edges, self.tensors)
        self.bounds = {
            name: _as_bounds(name, own_bounds[name]) if name in own_bounds else BOUNDS.get(type(x.op), (None, None))
            for name, x in self.tensors.items()
        }
        self.margin, self.histograms = margin, histograms
        self.edges = {
            name: _as_edges(f"the edges of {name!r}", own_edges[name]) if name in own_edges else _usual_edges(bound)
            for name, bound in self.bounds.items()
        }
        usual = symmetric_log(1e-9, 10.0)
        self.gradient_edges = usual if gradient_edges is None else _as_edges("gradient_edges", gradient_edges)
        if not histograms:
            self.gradient_edges, self.edges = np.empty(0), dict.fromkeys(self.edges, np.empty(0))
        self.steps, self.epochs = np.empty(0, np.int64), np.empty(0, np.int64)  # done at the end of each row
        self._sums: dict[str, tuple[_Sums, _Sums]] = {}  # of values and of gradients
        self._found: dict[str, list[np.ndarray]] = {}  # the rows read so far, by the label of their parameter
        self._epoch = 0

    # in the step

    def updates(self, gradients: Sequence[Tensor]) -> dict[Tensor, Tensor]:
        """What the step does for this, given the gradients by `tensors`. A trainer calls it, once."""
        if self._sums:
            raise GraphError("diagnostics belong to one trainer", where=origins.here(), hint="make others for this one")
        with scope("diagnostics"), origins.at(origins.here().by("diagnostics")):
            self._step = parameter("step", (), np.zeros((), np.int64), "int64")
            new = {self._step: add(self._step, 1)}
        self._rows = 1 if self.every is None else CAPACITY // self.every + 2  # between two native calls, at most
        with origins.at(self._step.origin):
            row = constant([0], "int64")
            if self.every is not None:
                row = expand_dims(remainder(floor_divide(self._step, self.every), self._rows), 0)
        for (name, x), g in zip(self.tensors.items(), gradients, strict=True):
            with origins.at(x.origin.by("diagnostics")):
                values = _Sums(name, x, self._rows, self.edges[name], self.bounds[name], self.margin)
                slopes = _Sums(f"{name}/gradient", g, self._rows, self.gradient_edges, (None, None), 0.0)
                new |= values.updates(row) | slopes.updates(row)
            self._sums[name] = values, slopes
        for t in self._state:
            self._found[t.op.label] = []
        return new

    @property
    def _state(self) -> list[Tensor]:
        return [t for both in self._sums.values() for sums in both for t in sums.state]

    # between native calls

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None:
        self._epoch = epoch
        self._read()

    def on_steps(self, trainer: Trainer, steps: int) -> None:
        self._read()

    def on_epoch_end(self, trainer: Trainer, row: Row) -> None:
        if self.every is None:
            self._take(1, np.array([self._step.op.storage.read()]))

    def _read(self) -> None:
        """Take what rows are complete."""
        if self.every is not None:
            taken = self.every * np.arange(len(self.steps) + 1, int(self._step.op.storage.read()) // self.every + 1)
            if len(taken):
                self._take(len(taken), taken)

    def _take(self, count: int, steps: np.ndarray) -> None:
        rows = (len(self.steps) + np.arange(count)) % self._rows
        for t in self._state:
            sums = t.op.storage.read().copy()
            self._found[t.op.label].append(sums[rows])
            sums[rows] = 0.0
            t.op.storage.write(sums)
        self.steps = np.concatenate([self.steps, steps.astype(np.int64)])
        self.epochs = np.concatenate([self.epochs, np.full(count, self._epoch)])

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The rows of the table; the one that is under way is part of the trainer's state."""
        rows = {label: np.concatenate(found) for label, found in self._found.items() if found}
        return {**rows, "steps": self.steps, "epochs": self.epochs}, {}

    def restore(self, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> None:
        self.steps, self.epochs = arrays["steps"], arrays["epochs"]
        self._found = {label: [arrays[label]] if label in arrays else [] for label in self._found}

    # what was found

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __getitem__(self, name: str) -> Measured:
        """All that is known of one tensor. Raises KeyError for a name that is not measured."""
        values, slopes = self._sums[name] if self._sums else self._none_yet(name)
        count, *_, saturated = self._rows_of(values.moments).T
        share = saturated / count if values.bounds != (None, None) else np.full(len(self), np.nan)
        return Measured(self._spread(values), share, self._spread(slopes))

    def _none_yet(self, name: str) -> Any:
        raise GraphError(
            f"{name!r} was not measured: these diagnostics have no trainer",
            where=origins.here(),
            hint="fg.Trainer(cost, ..., diagnostics=...)",
        )

    def _rows_of(self, t: Tensor) -> np.ndarray:
        return np.concatenate([np.empty((0, t.op.storage.shape[1])), *self._found[t.op.label]])

    def _spread(self, sums: _Sums) -> Spread:
        count, total, squares, _ = self._rows_of(sums.moments).T
        mean = total / count
        std = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
        if sums.above is None:
            return Spread(mean, std, np.empty((len(self), 0)), sums.edges)
        above = np.concatenate([count[:, None], self._rows_of(sums.above)], 1)
        return Spread(mean, std, above - np.concatenate([above[:, 1:], np.zeros((len(self), 1))], 1), sums.edges)

    def to_dict(self) -> dict[str, list[Any]]:
        """The table by columns: a line for each row and tensor."""
        columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
        found = {name: self[name] for name in self.tensors}
        for k, (step, epoch) in enumerate(zip(self.steps.tolist(), self.epochs.tolist(), strict=True)):
            for name, m in found.items():
                parts = (m.values.mean, m.values.std, m.saturated, m.gradient.mean, m.gradient.std)
                for column, value in zip(COLUMNS, (epoch, step, name, *(float(p[k]) for p in parts)), strict=True):
                    columns[column].append(value)
        return columns

    def to_csv(self, path: str | Path) -> None:
        """Write the table under a line of names."""
        write_csv(self.to_dict(), path)

    def to_pandas(self) -> Any:
        """The table as a `pandas.DataFrame`. Raises ImportError where pandas is not installed."""
        return as_frame(self.to_dict(), "diagnostics")

    def __str__(self) -> str:
        lines = zip(*self.to_dict().values(), strict=True)
        return text_table([list(COLUMNS), *([_cell(value) for value in line] for line in lines)])

    def __repr__(self) -> str:
        return f"<Diagnostics of {listed(self.tensors)}: {len(self)} rows>"


COLUMNS = ("epoch", "step", "tensor", "mean", "std", "saturated", "gradient_mean", "gradient_std")


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return "-" if np.isnan(value) else f"{value:.3g}"


class _Sums:
    """What is added up of one tensor: the parameters that hold it, a row each, and their updates."""

    def __init__(self, name: str, x: Tensor, rows: int, edges: np.ndarray, bounds: Bounds, margin: float) -> None:
        with scope(f"diagnostics/{name}"):
            self.moments = parameter("moments", (rows, 4), dtype="float64")
            self.above = parameter("counts", (rows, len(edges)), dtype="float64") if len(edges) else None
        self.edges, self.bounds, self.margin = edges.astype(x.dtype.numpy), bounds, margin
        self.x = x if x.rank == 2 else reshape(x, (*x.shape[:1], product(x.shape[1:])) if x.rank else (1, 1))

    @property
    def state(self) -> list[Tensor]:
        return [self.moments] if self.above is None else [self.moments, self.above]

    def updates(self, row: Tensor) -> dict[Tensor, Tensor]:
        """The sums with this step's, in a row."""
        x, count = self.x, size_of(product(self.x.shape), "float64")
        first = cast(mean(x), "float64")
        squares = add(cast(var(x), "float64"), square(first))  # var takes the mean out first: float32 is enough for it
        sums = stack([count, multiply(count, first), multiply(count, squares), self._saturated()])
        new = {self.moments: scatter_add(self.moments, row, expand_dims(sums, 0))}
        if self.above is not None:
            above = _count(greater_equal(expand_dims(x, 0), constant(self.edges[:, None, None])))
            new[self.above] = scatter_add(self.above, row, expand_dims(above, 0))
        return new

    def _saturated(self) -> Tensor:
        low, high = self.bounds
        near = 0.0 if low is None or high is None else self.margin * (high - low)
        parts = [] if low is None else [less_equal(self.x, low + near)]
        parts += [] if high is None else [greater_equal(self.x, high - near)]
        if not parts:
            return constant(0.0, "float64")
        return _count(parts[0] if len(parts) == 1 else logical_or(*parts))


def _count(which: Tensor) -> Tensor:
    """How many are true along the last two axes, exactly. (In integers, whose additions do not wait for each other as
    long as those of floating-point numbers do: three times as fast on a CPU.)"""
    return cast(sum_(cast(which, "int32"), (-2, -1)), "float64")


def _checked(tensors: Any) -> dict[str, Tensor]:
    if not isinstance(tensors, Mapping) or not tensors:
        raise GraphError(
            f"diagnostics are of tensors by name, got {shown(tensors)}",
            where=origins.here(),
            hint='{"hidden": h, "w": w}',
        )
    found = {}
    for name, x in tensors.items():
        if not isinstance(name, str):
            raise GraphError(f"a tensor is named by a string, got {shown(name)}", where=origins.here())
        found[name] = as_tensor(x, what=f"the tensor {name!r}")
        if not found[name].dtype.is_float:
            raise GraphError(
                f"{name!r} is {found[name].dtype}: diagnostics are of floating-point tensors",
                where=found[name].origin,
                hint="others have no gradient",
            )
    return found


def _by_name(what: str, given: Any, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise GraphError(f"{what} are given by name of tensor, got {shown(given)}", where=origins.here())
    for name in given:
        if name not in tensors:
            meant = nearest(name, tensors)
            raise GraphError(
                f"{what} has {shown(name)}, which is not measured",
                where=origins.here(),
                hint=f"did you mean {meant!r}?" if meant else f"there are {listed(tensors)}",
            )
    return dict(given)


def _as_bounds(name: str, given: Any) -> Bounds:
    is_pair = isinstance(given, (tuple, list)) and len(given) == 2
    if is_pair and all(b is None or isinstance(b, (int, float, np.number)) for b in given):
        low, high = (None if b is None else float(b) for b in given)
        if low is None or high is None or low < high:
            return low, high
    problem = f"the bounds of {name!r} are a pair (low, high) of numbers or None, got {shown(given)}"
    raise GraphError(problem, where=origins.here())


def _as_edges(what: str, given: Any) -> np.ndarray:
    edges = np.asarray(given, np.float64) if not isinstance(given, str) else np.empty(0)
    if edges.ndim != 1 or len(edges) < 2 or not np.isfinite(edges).all() or (np.diff(edges) <= 0).any():
        raise GraphError(f"{what} are at least two finite numbers that rise, got {shown(given)}", where=origins.here())
    return edges


def _usual_edges(bounds: Bounds) -> np.ndarray:
    """40 bins from bound to bound, the last one with its right edge; without bounds, by magnitude."""
    low, high = bounds
    if low is None or high is None:
        return symmetric_log(1e-3, 100.0)
    edges = np.linspace(low, high, 41)
    edges[-1] = np.nextafter(np.float32(high), np.float32(np.inf))
    return edges
