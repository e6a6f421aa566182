"""The command: what it prints and writes, and that a mistake is a message and status 2."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.cli import demo as demo_module
from flowgraph.cli import main

EXAMPLES = Path(__file__).parent.parent / "examples"
DIGITS = str(EXAMPLES / "digits" / "digits.fg")
STAGES = ("declared", "backward", "optimised", "kernels")


def run(capsys, *words) -> tuple[int, str, str]:
    status = main(list(map(str, words)))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_demo_reaches_its_goal_and_says_where_everything_is(capsys, tmp_path):
    status, out, err = run(capsys, "demo", "--out", tmp_path / "demo")
    assert (status, err) == (0, "")
    assert "Held-out accuracy 9" in out and "14 kernels a step" in out and "First steps done" in out
    rows = [line.split() for line in out.splitlines() if line.strip()[:1].isdigit()]
    assert [row[0] for row in rows] == [str(k) for k in range(1, 31)]
    for name in (*(f"{stage}.svg" for stage in STAGES), "source/step.py"):
        assert str(tmp_path / "demo" / Path(name).parts[0]) in out
        assert (tmp_path / "demo" / name).stat().st_size > 500


def test_the_demo_fails_where_the_network_does_not_learn(capsys, tmp_path):
    status, out, _ = run(
        capsys, "demo", "--device", "reference", "--epochs", 1, "--seeds", 2, "--out", tmp_path
    )
    assert status == 1 and "below 96.5 %" in out and "Mean of 2 seeds" in out


def test_the_demos_listing_is_the_example(capsys):
    assert Path(DIGITS).read_text() == demo_module.LISTING


def test_train_reports_and_writes_what_it_learned(capsys, tmp_path):
    status, out, err = run(capsys, "train", DIGITS, "--epochs", 2, "--device", "reference", "--out", tmp_path)
    assert status == 0 and "trained 2 epochs" in err
    assert "val_accuracy" in out and len([line for line in out.splitlines() if line.strip()[:1] in "12"]) == 2
    with np.load(tmp_path / "parameters.npz") as learned:
        assert {name: learned[name].shape for name in learned.files} == {
            "W1": (64, 32), "B1": (32,), "W2": (32, 10), "B2": (10,)
        }  # fmt: skip
    assert (tmp_path / "source" / "graph.txt").read_text() and all(
        (tmp_path / f"{stage}.svg").exists() for stage in STAGES
    )


def test_train_takes_arrays_from_a_file_and_other_shapes(capsys, tmp_path):
    listing = tmp_path / "line.fg"
    listing.write_text(
        "Shapes: X(batch,2), W(2,1), T(batch,1)\nInputs: X,W,T\nE = mul(X,W) - T\nC = mean(E*E)\n"
    )
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    np.savez(tmp_path / "points.npz", X=x, T=x @ np.float32([[1], [2], [3]]))
    points = tmp_path / "points.npz"
    words = [
        "--shape",
        "X=batch,3",
        "--shape",
        "W=3,1",
        "--rate",
        0.1,
        "--device",
        "reference",
        "--out",
        tmp_path,
    ]
    status, out, _ = run(capsys, "train", listing, "--data", points, "--validation", points, *words)
    assert status == 0 and "val_loss" in out and "accuracy" not in out
    with np.load(tmp_path / "parameters.npz") as learned:
        assert np.allclose(learned["W"].ravel(), [1, 2, 3], atol=1e-3)


@pytest.mark.parametrize("stage", STAGES)
def test_show_prints_and_draws_every_stage(capsys, tmp_path, stage):
    status, out, _ = run(capsys, "show", DIGITS, "--stage", stage)
    assert status == 0 and ("kernel " in out if stage == "kernels" else "tanh" in out)
    assert ("update" in out) == (stage in ("backward", "optimised"))
    picture = tmp_path / "x.svg"
    assert run(capsys, "show", DIGITS, "--stage", stage, "-o", picture)[0] == 0
    assert picture.read_text().startswith("<")


def test_what_is_only_declared_needs_no_cost(capsys, tmp_path):
    listing = tmp_path / "layer.fg"
    listing.write_text("Shapes: X(batch,2), W(2,3)\nInputs: X,W\nA = tanh(mul(X,W))\n")
    status, out, _ = run(capsys, "show", listing)
    assert status == 0 and "A = tanh(" in out
    status, _, err = run(capsys, "show", listing, "--stage", "kernels")
    assert status == 2 and "no cost to minimise" in err


def test_source_is_printed_or_written(capsys, tmp_path):
    status, out, _ = run(capsys, "source", DIGITS, "--device", "cpu")
    assert status == 0 and "def " in out and "digits.fg:" in out
    assert run(capsys, "source", DIGITS, "--device", "cpu", "-o", tmp_path / "s")[0] == 0
    files = sorted((tmp_path / "s").iterdir())
    assert "\n\n".join(f.read_text() for f in files).strip() == out.strip()
    assert files[0].name == "00_mul_add_bias_tanh_kernel.py" and len(files) == 10


def test_the_source_for_a_gpu_needs_no_gpu(capsys):
    status, out, _ = run(capsys, "source", DIGITS, "--device", "cuda")
    assert status == 0 and "cuda.threadIdx" in out and "blocks of" in out


def test_nothing_shown_comes_from_the_commands_own_lines(capsys):
    text = run(capsys, "show", DIGITS, "--stage", "optimised")[1]
    assert "digits.fg:12" in text and ".py:" not in text and "<frozen" not in text


def test_the_doctor_tells_what_it_finds(capsys):
    status, out, _ = run(capsys, "doctor")
    assert status == 0
    rows = dict(line.split(None, 1) for line in out.splitlines())
    assert rows["numpy"].strip() == np.__version__ and rows["python"].startswith(sys.version.split()[0])
    assert {"processor", "threads", "pictures", "cuda"} <= rows.keys()


# Mistakes


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["show", "nowhere.fg"], "nowhere.fg: No such file"),
        (["show", DIGITS, "-o", "picture.doc"], "'.doc'"),
        (["show", DIGITS, "--cost", "Q"], "no 'Q'"),
        (["show", DIGITS, "--cost", "X"], "(batch, 64)"),
        (["show", DIGITS, "--shape", "W1"], "NAME=SIZES"),
        (["show", DIGITS, "--shape", "W1=63,32"], "(63, 32)"),
        (["train", DIGITS, "--device", "gpu"], "unknown device 'gpu'"),
        (["train", DIGITS, "--data", DIGITS], "numpy.savez"),
        (["train", DIGITS, "--data", DIGITS], "it is no .npz file"),
        (["train", DIGITS, "--data", "nowhere.npz"], "there is no file nowhere.npz"),
        (["train", DIGITS, "--rate", "-1"], "learning rate"),
        (["train", DIGITS, "--seed", "-1"], "seed"),
        (["train", DIGITS, "--shape", "X=batch,63", "--shape", "W1=63,32"], "digits have nothing for 'X'"),
    ],
)
def test_a_mistake_is_a_message_and_status_2(capsys, words, told):
    status, _, err = run(capsys, *words)
    assert status == 2 and err.startswith("flowgraph: ") and told in err and "Traceback" not in err


def test_a_mistake_in_an_options_number_names_no_line_of_the_listing(capsys):
    status, _, err = run(capsys, "train", DIGITS, "--rate", "-1")
    assert status == 2 and "learning rate" in err and "digits.fg:" not in err


def test_a_mistake_in_a_listing_names_line_and_column(capsys, tmp_path):
    listing = tmp_path / "broken.fg"
    listing.write_text("Inputs: X\nShapes: X(batch,2)\nC = mean(Xx)\n")
    status, _, err = run(capsys, "show", listing)
    assert status == 2 and "broken.fg:3:10" in err and "Xx" in err


def test_debug_shows_the_traceback():
    with pytest.raises(fg.FlowgraphError):
        main(["show", DIGITS, "--cost", "Q", "--debug"])


def test_the_module_is_the_command_and_a_closed_pipe_is_no_error():
    command = f'"{sys.executable}" -m flowgraph show "{DIGITS}" --stage kernels | head -1'
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("kernel ")


def test_importing_flowgraph_stays_light():
    code = "import sys, flowgraph; print({'numba', 'llvmlite', 'networkx', 'tqdm'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_every_public_name_exists():
    assert all(hasattr(fg, name) for name in fg.__all__) and set(dir(fg)) == set(fg.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = fg.nonsense  # type: ignore[attr-defined]


def test_the_python_example_learns_the_digits(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("digits_example", EXAMPLES / "digits" / "digits.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    assert example.main(tmp_path) >= 0.955  # other first weights than the demo's
    assert "predicted" in capsys.readouterr().out and (tmp_path / "kernels.svg").exists()
