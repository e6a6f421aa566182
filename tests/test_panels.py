"""Contractions over several axes on the CPU: what is chosen as rows and columns, and that the sums are right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.codegen.cpu.tile import BLOCK
from flowgraph.compile import sources
from flowgraph.graph.graph import Graph
from flowgraph.graph.tensor import Tensor
from flowgraph.kernels.build import build_kernels
from flowgraph.kernels.kernel import Kernel
from flowgraph.ops.convolution import Convolution
from flowgraph.ops.einsum import Einsum
from flowgraph.ops.elementwise import Accumulate
from flowgraph.schedule.access import collapse
from flowgraph.schedule.cost import walk_of
from flowgraph.schedule.cpu import DEPTH, Panels, as_contraction, choose
from tests.support.compare import Oracle
from tests.support.paths import PATHS, optimise


def kernels(*outputs: Tensor) -> list[Kernel]:
    return [collapse(call.kernel) for call in build_kernels(optimise(Graph(outputs)))]


def random(*shape: int, seed: int = 0, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(dtype)


def layer(batch: Any = 32) -> tuple[Tensor, Tensor]:
    return fg.input("x", (batch, 20, 12, 12)), fg.input("w", (50, 20, 5, 5))


def test_a_panel_has_no_more_terms_than_its_register_tiles_sum_at_once() -> None:
    assert DEPTH <= BLOCK


def test_a_convolutions_columns_are_places_of_the_image_if_these_lie_side_by_side() -> None:
    x, w = layer()
    y = fg.relu(fg.conv2d(x, w) + fg.input("b", (50, 1, 1)))
    (kernel,) = kernels(y)
    found = as_contraction(kernel)
    assert isinstance(choose(kernel, (8, 2)), Panels) and found is not None
    assert [a.extent for a in found.columns] == [8, 8] and found.column.extent == 64
    assert [a.extent for a in found.rows] == [50] and [a.extent for a in found.others] == [32]


def test_the_columns_of_the_gradient_of_weights_are_maps_whose_places_are_transposed() -> None:
    x, w = layer("batch")
    (dw,) = fg.grad(fg.sum(fg.square(fg.conv2d(x, w))), [w])
    found = as_contraction(kernels(dw)[-1])
    assert found is not None and found.transposed
    assert [a.extent for a in found.columns] == [50] and [a.extent for a in found.rows] == [20, 5, 5]


def test_terms_that_lie_together_by_three_are_not_transposed_by_sixteen() -> None:
    """A convolution of the batch innermost, whose windows' places lie apart: what a layout may make of one."""
    x, w = fg.input("x", (64, 9, 9, 32)), fg.input("w", (48, 64, 3, 3))
    (kernel,) = kernels(fg.conv2d(fg.transpose(x, (3, 0, 1, 2)), w, stride=2))
    found = as_contraction(kernel)
    assert found is not None and (not found.transposed or [a.extent for a in found.columns] == [48])


def test_an_epilogue_that_walks_the_axes_of_places_apart_leaves_them_apart() -> None:
    x, w = layer(2)
    b = fg.input("b", (8, 1))  # a bias for each row of the image
    y = fg.conv2d(x, w) + b
    (kernel,) = kernels(y)
    found = as_contraction(kernel)
    assert found is not None and len(found.columns) == 1
    agree([y], {t: random(*t.shape, seed=k) for k, t in enumerate((x, w, b))})


def test_a_convolution_stays_in_its_tiles_when_orders_are_chosen() -> None:
    (kernel,) = kernels(fg.conv2d(*layer()))
    assert walk_of(kernel).tiled == "Panels"


def agree(outputs: list[Tensor], feeds: dict[Tensor, np.ndarray], **sizes: int) -> None:
    graph = Graph(tuple(outputs))
    assert not Oracle(graph, feeds, sizes).mismatch(PATHS["cpu"](graph, feeds, sizes))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("image", "weights", "options"),
    [
        ((2, 20, 9, 9), (33, 20, 4, 4), {}),  # terms of two panels, rows of two tasks' columns
        ((1, 1, 40, 41), (1, 1, 3, 3), {}),  # one row: no tile
        ((2, 9, 12, 20), (9, 1, 3, 3), {"groups": 9}),  # the same, of one channel a group
        ((2, 4, 7, 6), (5, 4, 7, 2), {}),
        ((3, 2, 5, 5), (150, 2, 5, 5), {}),  # one column; more rows than a task takes
        ((2, 3, 21, 19), (17, 3, 3, 2), {"stride": 2, "dilation": 2}),
        ((2, 6, 9, 20), (8, 3, 3, 3), {"groups": 2, "padding": "same"}),
    ],
)
def test_a_layer_and_its_gradients_agree_with_the_reference(
    image: tuple[int, ...], weights: tuple[int, ...], options: dict[str, Any], dtype: str
) -> None:
    x, w = fg.input("x", image, dtype), fg.input("w", weights, dtype)
    y = fg.conv2d(x, w, **options)
    gradients = fg.grad(fg.sum(fg.square(y)), [x, w])
    agree([fg.tanh(y), *gradients], {x: random(*image, dtype=dtype), w: random(*weights, seed=1, dtype=dtype)})


def test_sums_of_products_over_axes_that_lie_apart_agree_with_the_reference() -> None:
    x, y = fg.input("x", (7, 18, 30)), fg.input("y", (30, 7, 21))
    product = Einsum("acb", "bad", "cd")(x, y)
    assert isinstance(choose(kernels(product)[0], (8, 2)), Panels)
    agree([product], {x: random(7, 18, 30), y: random(30, 7, 21, seed=1)})


def test_a_sum_of_nothing_is_zero() -> None:
    x, g = fg.input("x", ("batch", 3, 9, 9)), fg.input("g", ("batch", 20, 7, 7))
    dw = Convolution("nc", "no", "oc", (3, 3), (1, 1), (1, 1))(x, g)
    program = fg.compile(outputs=dw, device="cpu")
    np.testing.assert_array_equal(
        program(x=np.zeros((0, 3, 9, 9), "f"), g=np.zeros((0, 20, 7, 7), "f"))[0], np.zeros((20, 3, 3, 3))
    )


def test_one_compiled_kernel_serves_every_size() -> None:
    x, w = fg.input("x", ("batch", 3, "height", "width")), fg.input("w", (20, 3, 3, 3))
    program = fg.compile(outputs=fg.conv2d(x, w, padding=1), device="cpu")
    oracle = fg.compile(outputs=fg.conv2d(x, w, padding=1), device="reference")
    for batch, height, width in ((1, 1, 1), (2, 5, 33), (3, 16, 16)):
        feeds = {"x": random(batch, 3, height, width), "w": random(20, 3, 3, 3, seed=1)}
        np.testing.assert_allclose(program(**feeds)[0], oracle(**feeds)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("change", ["threads", "tile"])
def test_the_bits_depend_on_neither_threads_nor_tiles(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = fg.input("x", (5, 20, 12, 12)), fg.input("w", (50, 20, 5, 5))
    y = fg.conv2d(x, w)
    outputs = [y, *fg.grad(fg.sum(fg.square(y)), [x, w])]
    feeds = {"x": random(5, 20, 12, 12), "w": random(50, 20, 5, 5, seed=1)}
    found = []
    for choice in ((1, 2, 4), ((8, 2), (3, 1), (4, 2)))[change == "tile"]:
        if change == "tile":
            monkeypatch.setattr("flowgraph.backends.cpu.executor.default_tile", lambda code, tile=choice: tile)
        threads = choice if change == "threads" else 1
        found.append(fg.compile([x, w], outputs, device="cpu", threads=threads)(**feeds))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("rows", "columns", "terms"), [(300, 330, 1030), (72, 1500, 1024), (600, 40, 2049)])
def test_long_products_of_whole_numbers_are_exact(rows: int, columns: int, terms: int, dtype: str) -> None:
    """Tasks of several panels, with ends that are no whole panels, tiles or blocks of terms: as they are, after
    something, and going on from something."""
    dice = np.random.default_rng(rows)
    a, b, begin = (dice.integers(-3, 4, s).astype(dtype) for s in ((terms, rows), (terms, columns), (rows, columns)))
    x, y, z = (fg.input(n, v.shape, dtype) for n, v in (("x", a), ("y", b), ("z", begin)))
    product = fg.transpose(x) @ y
    (kernel,) = kernels(product)
    schedule = choose(kernel, (8, 2))
    assert isinstance(schedule, Panels) and schedule.blocks * schedule.panels > 1
    outputs = [product, fg.flip(x, 0).T @ fg.flip(y, 0) * 2, Accumulate()(z, product)]
    found = fg.compile(outputs=outputs, device="cpu")(x=a, y=b, z=begin)
    exact = a.T.astype(np.int64) @ b.astype(np.int64)
    for got, expected in zip(found, (exact, 2 * exact, begin + exact), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("terms", [1, 255, 256, 257, 700])
def test_terms_side_by_side_need_no_table_of_their_places(terms: int) -> None:
    """A product with a transposed matrix that goes on from something, of sizes that the run knows."""
    dice = np.random.default_rng(terms)
    a, b, begin = (dice.integers(-3, 4, s).astype(np.float32) for s in ((37, terms), (41, terms), (37, 41)))
    x, y, z = fg.input("x", ("n", "k")), fg.input("y", ("m", "k")), fg.input("z", ("n", "m"))
    program = fg.compile([x, y, z], Accumulate()(z, x @ y.T), device="cpu")
    source = sources(program, "cpu")["00_mul_accumulate_kernel.py"]
    assert "pack_transposed_f32(" in source and "_at = stack" not in source and "places_" not in source
    (found,) = program(x=a, y=b, z=begin)
    np.testing.assert_array_equal(found, begin + a @ b.T)


def test_an_axis_of_one_is_no_loop() -> None:
    x = fg.input("x", ("n", 1, 5, 1))
    padded, sums = fg.pad(x, ((1, 1), (0, 0), (1, 1), (0, 0))), fg.cumsum(x, 1)
    program = fg.compile([x], [padded, sums], device="cpu")
    for source in sources(program, "cpu").values():
        assert "range(1)" not in source and "range(0, 1)" not in source
    values = random(3, 1, 5, 1)
    exact = np.pad(values, ((1, 1), (0, 0), (1, 1), (0, 0))), values
    for found, expected in zip(program(x=values), exact, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("functions", "versions"), [(1, 2), (5, 1)])
def test_a_loop_with_many_functions_has_one_version_under_a_mask(functions: int, versions: int) -> None:
    x = fg.input("x", ("n", "m"))
    y = x
    for k in range(functions):
        y = (fg.tanh if k % 2 else fg.sin)(y)
    program = fg.compile([x], fg.sum(y, axis=1), device="cpu")
    (source,) = (text for text in sources(program, "cpu").values() if "sin(" in text)
    written = [line for line in source.splitlines() if "= sin(" in line and not line.startswith("#")]
    assert len(written) == versions * -(-functions // 2)
    values = random(3, 37)
    expected = values.astype(np.float64)
    for k in range(functions):
        expected = (np.tanh if k % 2 else np.sin)(expected)
    np.testing.assert_allclose(program(x=values)[0], expected.sum(1), rtol=1e-5)


@pytest.mark.parametrize(("functions", "versions"), [(0, 2), (1, 2), (2, 1)])
def test_beside_register_tiles_few_functions_are_many(functions: int, versions: int) -> None:
    x, w = fg.input("x", ("n", "k")), fg.input("w", ("k", "m"))
    y = x @ w
    for _ in range(functions):
        y = fg.tanh(y)
    program = fg.compile([x, w], y, device="cpu")
    source = next(iter(sources(program, "cpu").values()))
    assert "tile_f32_" in source and source.count("vstore_") == versions
    a, b = random(9, 5), random(5, 37, seed=1)
    expected = a.astype(np.float64) @ b
    for _ in range(functions):
        expected = np.tanh(expected)
    np.testing.assert_allclose(program(x=a, w=b)[0], expected, rtol=1e-5, atol=1e-6)
