"""Sums of products by labels: NumPy's einsum, matmul and tensordot, and the kernels they become."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flowgraph as fg
from flowgraph.errors import ShapeError
from flowgraph.graph.graph import Graph
from flowgraph.schedule.cpu import Tile
from tests.support.paths import PATHS

SIZES = {"a": 2, "b": 3, "c": 4, "d": 5}


def values(tensor: fg.Tensor, *arrays: np.ndarray, device: str = "reference") -> np.ndarray:
    feeds = {f"x{k}": a for k, a in enumerate(arrays)}
    used = fg.compile(outputs=tensor, device=device)
    return used(**{name: feeds[name] for name in used.inputs})[0]


def inputs(*arrays: np.ndarray) -> list[fg.Tensor]:
    return [fg.input(f"x{k}", a.shape) for k, a in enumerate(arrays)]


def made(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    return [np.random.default_rng(k).normal(size=s).astype(np.float32) for k, s in enumerate(shapes)]


LABELS = st.text("abcd", min_size=0, max_size=3)


@settings(max_examples=150, deadline=None)
@given(st.lists(LABELS, min_size=1, max_size=3), st.data())
def test_einsum_is_numpys(operands: list[str], data: st.DataObject) -> None:
    every = sorted(set("".join(operands)))
    kept = data.draw(st.permutations(every)) if every else []
    text = ",".join(operands)
    if data.draw(st.booleans()):
        text += "->" + "".join(kept[: data.draw(st.integers(0, len(kept)))])
    arrays = made(*(tuple(SIZES[c] for c in o) for o in operands))
    found = fg.einsum(text, *inputs(*arrays))
    expected = np.einsum(text, *arrays)
    assert found.shape == expected.shape
    np.testing.assert_allclose(values(found + 0.0, *arrays), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("first", "second"),
    [((3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((2, 3, 4), (4, 5)), ((3, 4), (2, 4, 5)), ((4,), (4, 5)), ((3, 4), (4,)),
     ((4,), (4,)), ((2, 1, 3, 4), (6, 4, 5)), ((2, 3, 4), (4,)),
     ((1, 3, 4), (1, 4, 5)), ((1, 3, 4), (4, 5)), ((2, 1, 3, 4), (2, 1, 4, 5)), ((1, 3, 4), (7, 4, 5)),
     ((1, 1, 3, 4), (1, 1, 4, 5)), ((1, 6, 3, 4), (2, 1, 4, 5)), ((1, 3, 4), (4,))],
)  # fmt: skip
def test_matmul_is_numpys_for_every_rank(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    arrays = made(first, second)
    x, y = inputs(*arrays)
    expected = arrays[0] @ arrays[1]
    assert (x @ y).shape == expected.shape
    np.testing.assert_allclose(values(x @ y, *arrays), expected, rtol=1e-5, atol=1e-5)


def test_the_product_of_matrices_stays_the_lectures_mul() -> None:
    x, y = inputs(*made((3, 4), (4, 5)))
    assert (x @ y).node.op.name == fg.einsum("ij,jk", x, y).node.op.name == "mul"


def test_tensordot_is_numpys() -> None:
    arrays = made((3, 4, 5), (4, 5, 6))
    x, y = inputs(*arrays)
    np.testing.assert_allclose(values(fg.tensordot(x, y), *arrays), np.tensordot(*arrays), rtol=1e-4)
    axes = ([1], [0])
    np.testing.assert_allclose(values(fg.tensordot(x, y, axes), *arrays), np.tensordot(*arrays, axes), rtol=1e-4)


@pytest.mark.parametrize(
    ("text", "shapes", "message"),
    [
        ("ij,jk->ik", [(3, 4), (5, 6)], "'j' is 4 and 5"),
        ("ij->ik", [(3, 4)], "the result 'ik' has a label that no operand has"),
        ("ij,jk", [(3, 4)], "2 operands are named, 1 given"),
        ("ijk->i", [(3, 4)], "'ijk' has 3 axes, its operand shape"),
        ("i1->i", [(3, 4)], "labels are letters"),
    ],
)
def test_labels_that_do_not_fit_say_why(text: str, shapes: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        fg.einsum(text, *inputs(*made(*shapes)))


@pytest.mark.parametrize("text", ["bqd,bkd->bqk", "bqk,bkd->bqd", "bqhd,bkhd->bhqk", "btd,dn->btn", "btd,btn->dn"])
def test_batched_and_transposed_products_are_register_tiles(text: str) -> None:
    sizes = {"b": 3, "q": 9, "k": 20, "d": 17, "h": 2, "t": 7, "n": 33}
    arrays = made(*(tuple(sizes[c] for c in o) for o in text.split("->")[0].split(",")))
    tensor = fg.tanh(fg.einsum(text, *inputs(*arrays)))
    program = fg.compile(outputs=tensor, device="cpu")
    (compiled,) = program.executor.compiled  # type: ignore[attr-defined]
    assert isinstance(compiled.schedule, Tile)
    feeds = {f"x{k}": a for k, a in enumerate(arrays)}
    np.testing.assert_allclose(program(**feeds)[0], np.tanh(np.einsum(text, *arrays)), rtol=1e-4, atol=1e-5)


ROWS, WEIGHTS = made((9, 40), (40, 37))
SLICED = {
    "columns left of the operand": (lambda x, w: x[:, 3:] @ w[3:], ROWS[:, 3:] @ WEIGHTS[3:]),
    "every second column": (lambda x, w: x[:, ::2] @ w[:20], ROWS[:, ::2] @ WEIGHTS[:20]),
    "columns of the second factor": (lambda x, w: x @ w[:, 5:], ROWS @ WEIGHTS[:, 5:]),
    "every third column of the second": (lambda x, w: x @ w[:, 1::3], ROWS @ WEIGHTS[:, 1::3]),
    "reversed": (lambda x, w: fg.flip(x, 1) @ fg.flip(w, (0, 1)), ROWS[:, ::-1] @ WEIGHTS[::-1, ::-1]),
    "transposed and cut": (lambda x, w: fg.transpose(w)[2:] @ fg.transpose(x)[:, 1:], WEIGHTS.T[2:] @ ROWS.T[:, 1:]),
}  # fmt: skip


@pytest.mark.parametrize("name", SLICED)
def test_slices_of_operands_are_read_in_place_by_the_register_tile(name: str) -> None:
    make, expected = SLICED[name]
    x, w = fg.input("x", ROWS.shape), fg.input("w", WEIGHTS.shape)
    program = fg.compile([x, w], [fg.tanh(make(x, w))], device="cpu")
    (compiled,) = program.executor.compiled  # type: ignore[attr-defined]
    assert isinstance(compiled.schedule, Tile)
    np.testing.assert_allclose(program(x=ROWS, w=WEIGHTS)[0], np.tanh(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("path", sorted(PATHS))
def test_products_of_slices_agree_on_every_path(path: str) -> None:
    x, w = fg.input("x", ROWS.shape), fg.input("w", WEIGHTS.shape)
    graph = Graph(tuple(make(x, w) for make, _ in SLICED.values()))
    found = PATHS[path](graph, {x: ROWS, w: WEIGHTS}, {})
    for result, (_, expected) in zip(found, SLICED.values(), strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)
