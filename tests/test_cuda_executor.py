"""Programs on a CUDA device: training, parameters that live there, memory, errors; on the emulator."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.backends.cuda import executor as cuda_executor
from flowgraph.backends.cuda.emulator import EmulatedDevice
from flowgraph.graph.tensor import Tensor
from flowgraph.program import Program
from tests.support.compare import Oracle
from tests.support.paths import through_program
from tests.support.random_graphs import random_case


def network(device: object) -> tuple[Program, list[Tensor]]:
    """The demo network's training step, 64-32-10, and its parameters."""
    x, y = fg.input("x", ("batch", 64)), fg.input("y", ("batch",), dtype="int32")
    w1, b1 = fg.parameter("w1", (64, 32), init=fg.init.glorot_uniform()), fg.parameter("b1", (32,))
    w2, b2 = fg.parameter("w2", (32, 10), init=fg.init.glorot_uniform()), fg.parameter("b2", (10,))
    hidden = fg.tanh(fg.add_bias(x @ w1, b1))
    cost = fg.mean(fg.cross_ent_of_softmax(fg.add_bias(hidden @ w2, b2), y))
    parameters = [w1, b1, w2, b2]
    updates = {p: p - 0.1 * g for p, g in zip(parameters, fg.grad(cost, parameters), strict=True)}
    return fg.compile([x, y], [cost], updates, device=device, check=True), parameters  # type: ignore[arg-type]


def examples(batch: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(batch)
    return {
        "x": random.normal(size=(batch, 64)).astype("f4"),
        "y": random.integers(0, 10, batch).astype("i4"),
    }


def counter(device: object) -> tuple[Program, Tensor]:
    """A step that adds its input to a parameter."""
    x, w = fg.input("x", (5,)), fg.parameter("w", (5,))
    return fg.compile([x], [w * 1.0], {w: w + x}, device=device), w  # type: ignore[arg-type]


ONES = np.ones(5, "f4")


@pytest.fixture
def device() -> EmulatedDevice:
    return EmulatedDevice()


# Training


@pytest.mark.parametrize("batch", [29, 32])
def test_the_network_learns_as_on_the_cpu(batch: int, device: EmulatedDevice) -> None:
    (there, theirs), (here, ours) = network("cpu"), network(device)
    data = examples(batch)
    for _ in range(3):
        np.testing.assert_allclose(here(**data)[0], there(**data)[0], rtol=1e-5)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one.value, other.value, rtol=0, atol=1e-6)
    assert len(here.kernels) == len(there.kernels)


def test_a_step_is_one_launch_a_kernel(device: EmulatedDevice) -> None:
    program, _ = network(device)
    program(**examples(32))
    assert device.launches == len(program.plan.launches) < len(program.kernels)


def test_many_steps_are_the_same_as_single_ones(device: EmulatedDevice) -> None:
    (many, first), (single, second) = network(device), network(device)
    data = examples(29)
    seen: list[int] = []
    (last,) = many.run(7, data, on_chunk=seen.append)
    for _ in range(7):
        (expected,) = single(**data)
    assert last == expected
    assert seen == sorted(seen) and seen[-1] == 7
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.value, other.value)


def test_a_step_is_recorded_once_for_each_size() -> None:
    recorded: list[Callable[[], None]] = []

    class Recording(EmulatedDevice):
        def capture(self, run: Callable[[], None]) -> Callable[[], None]:
            recorded.append(run)
            return super().capture(run)

    program, _ = network(Recording())
    for batch in (29, 32, 29, 29, 32):
        program.run(3, examples(batch))
    assert len(recorded) == 2


@pytest.mark.parametrize("seed", range(12))
def test_random_graphs_are_right(seed: int, device: EmulatedDevice) -> None:
    case = random_case(7000 + seed)
    got = through_program(device)(case.graph, case.feeds, case.sizes)
    assert not Oracle(case.graph, case.feeds, case.sizes).mismatch(got)


# Parameters


def test_the_value_of_a_parameter_is_the_newest(device: EmulatedDevice) -> None:
    program, w = counter(device)
    for step in range(1, 4):
        program(x=ONES)
        np.testing.assert_array_equal(w.value, step * ONES)


def test_what_the_host_writes_is_seen_by_the_next_step(device: EmulatedDevice) -> None:
    program, w = counter(device)
    program(x=ONES)
    w.value = 10 * ONES  # before anybody has read what the device made of it
    np.testing.assert_array_equal(w.value, 10 * ONES)
    program(x=ONES)
    np.testing.assert_array_equal(w.value, 11 * ONES)


def test_programs_of_one_device_share_a_parameter(device: EmulatedDevice) -> None:
    x, w = fg.input("x", (5,)), fg.parameter("w", (5,))
    add = fg.compile([x], [], {w: w + x}, device=device)  # type: ignore[arg-type]
    look = fg.compile([], [w * 1.0], device=device)  # type: ignore[arg-type]
    copies = 0
    for step in range(1, 4):
        add(x=ONES)
        np.testing.assert_array_equal(look()[0], step * ONES)
        copies += w.op.storage.pull is None
    assert copies == 0  # it never came home


def test_devices_take_turns_with_a_parameter() -> None:
    x, w = fg.input("x", (5,)), fg.parameter("w", (5,))
    programs = [
        fg.compile([x], [], {w: w + x}, device=where)  # type: ignore[arg-type]
        for where in (EmulatedDevice(), "cpu", EmulatedDevice())
    ]
    for step in range(1, 10):
        programs[step % 3](x=ONES)
    np.testing.assert_array_equal(w.value, 9 * ONES)


def test_all_updates_read_the_values_from_before_the_step(device: EmulatedDevice) -> None:
    a, b = fg.parameter("a", (3,), init=np.arange(3.0)), fg.parameter("b", (3,), init=np.arange(3.0) + 10)
    swap = fg.compile([], [], {a: b * 1.0, b: a * 1.0}, device=device)  # type: ignore[arg-type]
    swap()
    np.testing.assert_array_equal((a.value, b.value), [[10, 11, 12], [0, 1, 2]])


def test_a_redrawn_parameter_reaches_the_device(device: EmulatedDevice) -> None:
    program, w = counter(device)
    program(x=ONES)
    w.op.storage.draw(0)
    np.testing.assert_array_equal(program(x=ONES)[0], 0 * ONES)


# Memory


def test_a_program_gives_its_memory_back(device: EmulatedDevice) -> None:
    program, parameters = network(device)
    before = len(device._buffers.live)
    program(**examples(29))
    assert len(device._buffers.live) > before
    del program, parameters
    gc.collect()
    assert len(device._buffers.live) == before


def test_a_value_outlives_the_program_and_the_device_that_made_it() -> None:
    program, w = counter(EmulatedDevice())
    program(x=ONES)
    del program
    gc.collect()
    np.testing.assert_array_equal(w.value, ONES)


def test_a_device_is_released_with_its_programs() -> None:
    device = EmulatedDevice()
    program, w = counter(device)
    program(x=ONES)
    np.testing.assert_array_equal(w.value, ONES)
    reference = weakref.ref(device)
    del program, device
    gc.collect()
    assert reference() is None


def test_the_memory_of_few_sizes_is_kept(device: EmulatedDevice) -> None:
    program = fg.compile(outputs=fg.tanh(fg.input("x", ("n",))), device=device)  # type: ignore[arg-type]
    for n in range(1, 40):
        np.testing.assert_allclose(program(x=np.ones(n, "f4"))[0], np.tanh(np.ones(n)), rtol=1e-6)
    gc.collect()
    assert len(device._buffers.live) <= 2 * cuda_executor.MOST_BINDINGS


def test_no_rows_are_no_launch(device: EmulatedDevice) -> None:
    program = fg.compile(outputs=fg.tanh(fg.input("x", ("n", 3))), device=device)  # type: ignore[arg-type]
    assert program(x=np.empty((0, 3), "f4"))[0].shape == (0, 3)
    assert device.launches == 0


def test_outputs_are_arrays_of_their_own(device: EmulatedDevice) -> None:
    program, _ = counter(device)
    (first,) = program(x=ONES)
    kept = first.copy()
    program(x=ONES)
    np.testing.assert_array_equal(first, kept)


def test_more_elements_than_32_bits_reach_are_refused(
    device: EmulatedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_executor, "MOST_ELEMENTS", 1000)
    program = fg.compile(outputs=fg.tanh(fg.input("x", ("n",))), device=device)  # type: ignore[arg-type]
    with pytest.raises(fg.DeviceError, match="has 1001 elements"):
        program(x=np.ones(1001, "f4"))


# Devices and source


def test_asking_for_cuda_where_there_is_none_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "flowgraph.backends.cuda.device.cuda_available", lambda: (False, "there is no NVIDIA driver here")
    )
    with pytest.raises(fg.DeviceError, match="there is no NVIDIA driver here") as raised:
        fg.compile(outputs=fg.tanh(fg.input("x", (3,))), device="cuda")
    assert "doctor" in str(raised.value)
    assert "test_cuda_executor.py" in str(raised.value)


def test_auto_is_the_cpu_where_there_is_no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowgraph.backends.cuda.device.cuda_available", lambda: (False, "no"))
    assert fg.compile(outputs=fg.tanh(fg.input("x", (3,)))).device == "cpu"


def test_the_source_shows_kernels_and_launches(device: EmulatedDevice) -> None:
    program, _ = network(device)
    text = program.source()
    assert program.device == "cuda"
    assert text.count("\ndef ") == len(program.kernels)
    assert "cuda.syncthreads()" in text
    assert "# schedule: Tile(" in text
    assert "test_cuda_executor.py" in text  # where the user wrote it
    assert "blocks of 256 threads" in text
    compile(text, "source", "exec")


def test_the_trainer_learns_as_on_the_cpu(device: EmulatedDevice) -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(70, 20)).astype("f4")
    data = {"x": values, "y": values[:, :3].argmax(1).astype("i4")}
    found = []
    for where in ("cpu", device):
        x, y = fg.input("x", ("batch", 20)), fg.input("y", ("batch",), dtype="int32")
        w, v = (
            fg.parameter(n, s, init=fg.init.glorot_uniform()) for n, s in (("w", (20, 16)), ("v", (16, 3)))
        )
        cost = fg.mean(fg.cross_ent_of_softmax(fg.tanh(x @ w) @ v, y))
        optimizer = fg.optim.SGD(0.1, momentum=0.9)
        trainer = fg.Trainer(cost, optimizer=optimizer, device=where, seed=0)  # type: ignore[arg-type]
        trainer.fit(data, epochs=2, batch_size=32, progress=False)  # the last minibatch is smaller
        found.append((w.value, v.value))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
