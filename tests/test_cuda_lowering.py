"""Kernels down to CUDA: which schedule, what the emulator computes with it, what ptxas makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.autodiff import backward
from flowgraph.backends.cuda.compiler import address_and_size_signature
from flowgraph.backends.cuda.emulator import EmulatedDevice
from flowgraph.backends.cuda.offline import Report, check
from flowgraph.codegen.cuda_source import TOGETHER_SIGNATURE, cuda_source
from flowgraph.compile import declare
from flowgraph.errors import DeviceError
from flowgraph.graph.graph import Graph
from flowgraph.graph.size import evaluate, named
from flowgraph.graph.tensor import Tensor
from flowgraph.graph.types import TensorType, float32
from flowgraph.index_notation import Axis, Index, Load, Var
from flowgraph.kernels.build import build_kernels
from flowgraph.kernels.interpret import interpret
from flowgraph.kernels.kernel import Buffer, Kernel, Let, Nest, Reduction, Store
from flowgraph.ops.elementwise import multiply
from flowgraph.ops.leaf import constant
from flowgraph.ops.reduce import sum as sum_
from flowgraph.passes.pipeline import OPTIMISE, run_passes
from flowgraph.plan.plan import make_plan
from flowgraph.schedule.access import collapse
from flowgraph.schedule.cuda import (
    LARGE,
    MIDDLE,
    SMALL,
    Columns,
    CudaSchedule,
    Elementwise,
    Rows,
    Serial,
    Tile,
    choose,
)
from flowgraph.schedule.lower_cuda import BlockLoops, lower, lower_with
from tests.support.paths import optimise
from tests.test_registry import DIFFERENTIABLE, SAMPLES, applied

ARCHITECTURES = ((8, 0), (9, 0))


def kernels_of(*outputs: Tensor, updates: Mapping[Tensor, Tensor] | None = None) -> list[Kernel]:
    graph, _ = run_passes(declare(None, outputs, updates or {}), OPTIMISE)
    return [call.kernel for call in build_kernels(graph)]


def kernel_of(output: Tensor) -> Kernel:
    (kernel,) = kernels_of(output)
    return collapse(kernel)


def launch(
    loops: BlockLoops,
    kernel: Kernel,
    arrays: Sequence[np.ndarray],
    sizes: Mapping[str, int],
    *,
    device: EmulatedDevice | None = None,
    blocks: int = 3,
) -> list[np.ndarray]:
    """Run a kernel on the emulator; `blocks` at most, so that they have to stride through the tasks."""
    device = device or EmulatedDevice()
    handle = device.load(
        cuda_source(loops), loops.name, address_and_size_signature(len(loops.buffers), len(loops.sizes))
    )
    outputs = [
        np.empty(tuple(evaluate(s, sizes) for s in b.type.shape), b.type.dtype.numpy) for b in kernel.outputs
    ]
    addresses = []
    for array in (*arrays, *outputs):
        addresses.append(device.alloc(array.nbytes))
        device.to_device(addresses[-1], np.ascontiguousarray(array))
    count = evaluate(loops.blocks, sizes)
    if count:
        words = (*addresses, *(evaluate(s, sizes) for s in loops.sizes))
        device.launch(handle, (min(count, blocks), 1, 1), (loops.threads, 1, 1), words)
    for address, output in zip(addresses[len(arrays) :], outputs, strict=True):
        device.to_host(address, output)
    for address in addresses:
        device.free(address)
    return outputs


def report(loops: BlockLoops, capability: tuple[int, int], sass: bool = True) -> Report:
    return check(cuda_source(loops), loops.name, len(loops.buffers), len(loops.sizes), capability, sass)


def random(*shape: int, seed: int = 0, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(dtype)


# Which schedule


def batch(*shape: object, dtype: str = "float32") -> Tensor:
    return fg.input("x", ("batch", *shape), dtype=dtype)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (lambda: fg.tanh(batch(784)), Elementwise(4)),
        (lambda: fg.add_bias(batch(784), fg.input("b", (784,))), Elementwise(4)),
        (lambda: fg.tanh(fg.transpose(batch(784))) + fg.input("z", (784, "batch")), Elementwise(1)),
        (lambda: fg.softmax(batch(10)), Rows(32)),
        (lambda: fg.softmax(batch(1000)), Rows(128)),
        (lambda: fg.sum(batch(1000)), Rows(256)),
        (lambda: fg.sum(batch(1000), axis=0), Columns(32, 8)),
        (lambda: batch(784) @ fg.input("w", (784, 10)), SMALL),
        (lambda: fg.input("x", (1024, 1024)) @ fg.input("w", (1024, 1024)), MIDDLE),
        (lambda: fg.input("x", (4096, 4096)) @ fg.input("w", (4096, 4096)), LARGE),
    ],
    ids=[
        "pointwise",
        "bias",
        "transpose",
        "short rows",
        "long rows",
        "all",
        "columns",
        "small",
        "middle",
        "large",
    ],
)
def test_the_schedule_follows_from_the_kernel(output, expected: CudaSchedule) -> None:
    assert choose(kernel_of(output())) == expected


def test_a_scatter_is_serial_along_the_scattered_axis() -> None:
    table, ids = fg.input("table", (11, 18)), fg.input("ids", (29,), dtype="int32")
    kernel = kernel_of(fg.scatter_add(table, ids, fg.input("v", (29, 18))))
    assert choose(kernel) == Serial()


def test_layers_of_different_width_share_one_source() -> None:
    sources = set()
    for width in (32, 100, 256):
        (kernel,) = kernels_of(
            fg.tanh(fg.add_bias(batch(64) @ fg.input("w", (64, width)), fg.input("b", (width,))))
        )
        sources.add(cuda_source(lower(kernel)[0]))
    assert len(sources) == 1


# What is computed

LAYOUTS = {
    "row-major": lambda x, w: (x, w),
    "first transposed": lambda x, w: (fg.transpose(x), w),
    "second transposed": lambda x, w: (x, fg.transpose(w)),
    "both transposed": lambda x, w: (fg.transpose(x), fg.transpose(w)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("tile", [SMALL, MIDDLE, LARGE], ids=["small", "middle", "large"])
@pytest.mark.parametrize(
    "shape", [(29, 17, 10), (64, 32, 64), (132, 20, 140), (1, 1, 1), (67, 3, 131), (4, 300, 4)]
)
def test_a_product_with_epilogue_is_right_for_any_strides_and_sizes(
    layout: str, tile: Tile, shape: tuple[int, int, int]
) -> None:
    m, k, n = shape
    a, b, bias = random(m, k), random(k, n, seed=1), random(n, seed=2)
    swap = ("first" in layout or "both" in layout, "second" in layout or "both" in layout)
    x = fg.input("x", (k, m) if swap[0] else (m, k))
    w = fg.input("w", (n, k) if swap[1] else (k, n))
    kernel = kernel_of(fg.tanh(fg.add_bias(fg.mul(*LAYOUTS[layout](x, w)), fg.input("b", (n,)))))
    arrays = [a.T if swap[0] else a, b.T if swap[1] else b, bias]
    (got,) = launch(lower_with(kernel, tile), kernel, arrays, {})
    expected = np.tanh(a.astype("f8") @ b + bias)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6 * max(1, k / 16))


@pytest.mark.parametrize("tile", [SMALL, MIDDLE], ids=["small", "middle"])
def test_a_product_in_float64_is_right(tile: Tile) -> None:
    kernel = kernel_of(fg.input("x", (37, 48), dtype="float64") @ fg.input("w", (48, 68), dtype="float64"))
    a, b = random(37, 48, dtype="float64"), random(48, 68, seed=1, dtype="float64")
    (got,) = launch(lower_with(kernel, tile), kernel, [a, b], {})
    np.testing.assert_allclose(got, a @ b, rtol=1e-13, atol=1e-13)


ROW_PROGRAMS = {
    "softmax": (lambda: fg.softmax(batch(70)), [(29, 70)]),
    "row maximum": (lambda: fg.max(batch(70), axis=1), [(29, 70)]),
    "column sum": (lambda: fg.sum(batch(70), axis=0), [(29, 70)]),
    "sum of all": (lambda: fg.sum(batch(70)), [(29, 70)]),
    "two inner axes": (lambda: fg.sum(batch(7, 11), axis=(1, 2)), [(29, 7, 11)]),
    "two outer axes": (lambda: fg.sum(fg.input("x", (5, "batch", 9)), axis=0), [(5, 29, 9)]),
}


@pytest.mark.parametrize("schedule", [Serial(), Rows(32), Rows(128), Rows(256), Columns(32, 8)], ids=str)
@pytest.mark.parametrize("program", ROW_PROGRAMS)
def test_every_schedule_of_a_row_program_computes_the_same(program: str, schedule: CudaSchedule) -> None:
    output, shapes = ROW_PROGRAMS[program]
    kernel = kernel_of(output())
    if isinstance(schedule, Columns) and not kernel.axes:
        schedule = Rows(64)  # there are no columns
    arrays = [random(*shape, seed=k) for k, shape in enumerate(shapes)]
    expected = interpret(
        kernel,
        [
            a.reshape(tuple(evaluate(s, {"batch": 29}) for s in b.type.shape))
            for a, b in zip(arrays, kernel.inputs, strict=True)
        ],
        {"batch": 29},
    )
    got = launch(lower_with(kernel, schedule), kernel, arrays, {"batch": 29})
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("width", [1, 3, 4, 8, 10, 64])
@pytest.mark.parametrize("rows", [0, 1, 29, 300])
def test_a_bias_is_added_by_wide_and_by_single_loads(rows: int, width: int) -> None:
    kernel = kernel_of(fg.add_bias(batch(width), fg.input("b", (width,))))
    x, b = random(rows, width), random(width, seed=1)
    (got,) = launch(lower_with(kernel, Elementwise(4)), kernel, [x, b], {"batch": rows})
    np.testing.assert_array_equal(got, x + b)


@pytest.mark.parametrize("count", [1, 3, 4, 1023, 1024, 5001])
def test_a_vector_is_taken_by_fours_and_its_tail_one_by_one(count: int) -> None:
    kernel = kernel_of(fg.input("x", ("n",)) * 3.0)
    x = random(count)
    (got,) = launch(lower_with(kernel, Elementwise(4)), kernel, [x], {"n": count})
    np.testing.assert_array_equal(got, x * np.float32(3))


@pytest.mark.parametrize("program", [*ROW_PROGRAMS, "product"])
def test_bits_do_not_depend_on_the_grid_or_the_order_of_threads(program: str) -> None:
    if program == "product":
        kernel, shapes = kernel_of(batch(33) @ fg.input("w", (33, 40))), [(29, 33), (33, 40)]
    else:
        kernel, shapes = kernel_of(ROW_PROGRAMS[program][0]()), ROW_PROGRAMS[program][1]
    loops, sizes = lower_with(kernel, choose(kernel)), {"batch": 29}
    arrays = [random(*shape, seed=k) for k, shape in enumerate(shapes)]
    first = launch(loops, kernel, arrays, sizes, blocks=1)
    for device, blocks in ((EmulatedDevice(), 100), (EmulatedDevice(reverse=True), 2)):
        for one, other in zip(
            first, launch(loops, kernel, arrays, sizes, device=device, blocks=blocks), strict=True
        ):
            assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("schedule", [Serial(), Rows(32), Rows(128)], ids=str)
def test_a_scalar_replaced_in_place_is_read_by_all_lanes_first(schedule: CudaSchedule, reverse: bool) -> None:
    i, r, c = Axis("i", named("n")), Axis("r", 40), Axis("c", 40)
    total = Var("total", float32)
    kernel = Kernel(
        axes=(i,),
        nests=(
            Nest((r,), reductions=(Reduction("total", "sum", Load("x0", (Index(i), Index(r)), float32)),)),
            Nest(lets=(Let("new", Load("x1", (Index(i),), float32) + total),), stores=(
                Store("y0", (Index(i),), Var("new", float32)),
            )),
            Nest((c,), stores=(Store("y1", (Index(i), Index(c)), Var("new", float32) * 2.0),)),
        ),
        inputs=(Buffer("x0", TensorType((named("n"), 40))), Buffer("x1", TensorType((named("n"),)))),
        outputs=(Buffer("y0", TensorType((named("n"),))), Buffer("y1", TensorType((named("n"), 40)))),
    )  # fmt: skip
    loops, n = lower_with(kernel, schedule), 5
    device = EmulatedDevice(reverse=reverse)
    x, old, out = np.ones((n, 40), "f4"), np.arange(n, dtype="f4"), np.empty((n, 40), "f4")
    first, second, third = (device.alloc(a.nbytes) for a in (x, old, out))
    device.to_device(first, x)
    device.to_device(second, old)
    handle = device.load(cuda_source(loops), loops.name, address_and_size_signature(4, len(loops.sizes)))
    words = [evaluate(s, {"n": n}) for s in loops.sizes]
    device.launch(handle, (2, 1, 1), (loops.threads, 1, 1), (first, second, second, third, *words))
    device.to_host(third, out)
    np.testing.assert_array_equal(out, np.repeat(2 * (np.arange(n) + 40), 40).reshape(n, 40))


def test_nan_survives_a_maximum_in_any_lane() -> None:
    kernel = kernel_of(fg.max(batch(70), axis=1))
    for schedule in (Serial(), Rows(32), Rows(128)):
        for place in (0, 31, 32, 69):
            x = random(5, 70)
            x[3, place] = np.nan
            (got,) = launch(lower_with(kernel, schedule), kernel, [x], {"batch": 5})
            assert np.isnan(got).tolist() == [False, False, False, True, False]


def test_a_kernel_given_too_little_memory_is_caught() -> None:
    kernel = kernel_of(fg.tanh(batch(64)))
    with pytest.raises(DeviceError, match="outside its buffers"):
        launch(lower_with(kernel, Elementwise(4)), kernel, [random(20, 64)], {"batch": 29})


# What ptxas makes of it


@pytest.mark.parametrize("capability", ARCHITECTURES, ids=str)
def test_elementwise_kernels_load_and_store_16_bytes(capability: tuple[int, int]) -> None:
    flat = report(lower(kernel_of(fg.tanh(batch(784)) * batch(784)))[0], capability)
    biased = report(lower(kernel_of(fg.add_bias(batch(784), fg.input("b", (784,)))))[0], capability)
    assert (flat.count(r"LDG\.E\.128"), flat.count(r"STG\.E\.128")) == (2, 1)
    assert (biased.count(r"LDG\.E\.128"), biased.count(r"STG\.E\.128")) == (2, 1)


@pytest.mark.parametrize("capability", ARCHITECTURES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_tiled_product_runs_on_wide_loads_without_spills(
    layout: str, capability: tuple[int, int]
) -> None:
    x, w = fg.input("x", (256, 256)), fg.input("w", (256, 256))
    kernel = kernel_of(fg.tanh(fg.add_bias(fg.mul(*LAYOUTS[layout](x, w)), fg.input("b", (256,)))))
    found = report(lower_with(kernel, MIDDLE), capability)
    assert not found.spills
    assert found.shared_bytes == 2 * 64 * 16 * 4
    assert found.count(r"LDG\.E\.128") >= 5  # both tiles before and in the loop, the bias
    assert found.count(r"STG\.E\.128") >= 1
    assert found.count(r"LDS\.128") == 2 * MIDDLE.depth  # the sum is unrolled, one row of each tile a step
    assert found.count("LDS(?!.128)") == 0
    assert found.count("FFMA") >= 16 * MIDDLE.depth
    assert found.registers <= 128  # two blocks a multiprocessor at least


@pytest.mark.parametrize("capability", ARCHITECTURES, ids=str)
def test_the_small_tile_fetches_16_bytes_a_thread(capability: tuple[int, int]) -> None:
    found = report(lower(kernel_of(batch(784) @ fg.input("w", (784, 10))))[0], capability)
    assert not found.spills
    assert found.count(r"LDG\.E\.128") == 4  # both tiles, before and in the loop
    assert found.count("FFMA") >= SMALL.depth
    assert found.registers <= 64


@pytest.mark.parametrize("capability", ARCHITECTURES, ids=str)
def test_the_large_tile_fits_into_registers(capability: tuple[int, int]) -> None:
    x, w = fg.input("x", (4096, 4096)), fg.input("w", (4096, 4096))
    found = report(lower(kernel_of(x @ w))[0], capability)
    assert not found.spills
    assert found.registers <= 128
    assert found.count(r"LDS\.128") >= 16


@pytest.mark.parametrize("capability", ARCHITECTURES, ids=str)
def test_calls_in_one_launch_find_their_arguments_without_spills(capability: tuple[int, int]) -> None:
    x, w = fg.input("x", (256, 256)), fg.input("w", (256, 256))
    product = kernel_of(fg.tanh(fg.add_bias(x @ w, fg.input("b", (256,)))))
    update = kernel_of(w - 0.1 * fg.input("m", (256, 256)) / (fg.sqrt(fg.input("v", (256, 256))) + 1e-8))
    for loops in (lower_with(product, MIDDLE), lower(update)[0]):
        alone = report(loops, capability)
        pointers, sizes = (TOGETHER_SIGNATURE.count(kind) for kind in ("i64", "i32"))
        found = check(cuda_source(loops, together=True), loops.name, pointers, sizes, capability)
        assert not found.spills, loops.name
        assert found.registers <= 128  # two blocks of 256 threads a multiprocessor
        wide = r"(LDG|STG)\.E\.128"
        assert found.count(wide) == alone.count(wide)  # an address from a table is as aligned as a parameter


def registry_sources() -> dict[str, BlockLoops]:
    """Every distinct kernel of the registry's samples and their gradients, and of the demo network's step."""
    graphs = [Graph((applied(sample)[0],)) for sample in SAMPLES.values()]
    for sample in DIFFERENTIABLE.values():
        tensor, feeds = applied(sample)
        weights = random(*(int(s) for s in tensor.shape), seed=1).astype(tensor.dtype.numpy)  # type: ignore[arg-type]
        cost = sum_(multiply(tensor, constant(weights)))
        graphs.append(Graph((cost, *backward(cost, [list(feeds)[k] for k in sample.operands]))))
    optimised = map(optimise, graphs)
    kernels = [call.kernel for graph in optimised for call in make_plan(graph, build_kernels(graph)).calls]
    kernels += demo_kernels()
    found = {}
    for kernel in kernels:
        loops, _ = lower(kernel)
        found.setdefault(cuda_source(loops), loops)
    return found


def demo_kernels() -> list[Kernel]:
    x, y = batch(64), fg.input("y", ("batch",), dtype="int32")
    w1, b1 = fg.parameter("w1", (64, 32), init=fg.init.glorot_uniform()), fg.parameter("b1", (32,))
    w2, b2 = fg.parameter("w2", (32, 10), init=fg.init.glorot_uniform()), fg.parameter("b2", (10,))
    hidden = fg.tanh(fg.add_bias(x @ w1, b1))
    cost = fg.mean(fg.cross_ent_of_softmax(fg.add_bias(hidden @ w2, b2), y))
    parameters = [w1, b1, w2, b2]
    return kernels_of(
        cost, updates={p: p - 0.1 * g for p, g in zip(parameters, fg.grad(cost, parameters), strict=True)}
    )


@pytest.mark.parametrize("capability", ARCHITECTURES, ids=str)
def test_every_kernel_compiles_without_spills_or_stack(capability: tuple[int, int]) -> None:
    sources = registry_sources()
    assert len(sources) > 300
    bad = {}
    for source, loops in sources.items():
        found = report(loops, capability, sass=False)
        if "sin(" in source or "cos(" in source:
            continue  # libdevice takes arguments beyond 2**17 apart in 40 bytes of its own
        if found.spills or found.registers > 255:
            bad[loops.name] = (found.registers, found.stack, found.spill_stores, source)
    assert not bad
