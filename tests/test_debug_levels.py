"""FLOWGRAPH_DEBUG: what each level says, where, and that nothing is said without."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.backends.cuda.emulator import EmulatedDevice
from flowgraph.errors import InputError
from flowgraph.program import Program


def compiled(device: Any = "cpu") -> Program:
    x, w = fg.input("x", ("batch", 5)), fg.parameter("w", (5, 3), np.ones((5, 3), np.float32))
    return fg.compile(outputs=fg.tanh(x @ w) + fg.mean(x), device=device)


def said(capsys: pytest.CaptureFixture[str], level: str, monkeypatch: pytest.MonkeyPatch, device: Any = "cpu") -> str:
    monkeypatch.setenv("FLOWGRAPH_DEBUG", level)
    program = compiled(device)
    program(x=np.ones((2, 5), np.float32))
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


@pytest.mark.parametrize("level", ["", "0"])
def test_nothing_is_said_without_a_level(
    level: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said(capsys, level, monkeypatch) == ""


def test_each_level_says_what_the_one_below_says_and_more(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    signs = ("compiled for cpu: ", "pass fold_constants", "because: a contraction", "def ", "== after ")
    for level in range(1, 6):
        text = said(capsys, str(level), monkeypatch)
        assert [sign in text for sign in signs] == [k < level for k in range(5)], f"level {level}"
        assert all(line.startswith("flowgraph: ") for line in text.splitlines())


def test_the_first_run_at_a_size_is_said_and_no_other(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWGRAPH_DEBUG", "1")
    program = compiled()
    capsys.readouterr()
    for rows in (2, 2, 3, 2):
        program(x=np.ones((rows, 5), np.float32))
    first, second = capsys.readouterr().err.splitlines()
    assert "first run at batch = 2: arena " in first and "from the store" in first
    assert "first run at batch = 3: " in second and "0 compiled" in second and "0 from the store" in second


def test_the_highest_level_lists_the_launches_with_their_sizes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = said(capsys, "5", monkeypatch)
    assert "launch 0: " in text and "for i<2, j<3" in text


def test_the_reference_says_that_it_counts_no_kernels(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = said(capsys, "1", monkeypatch, "reference")
    assert "compiled for reference" in text and "no arena" in text and "kernels not counted" in text


def test_a_cuda_device_lists_its_source_and_launches(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = said(capsys, "5", monkeypatch, EmulatedDevice())
    assert "compiled for cuda" in text and "blocks of" in text
    assert "arena " in text and "kernels not counted" in text and "launch 0: " in text


@pytest.mark.parametrize("level", ["6", "-1", "yes", "1.0"])
def test_a_level_that_does_not_exist_is_refused(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWGRAPH_DEBUG", level)
    with pytest.raises(InputError, match="FLOWGRAPH_DEBUG is a level from 0 to 5, got"):
        compiled("reference")


def test_the_level_is_read_when_compiling(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = compiled("reference")
    monkeypatch.setenv("FLOWGRAPH_DEBUG", "5")
    program(x=np.ones((2, 5), np.float32))
    assert capsys.readouterr().err == ""
