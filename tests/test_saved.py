"""Parameters alone in a file: there and back, from other programs, and what does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.errors import CheckpointError, GraphError


def model() -> list[fg.Tensor]:
    return [fg.parameter("w", (3, 2), init=fg.init.normal()), fg.parameter("n", (), dtype="int64", init=7)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def test_a_model_comes_back_bit_for_bit(file: Path) -> None:
    first, second = model(), model()
    first[0].value = np.array([[1e-45, -0.0], [np.inf, np.nan], [1, 2]], np.float32)
    fg.save(file, first)
    arrays = fg.load(file, second)
    assert sorted(arrays) == ["n", "w"]
    for a, b in zip(first, second, strict=True):
        assert a.value.tobytes() == b.value.tobytes() and a.value.dtype == b.value.dtype


def test_other_programs_read_it_and_theirs_are_read(file: Path) -> None:
    from safetensors.numpy import load_file, save_file

    w, n = model()
    fg.save(file, {"encoder.weight": w})
    np.testing.assert_array_equal(load_file(file)["encoder.weight"], w.value)
    theirs = np.arange(6, dtype=np.float32).reshape(3, 2)
    save_file({"layer.0": theirs, "n": np.array(3)}, file)
    fg.load(file, {"layer.0": w, "n": n})
    np.testing.assert_array_equal(w.value, theirs)
    assert n.value == 3


def test_a_trained_model_is_taken_out_of_its_checkpoint(tmp_path: Path) -> None:
    x = fg.input("x", ("batch", 3))
    w = fg.parameter("w", (3, 2), init=fg.init.normal())
    trainer = fg.Trainer(fg.mean(fg.square(x @ w)), fg.optim.Adam(0.1), device="cpu")
    trainer.fit({"x": np.ones((8, 3), "f4")}, 2, progress=False, checkpoint=tmp_path)
    trained, w.value = w.value, np.zeros((3, 2))
    fg.load(fg.Checkpoints(tmp_path).files()[0], [w], strict=False)
    np.testing.assert_array_equal(w.value, trained)


def test_what_does_not_fit_changes_nothing(file: Path) -> None:
    w, n = model()
    fg.save(file, [w, n])
    before = w.value
    other = fg.parameter("w", (2, 3))
    for targets, said in (
        ([w], "it has 'n', which is unknown here"),
        ([w, n, fg.parameter("b", (2,))], "it lacks 'b'"),
        ([other, n], r"'w' is float32\(3, 2\), here float32\(2, 3\)"),
        ({"w": fg.parameter("w", (3, 2), dtype="float64"), "n": n}, "here float64"),
    ):
        with pytest.raises(CheckpointError, match=said):
            fg.load(file, targets)
    assert (other.value == 0).all() and (w.value == before).all()


def test_names_of_one_side_only_may_be_left_alone(file: Path) -> None:
    w, n = model()
    b = fg.parameter("b", (2,), init=[5.0, 6.0])
    fg.save(file, [w, n])
    saved, w.value = w.value, np.zeros((3, 2))
    fg.load(file, [w, b], strict=False)
    assert (w.value == saved).all() and b.value.tolist() == [5, 6]
    with pytest.raises(CheckpointError, match="none of the parameters 'b'"):
        fg.load(file, [b], strict=False)
    with pytest.raises(CheckpointError, match="here float32"):
        fg.load(file, [fg.parameter("w", (3, 3))], strict=False)


def test_damage_is_seen(file: Path) -> None:
    fg.save(file, model())
    whole = file.read_bytes()
    header = int.from_bytes(whole[:8], "little")
    for place in (0, *range(10, 8 + header), len(whole) - 1):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(CheckpointError, match="cannot be used"):
            fg.load(file)
    file.write_bytes(whole[:-3])
    with pytest.raises(CheckpointError, match="cannot be used"):
        fg.load(file)
    with pytest.raises(CheckpointError, match="cannot read"):
        fg.load(file.with_name("none"))


def test_only_parameters_of_different_names_are_saved(file: Path) -> None:
    x, (w, _) = fg.input("x", (2,)), model()
    with pytest.raises(GraphError, match="only parameters"):
        fg.save(file, [x])
    with pytest.raises(GraphError, match=r"Dense 'd' is a layer, (.|\n)*hint: layer\.parameters"):
        fg.save(file, fg.nn.Dense("d", 2, 2))  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="two parameters are called 'w'"):
        fg.save(file, [w, model()[0]])
    assert not file.exists()


def test_a_file_is_not_saved_into_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot write .*: No such file or directory(.|\n)*make the folder"):
        fg.save(tmp_path / "modle" / "x.safetensors", model())
    assert not (tmp_path / "modle").exists()


def test_a_checkpoint_loaded_as_a_model_says_how_and_not_everything_it_has(tmp_path: Path) -> None:
    x, w = fg.input("x", ("batch", 3)), [fg.parameter(f"w{k}", (3,)) for k in range(6)]
    trainer = fg.Trainer(sum(fg.mean(x * v) for v in w), fg.optim.Adam(0.1), device="reference")
    trainer.save(tmp_path / "checkpoint")
    with pytest.raises(CheckpointError, match=r"'optimizer/w\d/\w+', …, which is unknown here") as caught:
        fg.load(tmp_path / "checkpoint", w)
    assert "strict=False" in str(caught.value)
    fg.load(tmp_path / "checkpoint", w, strict=False)
