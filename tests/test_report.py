"""What a program tells of itself: why its kernels are as they are, and where its memory goes."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

import flowgraph as fg
from flowgraph.backends.cuda.emulator import EmulatedDevice
from flowgraph.cli import main
from flowgraph.errors import InputError
from flowgraph.kernels import fuse
from flowgraph.program import Program
from tests.support.random_graphs import random_case

HERE = Path(__file__).name


def line_of(tensor: fg.Tensor) -> str:
    return tensor.origin.lines[0].short


def step(device: str = "reference") -> tuple[Program, dict[str, fg.Tensor]]:
    """A network of two layers with its step of SGD."""
    x, y = fg.input("x", ("batch", 64)), fg.input("y", ("batch",), dtype="int32")
    w1, b1 = fg.parameter("w1", (64, 32)), fg.parameter("b1", (32,))
    w2 = fg.parameter("w2", (32, 10))
    h = fg.tanh(fg.add_bias(x @ w1, b1))
    logits = h @ w2
    cost = fg.mean(fg.cross_ent_of_softmax(logits, y))
    parameters = [w1, b1, w2]
    updates = {p: p - 0.1 * d for p, d in zip(parameters, fg.grad(cost, parameters), strict=True)}
    program = fg.compile(outputs=cost, updates=updates, device=device)
    return program, {"h": h, "logits": logits, "cost": cost}


def kernel_that_stores(program: Program, name: str) -> str:
    (found,) = [k for k in program.explain().kernels if name in {s.name for s in k.stores}]
    return str(found)


# Explanations


def test_a_products_epilogue_is_named() -> None:
    program, made = step()
    text = kernel_that_stores(program, "h")
    assert "mul is a product, a register tile of its own; add* and tanh (`h`) are its epilogue" in text
    assert line_of(made["h"]) in text


def test_softmax_its_cost_and_its_gradient_are_one_kernel_over_rows() -> None:
    program, _ = step()
    (text,) = [k.why[0] for k in program.explain().kernels if "one kernel over rows" in k.why[0]]
    assert "exp" in text and "log" in text and "the gradient's / (`dlogits`)" in text
    assert text.endswith("one kernel over rows of `logits`")


def test_a_stored_value_names_every_kernel_that_reads_it_and_why_it_is_another() -> None:
    program, made = step()
    stories = program.explain().kernels
    (stored,) = [s for k in stories for s in k.stores if s.name == "h"]
    assert stored.line == line_of(made["h"]) and not stored.asked
    reasons = {r.name: r.why for r in stored.readers}
    assert reasons["logits"] == fuse.PRODUCT
    by_value = [r for r in stored.readers if "computes" in r.why]
    assert len(by_value) == 1 and all(stories[r.kernel].number == r.kernel for r in stored.readers)


def test_what_is_computed_again_names_what_it_is_computed_from() -> None:
    program, _ = step()
    (again,) = [r for r in program.explain().recomputed if r.sources == ("h",)]
    assert "rather than stored: a few cheap operations on `h`" in str(again)
    assert all(again.name not in {s.name for s in k.stores} for k in program.explain().kernels)


def test_an_update_in_place_names_its_kernel() -> None:
    program, _ = step()
    explained = program.explain()
    assert [u.parameter for u in explained.updates] == ["w1", "b1", "w2"] and all(u.in_place for u in explained.updates)
    w1 = explained.updates[0]
    assert str(w1) == f"`w1` is updated in place by kernel {w1.kernel}"
    assert any(s.asked == "the new value of `w1`" for s in explained.kernels[w1.kernel].stores)


@pytest.mark.parametrize("case", ["output", "other elements", "read later"])
def test_an_update_that_is_copied_says_why(case: str) -> None:
    a = fg.parameter("a", (4, 4))
    b = fg.parameter("b", (4, 4))
    new = a * 2.0
    if case == "output":
        program = fg.compile(outputs=new, updates={a: new}, device="reference")
        expected = "its new value is an output, too"
    elif case == "other elements":
        program = fg.compile(updates={a: fg.transpose(a)}, device="reference")
        expected = "its kernel reads other elements of the old value"
    else:
        program = fg.compile(updates={a: b * 3.0, b: a * 2.0}, device="reference")
        expected = "reads the old one"
    copied = [u for u in program.explain().updates if not u.in_place]
    assert len(copied) == 1 and expected in copied[0].why_copied
    copy = program.explain().kernels[copied[0].kernel]
    assert copy.name == "copy_kernel" and "at the step's end" in str(copy)


def test_a_limit_that_splits_a_kernel_is_given_as_the_reason() -> None:
    x = fg.input("x", ("n",))
    value = x
    for _ in range(fuse.MAX_NODES + 5):
        value = fg.tanh(value)
    stories = fg.compile(outputs=value, device="reference").explain().kernels
    assert len(stories) == 2
    assert fuse.TOO_LONG in stories[1].why[0]
    assert [r.why for s in stories[0].stores for r in s.readers] == [fuse.TOO_LONG]


def test_a_circle_is_given_as_the_reason() -> None:
    x, w = fg.input("x", ("batch", 8)), fg.parameter("w", (8,))
    h = fg.exp(x * w)
    centred = fg.exp(h - fg.sum(h, axis=0))
    explained = fg.compile(outputs=centred, device="reference").explain()
    (stored,) = [s for k in explained.kernels for s in k.stores if s.name == "h"]
    assert {r.why for r in stored.readers} == {fuse.ACROSS, fuse.CIRCLE}


def test_passes_that_changed_something_are_listed() -> None:
    program, _ = step()
    text = str(program.explain())
    assert "expand_composites" in text and "join_pads" not in text


def test_a_kernel_of_several_groups_says_that_they_were_joined() -> None:
    x = fg.input("x", ("batch", 64))
    first, second = fg.sum(x, axis=0), fg.max(x, axis=0)
    explained = fg.compile(outputs=[first, second], device="reference").explain()
    assert len(explained.kernels) == 1
    assert "share what they read" in str(explained.kernels[0])


@pytest.mark.parametrize("seed", range(8))
def test_of_any_graph_every_stored_value_is_for_somebody_later_and_says_why(seed: int) -> None:
    graph = random_case(seed, 20).graph
    program = fg.compile(outputs=list(graph.outputs), updates=dict(graph.updates), device="reference")
    explained = program.explain()
    assert [k.name for k in explained.kernels] == [c.kernel.name for c in program.plan.calls]
    for kernel in explained.kernels:
        assert all(kernel.why)
        for stored in kernel.stores:
            assert stored.asked or stored.readers
            assert all(reader.kernel > kernel.number and reader.why for reader in stored.readers)
    assert all(r.kernels for r in explained.recomputed)
    assert str(explained).count("kernel") >= len(explained.kernels)


# Memory


def test_memory_is_what_the_cpu_has_bound() -> None:
    program, _ = step("cpu")
    memory = program.memory({"batch": 29})
    binding = program.executor._binding({"batch": 29})  # type: ignore[attr-defined]
    assert memory.arena == binding.arena.nbytes and memory.bound is not None and memory.bound <= memory.arena
    assert memory.bytes("parameter") == 4 * (64 * 32 + 32 + 32 * 10)
    assert memory.bytes("input") == 29 * (64 + 1) * 4
    assert memory.peak == memory.bytes("parameter") + memory.bytes("input") + memory.arena


def test_memory_of_a_cuda_program_is_the_arena_it_allocates(monkeypatch: pytest.MonkeyPatch) -> None:
    device = EmulatedDevice()
    x = fg.input("x", ("batch", 8))
    program = fg.compile(outputs=fg.sum(fg.exp(x), axis=0), device=device)
    memory = program.memory({"batch": 29})
    asked: list[int] = []
    alloc = device.alloc
    monkeypatch.setattr(device, "alloc", lambda nbytes: asked.append(nbytes) or alloc(nbytes))
    program.executor._binding({"batch": 29})  # type: ignore[attr-defined]
    assert memory.arena == asked[0] > 0


def test_values_that_live_at_once_do_not_overlap() -> None:
    memory = step("cpu")[0].memory({"batch": 29})
    for launch in range(len(memory.launches)):
        spans = sorted((v.offset or 0, (v.offset or 0) + v.bytes) for v in memory.alive(launch))
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))


def test_an_output_lives_to_the_end() -> None:
    program, made = step("cpu")
    memory = program.memory({"batch": 3})
    (cost,) = [v for v in memory.values if v.name == "cost"]
    assert cost.last == len(memory.launches) and cost.line == line_of(made["cost"])
    assert "to the end" in str(memory)


def test_the_reference_has_no_arena_but_every_value() -> None:
    memory = step()[0].memory({"batch": 29})
    assert memory.arena is None and memory.bytes("value") > 0
    assert memory.peak == sum(v.bytes for v in memory.values)


def test_a_size_without_a_value_is_refused_and_says_what_to_give() -> None:
    program, _ = step()
    with pytest.raises(InputError, match=r"'batch' has no value(.|\n)*program.memory\(\{'batch': ...\}\)"):
        program.memory()
    with pytest.raises(InputError, match="unknown size 'rows'"):
        program.memory({"rows": 3})


# The command


def test_the_command_explains_and_shows_the_memory_at_a_size(capsys: pytest.CaptureFixture[str]) -> None:
    model = str(Path(__file__).parent.parent / "examples" / "digits" / "digits.fg")
    assert main(["explain", model, "--device", "cpu", "--size", "batch=32"]) == 0
    out = capsys.readouterr().out
    assert "is updated in place by kernel" in out and "memory of a step at batch = 32" in out
    assert main(["explain", model, "--device", "cpu", "--size", "batch"]) == 2
    assert "NAME=VALUE" in capsys.readouterr().err
