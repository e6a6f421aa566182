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


SIMPLIFIED: dict[str, Callable[[fg.Tensor], fg.Tensor]] = {
    "times one": lambda ids: ids * 1,
    "plus zero": lambda ids: ids + 0,
    "negated twice": lambda ids: fg.negative(fg.negative(ids)),
    "stop_gradient": fg.stop_gradient,
    "sum over an axis of size 1": lambda ids: fg.sum(fg.expand_dims(ids, 1), axis=1),
    "a known choice": lambda ids: fg.where(fg.constant(True), ids, 0),
    "one piece": lambda ids: fg.concatenate([ids]),
}


@each_device
@pytest.mark.parametrize("form", SIMPLIFIED)
def test_what_a_pass_makes_an_input_of_is_checked_like_the_input(form: str, device: str) -> None:
    ids = fg.input("ids", ("n",), "int32")
    table = fg.parameter("table", (5, 3), TABLE)
    step = fg.compile(outputs=fg.gather(table, SIMPLIFIED[form](ids)), device=DEVICES[device], check=True)
    np.testing.assert_array_equal(step(ids=np.array([4, 0], np.int32))[0], TABLE[[4, 0]])
    for wrong in ([0, 7], [-1, 0], [400_000_000, 0]):
        with pytest.raises((fg.InputError, fg.OutOfRangeError), match="out of range"):
            step(ids=np.array(wrong, np.int32))


def test_a_scatter_by_a_simplified_input_writes_nothing_else() -> None:
    table, other = fg.parameter("table", (5, 3), TABLE), fg.parameter("other", (64, 3))
    ids, added = fg.input("ids", ("n",), "int32"), fg.input("added", ("n", 3))
    step = fg.compile(updates={table: fg.scatter_add(table, fg.stop_gradient(ids), added)}, device="cpu")
    with pytest.raises(fg.InputError, match=r"ids\[0\] = 69 is out of range"):
        step(ids=np.array([69], np.int32), added=np.ones((1, 3), np.float32))
    assert not other.value.any() and (table.value == TABLE).all()


@each_device
def test_columns_of_one_input_have_bounds_of_their_own(device: str) -> None:
    small, large = fg.parameter("small", (5, 3), TABLE), fg.parameter("large", (1000, 2), np.ones((1000, 2)))
    ids = fg.input("ids", ("n", 2), "int32")
    outputs = [fg.gather(small, ids[:, 0]), fg.gather(large, ids[:, 1])]
    step = fg.compile(outputs=outputs, device=DEVICES[device], check=True)
    step(ids=np.array([[3, 500], [4, 999]], np.int32))
    with pytest.raises(fg.InputError, match=r"ids\[1, 0\] = 5 is out of range: gather takes integers from 0 to 4"):
        step(ids=np.array([[3, 500], [5, 7]], np.int32))
    with pytest.raises(fg.InputError, match=r"ids\[0, 1\] = 1000 .* from 0 to 999"):
        step(ids=np.array([[3, 1000], [4, 7]], np.int32))


def test_columns_are_checked_by_a_trainer_for_all_examples() -> None:
    small, large = fg.parameter("small", (5, 3), TABLE), fg.parameter("large", (1000, 3))
    ids = fg.input("ids", ("batch", 2), "int32")
    cost = fg.mean(fg.square(fg.gather(small, ids[:, 0]) + fg.gather(large, ids[:, 1])))
    trainer = fg.Trainer(cost, fg.optim.SGD(0.1), device="cpu")
    data = np.stack([np.arange(20) % 5, 50 * np.arange(20)], axis=1).astype(np.int32)
    trainer.fit({"ids": data}, batch_size=8, progress=False)
    data[17, 0] = 5
    with pytest.raises(fg.InputError, match=r"ids\[17, 0\] = 5 is out of range"):
        trainer.fit({"ids": data}, batch_size=8, progress=False)


@each_device
def test_rows_that_nobody_looks_up_may_hold_anything(device: str) -> None:
    ids, table = fg.input("ids", (6,), "int32"), fg.parameter("table", (5, 3), TABLE)
    step = fg.compile(outputs=fg.gather(table, ids[:3]), device=DEVICES[device])
    np.testing.assert_array_equal(step(ids=np.array([1, 2, 3, -9, 99, 99], np.int32))[0], TABLE[1:4])
    with pytest.raises(fg.InputError, match=r"ids\[2\] = 99"):
        step(ids=np.array([1, 2, 99, -9, 99, 99], np.int32))


@each_device
def test_a_lookup_of_a_lookup_is_judged_by_what_it_reads(device: str) -> None:
    ids, chosen = fg.input("ids", ("n",), "int32"), fg.input("chosen", ("k",), "int32")
    table = fg.parameter("table", (5, 3), TABLE)
    step = fg.compile(outputs=fg.gather(table, fg.gather(ids, chosen)), device=DEVICES[device])
    data = np.array([1, 77, 3], np.int32)
    np.testing.assert_array_equal(step(ids=data, chosen=np.array([0, 2], np.int32))[0], TABLE[[1, 3]])
    with pytest.raises(fg.OutOfRangeError, match="got 77"):
        step(ids=data, chosen=np.array([1], np.int32))
