"""Checkpoints: whole or not there, refused if anything is wrong, and resumed to the same bits."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import flowgraph as fg
from flowgraph.errors import CheckpointError
from flowgraph.train import checkpoint

RNG = np.random.default_rng(0)
DATA = {"x": RNG.normal(size=(90, 6)).astype(np.float32), "y": RNG.integers(0, 3, 90).astype(np.int32)}
EPOCHS, BATCH = 3, 16


class Model:
    """Dropout, Adam and a schedule: state of every kind."""

    def __init__(self, threads: int | None = 1, seed: int = 5, optimizer: object = None) -> None:
        x, y = fg.input("x", ("batch", 6)), fg.input("y", ("batch",), "int32")
        self.w1, self.w2 = fg.parameter("w1", (6, 20), fg.init.glorot_uniform()), fg.parameter("w2", (20, 3))
        hidden = fg.dropout(fg.tanh(x @ self.w1), 0.3)
        cost = fg.cross_ent_of_softmax(hidden @ self.w2, y)
        rule = optimizer or fg.optim.Adam(fg.optim.Cosine(0.05, 30))
        self.trainer = fg.Trainer(cost, rule, seed=seed, threads=threads, device="cpu")

    def fit(self, epochs: int = EPOCHS, **options: object) -> fg.Trainer:
        self.trainer.fit(DATA, epochs, BATCH, progress=False, **options)
        return self.trainer

    def bits(self) -> list[bytes]:
        """Weights, losses, and rows but for their times."""
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in self.trainer.history]
        weights = [w.value.tobytes() for w in (self.w1, self.w2)]
        return [*weights, self.trainer.history.losses.tobytes(), repr(rows).encode()]


@pytest.fixture(scope="module")
def uninterrupted() -> list[bytes]:
    model = Model()
    model.fit()
    return model.bits()


# Resuming


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, EPOCHS * 6 - 1), threads=st.sampled_from([1, 2, 4]))
def test_a_fit_cut_after_any_step_and_resumed_has_the_same_bits(
    cut: int, threads: int, uninterrupted: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    first = Model(threads)
    run, made = first.trainer._training.program.executor.run, [0]

    def limited(sizes, inputs, steps, on_chunk):
        """Ctrl-C after so many steps in all."""
        left = cut - made[0]
        if left < steps:
            if left:
                run(sizes, inputs, left, on_chunk)
            raise KeyboardInterrupt
        made[0] += steps
        return run(sizes, inputs, steps, on_chunk)

    first.trainer._training.program.executor.run = limited  # type: ignore[method-assign]
    first.fit(checkpoint=folder)
    assert first.trainer.history.interrupted
    second = Model(threads)
    second.fit(checkpoint=folder)
    assert second.bits() == uninterrupted


def test_a_finished_training_is_not_trained_again(tmp_path: Path, uninterrupted: list[bytes]) -> None:
    Model().fit(checkpoint=tmp_path)
    again = Model()
    again.fit(checkpoint=tmp_path)
    assert again.bits() == uninterrupted
    assert len(list(tmp_path.iterdir())) == 2  # the newest two


def test_a_saved_trainer_goes_on_elsewhere(tmp_path: Path, uninterrupted: list[bytes]) -> None:
    first = Model()
    first.fit(epochs=2)
    first.trainer.save(tmp_path / "state.safetensors")
    second = Model()
    second.trainer.load(tmp_path / "state.safetensors")
    second.fit(epochs=1)
    assert second.bits() == uninterrupted


def test_a_torn_newest_checkpoint_is_passed_over_with_a_warning(tmp_path: Path, uninterrupted: list[bytes]) -> None:
    Model().fit(epochs=2, checkpoint=tmp_path)
    newest = sorted(tmp_path.iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    model = Model()
    with pytest.warns(RuntimeWarning, match="trying the one before"):
        model.fit(checkpoint=tmp_path)
    assert model.bits() == uninterrupted


KILLED = """
import sys
sys.path.insert(0, {root!r})
from flowgraph import Checkpoints
from tests.test_checkpoint import Model
model = Model()
model.fit(epochs=400, checkpoint=Checkpoints(sys.argv[1], steps=1))
print(__import__("hashlib").sha256(b"".join(model.bits()[:3])).hexdigest())
"""


def run_killed(folder: Path, kills: int, seed: int) -> str:
    """Train in processes of their own, each killed at a random moment but for the last; what that one prints."""
    moments = random.Random(seed)
    script = KILLED.format(root=str(Path(__file__).parents[1]))
    for _ in range(kills):
        child = subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.DEVNULL)
        known = set(folder.iterdir())
        deadline = time.monotonic() + 20
        while set(folder.iterdir()) == known and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)  # it has begun to write
        time.sleep(moments.random() * 0.1)
        child.send_signal(signal.SIGKILL)
        child.wait()
    last = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=True)
    return last.stdout.strip()


def test_kills_at_random_moments_cost_no_bit(tmp_path: Path) -> None:
    kills = int(os.environ.get("FLOWGRAPH_KILLS", "4"))
    (tmp_path / "killed").mkdir()
    (tmp_path / "whole").mkdir()
    assert run_killed(tmp_path / "killed", kills, seed=1) == run_killed(tmp_path / "whole", 0, seed=1)


def test_sigterm_saves_first(tmp_path: Path) -> None:
    script = KILLED.format(root=str(Path(__file__).parents[1])).replace("steps=1", "steps=None").replace("400", "10**7")
    child = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.DEVNULL)
    while not any(tmp_path.iterdir()) and child.poll() is None:
        time.sleep(0.01)
    child.send_signal(signal.SIGTERM)
    assert child.wait(timeout=60) == 0
    assert fg.Checkpoints(tmp_path).newest() is not None


# Files


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    arrays = {
        "scalar": np.array(3, np.int64), "empty": np.zeros((0, 4), np.float32), "bool": np.array([True, False]),
        "Fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "nan": np.array([np.nan, -0.0], np.float32),
    }  # fmt: skip
    checkpoint.write(tmp_path / "a.safetensors", arrays, {"text": "η", "number": 0.1, "nan": float("nan")})
    found, about = checkpoint.read(tmp_path / "a.safetensors")
    assert found.keys() == arrays.keys() and about["text"] == "η" and about["number"] == 0.1
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("kind", ["flip", "cut", "grow", "swap", "zero"])
def test_a_changed_file_is_a_clear_error_and_never_a_crash(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.safetensors"
    checkpoint.write(path, {"w": np.arange(50, dtype=np.float32), "b": np.ones(3)}, {"epoch": 1, "rows": []})
    whole, dice = path.read_bytes(), random.Random(kind)
    for _ in range(200):
        data = bytearray(whole)
        place = dice.randrange(len(data))
        if kind == "flip":
            data[place] ^= 1 << dice.randrange(8)
        elif kind == "cut":
            del data[place:]
        elif kind == "grow":
            data[place:place] = dice.randbytes(dice.randrange(1, 40))
        elif kind == "swap":
            other = dice.randrange(len(data))
            data[place], data[other] = data[other], data[place]
        else:
            data[place : place + 16] = bytes(len(data[place : place + 16]))
        path.write_bytes(data)
        try:
            arrays, about = checkpoint.read(path)
        except CheckpointError as error:
            assert "a.safetensors cannot be used" in str(error)
        else:  # nothing that counts was changed, such as equal bytes swapped, or blanks in the header
            assert arrays["w"].tobytes() == np.arange(50, dtype=np.float32).tobytes() and about["epoch"] == 1


NO_CHECKPOINTS = [b"", b"{}", b"\xff" * 64, (2**60).to_bytes(8, "little") + b"{}", b"\x02\0\0\0\0\0\0\0{}"]


@pytest.mark.parametrize("content", NO_CHECKPOINTS)
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(CheckpointError, match="it is not a whole checkpoint"):
        checkpoint.read(tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"cannot read .*missing: No such file"):
        checkpoint.read(tmp_path / "missing")


def test_another_format_is_named(tmp_path: Path) -> None:
    from safetensors.numpy import save

    metadata = {"format": "99", "about": json.dumps({}), "sha256": ""}
    (tmp_path / "a").write_bytes(save({"w": np.ones(1)}, metadata))
    with pytest.raises(CheckpointError, match="it has format 99, this version reads 3"):
        checkpoint.read(tmp_path / "a")


def test_a_checkpoint_of_another_model_changes_nothing(tmp_path: Path) -> None:
    Model(optimizer=fg.optim.SGD(0.1)).fit(epochs=1).save(tmp_path / "a")
    other = Model()
    before = [w.value for w in (other.w1, other.w2)]
    with pytest.raises(CheckpointError, match="is of another model: it lacks 'optimizer/"):
        other.trainer.load(tmp_path / "a")
    with pytest.raises(CheckpointError, match="is of a training with seed 5, this one has 6"):
        Model(seed=6, optimizer=fg.optim.SGD(0.1)).trainer.load(tmp_path / "a")
    for w, old in zip((other.w1, other.w2), before, strict=True):
        np.testing.assert_array_equal(w.value, old)


def test_a_place_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write"):
        checkpoint.write(tmp_path / "file" / "a", {"w": np.ones(1)}, {})


def test_a_training_saves_nothing_behind_another_one_that_is_further(tmp_path: Path) -> None:
    Model().fit(epochs=4, checkpoint=tmp_path)
    before = sorted(p.name for p in tmp_path.iterdir())
    other = Model()
    other.fit(epochs=1)
    with pytest.raises(CheckpointError, match="of a training further than this one, which is at epoch 1, step 0"):
        other.fit(epochs=1, checkpoint=tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_what_was_just_saved_is_never_removed(tmp_path: Path) -> None:
    checkpoints = checkpoint.Checkpoints(tmp_path, keep=1)
    for epoch in (5, 6, 2):
        path = checkpoints.save(epoch, 0, {"w": np.zeros(3)}, {})
        assert path.exists()
    assert [p.name[:8] for p in checkpoints.files()] == ["00000006", "00000002"]
