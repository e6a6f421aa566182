"""One run of a program at a time: within itself, beside others, across a fork."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.backends.cuda.emulator import EmulatedDevice
from flowgraph.cli import main
from flowgraph.errors import DeviceError, DTypeError, FlowgraphError, GraphError, ParseError, ShapeError


def counter(device: object = "cpu") -> tuple[fg.Program, fg.Tensor]:
    n = fg.parameter("n", (200_000,))
    return fg.compile([], [fg.sum(n)], {n: fg.tanh(n) + 1.0}, device=device), n  # type: ignore[arg-type]


@pytest.mark.parametrize("device", ["cpu", EmulatedDevice()], ids=["cpu", "cuda"])
def test_a_program_is_not_run_by_its_own_callback(device: object) -> None:
    x, n = fg.input("x", (4,)), fg.parameter("n", (4,))
    program = fg.compile([x], [], {n: n + x}, device=device)  # type: ignore[arg-type]
    ones = np.ones(4, np.float32)

    made = 0

    def again(done: int) -> None:
        nonlocal made
        made = done
        program(x=ones)

    with pytest.raises(FlowgraphError, match=r"(?s)this program is running.*test_one_run\.py"):
        program.run(3, {"x": ones}, on_chunk=again)
    assert n.value.tolist() == [made] * 4 and made > 0  # the steps were made, and are seen
    program(x=ones)
    assert n.value.tolist() == [made + 1] * 4


def test_a_child_forked_in_the_middle_of_a_run_runs_the_program() -> None:
    program, _ = counter()
    stop = threading.Event()

    def keep_running() -> None:
        while not stop.is_set():
            program.run(20, {})

    thread = threading.Thread(target=keep_running)
    thread.start()
    try:
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=program.run, args=(2, {})) for _ in range(6)]
        for child in children:
            child.start()
        for child in children:
            child.join(60)
        assert [child.exitcode for child in children] == [0] * 6
    finally:
        stop.set()
        thread.join()
        for child in children:
            child.kill()


def test_an_input_may_be_called_self() -> None:
    x = fg.input("self", (2,))
    assert fg.compile([x], [2.0 * x], device="cpu")(self=np.ones(2, "f4"))[0].tolist() == [2, 2]


@pytest.mark.parametrize("key", [True, False, (0, True), slice(False, None), np.True_])
def test_a_bool_is_no_index(key: object) -> None:
    with pytest.raises(GraphError, match="an index is an int"):
        fg.input("x", (2, 3))[key]


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_the_gradient_of_huber_far_away_is_the_clipped_error(device: str) -> None:
    x = fg.input("x", (5,))
    step = fg.compile([x], [fg.huber(x, 0.0), fg.grad(fg.sum(fg.huber(x, 0.0)), x)], device=device)
    value, gradient = step(x=np.array([np.inf, -np.inf, 1e30, -0.25, np.nan], np.float32))
    assert value[:2].tolist() == [np.inf, np.inf] and gradient[:4].tolist() == [1, -1, 1, -0.25]
    assert np.isnan(value[4]) and np.isnan(gradient[4])


def test_a_finite_number_that_its_dtype_cannot_hold_is_refused() -> None:
    x = fg.input("x", (2,))
    with pytest.raises(DTypeError):
        x + 1e40
    assert fg.compile([x], [x + np.inf], device="reference")(x=np.zeros(2, "f4"))[0].tolist() == [np.inf] * 2


@pytest.mark.parametrize("axis", [None, 0, (0, 2), (1, 1)])
def test_roll_takes_what_numpys_takes(axis: object) -> None:
    given = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    shift = (1, -2) if isinstance(axis, tuple) else 5
    x = fg.input("x", given.shape)
    found = fg.compile([x], [fg.roll(x, shift, axis)], device="cpu")(x=given)[0]  # type: ignore[arg-type]
    np.testing.assert_array_equal(found, np.roll(given, shift, axis))  # type: ignore[arg-type]


def test_commands_refuse_what_they_cannot_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "model.fg"
    file.write_text("Inputs: X,Y,W\nShapes: X(batch,4), Y(batch), W(4,3)\nC = crossEntOfSoftMaxY(mul(X,W))\n")
    assert main(["source", str(file)]) == 0
    capsys.readouterr()
    for options, said in (
        (["source", str(file), "--device", "bogus"], "unknown device 'bogus'"),
        (["explain", str(file), "--size", "batch=-1"], "is not NAME=VALUE"),
        (["explain", str(file), "--size", "batch=99999999999999999999"], "is not NAME=VALUE"),
    ):
        assert main(options) == 2
        out, err = capsys.readouterr()
        assert said in err and not out and "runpy" not in err and "  at " not in err
    file.write_bytes(b"Inputs: \xff")
    assert main(["show", str(file)]) == 2
    assert "not UTF-8" in capsys.readouterr().err


def test_a_listing_is_text() -> None:
    with pytest.raises(ParseError, match=r"fg\.parse_file"):
        fg.parse(None, {})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "misuse",
    [
        lambda x: fg.sum(x, axis=True),
        lambda x: fg.transpose(x, (True, False)),
        lambda x: fg.expand_dims(x, np.True_),
        lambda x: fg.split(x, True),
        lambda x: fg.tile(x, (True, 2)),
    ],
)
def test_a_bool_is_no_axis_and_no_count(misuse: Callable[[fg.Tensor], object]) -> None:
    with pytest.raises(ShapeError, match="True"):
        misuse(fg.input("x", (2, 3)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numpys_scalars_take_the_tensors_dtype_on_either_side(dtype: str) -> None:
    x, k = fg.input("x", (2,), dtype), fg.input("k", (2,), "int32")
    for two in (np.float64(2.0), np.float32(2.0)):
        assert [t.dtype for t in (two * x, x * two, fg.maximum(x, two))] == [x.dtype] * 3
    assert (np.int64(2) * k).dtype == (k + np.int8(2)).dtype == k.dtype
    assert fg.compile([x], [np.float64(2.5) - x], device="cpu")(x=np.ones(2, dtype))[0].tolist() == [1.5, 1.5]


@pytest.mark.parametrize("wrong", [lambda x, k: x + np.float64(1e40), lambda x, k: np.int64(2**40) * k])
def test_numpys_scalars_must_fit_the_tensors_dtype(wrong: Callable[[fg.Tensor, fg.Tensor], object]) -> None:
    with pytest.raises(DTypeError, match="does not fit"):
        wrong(fg.input("x", (2,)), fg.input("k", (2,), "int32"))


def test_arrays_keep_their_dtype() -> None:
    with pytest.raises(DTypeError, match="equal dtypes"):
        np.ones(2) * fg.input("x", (2,))


@pytest.mark.parametrize("value", [[1e300] * 2, np.full(2, 1e300)])
def test_a_parameter_takes_no_number_that_its_dtype_cannot_hold(value: object) -> None:
    parameter = fg.parameter("w", (2,))
    with pytest.raises(DTypeError):
        parameter.value = value


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_program_can_be_neither_copied_nor_pickled(duplicate: Callable[[object], object]) -> None:
    with pytest.raises(TypeError, match="compile again"):
        duplicate(counter()[0])


@pytest.mark.parametrize("device", ["cpu", EmulatedDevice()], ids=["cpu", "cuda"])
def test_a_step_too_large_for_memory_names_its_largest_tensors(device: object) -> None:
    x = fg.input("x", ("n",))
    program = fg.compile([x], [fg.expand_dims(x, 1) * fg.expand_dims(x, 0)], device=device)  # type: ignore[arg-type]
    many = 10_000_000 if device == "cpu" else 20_000
    with pytest.raises(DeviceError, match=r"(?s)bytes of multiply: float32\(n, n\).*test_one_run\.py"):
        program(x=np.ones(many, np.float32))
    assert program(x=np.ones(2, np.float32))[0].shape == (2, 2)


def test_a_parameter_too_large_for_memory_says_so() -> None:
    with pytest.raises(DeviceError, match="no memory for 40,000,000,000,000,000 bytes"):
        fg.parameter("w", (10**8, 10**8))
