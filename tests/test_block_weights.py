"""Weights in blocks of columns: which loops get them, what kernels make of them, and that no bit changes."""

from __future__ import annotations

import itertools
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


def product_of(rows: Any, blocks: int = 16) -> Kernel:
    x, blocks = fg.input("x", (rows, 300)), fg.input("blocks", (blocks, 300, 32))
    (call,) = build_kernels(Graph((fg.tanh(x @ JoinedColumns()(blocks)),)))
    return as_walked(call.kernel)


def test_a_kernel_finds_panels_in_blocks_of_columns() -> None:
    kernel = product_of(40)
    found = as_product(kernel)
    assert found is not None and [a.extent for a in (found.i, found.j, *found.others)] == [40, 32, 16]
    assert found.b.index == (Index(found.others[0]), Index(found.k), Index(found.j))
    assert choose(kernel, (8, 2)) == Panels(8, 2, blocks=16, panels=1, depth=256, pack=False)
    assert isinstance(choose(product_of(8), (8, 2)), Tile)  # one row of tiles: nothing to keep near
    few = [choose(product_of(128, blocks), (8, 2)) for blocks in (8, 1)]  # enough tasks for a team
    assert few == [Panels(8, 2, blocks=4, panels=1, depth=256, pack=False), Tile(8, 2, pack=False)]
    assert choose(product_of(40), (6, 1)) == Panels(6, 1, blocks=16, panels=1, depth=256, pack=False)


@pytest.mark.parametrize("rows", [1, 8, 20, 131])
@pytest.mark.parametrize("terms", [32, 256, 300, 800])
def test_a_product_with_blocks_is_that_with_the_matrix_to_the_bit(rows: int, terms: int) -> None:
    rng = np.random.default_rng(rows)
    a, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((rows, terms), (terms, 512)))
    x, bias = fg.input("x", ("rows", terms)), fg.input("bias", (512,))
    ours = fg.tanh(x @ JoinedColumns()(fg.constant(ColumnBlocks(32).reference(w))) + bias)
    plain = fg.tanh(x @ fg.constant(w) + bias)
    both = fg.compile(outputs=[ours, plain], device="cpu")(x=a, bias=np.arange(512, dtype=np.float32) / 512)
    assert np.array_equal(*both)
    assert np.allclose(both[0], np.tanh(a.astype(np.float64) @ w + np.arange(512) / 512), atol=1e-4)


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


@pytest.mark.parametrize("checkpoint", [None, 4])
@pytest.mark.parametrize("reverse", [False, True])
def test_training_over_large_weights_has_the_bits_that_it_has_without_blocks(
    reverse: bool, checkpoint: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    xs = np.random.default_rng(0).standard_normal((3, 9, 11, 256)).astype(np.float32)
    found = []
    for least in (block_weights.LEAST, 2**40):
        monkeypatch.setattr(block_weights, "LEAST", least)
        x, w = fg.input("x", (9, "batch", 256)), fg.parameter("w", (256, 256))
        w.value = np.random.default_rng(1).normal(0, 0.06, (256, 256)).astype(np.float32)
        zero = fg.broadcast_to(fg.constant(0.0), ("batch", 256))

        def step(h: Tensor, x: Tensor, w: Tensor = w) -> tuple[Tensor, Tensor]:
            new = fg.tanh(x + h @ w)
            return new, new

        _, ys = fg.scan(step, zero, x, reverse=reverse, checkpoint=checkpoint)
        cost = fg.mean(fg.square(ys))
        update = {w: w - 0.5 * fg.grad(cost, w)}
        program = fg.compile(outputs=cost, updates=update, device="cpu", check=True)
        assert (levels(program.graph) == [2]) == (least < 2**40)  # of w and of its transpose, outside of all loops
        found.append([*(program(x=x)[0] for x in xs), w.value.copy()])
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


def levels(graph: Graph, depth: int = 0) -> list[int]:
    """How many matrices are made blocks, by how deep in loops that is; without the zeros at the end."""
    here = [sum(isinstance(n.op, ColumnBlocks) for n in graph.nodes())]
    inner = [levels(n.op.inner.graph) for n in graph.nodes() if isinstance(n.op, Scan)]
    below = [sum(found) for found in itertools.zip_longest(*inner, fillvalue=0)]
    made = here + below
    while made and not made[-1]:
        made.pop()
    return made


def test_two_loops_with_the_same_weights_share_their_blocks() -> None:
    h, w = fg.input("h", (9, 256)), fg.parameter("w", (256, 256))

    def step(h: Tensor, _: Any) -> tuple[Tensor, None]:
        return fg.tanh(h @ w), None

    first, _ = fg.scan(step, h, length=8)
    second, _ = fg.scan(step, first, length=9)
    assert levels(fg.compile(outputs=second, device="cpu").graph) == [1]


def test_the_source_shown_is_the_one_that_runs_watched_rows_included() -> None:
    table, i = fg.input("table", ("rows", 256)), fg.input("i", ("batch",), "int64")
    w = fg.parameter("w", (256, 256))
    last, _ = fg.scan(lambda h, _: (fg.tanh(h @ w), None), fg.gather(table, i + 1), length=8)
    program = fg.compile(outputs=last, device="cpu")
    assert program.watch is not None and levels(program.graph) == [1]
    assert sources(program, "cpu") == program.executor.files()


def test_loops_in_loops_have_blocks_where_their_weights_are_steady(any_size: None) -> None:
    h = fg.input("h", (9, 32))
    w, v = (fg.parameter(n, (32, 32)) for n in "wv")
    for seed, p in enumerate((w, v)):
        p.value = np.random.default_rng(seed).normal(0, 0.2, (32, 32)).astype(np.float32)

    def outer(h: Tensor, _: Any) -> tuple[Tensor, None]:
        scaled = v * fg.mean(h)  # of this turn
        return fg.scan(lambda h, _: (fg.tanh(h @ scaled + h @ w), None), h, length=8)[0], None

    last, _ = fg.scan(outer, h, length=8)
    feeds = np.random.default_rng(1).standard_normal((9, 32)).astype(np.float32)
    program = fg.compile(outputs=last, device="cpu")
    assert levels(program.graph) == [1, 1]
    (result,) = program(h=feeds)
    assert not Oracle(Graph((last,)), {h: feeds}, {}).mismatch([result])
