"""Several calls of one kernel in one launch: which, in what order, with what result."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.backends.cpu.executor import CpuExecutor
from flowgraph.backends.cpu.words import Row
from flowgraph.backends.cuda.emulator import EmulatedDevice
from flowgraph.backends.cuda.executor import CudaExecutor
from flowgraph.errors import VerificationError
from flowgraph.plan.plan import Plan
from flowgraph.plan.together import launch_together, verify_together

LAYERS = 24
DATA = {"x": np.random.default_rng(0).normal(size=(40, 12)).astype("f4")}


def trainer(optimizer: fg.optim.Optimizer, device: object = "cpu", **options: object) -> fg.Trainer:
    """A deep, narrow network of three different widths."""
    x = fg.input("x", ("batch", 12))
    h = x
    for k in range(LAYERS):
        w = fg.parameter(f"w{k}", (h.shape[1], 12 + k % 3), init=fg.init.normal(0.4))
        h = fg.tanh(fg.add_bias(h @ w, fg.parameter(f"b{k}", (12 + k % 3,))))
    return fg.Trainer(fg.mean(fg.square(h)), optimizer, device=device, seed=0, **options)  # type: ignore[arg-type]


def plan_of(made: fg.Trainer) -> Plan:
    made.fit(DATA, epochs=1, batch_size=20, progress=False)
    plan = made.program.plan
    assert plan is not None
    return plan


OPTIMIZERS = {
    "SGD": lambda: fg.optim.SGD(0.05),
    "momentum": lambda: fg.optim.SGD(0.05, momentum=0.9),
    "Adam": lambda: fg.optim.Adam(0.01),
    "Adam, clipped": lambda: fg.optim.Adam(0.01, clip_norm=1.0),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_deep_networks_updates_are_a_handful_of_launches(name: str) -> None:
    plan = plan_of(trainer(OPTIMIZERS[name](), EmulatedDevice()))
    updates = dict(plan.in_place)
    ours = {p.op.label for p in updates if p.op.label[0] in "wb"}
    assert len(ours) == 2 * LAYERS
    new = {new for parameter, new in plan.in_place if parameter.op.label in ours}
    updating = [run for run in plan.launches if any(t in new for k in run for t in plan.calls[k].outputs)]
    assert len(updating) <= 4
    # one launch a layer and direction is a chain; of the rest there are few
    assert len(plan.launches) <= 2 * LAYERS + 15 < len(plan.calls)


def test_small_tensors_are_shared_evenly_between_threads() -> None:
    made = trainer(fg.optim.Adam(0.01, clip_norm=1.0), threads=2)
    plan = plan_of(made)
    executor = made.program.executor
    assert isinstance(executor, CpuExecutor)
    (binding,) = executor._bindings.values()
    run = max(plan.launches, key=len)
    rows = binding.table[run]
    assert len(run) > 40 and (rows[:, Row.TEAM] == 2).all() and not rows[1:, Row.BARRIER].any()
    assert (rows[:, Row.TOTAL] == rows[:, Row.TASKS].sum()).all()
    assert (rows[:, Row.BEFORE] == np.cumsum(rows[:, Row.TASKS]) - rows[:, Row.TASKS]).all()


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_together_is_what_they_compute_one_by_one(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> list[np.ndarray]:
        made = trainer(fg.optim.Adam(0.01, clip_norm=0.01), EmulatedDevice() if device == "cuda" else device)
        grouped = len(plan_of(made).launches) < len(plan_of(made).calls)
        assert grouped == together
        return [w.value.copy() for w in made.parameters]

    together = True
    found = run()
    together = False

    def alone(plan: Plan, *_: object) -> tuple[Plan, list[int]]:
        return plan, list(range(len(plan.calls)))

    monkeypatch.setattr("flowgraph.backends.once.launch_together", alone)
    for a, b in zip(found, run(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("threads", [2, 4])
def test_the_bits_do_not_depend_on_the_number_of_threads(threads: int) -> None:
    def run(count: int) -> list[np.ndarray]:
        made = trainer(fg.optim.Adam(0.01, clip_norm=0.01), threads=count)
        made.fit(DATA, epochs=3, batch_size=20, progress=False)
        return [w.value.copy() for w in made.parameters]

    for a, b in zip(run(1), run(threads), strict=True):
        np.testing.assert_array_equal(a, b)


def products(count: int) -> tuple[Plan, list[str]]:
    """Independent products of one kernel, each followed by another, and what kind each call is of."""
    x = fg.input("x", (64, 16))
    sums = [fg.sum(fg.tanh(x @ fg.parameter(f"w{k}", (16, 10 + k))), axis=0) for k in range(count)]
    plan = fg.compile([x], sums, device="cpu").plan
    assert plan is not None
    plan = plan.in_order([[k] for k in range(len(plan.calls))])
    return plan, [call.kernel.name for call in plan.calls]


def test_no_more_memory_is_spent_than_is_allowed() -> None:
    plan, kinds = products(6)
    before = plan.bytes_alive()
    patient = [True] * len(kinds)
    frugal, _ = launch_together(plan, kinds, patient, spare=0)
    rich, _ = launch_together(plan, kinds, patient, spare=10**6)
    assert frugal.bytes_alive() <= before < rich.bytes_alive() <= before + 10**6
    assert len(rich.launches) == len(set(kinds)) < len(frugal.launches)


def test_large_calls_run_where_they_were() -> None:
    plan, kinds = products(6)
    made, order = launch_together(plan, kinds, [False] * len(kinds), spare=10**6)
    assert order == list(range(len(kinds))) and made.calls == plan.calls


@pytest.mark.parametrize(("width", "launches"), [(256, 1), (2048, 3)])
def test_products_that_fill_a_device_are_launched_alone(width: int, launches: int) -> None:
    x = fg.input("x", (2048, 64))
    products = [x @ fg.parameter(f"w{k}", (64, width)) for k in range(3)]
    plan = fg.compile([x], products, device=EmulatedDevice()).plan
    assert plan is not None and len(plan.launches) == launches


def test_calls_that_wait_for_one_another_are_never_one_launch() -> None:
    plan, _ = products(3)
    _, order = launch_together(plan, ["all alike"] * len(plan.calls), [True] * len(plan.calls), spare=10**6)
    assert sorted(order) == list(range(len(plan.calls)))
    with pytest.raises(VerificationError, match="at the same time"):
        verify_together(plan.in_order([list(range(len(plan.calls)))]))


def test_memory_is_not_reused_within_a_launch() -> None:
    plan, kinds = products(6)
    made, _ = launch_together(plan, kinds, [True] * len(kinds), spare=10**6)
    tensor = max(made.lifetimes, key=lambda t: made.lifetimes[t][1] - made.lifetimes[t][0])
    first, _ = made.lifetimes[tensor]
    with pytest.raises(VerificationError, match="as long as the launch"):
        verify_together(replace(made, lifetimes={**made.lifetimes, tensor: (first, first)}))


def test_the_listing_shows_what_is_one_launch() -> None:
    made = trainer(fg.optim.Adam(0.01, clip_norm=1.0), EmulatedDevice())
    plan = plan_of(made)
    table = made.program.source().split("One step is")[1]
    assert "(+: in one launch with the one before)" in table
    assert sum(line[6:7] == "+" for line in table.splitlines()) == len(plan.calls) - len(plan.launches)


def test_a_call_with_nothing_to_compute_is_left_out_of_its_launch() -> None:
    x, y = fg.input("x", ("m",)), fg.input("y", ("n",))
    device = EmulatedDevice()
    step = fg.compile([x, y], [fg.tanh(x), fg.tanh(y)], device=device)
    assert isinstance(step.executor, CudaExecutor) and len(step.plan.launches) == 1
    ones = np.ones(5, np.float32)
    for given in (ones, ones[:0]):
        found = step(x=given, y=ones)
        np.testing.assert_allclose(found[0], np.tanh(given), rtol=1e-6)
        np.testing.assert_allclose(found[1], np.tanh(ones), rtol=1e-6)
