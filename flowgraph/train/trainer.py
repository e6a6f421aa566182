"""The trainer: a cost, an optimiser and data in; trained parameters and a history out.

It derives the gradients, has the step compiled with its minibatches (see `sweep`), draws the order of each
epoch, and keeps the history. It touches no example and runs nothing per step.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from flowgraph.compile import compile, grad
from flowgraph.datasets.dataset import Dataset
from flowgraph.errors import GraphError, InputError, NumericsError, ShapeError
from flowgraph.graph import origin as origins
from flowgraph.graph.graph import topological
from flowgraph.graph.size import as_size, show_shape
from flowgraph.graph.tensor import Tensor
from flowgraph.ops.leaf import Parameter, as_tensor
from flowgraph.passes.inference import inference
from flowgraph.program import Program, whole_number
from flowgraph.train.data import check_data
from flowgraph.train.history import History
from flowgraph.train.optim import SGD, Optimizer
from flowgraph.train.progress import Bars, Progress, Silence
from flowgraph.train.sweep import Log, Sweep, batch_axis, inputs_of, scalar

Data = Mapping[str, Any] | Dataset


class Trainer:
    """Trains every floating-point parameter that `cost` depends on, by minibatches.

    `cost` is a scalar, or one number an example, (batch,), as in the lecture's `C = crossEntOfSoftMaxY(A2)`:
    its mean is minimised. `metrics` are tensors of these two kinds, recorded beside it. All inputs share
    their first axis, a named size. Parameters that have no value yet are drawn with `seed`; the order of
    examples in an epoch follows from (seed, epoch) alone, so the same seed gives the same bits, whatever the
    number of threads. Random draws of a training are those of `seed`, too; dropout is left out of validation,
    `evaluate` and `predict`. An optimiser belongs to one trainer: two that share one share its learning rate.

    >>> import numpy as np, flowgraph as fg
    >>> x, y = fg.input("x", ("batch", 2)), fg.input("y", ("batch",))
    >>> w = fg.parameter("w", (2, 1))
    >>> error = fg.sum(x @ w, axis=1) - y
    >>> trainer = fg.Trainer(fg.mean(error * error), fg.optim.SGD(0.1), device="reference")
    >>> points = np.array([[0, 1], [1, 0], [1, 1]], np.float32)
    >>> data = {"x": points, "y": points @ np.float32([2, 3])}
    >>> history = trainer.fit(data, epochs=200, batch_size=2, progress=False)
    >>> w.value.round(2).tolist()
    [[2.0], [3.0]]
    """

    def __init__(
        self,
        cost: Tensor,
        optimizer: Optimizer | None = None,
        metrics: Mapping[str, Tensor] | None = None,
        device: str = "auto",
        seed: int = 0,
        threads: int | None = None,
    ) -> None:
        self.optimizer: Optimizer = SGD(0.01) if optimizer is None else optimizer
        self.device, self.threads, self.seed = device, threads, whole_number(seed, "seed", 0, 2**64 - 1)
        for name in metrics or {}:
            if name in ("epoch", "loss", "seconds") or name.startswith("val_"):
                raise GraphError(
                    f"a metric cannot be called {name!r}", where=origins.here(), hint="rename it"
                )
        cost = as_tensor(cost, what="a cost")
        self.cost = scalar(cost, batch_axis(inputs_of((cost,))), "the cost")
        self.values = {"loss": self.cost, **(metrics or {})}
        self.parameters = trainable(self.cost)
        for p in self.parameters:
            if not p.op.storage.drawn:
                p.op.storage.draw(self.seed)
        self.updates = self.optimizer.updates(self.parameters, grad(self.cost, self.parameters))
        self.history = History()
        self._epoch = 0  # epochs begun, in all fits
        self._predictors: dict[Tensor, Program] = {}

    @property
    def learning_rate(self) -> float:
        """The optimiser's; setting it compiles nothing anew."""
        return self.optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self.optimizer.learning_rate = value

    @property
    def program(self) -> Program:
        """The training step, compiled on first use: look at its `source()` and `kernels`."""
        return self._training.program

    @cached_property
    def _training(self) -> Sweep:
        return Sweep(self.values, self.updates, self.device, self.threads, self.seed)

    @cached_property
    def _evaluation(self) -> Sweep:
        used = {name: inference(value) for name, value in self.values.items()}
        return Sweep(used, {}, self.device, self.threads)

    def fit(
        self,
        data: Data,
        epochs: int = 1,
        batch_size: int = 32,
        validation: Data | None = None,
        progress: bool | Progress = True,
        shuffle: bool = True,
        on_nan: str = "raise",
    ) -> History:
        """Train for some epochs more; returns the history of all epochs so far.

        The last batch of an epoch is smaller where the batch size does not divide the data. An epoch's loss
        and metrics are means over its examples, taken before each step's update; `validation` is evaluated
        after each epoch. When the cost becomes NaN or infinite, `on_nan` says whether to "raise"
        NumericsError or to "warn" and go on. `progress` may be an object that is told instead of a terminal.
        Ctrl-C stops after a whole step and returns what was reached, with `history.interrupted` set.

        Raises InputError, ShapeError, DTypeError or NumericsError for data, of training or validation, that
        do not fit or are not finite, before anything is trained.
        """
        whole_number(epochs, "epochs", least=0)
        whole_number(batch_size, "batch_size", least=1)
        if on_nan not in ("raise", "warn"):
            raise InputError(f"on_nan is 'raise' or 'warn', got {on_nan!r}", where=origins.here())
        arrays, examples = check_data(data, self._training.inputs)
        self._training.check(arrays, examples, batch_size)
        held_out = check_data(validation, self._evaluation.inputs) if validation is not None else None
        if held_out is not None:
            self._evaluation.check(*held_out, batch_size)
        history, first, start = self.history, len(self.history), time.perf_counter()
        history.interrupted = False
        shown = (Bars() if progress else Silence()) if isinstance(progress, bool) else progress
        last = self._epoch + epochs
        try:
            for _ in range(epochs):
                begun, log, row = time.perf_counter(), Log(), None
                order = self._order(examples, shuffle)
                self._epoch += 1
                shown.begin(self._epoch, last, -(-examples // batch_size))
                try:
                    self._training.run(arrays, order, batch_size, log, shown.advance)
                    self._require_finite(log, on_nan)
                    row = {"epoch": self._epoch, **log.means()}
                    if held_out is not None:
                        scores = self._scores(*held_out, batch_size)
                        row |= {f"val_{name}": value for name, value in scores.items()}
                    row["seconds"] = time.perf_counter() - begun
                    history.rows.append(row)
                finally:
                    history.add_losses(log.values.get("loss", []))
                    shown.end(row)
        except KeyboardInterrupt:
            history.interrupted = True
        shown.finish(history, len(history) - first, time.perf_counter() - start)
        return history

    def evaluate(self, data: Data, batch_size: int = 256) -> dict[str, float]:
        """The loss and the metrics, means over the examples; updates nothing."""
        whole_number(batch_size, "batch_size", least=1)
        return self._scores(*check_data(data, self._evaluation.inputs), batch_size)

    def predict(self, tensor: Tensor, data: Data, batch_size: int = 1024) -> np.ndarray:
        """The values of a tensor of one row an example, (batch, ...), for all examples."""
        whole_number(batch_size, "batch_size", least=1)
        batch = batch_axis(inputs_of((tensor,)))
        if not tensor.shape or tensor.shape[0] != as_size(batch):
            raise ShapeError(
                f"predict needs one row an example, ({batch}, ...), got {show_shape(tensor.shape)}",
                where=tensor.origin,
            )
        if tensor not in self._predictors:
            self._predictors[tensor] = compile(
                outputs=inference(tensor), device=self.device, threads=self.threads
            )
        program = self._predictors[tensor]
        arrays, examples = check_data(data, program.inputs)
        parts = []
        for start in range(0, examples, batch_size):
            rows = {name: array[start : start + batch_size] for name, array in arrays.items()}
            parts.append(program(**rows)[0])
        return np.concatenate(parts)

    def _scores(self, arrays: Mapping[str, np.ndarray], examples: int, batch_size: int) -> dict[str, float]:
        log = Log()
        self._evaluation.run(arrays, np.arange(examples, dtype=np.int32), batch_size, log)
        return log.means()

    def _order(self, examples: int, shuffle: bool) -> np.ndarray:
        """The order of examples in this epoch, a function of (seed, epoch)."""
        if not shuffle:
            return np.arange(examples, dtype=np.int32)
        bits = np.random.Philox(key=np.array([self.seed, self._epoch], np.uint64))
        return np.random.Generator(bits).permutation(examples).astype(np.int32)

    def _require_finite(self, log: Log, on_nan: str) -> None:
        bad = np.flatnonzero(~np.isfinite(log.values["loss"]))
        if not bad.size:
            return
        step = int(bad[0])
        loss = log.values["loss"][step]
        problem = f"the cost was {loss} at epoch {self._epoch}, step {step + 1} of {len(log.sizes)}"
        if on_nan == "raise":
            hint = "lower the learning rate, or look at the data"
            raise NumericsError(problem, where=self.cost.origin, hint=hint)
        warnings.warn(problem, RuntimeWarning, stacklevel=3)


def trainable(cost: Tensor) -> list[Tensor]:
    """The floating-point parameters a cost depends on, as declared."""
    found = [
        n.outputs[0]
        for n in topological([cost])
        if isinstance(n.op, Parameter) and n.outputs[0].dtype.is_float
    ]
    if not found:
        raise GraphError("the cost depends on no parameter, so there is nothing to train", where=cost.origin)
    return sorted(found, key=lambda t: t.node.serial)
