"""Layers that have no file of tests of their own."""

from __future__ import annotations

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.errors import DTypeError, InputError, ShapeError


class TestEmbedding:
    def test_numbers_become_rows(self) -> None:
        vectors = np.arange(12, dtype=np.float32).reshape(4, 3)
        words = fg.nn.Embedding("words", 4, 3, init=vectors)
        ids = fg.input("ids", ("batch", "time"), "int32")
        (found,) = fg.compile(outputs=words(ids), device="cpu")(ids=np.array([[3, 0], [1, 3]], np.int32))
        assert np.array_equal(found, vectors[[[3, 0], [1, 3]]])

    def test_rows_begin_with_length_one(self) -> None:
        lengths = np.linalg.norm(fg.nn.Embedding("long", 500, 64).w.value, axis=1)
        assert abs(lengths.mean() - 1) < 0.02 and lengths.std() < 0.2

    def test_only_rows_that_were_read_change(self) -> None:
        words = fg.nn.Embedding("few", 1_000, 8)
        ids = fg.input("ids", ("batch",), "int32")
        before = words.w.value.copy()
        trainer = fg.Trainer(fg.mean(fg.square(words(ids))), fg.optim.SGD(0.5), device="cpu")
        trainer.fit({"ids": np.array([2, 5, 2, 7], np.int32)}, epochs=1, batch_size=4)
        changed = np.flatnonzero((words.w.value != before).any(axis=1))
        assert changed.tolist() == [2, 5, 7]

    def test_a_number_beyond_the_table_is_said(self) -> None:
        words = fg.nn.Embedding("bad", 10, 2)
        step = fg.compile(outputs=words(fg.input("ids", ("batch",), "int32")), device="cpu")
        with pytest.raises(InputError, match="10"):
            step(ids=np.array([3, 10], np.int32))

    def test_what_is_no_number_is_refused(self) -> None:
        with pytest.raises(DTypeError, match="float32"):
            fg.nn.Embedding("floats", 10, 2)(fg.input("x", ("batch",)))
        with pytest.raises(ShapeError, match="4"):
            fg.nn.Embedding("shape", 10, 2, init=np.zeros((4, 2)))
