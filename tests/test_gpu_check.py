"""`python3 -m flowgraph.gpu_check`, as far as it goes without a GPU."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from flowgraph import gpu_check
from flowgraph.gpu_check import Finding, Timing, compare, main, samples, table
from flowgraph.ops.base import Op


def test_every_op_is_right_on_the_emulator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--emulate", "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "gpu_check.json").read_text())
    checked = {finding["what"].split()[0] for finding in report["findings"]}
    assert {
        n for n, c in Op.registry.items() if c.meaning() != "leaf" and "flowgraph" in c.__module__
    } <= checked
    assert sum(f["what"].startswith("network") for f in report["findings"]) == 10
    cancelling = "gelu "  # 1 + erf(x) loses digits below 0, in NumPy's float32 as well: judged by that alone
    assert max(f["ulps"] for f in report["findings"] if not f["what"].startswith(cancelling)) < 8
    printed = capsys.readouterr().out.split("\n\n")[-1]
    assert f"{len(report['findings'])} of {len(report['findings'])} comparisons right" in printed


def test_without_a_gpu_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_check, "cuda_available", lambda: (False, "there is no NVIDIA driver here"))
    assert main([]) == 2
    assert "no GPU to check: there is no NVIDIA driver here" in capsys.readouterr().err


def test_a_wrong_result_and_a_failing_op_are_found_and_the_rest_is_checked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some = [pair for pair in samples() if pair[0].split()[0] in ("tanh", "exp", "relu")]
    wrong, failing = some[0], some[1]
    monkeypatch.setattr(gpu_check, "samples", lambda: some)
    right = gpu_check.compile

    def compile(inputs, outputs, *args, **kwargs):
        if outputs.op is failing[1].op and inputs[0].shape == failing[1].arrays[0].shape:
            raise ValueError("a bug")
        return right(inputs, outputs * 1.001 if outputs.op is wrong[1].op else outputs, *args, **kwargs)

    monkeypatch.setattr(gpu_check, "compile", compile)
    monkeypatch.setattr(gpu_check, "check_network", lambda batch, device: [])
    assert main(["--emulate", "--out", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert f"WRONG  {wrong[0]}:" in printed
    assert "ValueError: a bug" in printed
    assert f"of {len(some)} comparisons right" in printed


def test_errors_count_in_units_in_the_last_place() -> None:
    truth = np.array([1.0, 1000.0])
    own = truth.astype("f4")
    got = own.copy()
    got[0] += 3 * np.spacing(np.float32(1))
    assert compare("x", got, own, truth, each=True) == Finding("x", 3.0)
    assert compare("x", got, own, truth).ulps < 0.01  # of the largest element
    got[0] += 2 * np.spacing(np.float32(1))
    assert compare("x", got, own, truth, each=True).problem == "5.0 ulp"


def test_infinities_and_nan_must_be_where_numpy_has_them() -> None:
    own = np.array([np.inf, np.nan, 1], "f4")
    assert not compare("x", own.copy(), own, own.astype("f8")).problem
    for place in range(3):
        got = own.copy()
        got[place] = 7 if place < 2 else np.nan
        assert compare("x", got, own, own.astype("f8")).problem


def test_integers_must_be_equal() -> None:
    own = np.arange(4)
    assert compare("x", own + (own == 2), own, own).problem == "1 of 4 elements differ"


def test_the_table_shows_what_is_wrong_and_the_times() -> None:
    findings = [Finding("tanh 0", 1.5), Finding("exp 0", 9.0, "9.0 ulp")]
    lines = table("a device", findings, [Timing("product", 12.34, "7 TFLOP/s", {"torch": 11.0})])
    assert lines == [
        "a device: 1 of 2 comparisons right",
        "  WRONG  exp 0: 9.0 ulp",
        "     1.5 ulp  tanh 0",
        "        12.3 us  product  (7 TFLOP/s, torch 11.0 us)",
    ]
