"""The data that ship with the package, and the class that holds them."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowgraph.datasets import Dataset, DatasetError, Digits, load_digits
from flowgraph.datasets.digits import read_digits
from flowgraph.errors import FlowgraphError

SHIPPED = Path(__file__).parent.parent / "flowgraph" / "datasets" / "data" / "digits.csv.gz"


@pytest.fixture(scope="module")
def digits() -> Digits:
    return load_digits()


def test_the_digits_are_1797_images_from_0_to_1_with_their_labels(digits: Digits) -> None:
    assert len(digits) == 1797
    assert digits.images.shape == (1797, 64) and digits.images.dtype == np.float32
    assert digits.labels.shape == (1797,) and digits.labels.dtype == np.int32
    assert digits.images.min() == 0.0 and digits.images.max() == 1.0
    assert np.array_equal(np.bincount(digits.labels), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180])


def test_a_pixel_is_the_number_in_the_file_divided_by_16(digits: Digits) -> None:
    with gzip.open(SHIPPED, "rt") as lines:
        table = np.loadtxt(lines, delimiter=",")  # another reader than the package's own
    assert np.array_equal(digits.images, table[:, :64] / 16)
    assert np.array_equal(digits.labels, table[:, 64])


def test_the_standard_split_is_fixed(digits: Digits) -> None:
    train, test = digits.split()
    assert (type(train), type(test)) == (Digits, Digits)
    assert (len(train), len(test)) == (1437, 360)
    assert test.labels[:12].tolist() == [2, 8, 2, 6, 6, 7, 1, 9, 8, 5, 2, 8]
    assert np.bincount(test.labels).tolist() == [27, 35, 36, 29, 30, 40, 44, 39, 39, 41]


def test_every_digit_is_in_exactly_one_half_of_the_split(digits: Digits) -> None:
    numbered = Dataset({"row": np.arange(len(digits))})
    train, test = numbered.split(seed=0, test=360)
    assert np.array_equal(np.sort(np.concatenate([train["row"], test["row"]])), np.arange(len(digits)))


def test_another_seed_is_another_split(digits: Digits) -> None:
    assert not np.array_equal(digits.split(seed=0)[1].labels, digits.split(seed=1)[1].labels)


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"\0" + data[1:], lambda data: b""])
def test_a_damaged_file_is_reported_with_its_name_and_the_remedy(tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    copy = tmp_path / "digits.csv.gz"
    copy.write_bytes(damage(SHIPPED.read_bytes()))
    with pytest.raises(DatasetError, match=r"digits\.csv\.gz is damaged(.|\n)*reinstall flowgraph"):
        read_digits(copy)


def test_a_missing_file_is_reported_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"cannot read the digits(.|\n)*reinstall flowgraph"):
        read_digits(tmp_path / "digits.csv.gz")


def test_a_dataset_error_is_a_flowgraph_error() -> None:
    assert issubclass(DatasetError, FlowgraphError)


def test_arrays_of_different_length_are_refused_with_their_shapes() -> None:
    with pytest.raises(DatasetError, match=r"x \(3, 2\), y \(4,\)"):
        Dataset({"x": np.zeros((3, 2)), "y": np.zeros(4)})


@pytest.mark.parametrize("arrays", [{}, {"x": np.float32(1.0)}])
def test_a_dataset_without_examples_to_count_is_refused(arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(DatasetError):
        Dataset(arrays)


def test_an_unknown_array_is_reported_with_the_known_ones(digits: Digits) -> None:
    with pytest.raises(DatasetError, match=r"no array 'pixels'(.|\n)*images, labels"):
        digits["pixels"]


def test_a_data_set_cannot_be_written_but_what_it_was_made_of_can() -> None:
    mine = np.zeros(3)
    held = Dataset({"x": mine})
    with pytest.raises(ValueError, match="read-only"):
        held["x"][0] = 1.0
    mine[0] = 1.0
    assert held["x"][0] == 1.0


def test_take_selects_by_index_slice_and_mask() -> None:
    letters = Dataset({"n": np.arange(5), "square": np.arange(5) ** 2})
    assert letters.take([3, 1])["square"].tolist() == [9, 1]
    assert letters.take(slice(1, 3))["n"].tolist() == [1, 2]
    assert letters.take(letters["square"] > 4)["n"].tolist() == [3, 4]


@given(st.integers(2, 60), st.integers(0, 2**32 - 1), st.data())
def test_a_split_keeps_every_row_once_and_rows_together(count: int, seed: int, data: st.DataObject) -> None:
    held_out = data.draw(st.integers(1, count - 1))
    whole = Dataset({"a": np.arange(count), "b": -np.arange(count)})
    train, test = whole.split(seed=seed, test=held_out)
    assert len(test) == held_out
    assert sorted([*train["a"], *test["a"]]) == list(range(count))
    for half in (train, test):
        assert np.array_equal(half["a"], -half["b"])


@pytest.mark.parametrize("test", [0, 5, -1])
def test_a_split_that_leaves_one_side_empty_is_refused(test: int) -> None:
    with pytest.raises(DatasetError, match=f"cannot hold out {test} of 5"):
        Dataset({"x": np.zeros(5)}).split(seed=0, test=test)
