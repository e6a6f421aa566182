"""Where the time of a step goes: what is measured, what is counted, and whose line it is put down to."""

from __future__ import annotations

import inspect
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.backends.cpu.team import Tape
from flowgraph.backends.cuda.emulator import EmulatedDevice
from flowgraph.cli import main
from flowgraph.errors import FlowgraphError, InputError
from flowgraph.graph.size import evaluate
from flowgraph.kernels.work import Work, work_of
from flowgraph.program import Program
from flowgraph.report.profile import Profile, Timed, profile_of
from tests.support.random_graphs import random_case

ROWS, WIDE = 6, 64
SIZES = {"batch": ROWS}
DIGITS = Path(__file__).parent.parent / "examples" / "digits" / "digits.fg"


def network(device: Any = "cpu", threads: int | None = 1) -> tuple[Program, list[fg.Tensor], dict[str, int]]:
    """A layer with its step of SGD; the numbers of its lines."""
    first = inspect.currentframe().f_lineno  # type: ignore[union-attr]
    x, y = fg.input("x", ("batch", WIDE)), fg.input("y", ("batch",), dtype="int32")
    w = fg.parameter("w", (WIDE, 10), np.full((WIDE, 10), 0.1, np.float32))
    h = fg.tanh(x @ w)
    cost = fg.mean(fg.cross_ent_of_softmax(h, y))
    updates = {w: w - 0.1 * fg.grad(cost, [w])[0]}
    threads = threads if device == "cpu" else None
    lines = {"w": first + 2, "h": first + 3, "cost": first + 4, "update": first + 5}
    return fg.compile(outputs=cost, updates=updates, device=device, threads=threads), [w], lines


def data() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"x": rng.normal(size=(ROWS, WIDE)).astype("f4"), "y": rng.integers(0, 10, ROWS).astype("i4")}


def work(*outputs: fg.Tensor, **sizes: int) -> list[Work]:
    program = fg.compile(outputs=list(outputs), device="reference")
    return [work_of(call, sizes) for call in program.plan.calls]


# What is counted


def test_a_product_reads_each_operand_once_and_multiplies_and_adds_at_every_point() -> None:
    x, w = fg.input("x", ("n", 8)), fg.parameter("w", (8, 3))
    assert work(x @ w, n=5) == [Work(2 * 5 * 8 * 3, 4 * (5 * 8 + 8 * 3), 4 * 5 * 3)]


def test_an_epilogue_adds_its_operations_and_moves_nothing_between() -> None:
    x, w, b = fg.input("x", ("n", 8)), fg.parameter("w", (8, 3)), fg.parameter("b", (3,))
    assert work(fg.tanh(fg.add_bias(x @ w, b)), n=5) == [Work(2 * 120 + 2 * 15, 4 * (40 + 24 + 3), 4 * 15)]


def test_rows_that_several_nests_read_are_read_once() -> None:
    (found,) = work(fg.softmax(fg.input("x", ("n", 7))), n=5)
    assert (found.read, found.written) == (4 * 35, 4 * 35)


def test_a_lookup_reads_as_many_rows_as_it_is_asked_for() -> None:
    table, ids = fg.parameter("table", (100, 4)), fg.input("ids", ("n",), dtype="int32")
    rows = fg.gather(table, ids)
    assert work(rows + 1.0, n=5) == [Work(20, 4 * 5 + 4 * 5 * 4, 4 * 5 * 4)]
    assert work(rows + 1.0, n=300)[0].read == 4 * 300 + 4 * 100 * 4, "no more than the table"


def test_a_slice_reads_what_it_takes() -> None:
    assert work(fg.input("x", (10, 4))[2:5] * 2.0) == [Work(12, 4 * 12, 4 * 12)]


def test_a_slice_that_several_nests_read_is_read_once() -> None:
    *_, found = work(fg.softmax(fg.input("x", (10, 7))[2:5]))  # sums and divides; the maximum is another kernel's
    assert (found.read, found.written) == (4 * (21 + 3), 4 * 21)


def test_comparisons_choices_and_indices_are_no_operations() -> None:
    x = fg.input("x", ("n",))
    assert [w.operations for w in work(fg.where(x > 0.0, x, 1.0), n=9)] == [0]


def test_float64_counts_eight_bytes() -> None:
    assert work(fg.input("x", (3,), dtype="float64") + 1.0) == [Work(3, 24, 24)]


# What is measured


def test_a_profiled_run_computes_what_any_run_does() -> None:
    (one, [w], _), (other, [v], _) = network(), network()
    fed = data()
    profile = one.profile(5, fed)
    np.testing.assert_array_equal(profile.outputs[0], other.run(5, fed)[0])
    np.testing.assert_array_equal(w.value, v.value)


@pytest.mark.parametrize("threads", [1, 2])
def test_launches_are_timed_on_every_thread_and_their_times_fit_into_the_whole(threads: int) -> None:
    program, _, _ = network(threads=threads)
    profile = program.profile(200, data())
    assert len(profile.launches) == len(program.plan.calls)
    assert all(0 < one.seconds <= one.work for one in profile.launches)
    spent = sum(one.work for one in profile.launches) + profile.waiting
    assert 0 < spent <= 1.001 * profile.threads * profile.seconds


def test_a_tick_is_as_long_as_the_clock_says() -> None:
    program, _, _ = network()
    executor: Any = program.executor
    program.run(1, data())
    table = executor._binding(SIZES).table
    tape = Tape(table, executor.runtime.new_profile(table))
    with pytest.raises(ValueError, match="without a profile"):
        Tape(table).seconds()
    assert not tape.seconds().any()
    executor.runtime.run_tape(tape, 2000)
    total = tape.seconds()[0].sum()
    assert 0.5e-9 * tape.nanoseconds < total <= 1.001e-9 * tape.nanoseconds


def test_one_thread_waits_for_nobody() -> None:
    program, _, _ = network(threads=1)
    profile = program.profile(10, data())
    assert [one.wait for one in profile.launches] == [0.0] * len(program.plan.calls) and profile.waiting == 0.0


def test_the_reference_times_each_op() -> None:
    program, _, lines = network("reference")
    profile = program.profile(3, data())
    assert not profile.planned and "NumPy reference" in str(profile)
    assert [one.number for one in profile.launches] == list(range(len(profile.launches)))
    assert {"h", "cost"} <= {one.name for one in profile.launches}
    assert lines["h"] in {line.line.line for line in profile.lines if line.line}


def test_a_cuda_device_times_each_launch() -> None:
    (program, [w], _), (other, [v], _) = network(EmulatedDevice()), network(EmulatedDevice())
    fed = data()
    profile = program.profile(2, fed)
    np.testing.assert_array_equal(profile.outputs[0], other.run(2, fed)[0])
    np.testing.assert_array_equal(w.value, v.value)
    assert all(one.seconds > 0 for one in profile.launches) and "not by a recorded step" in str(profile)


def test_no_rows_are_no_launch_and_take_no_time() -> None:
    x = fg.input("x", ("n", 3))
    profile = fg.compile(outputs=fg.tanh(x), device=EmulatedDevice()).profile(2, {"x": np.zeros((0, 3), "f4")})
    (launch,) = profile.launches
    assert (launch.seconds, launch.byte_rate, launch.operation_rate) == (0.0, 0.0, 0.0) and str(profile)


def test_no_step_cannot_be_profiled_and_wrong_data_are_refused() -> None:
    program, _, _ = network("reference")
    with pytest.raises(InputError, match="the number of steps"):
        program.profile(0, data())
    with pytest.raises(FlowgraphError, match="missing input"):
        program.profile(1, {})


# Whose it is


def made_up(program: Program, sizes: dict[str, int]) -> Profile:
    """A profile in which launch k took k + 1 seconds a step."""
    calls = program.plan.calls
    work = np.arange(1.0, len(calls) + 1)[None] * 2
    timed = Timed(calls, work, np.zeros_like(work), np.zeros(1), float(work.sum()), "nothing", ())
    return profile_of(program.graph, program.plan, timed, 2, sizes)


@pytest.mark.parametrize("seed", range(8))
def test_of_any_graph_all_time_is_put_down_to_ops_and_lines_and_no_array_is_moved_twice(seed: int) -> None:
    case = random_case(seed, 20)
    program = fg.compile(outputs=list(case.graph.outputs), updates=dict(case.graph.updates), device="reference")
    sizes = case.sizes
    profile = made_up(program, sizes)
    assert [one.seconds for one in profile.launches] == [k + 1.0 for k in range(len(program.plan.calls))]
    for launch, call in zip(profile.launches, program.plan.calls, strict=True):
        shares = [op.seconds for op in profile.ops if op.launch == launch.number]
        assert min(shares) >= 0 and sum(shares) == pytest.approx(launch.seconds)
        tensors = [*dict.fromkeys(call.inputs), *dict.fromkeys(call.outputs)]
        turns = program.plan.times(launch.number, sizes)
        whole = turns * sum(evaluate(t.type.count, sizes) * t.dtype.itemsize for t in tensors)
        in_part = any(s.add for nest in call.kernel.nests for s in nest.stores)  # a scatter in place: some rows only
        written = 0 if in_part else sum(evaluate(t.type.count, sizes) * t.dtype.itemsize for t in call.outputs)
        assert turns * written <= launch.bytes <= whole and launch.operations >= 0
    assert sum(line.seconds for line in profile.lines) == pytest.approx(sum(o.seconds for o in profile.ops))


def test_forward_and_backward_of_a_line_are_apart() -> None:
    program, _, lines = network("reference")
    by_line = {line.line.line: line for line in made_up(program, SIZES).lines if line.line}
    assert by_line[lines["h"]].forward > 0 and by_line[lines["h"]].backward > 0
    assert by_line[lines["cost"]].backward > 0
    assert by_line[lines["update"]].forward > 0 and by_line[lines["update"]].backward == 0


def test_lines_are_listed_slowest_first() -> None:
    program, _, _ = network("reference")
    seconds = [line.seconds for line in made_up(program, SIZES).lines]
    assert seconds == sorted(seconds, reverse=True)


def test_a_costly_op_has_the_larger_share_of_its_kernel() -> None:
    x = fg.input("x", ("n", 5))
    costly = fg.tanh(x)
    program = fg.compile(outputs=costly + 1.0, device="reference")
    share = {op.op: op.seconds for op in made_up(program, {"n": 4}).ops}
    assert len(program.plan.calls) == 1 and share["tanh"] > 3 * share["add"] > 0


def test_a_value_computed_again_is_put_down_to_its_own_line_in_every_kernel() -> None:
    program, _, _ = network("reference")
    again = {r.name: set(r.kernels) for r in program.explain().recomputed}
    ops = made_up(program, SIZES).ops
    assert again
    for name, kernels in again.items():
        assert kernels <= {op.launch for op in ops if op.name == name}


def test_a_copy_at_the_steps_end_is_put_down_to_its_parameter() -> None:
    a, b = fg.parameter("a", (3,)), fg.parameter("b", (3,))
    program = fg.compile(updates={a: b, b: a}, device="reference")
    profile = made_up(program, {})
    named = [{op.name for op in profile.ops if op.launch == k} for k in range(len(profile.launches))]
    assert all(named) and set(itertools.chain(*named)) & {"a", "b"}


# How it is told


def test_the_tables_name_kernels_and_lines() -> None:
    program, _, lines = network()
    text = str(program.profile(20, data()))
    assert text.startswith("profile of 20 steps at batch = 6: ") and "time of 1 thread: " in text
    assert all(call.kernel.name in text for call in program.plan.calls)
    assert f"{Path(__file__).name}:{lines['h']}" in text and "h = fg.tanh(x @ w)" in text
    assert "share its time by estimate" in text


def test_the_command_profiles_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", str(DIGITS), "--steps", "20", "--batch", "16", "--threads", "1"]) == 0
    out = capsys.readouterr().out
    assert "profile of 20 steps at batch = 16" in out and "digits.fg:5" in out


def test_the_command_refuses_an_empty_batch(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", str(DIGITS), "--batch", "0"]) == 2
    assert "--batch is a whole number of at least 1, got 0" in capsys.readouterr().err
