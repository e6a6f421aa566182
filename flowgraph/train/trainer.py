"""The trainer: a cost, an optimiser and data in; trained parameters and a history out.

It derives the gradients, has the step compiled with its minibatches (see `sweep`), draws the order of each
epoch, and keeps the history. It touches no example and runs nothing per step.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from flowgraph.anomaly import AnomalyError, is_finite
from flowgraph.compile import checked_threads, compile, declare, grad, require_distinct
from flowgraph.errors import (
    CheckpointError,
    GraphError,
    InputError,
    NumericsError,
    OutOfRangeError,
    ShapeError,
    listed,
    shown,
)
from flowgraph.graph import origin as origins
from flowgraph.graph.graph import topological
from flowgraph.graph.size import as_size, show_shape
from flowgraph.graph.tensor import Tensor
from flowgraph.ops.averages import running_updates
from flowgraph.ops.leaf import Parameter, as_tensor
from flowgraph.passes.inference import inference, with_averages
from flowgraph.program import Program, whole_number
from flowgraph.train import checkpoint as files
from flowgraph.train.accumulate import accumulated
from flowgraph.train.callbacks import Callback, as_callbacks
from flowgraph.train.checkpoint import Checkpoints, as_checkpoints
from flowgraph.train.costs import WEIGHT, by_name, targets_of, total_cost, total_weight, trainable, unfrozen
from flowgraph.train.data import Data, as_mapping, check_data, errors_of, held_out_part, with_weights
from flowgraph.train.diagnostics import Diagnostics
from flowgraph.train.history import History
from flowgraph.train.optim import SGD, Optimizer
from flowgraph.train.optim.base import GradientDescent
from flowgraph.train.progress import Progress, as_progress
from flowgraph.train.signals import signals
from flowgraph.train.state import Partial, Snapshot, differences
from flowgraph.train.sweep import Log, Sweep, batch_axis, inputs_of, scalar

VALIDATION = "validation data"


class Trainer:
    """Trains every floating-point parameter that `cost` depends on, by minibatches.

    `cost` is a scalar, or one number an example, (batch,), as in the lecture's `C = crossEntOfSoftMaxY(A2)`:
    its mean is minimised. Several costs by name are added, multiplied by `loss_weights` where given. `weighted` makes
    the mean one by weights of examples and classes (see `fit`). `freeze` names parameters that stay as they are, as
    tensors or by patterns of names; of a frozen running average training uses the value, not a minibatch's statistic.
    `detect_anomaly` names the op, its line and the step that first made anything NaN
    or infinite. `accumulate` makes one update of the mean gradient of so many minibatches. `diagnostics` are
    filled with statistics of activations, parameters and gradients.
    `updates` are what else a training step changes, by parameter, as in `fg.compile`: the state that a recurrent
    network takes from one minibatch to the next, or a running mean. What they change is not trained; validation,
    `evaluate` and `predict` read it as the training left it.
    `metrics` are tensors of these two kinds, recorded beside it. All inputs share their first axis, a named size; a
    scalar is given to every step as it is. Parameters that have no value yet are drawn with `seed`; the order of
    examples in an epoch follows from (seed, epoch) alone, so the same seed gives the same bits, whatever the number of
    threads. Random draws of a training are those of `seed`, too; dropout is left out of validation, `evaluate` and
    `predict`, where running averages (`fg.nn.BatchNorm`), which every step updates, stand for a minibatch's statistics.
    An optimiser belongs to one trainer: two that share one share its learning rate.

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
        cost: Tensor | Mapping[str, Tensor],
        optimizer: Optimizer | None = None,
        metrics: Mapping[str, Tensor] | None = None,
        device: str = "auto",
        seed: int = 0,
        threads: int | None = None,
        *,
        loss_weights: Mapping[str, float] | None = None,
        weighted: bool = False,
        freeze: Tensor | str | Sequence[Tensor | str] = (),
        accumulate: int = 1,
        updates: Mapping[Tensor, Any] | None = None,
        detect_anomaly: bool = False,
        diagnostics: Diagnostics | None = None,
    ) -> None:
        if isinstance(optimizer, type) or not hasattr(SGD(0.01) if optimizer is None else optimizer, "updates"):
            problem = f"the optimizer is one such as fg.optim.SGD(0.1), got {shown(optimizer)}"
            raise GraphError(problem, where=origins.here())
        self.optimizer: Optimizer = SGD(0.01) if optimizer is None else optimizer
        self.device, self.threads = device, checked_threads(device, threads)
        self.seed = whole_number(seed, "seed", 0, 2**64 - 1)
        self.detect_anomaly = detect_anomaly
        self.accumulate = whole_number(accumulate, "accumulate", least=1)
        costs = by_name("loss", cost) if isinstance(cost, Mapping) else {"loss": as_tensor(cost, what="a cost")}
        self.weighted = weighted
        self.cost, parts = total_cost(costs, loss_weights or {}, weighted)
        self.cost_names = frozenset({"loss", *parts})
        measured = {} if metrics is None else by_name("metric", metrics)
        for what, names in (("loss", parts), ("metric", measured)):
            for name in names:
                if name in ("epoch", "loss", "seconds", WEIGHT) or name.startswith("val_"):
                    raise GraphError(f"a {what} cannot be called {name!r}", where=origins.here(), hint="rename it")
                if what == "metric" and name in parts:
                    problem = f"a loss and a metric are both called {name!r}"
                    raise GraphError(problem, where=origins.here(), hint="rename one")
        self.values = {"loss": self.cost, **parts, **measured}
        if weighted:
            self.values[WEIGHT] = total_weight(self.cost)
        others = {t: new for t, new in declare(None, (), updates).updates if t in updates} if updates else {}
        self._require_fit_to_sweep(others)
        moved = unfrozen(trainable(self.cost, others), freeze)
        averages = running_updates(self.cost)
        if still := averages.keys() - set(moved):
            self._use_averages(still, diagnostics)
            averages = running_updates(self.cost)
        self._averages = {average: value for average, value in averages.items() if average in moved}
        self.parameters = [p for p in moved if p not in averages]
        self.model_state = [*self.parameters, *self._averages, *others]
        if not self.parameters:
            raise GraphError("every parameter is frozen: there is nothing to train", where=origins.here())
        for p in moved:
            if not p.op.storage.drawn:
                p.op.storage.draw(self.seed)
        if diagnostics is not None and not isinstance(diagnostics, Diagnostics):
            raise GraphError(f"diagnostics are fg.Diagnostics, got {shown(diagnostics)}", where=origins.here())
        self.diagnostics = diagnostics
        rule = self.optimizer
        named = repr(rule) if isinstance(rule, GradientDescent) else type(rule).__name__
        # what is asked for: here, and of the last fit
        self._settings: dict[str, Any] = {"optimizer": named, "accumulate": self.accumulate}
        self._taken_up: tuple[str, dict[str, Any]] | None = None  # the checkpoint that the next fit goes on from
        self.updates = others | self._all_updates()
        self.history = History()
        self.callbacks: list[Callback] = []
        self.columns: list[str] = []  # what a row of the history has, in the fit that is under way
        self._epoch = 0  # epochs begun, in all fits
        self._partial: Partial | None = None  # of the last epoch, if it was cut short
        self._stop = False
        self._sound: dict[Tensor, int] = {}  # the versions of parameters after a fit that found nothing wrong
        self._predictors: dict[Tensor, Program] = {}

    def _require_fit_to_sweep(self, others: Mapping[Tensor, Tensor]) -> None:
        """Refuse here, at the user's line, what the training's programs would refuse when they are compiled."""
        roots = (*self.values.values(), *others, *others.values())
        inputs = inputs_of(roots)
        require_distinct("inputs", inputs, "rename one")
        state = [n.outputs[0] for n in topological(roots) if isinstance(n.op, Parameter)]
        require_distinct(
            "parameters", state, "rename one, or declare it in a scope of its own: with fg.scope('name')"
        )
        batch = batch_axis(inputs)
        for name, value in self.values.items():
            scalar(value, batch, f"the metric {name!r}")

    def __repr__(self) -> str:
        names, rule = listed(p.op.label for p in self.parameters), type(self.optimizer).__name__
        return f"<Trainer of {names} by {rule}: {listed(self.values)} after {len(self.history)} epochs>"

    def _use_averages(self, frozen: Collection[Tensor], diagnostics: Diagnostics | None) -> None:
        """Let frozen running averages stand for a minibatch's statistics in training, too."""
        measured = {} if diagnostics is None else diagnostics.tensors
        changed = iter(with_averages([*self.values.values(), *measured.values()], frozen))
        self.values = {name: next(changed) for name in self.values}
        self.cost = self.values["loss"]
        if diagnostics is not None:
            diagnostics.tensors = {name: next(changed) for name in measured}

    def _all_updates(self) -> dict[Tensor, Tensor]:
        measured = [] if self.diagnostics is None else list(self.diagnostics.tensors.values())
        gradients = grad(self.cost, [*self.parameters, *measured])
        own, others = gradients[: len(self.parameters)], gradients[len(self.parameters) :]
        if self.accumulate == 1:
            updates = self.optimizer.updates(self.parameters, own)
        else:
            updates = accumulated(self.optimizer, self.parameters, own, self.accumulate)
        updates |= self._averages
        return updates if self.diagnostics is None else updates | self.diagnostics.updates(others)

    @property
    def _told(self) -> dict[str, Callback]:
        """What is told of the training: the diagnostics, then the callbacks of the fit, as checkpoints call them."""
        own: dict[str, Callback] = {} if self.diagnostics is None else {"diagnostics": self.diagnostics}
        return own | {f"callback {number}": callback for number, callback in enumerate(self.callbacks)}

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
        return Sweep(self.values, self.updates, self.device, self.threads, self.seed, self.detect_anomaly)

    @cached_property
    def _evaluation(self) -> Sweep:
        used = {name: inference(value) for name, value in self.values.items()}
        return Sweep(used, {}, self.device, self.threads)

    def fit(
        self,
        data: Data,
        epochs: int = 1,
        batch_size: int = 32,
        validation: Data | float | None = None,
        progress: bool | Progress = True,
        shuffle: bool = True,
        on_nan: str = "raise",
        *,
        sample_weight: Any = None,
        class_weight: Mapping[int, float] | str | None = None,
        callbacks: Callback | Sequence[Callback] = (),
        checkpoint: Checkpoints | str | Path | None = None,
    ) -> History:
        """Train for some epochs more; returns the history of all epochs so far.

        The last batch of an epoch is smaller where the batch size does not divide the data. An epoch's loss
        and metrics are means over its examples, taken before each step's update. `validation`, data or the fraction of
        `data` that is held out (the same for the same seed), is evaluated after each epoch. When the cost, of training
        or validation, becomes NaN or infinite, `on_nan` says whether to "raise" NumericsError or to "warn" and go on.
        `progress` may be an object that is told instead of a terminal.

        A trainer made with `weighted=True` takes `sample_weight`, one number an example, and `class_weight`, numbers
        by class (or "balanced": each class counts alike): the cost of a batch is sum(weight * cost) / sum(weight).
        They are of the training; validation data bring `sample_weight` of their own, by that name, or count alike.

        Ctrl-C stops after a whole step and returns what was reached, with `history.interrupted` set; the next fit with
        data of as many examples and the same batch size goes on there. With `checkpoint`, a folder or a `Checkpoints`,
        the state is saved after every epoch, and on Ctrl-C and SIGTERM; a new trainer of the same model that fits with
        the same folder goes on where the newest one ends, to the same bits as if nothing had happened. `epochs` then
        counts from the beginning.

        Raises InputError, ShapeError, DTypeError or NumericsError for data, of training or validation, that
        do not fit or are not finite, before anything is trained; CheckpointError for a checkpoint that cannot be used.
        """
        as_mapping(data, self._training.declared)
        epochs, batch_size = whole_number(epochs, "epochs", least=0), whole_number(batch_size, "batch_size", least=1)
        told, saved, bars = as_callbacks(callbacks), as_checkpoints(checkpoint), as_progress(progress)
        if any(isinstance(callback, Diagnostics) for callback in told):
            problem = "diagnostics are part of the training step, and no callback of one fit"
            raise GraphError(problem, where=origins.here(), hint="fg.Trainer(..., diagnostics=)")
        if on_nan not in ("raise", "warn"):
            raise InputError(f"on_nan is 'raise' or 'warn', got {shown(on_nan)}", where=origins.here())
        given = self._weighed(data, sample_weight, class_weight)
        given, validation = held_out_part(given, validation, self.seed, self._training.declared)
        arrays, examples = check_data(given, self._training.declared)
        self._training.check(arrays, examples, batch_size)
        self._settings |= {"examples": examples, "batch_size": batch_size, "shuffle": bool(shuffle)}
        held_out = None
        if validation is not None:
            with errors_of(VALIDATION):
                held_out = check_data(self._weighed(validation), self._evaluation.declared)
                self._evaluation.check(*held_out, batch_size)
        if saved is not None:
            saved.prepare()
        recorded = [name for name in self.values if name != WEIGHT]
        measured = [f"val_{name}" for name in recorded] if held_out is not None else []
        self.columns = ["epoch", *recorded, *measured, "seconds"]
        self.callbacks, self._stop = told, False
        resumed = saved is not None and self._epoch == 0 and self._resume(saved, bars)
        self._warn_of_changes()
        if saved is not None and not resumed:
            saved.require_none_after(*self._place())
        if self._partial is not None and not self._partial.fits(examples, batch_size):
            self._begin_anew(self._partial, examples, batch_size)
        if on_nan == "raise":
            self._require_finite_state()
        last = epochs if resumed else self._epoch + epochs - (self._partial is not None)
        self._sound = {}
        history, first, start = self.history, len(self.history), time.perf_counter()
        history.interrupted, history.restored = False, None
        for callback in self.callbacks:
            callback.on_fit_begin(self)
        if (kernels := self.program.executor.to_compile()) and hasattr(bars, "compiling"):
            bars.compiling(kernels)
        with signals(saved is not None):
            try:
                while (self._epoch < last or (self._partial is not None and self._epoch == last)) and not self._stop:
                    self._one_epoch(arrays, examples, batch_size, shuffle, held_out, on_nan, bars, last, saved)
            except KeyboardInterrupt:
                history.interrupted = True
                if saved is not None:
                    self._save(saved)
        self._sound = {w: w.op.storage.version for w in self.updates}
        for callback in self.callbacks:
            callback.on_fit_end(self, history)
        bars.finish(history, len(history) - first, time.perf_counter() - start)
        return history

    def stop(self) -> None:
        """Let the fit that is under way end after this epoch: for callbacks."""
        self._stop = True

    def _begin_anew(self, cut: Partial, examples: int, batch_size: int) -> None:
        """Give up an epoch that was cut short, and that other data or another batch size cannot go on with."""
        origins.warn(
            f"epoch {self._epoch} was cut short after {len(cut.log.sizes)} steps with {cut.examples} examples in "
            f"batches of {cut.batch_size}; with {examples} in batches of {batch_size} it begins anew"
        )
        self._epoch -= 1
        self._partial = None

    def _one_epoch(
        self,
        arrays: Mapping[str, np.ndarray],
        examples: int,
        batch_size: int,
        shuffle: bool,
        held_out: tuple[Mapping[str, np.ndarray], int] | None,
        on_nan: str,
        bars: Progress,
        last: int,
        saved: Checkpoints | None,
    ) -> None:
        """An epoch, or what is left of the one that was cut short."""
        begun, row = time.perf_counter(), None
        if self._partial is None:
            self._epoch += 1
            self._partial = Partial(examples, batch_size, Log())
        partial = self._partial
        assert partial is not None
        known = len(partial.log.sizes)
        order = self._order(examples, shuffle)
        bars.begin(self._epoch, last, -(-examples // batch_size))
        for callback in self._told.values():
            callback.on_epoch_begin(self, self._epoch)
        written = known

        def steps_done(done: int) -> None:
            nonlocal written
            bars.advance(done)
            for callback in self._told.values():
                callback.on_steps(self, done)
            if saved is not None and saved.steps is not None and done - written >= saved.steps:
                written = done
                self._save(saved)

        try:
            with self._naming_examples(order, batch_size):
                self._training.run(arrays, order, batch_size, partial.log, steps_done)
            self._require_finite(partial.log, on_nan)
            with errors_of(VALIDATION):
                scores = {} if held_out is None else self._scores(*held_out, batch_size)
            self._require_finite_score(scores.get("loss", 0.0), on_nan)
            validated = {f"val_{name}": value for name, value in scores.items()}
            row = {"epoch": self._epoch, **self._means(partial.log), **validated}
            row["seconds"] = time.perf_counter() - begun
            self.history.rows.append(row)
            self._partial = None
        except (NumericsError, OutOfRangeError):
            self._partial = None
            raise
        finally:
            self.history.add_losses(partial.log.values.get("loss", [])[known:])
            partial.counted = len(partial.log.sizes)
            bars.end(row)
        for callback in self._told.values():
            callback.on_epoch_end(self, row)
        if saved is not None:
            self._save(saved)

    @contextmanager
    def _naming_examples(self, order: np.ndarray, batch_size: int) -> Iterator[None]:
        """Errors of one step say which step of which epoch it was, and of which examples."""
        try:
            yield
        except (AnomalyError, OutOfRangeError) as error:
            steps, rows = -(-len(order) // batch_size), order[error.step * batch_size : (error.step + 1) * batch_size]
            place = f"epoch {self._epoch}, step {error.step + 1} of {steps} (examples {', '.join(map(str, rows[:8]))}"
            error.problem = f"{place}{', ...' if len(rows) > 8 else ''}): {getattr(error, 'what', error.problem)}"
            raise

    # data

    def _weighed(
        self, data: Data, sample_weight: Any = None, class_weight: Mapping[int, float] | str | None = None
    ) -> Data:
        """The data with the weights of their examples, for a trainer that takes some."""
        if not self.weighted:
            if sample_weight is not None or class_weight is not None:
                raise InputError(
                    "this trainer takes no weights", where=origins.here(), hint="make it with weighted=True"
                )
            return data
        targets = {} if class_weight is None else targets_of(self.cost)
        return with_weights(data, self._training.declared, sample_weight, class_weight, targets)

    # checkpoints

    def save(self, path: str | Path) -> None:
        """Write all that is state into one file: parameters, optimiser, random states, history, place in the epoch."""
        arrays, about = self.state()
        files.write(path, arrays, about)

    def load(self, path: str | Path) -> None:
        """Take up what `save` wrote, for the same model, optimiser and seed; raises CheckpointError for another."""
        self.restore(*files.read(path), path=path)

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """All that is state, as arrays and as what JSON can hold: of whole steps, whenever it is asked for."""
        losses, partial = self.history.losses, self._partial
        if partial is not None:
            partial = replace(partial, log=self._training.so_far(partial.log))
            losses = np.append(losses, partial.log.values.get("loss", [])[partial.counted :])
        return Snapshot(
            parameters={t.op.label: t.op.storage.read().copy() for t in self._training.state},
            seed=self.seed,
            epoch=self._epoch,
            rows=self.history.rows,
            losses=losses,
            learning_rate=self.optimizer.number,
            partial=partial,
            told={part: callback.state() for part, callback in self._told.items()},
            kinds=[type(callback).__name__ for callback in self.callbacks],
            stopped=self._stop,
            settings=self._settings,
        ).pack()

    def restore(
        self, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any], path: str | Path = "the checkpoint"
    ) -> None:
        """Take up what `state` gave: all of it, or nothing and a CheckpointError."""
        found = Snapshot.unpack(arrays, about, path)
        if found.seed != self.seed:
            problem = f"{path} is of a training with seed {found.seed}, this one has {self.seed}"
            raise CheckpointError(problem, where=origins.here(), hint=f"fg.Trainer(..., seed={found.seed})")
        kinds = [type(callback).__name__ for callback in self.callbacks]
        if self.callbacks and found.kinds != kinds:
            problem = f"{path} has the callbacks {', '.join(found.kinds) or 'none'}, this fit {', '.join(kinds)}"
            raise CheckpointError(problem, where=origins.here(), hint="give the same callbacks, in the same order")
        files.restore({t.op.label: t.op.storage for t in self._training.state}, found.parameters, path)
        if found.learning_rate is not None:
            self.learning_rate = found.learning_rate
        self._epoch, self._partial, self._stop = found.epoch, found.partial, found.stopped and bool(self.callbacks)
        self.history.replace(found.rows, found.losses)
        for part, callback in self._told.items():
            if part in found.told:
                callback.restore(*found.told[part])
        self._taken_up = str(path), found.settings

    def _warn_of_changes(self) -> None:
        """Say what was asked of the training that this one goes on from, where it is not what is asked now."""
        if self._taken_up is not None:
            path, settings = self._taken_up
            if changed := differences(settings, self._settings):
                rate = self.optimizer.number
                kept = "" if rate is None or "optimizer" not in changed else f"; the learning rate is {rate}"
                told = ", ".join(f"{name} {was}, now {now}" for name, (was, now) in changed.items())
                origins.warn(f"{path} is of a training with {told}: it goes on with what is asked now{kept}")
            self._taken_up = None

    def _resume(self, saved: Checkpoints, bars: Progress) -> bool:
        """Go on from the newest checkpoint; False if there is none."""
        found = saved.newest()
        if found is not None:
            path, arrays, about = found
            self.restore(arrays, about, path)
            if hasattr(bars, "resuming"):
                bars.resuming(path, *self._place())
        return found is not None

    def _save(self, saved: Checkpoints) -> None:
        saved.save(*self._place(), *self.state())

    def _place(self) -> tuple[int, int]:
        """Epochs that are finished, and steps of the next one."""
        if self._partial is None:
            return self._epoch, 0
        return self._epoch - 1, len(self._training.so_far(self._partial.log).sizes)

    def evaluate(self, data: Data, batch_size: int = 256) -> dict[str, float]:
        """The loss and the metrics, means over the examples; updates nothing."""
        whole_number(batch_size, "batch_size", least=1)
        return self._scores(*check_data(self._weighed(data), self._evaluation.declared), batch_size)

    def predict(self, tensor: Tensor, data: Data, batch_size: int = 1024) -> np.ndarray:
        """The values of a tensor of one row an example, (batch, ...), for all examples."""
        if not isinstance(tensor, Tensor):
            raise GraphError(
                f"predict takes a tensor of the model, got {shown(tensor)}",
                where=origins.here(),
                hint="trainer.predict(output, data), of what the network computes",
            )
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
        arrays, examples = check_data(self._needed(data, program), program.inputs, least=0)
        parts = []
        for start in range(0, max(examples, 1), batch_size):  # of no examples no rows
            rows = {n: a[start : start + batch_size] if a.ndim else a for n, a in arrays.items()}
            parts.append(program(**rows)[0])
        return np.concatenate(parts)

    def _scores(self, arrays: Mapping[str, np.ndarray], examples: int, batch_size: int) -> dict[str, float]:
        log = Log()
        self._evaluation.run(arrays, np.arange(examples, dtype=np.int32), batch_size, log)
        return self._means(log)

    def _means(self, log: Log) -> dict[str, float]:
        """Means over the examples; with weights, the costs' are sum(weight * cost) / sum(weight) of all of them."""
        means = log.means(by=WEIGHT if self.weighted else None, which=self.cost_names)
        means.pop(WEIGHT, None)
        return means

    def _needed(self, data: Data, program: Program) -> Data:
        """The data without what the model has, but the program does not read."""
        data = as_mapping(data, program.inputs)
        others = set(self._training.declared) - set(program.inputs)
        return {name: array for name, array in data.items() if name not in others}

    def _order(self, examples: int, shuffle: bool) -> np.ndarray:
        """The order of examples in this epoch, a function of (seed, epoch)."""
        if not shuffle:
            return np.arange(examples, dtype=np.int32)
        bits = np.random.Philox(key=np.array([self.seed, self._epoch - 1], np.uint64))
        return np.random.Generator(bits).permutation(examples).astype(np.int32)

    def _require_finite(self, log: Log, on_nan: str) -> None:
        bad = np.flatnonzero(~np.isfinite(log.values["loss"]))
        if not bad.size:
            return
        step = int(bad[0])
        loss = log.values["loss"][step]
        problem = f"the cost was {loss} at epoch {self._epoch}, step {step + 1} of {len(log.sizes)}"
        hint = "lower the learning rate, or look at the data; Trainer(..., detect_anomaly=True) finds the op"
        if self._epoch == 1 and step == 0:  # no update was made yet
            hint = "look at the data and the cost (cross_ent takes probabilities, cross_ent_of_softmax logits); "
            hint += "Trainer(..., detect_anomaly=True) finds the op"
        self._not_finite(problem, on_nan, hint)

    def _require_finite_score(self, cost: float, on_nan: str) -> None:
        if not np.isfinite(cost):
            problem = f"the validation cost was {cost} after epoch {self._epoch}"
            self._not_finite(problem, on_nan, "look at the validation data, or lower the learning rate")

    def _not_finite(self, problem: str, on_nan: str, hint: str) -> None:
        if on_nan == "raise":
            raise NumericsError(problem, where=self.cost.origin, hint=hint)
        origins.warn(problem)

    def _require_finite_state(self) -> None:
        """Raise NumericsError where what is to be trained is lost already. (What a fit has left is not looked through
        again, unless that fit has failed: tables are large.)"""
        for w in self.updates:
            if self._sound.get(w) == w.op.storage.version:
                continue
            array = w.op.storage.read()
            if not is_finite(array):
                place = tuple(int(k) for k in np.argwhere(~np.isfinite(array))[0])
                raise NumericsError(
                    f"the parameter {w.op.label!r} is {array[place]} at {list(place)} before anything is trained",
                    where=w.origin,
                    hint="make the model and its trainer anew, set the parameter (w.value = ...), or take up what was "
                    "saved: trainer.load(checkpoint), fg.load(file, [w])",
                )
