"""Row numbers that the graph computes: one out of range is an error after the step, and never a read outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.backends.cuda.emulator import EmulatedDevice

DEVICES: dict[str, Any] = {"reference": "reference", "cpu": "cpu", "cuda": EmulatedDevice()}
each_device = pytest.mark.parametrize("device", DEVICES)
TABLE = np.arange(15, dtype=np.float32).reshape(5, 3)
Build = Callable[[fg.Tensor, fg.Tensor], fg.Tensor]

READERS: dict[str, Build] = {
    "gather": lambda x, ids: fg.gather(x, ids),
    "scatter_add": lambda x, ids: fg.scatter_add(x, ids, fg.gather(x, np.arange(3))),
    "take_along_axis": lambda x, ids: fg.take_along_axis(x, fg.expand_dims(ids, 0), 0),
    "add_along_axis": lambda x, ids: fg.grad(fg.sum(fg.take_along_axis(x, fg.expand_dims(ids, 0), 0)), x),
}


@each_device
@pytest.mark.parametrize(("by", "wrong"), [(-1, -1), (1, 5)])
@pytest.mark.parametrize("reader", READERS)
def test_a_number_out_of_range_is_an_error_that_names_its_reader(
    reader: str, by: int, wrong: int, device: str
) -> None:
    ids = fg.input("ids", (3,), "int32")
    step = fg.compile(outputs=READERS[reader](fg.parameter("x", (5, 3), TABLE), ids + by), device=DEVICES[device])
    inside = np.array([1, 2, 3], np.int32)
    step(ids=inside)
    with pytest.raises(fg.OutOfRangeError) as caught:
        step(ids=inside + by)
    assert f"out of range: {reader} takes integers from 0 to 4, got {wrong}" in str(caught.value)
    assert "test_row_numbers.py" in str(caught.value)
    step(ids=inside)  # the next run is judged by itself


@each_device
def test_of_many_steps_and_lookups_the_first_is_told(device: str) -> None:
    counter = fg.parameter("counter", (), 0, "int32")
    table = fg.parameter("table", (5, 3), TABLE)
    late, early = fg.gather(table, counter + 1), fg.gather(table, counter + fg.constant(np.array([2, 1], np.int32)))
    step = fg.compile(outputs=[late, early], updates={counter: counter + 1}, device=DEVICES[device])
    with pytest.raises(fg.OutOfRangeError, match=r"step 4 of 6: .* takes integers from 0 to 4, got 5") as caught:
        step.run(6, {})
    assert caught.value.step == 3 and counter.value == 6
    with pytest.raises(fg.OutOfRangeError, match=r"step 1 of 2: .*, got 7"):
        step.run(2, {})


def test_what_is_told_does_not_depend_on_the_number_of_threads() -> None:
    ids = fg.input("ids", ("n",), "int64")
    table = fg.parameter("table", (1000, 64))
    data = np.random.default_rng(0).integers(0, 999, 20_000)
    data[[77, 19_000]] = 1005, -3

    def told(threads: int) -> str:
        step = fg.compile(outputs=fg.sum(fg.gather(table, ids + 1)), device="cpu", threads=threads)
        with pytest.raises(fg.OutOfRangeError) as caught:
            step(ids=data)
        return caught.value.problem

    assert told(1) == told(2) == told(4)
    assert told(1).endswith("gather takes integers from 0 to 999, got 1006")


@each_device
def test_numbers_that_a_parameter_holds_are_watched_too(device: str) -> None:
    rows = fg.parameter("rows", (2,), np.array([0, 4]), "int64")
    table = fg.input("table", ("n", 3))
    step = fg.compile(outputs=fg.gather(table, rows), device=DEVICES[device])
    np.testing.assert_array_equal(step(table=TABLE)[0], TABLE[[0, 4]])
    with pytest.raises(fg.OutOfRangeError, match="takes integers from 0 to 3, got 4"):
        step(table=TABLE[:4])


def test_what_cannot_be_out_of_range_is_not_watched() -> None:
    x, ids = fg.input("x", ("n", 5)), fg.input("ids", ("n",), "int32")
    table = fg.parameter("table", (5, 3))
    for rows in (ids, fg.argmax(x, axis=1), fg.gather(ids, fg.argsort(ids))):
        assert fg.compile(outputs=fg.gather(table, rows), device="reference").watch is None


def test_a_trainers_own_minibatches_and_records_are_not_watched() -> None:
    x, w = fg.input("x", ("batch", 4)), fg.parameter("w", (4,))
    trainer = fg.Trainer(fg.mean((x @ w) ** 2), fg.optim.SGD(0.1), device="cpu")
    assert trainer.program.watch is None


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_a_training_stops_and_tells_the_examples(device: str) -> None:
    word = fg.input("word", ("batch",), "int32")
    table = fg.parameter("table", (10, 4), fg.init.normal(0.1))
    trainer = fg.Trainer(fg.sum(fg.gather(table, word * 2) ** 2, axis=-1), fg.optim.SGD(0.1), device=device)
    data = np.zeros(40, np.int32)
    data[33] = 7
    message = r"epoch 1, step 9 of 10 \(examples 32, 33, 34, 35\): a computed row number is out of range: .*, got 14"
    with pytest.raises(fg.OutOfRangeError, match=message):
        trainer.fit({"word": data}, epochs=3, batch_size=4, shuffle=False, progress=False)


@pytest.mark.parametrize("rows", [10, 5000])
def test_a_lookup_is_blamed_and_not_its_gradient(rows: int) -> None:
    word, table = fg.input("word", ("batch",), "int32"), fg.parameter("table", (rows, 4), fg.init.normal(0.1))
    found = fg.gather(table, word * 2)
    trainer = fg.Trainer(fg.sum(found**2, axis=-1), fg.optim.AdaGrad(0.1), device="reference")
    with pytest.raises(fg.OutOfRangeError, match="gather takes integers from 0") as caught:
        trainer.fit({"word": np.full(4, rows, np.int32)}, progress=False)
    assert "found = fg.gather" in str(caught.value)


def test_the_check_adds_nothing_to_the_kernel_that_reads_the_rows() -> None:
    ids, table = fg.input("ids", ("n",), "int32"), fg.input("table", ("rows", 100))
    program = fg.compile(outputs=fg.gather(table, ids + 1), device="cpu")
    (reading,) = (k for k in program.kernels if k.name == "gather_kernel")
    assert [b.type.dtype.name for b in reading.outputs] == ["float32"]
    assert sum("outside" in k.name for k in program.kernels) == 1
