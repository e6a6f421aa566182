"""Weights in blocks of columns: which loops get them, what kernels make of them, and that no bit changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.backends.select import wants_blocks
from flowgraph.compile import sources
from flowgraph.graph.graph import Graph
from flowgraph.graph.tensor import Tensor
from flowgraph.index_notation import Index
from flowgraph.kernels.build import build_kernels
from flowgraph.kernels.kernel import Kernel
from flowgraph.ops.scan import Scan
from flowgraph.ops.shape import ColumnBlocks, JoinedColumns
from flowgraph.passes import block_weights
from flowgraph.passes.pipeline import optimise, run_passes
from flowgraph.schedule.access import as_walked
from flowgraph.schedule.cpu import Panels, Tile, as_product, choose
from tests.support.compare import Oracle


def loop(rows: Any, units: int, turns: int = 8, width: int | None = None, dtype: str = "float32") -> Tensor:
    """h <- tanh(h w)[:, :units], so many turns; w has `width` columns."""
    h = fg.input("h", (rows, units), dtype=dtype)
    w = fg.parameter("w", (units, width or units), dtype=dtype)
    w.value = np.random.default_rng(0).normal(0, units**-0.5, w.shape).astype(dtype)
    last, _ = fg.scan(lambda h, _: (fg.tanh((h @ w)[:, :units]), None), h, length=turns)
    return last


def blocked(tensor: Tensor, device: str = "cpu") -> int:
    graph, _ = run_passes(Graph((tensor,)), optimise(wants_blocks(device)), check=True)
    return sum(isinstance(n.op, ColumnBlocks) for n in graph.nodes())


@pytest.fixture
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_weights, "LEAST", 0)


def test_large_weights_of_a_loop_are_blocked_once_before_it() -> None:
    assert blocked(loop(32, 256)) == 1
    assert blocked(loop(32, 255, width=288)) == 1


@pytest.mark.parametrize("tensor, why", [
    (loop(32, 224), "small: near, however they lie"),
    (loop(32, 256, turns=7), "too few turns"),
    (loop(32, 256, width=260), "no whole blocks"),
    (fg.tanh(fg.input("h", (32, 512)) @ fg.parameter("w", (512, 512))), "no loop"),
])  # fmt: skip
def test_other_weights_are_left_alone(tensor: Tensor, why: str) -> None:
    assert blocked(tensor) == 0, why


def test_weights_that_a_loop_reads_otherwise_too_are_left_alone() -> None:
    h, w = fg.input("h", (256, 256)), fg.parameter("w", (256, 256))
    added, _ = fg.scan(lambda h, _: (h @ w + w, None), h, length=9)
    first, _ = fg.scan(lambda h, _: (fg.tanh(w @ h), None), h, length=9)
    assert blocked(added) == blocked(first) == 0


def test_blocks_are_a_layout_for_processors_only() -> None:
    assert blocked(loop(32, 256), "cuda") == blocked(loop(32, 256), "reference") == 0
    program = fg.compile(outputs=loop(32, 256), device="cpu")
    assert "joined_columns" in "".join(sources(program, "cpu").values())
    assert "joined_columns" not in "".join(sources(program, "cuda").values())


def product_of(rows: Any) -> Kernel:
    x, blocks = fg.input("x", (rows, 300)), fg.input("blocks", (4, 300, 32))
    (call,) = build_kernels(Graph((fg.tanh(x @ JoinedColumns()(blocks)),)))
    return as_walked(call.kernel)


def test_a_kernel_finds_panels_in_blocks_of_columns() -> None:
    kernel = product_of(40)
    found = as_product(kernel)
    assert found is not None and [a.extent for a in (found.i, found.j, *found.others)] == [40, 32, 4]
    assert found.b.index == (Index(found.others[0]), Index(found.k), Index(found.j))
    assert choose(kernel, (8, 2)) == Panels(8, 2, blocks=16, panels=1, depth=256, pack=False)
    assert isinstance(choose(product_of(8), (8, 2)), Tile)  # one row of tiles: nothing to keep near


@pytest.mark.parametrize("rows", [1, 8, 20, 131])
@pytest.mark.parametrize("terms", [32, 256, 300, 800])
def test_a_product_with_blocks_is_that_with_the_matrix_to_the_bit(rows: int, terms: int) -> None:
    rng = np.random.default_rng(rows)
    a, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((rows, terms), (terms, 96)))
    x, bias = fg.input("x", ("rows", terms)), fg.input("bias", (96,))
    ours = fg.tanh(x @ JoinedColumns()(fg.constant(ColumnBlocks(32).reference(w))) + bias)
    plain = fg.tanh(x @ fg.constant(w) + bias)
    both = fg.compile(outputs=[ours, plain], device="cpu")(x=a, bias=np.arange(96, dtype=np.float32) / 96)
    assert np.array_equal(*both)
    assert np.allclose(both[0], np.tanh(a.astype(np.float64) @ w + np.arange(96) / 96), atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell", [fg.nn.RNN, fg.nn.GRU, fg.nn.LSTM])
def test_a_training_step_has_the_bits_that_it_has_without_blocks(
    cell: Any, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = cell("layer", 5, 64, dtype=dtype)
    x = fg.input("x", ("batch", 9, 5), dtype)
    ys, _ = layer(x)
    cost = fg.mean(fg.square(ys))
    gradients = fg.grad(cost, layer.parameters)
    feeds = {"x": np.random.default_rng(0).standard_normal((20, 9, 5)).astype(dtype)}
    found = []
    for least in (0, 2**40):
        monkeypatch.setattr(block_weights, "LEAST", least)
        program = fg.compile(outputs=[cost, *gradients], device="cpu")
        assert any(isinstance(n.op, ColumnBlocks) for n in program.graph.nodes()) == (least == 0)
        found.append(program(**feeds))
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))
    graph = Graph((cost, *gradients))
    assert not Oracle(graph, {x: feeds["x"]}, {"batch": 20}).mismatch(found[0])


def test_loops_in_loops_get_their_blocks_from_the_loop_around(any_size: None) -> None:
    h, w = fg.input("h", (9, 32)), fg.parameter("w", (32, 32))
    w.value = np.random.default_rng(0).normal(0, 0.2, (32, 32)).astype(np.float32)

    def outer(h: Tensor, _: Any) -> tuple[Tensor, None]:
        scaled = w * fg.mean(h)  # of this turn
        return fg.scan(lambda h, _: (fg.tanh(h @ scaled + h @ w), None), h, length=8)[0], None

    last, _ = fg.scan(outer, h, length=8)
    feeds = np.random.default_rng(1).standard_normal((9, 32)).astype(np.float32)
    program = fg.compile(outputs=last, device="cpu")
    (result,) = program(h=feeds)
    (scan,) = (n for n in program.graph.nodes() if isinstance(n.op, Scan))
    assert sum(isinstance(n.op, ColumnBlocks) for n in scan.op.inner.graph.nodes()) == 2
    assert not Oracle(Graph((last,)), {h: feeds}, {}).mismatch([result])
