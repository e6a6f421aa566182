"""The emulated device runs a kernel as a GPU would, and refuses what a GPU would get silently wrong."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowgraph.backends.cuda import compiler
from flowgraph.backends.cuda.compiler import KernelSource, compile_cubin, compile_ptx
from flowgraph.backends.cuda.device import Driver, RealDevice, cuda_available
from flowgraph.backends.cuda.emulator import EmulatedDevice
from flowgraph.backends.cuda.emulator_memory import GuardedMemory
from flowgraph.backends.cuda.offline import check
from flowgraph.errors import DeviceError

COPY = """
def copy(p, q, n):
    i = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    if i < n:
        store_f32(q, i, load_f32(p, i))
"""

ROW_SUM = """
def row_sum(p, q, n):
    partial = cuda.shared.array(128, float32)
    t = cuda.threadIdx.x
    total = to_f32(0.0)
    i = t
    while i < n:
        total += load_f32(p, cuda.blockIdx.x * n + i)
        i += cuda.blockDim.x
    partial[t] = total
    cuda.syncthreads()
    half = cuda.blockDim.x // 2
    while half >= 32:
        if t < half:
            partial[t] += partial[t + half]
        cuda.syncthreads()
        half = half // 2
    if t < 32:
        total = warp_sum(partial[t])
        if t == 0:
            store_f32(q, cuda.blockIdx.x, total)
"""


def device(**options: Any) -> EmulatedDevice:
    return EmulatedDevice(memory=1 << 24, **options)


def put(on: EmulatedDevice, array: np.ndarray) -> int:
    address = on.alloc(array.nbytes)
    on.to_device(address, array)
    return address


def get(on: EmulatedDevice, address: int, shape: Any, dtype: Any = np.float32) -> np.ndarray:
    out = np.empty(shape, dtype)
    on.to_host(address, out)
    return out


def launch(on: EmulatedDevice, source: str, grid: int, block: int, *args: int, pointers: int = 2) -> None:
    """Launch the only kernel of a source; the arguments after the first `pointers` are sizes."""
    entry = source.split("def ")[1].split("(")[0]
    signature = ("i64",) * pointers + ("i32",) * (len(args) - pointers)
    on.launch(on.load(source, entry, signature), (grid, 1, 1), (block, 1, 1), args)


# ---- what runs


def test_every_thread_of_a_grid_in_three_dimensions_sees_its_place() -> None:
    source = """
def places(p, n):
    x = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    y = cuda.blockIdx.y * cuda.blockDim.y + cuda.threadIdx.y
    z = cuda.blockIdx.z * cuda.blockDim.z + cuda.threadIdx.z
    width = cuda.gridDim.x * cuda.blockDim.x
    height = cuda.gridDim.y * cuda.blockDim.y
    store_i32(p, (z * height + y) * width + x, x + 100 * y + 10000 * z)
"""
    on, grid, block = device(), (2, 3, 4), (4, 3, 2)
    x, y, z = (g * b for g, b in zip(grid, block, strict=True))
    out = on.alloc(4 * x * y * z)
    on.launch(on.load(source, "places", ("i64", "i32")), grid, block, (out, 0))
    zs, ys, xs = np.meshgrid(np.arange(z), np.arange(y), np.arange(x), indexing="ij")
    np.testing.assert_array_equal(get(on, out, (z, y, x), np.int32), xs + 100 * ys + 10000 * zs)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("n", [1, 100, 1000])
def test_barriers_shared_memory_and_shuffles_reduce_rows(n: int, reverse: bool) -> None:
    on = device(reverse=reverse)
    x = np.random.default_rng(0).normal(size=(7, n)).astype(np.float32)
    p, q = put(on, x), on.alloc(28)
    launch(on, ROW_SUM, 7, 128, p, q, n)
    np.testing.assert_allclose(get(on, q, 7), x.sum(1, dtype=np.float64), rtol=1e-5, atol=1e-5)


def test_the_order_of_threads_does_not_change_the_bits() -> None:
    x = np.random.default_rng(0).normal(size=(7, 1000)).astype(np.float32)
    results = []
    for reverse in (False, True):
        on = device(reverse=reverse)
        p, q = put(on, x), on.alloc(28)
        launch(on, ROW_SUM, 7, 128, p, q, 1000)
        results.append(get(on, q, 7).tobytes())
    assert results[0] == results[1]


def test_values_of_every_dtype_live_across_a_barrier() -> None:
    source = """
def keep(p, q, n):
    t = cuda.threadIdx.x
    a = load_f64(p, t)
    b = to_i64(t) * to_i64(3000000000)
    c = a > to_f64(2.0)
    cuda.syncthreads()
    store_f64(q, t, select(c, a, to_f64(b)))
"""
    on, x = device(), np.arange(64, dtype=np.float64)
    p, q = put(on, x), on.alloc(x.nbytes)
    launch(on, source, 1, 64, p, q, 0)
    np.testing.assert_array_equal(get(on, q, 64, np.float64), np.where(x > 2, x, x * 3e9))


def test_a_tiled_product_agrees_with_numpy() -> None:
    source = """
def product(a, b, c, m, n, k):
    left = cuda.shared.array(256, float32)
    right = cuda.shared.array(256, float32)
    x = cuda.threadIdx.x
    y = cuda.threadIdx.y
    column = cuda.blockIdx.x * 16 + x
    row = cuda.blockIdx.y * 16 + y
    total = to_f32(0.0)
    for start in range(0, k, 16):
        inside = (row < m) & (start + x < k)
        left[y * 16 + x] = load_f32(a, row * k + start + x) if inside else to_f32(0.0)
        inside = (start + y < k) & (column < n)
        right[y * 16 + x] = load_f32(b, (start + y) * n + column) if inside else to_f32(0.0)
        cuda.syncthreads()
        for j in range(16):
            total = fma(left[y * 16 + j], right[j * 16 + x], total)
        cuda.syncthreads()
    if (row < m) & (column < n):
        store_f32(c, row * n + column, total)
"""
    on, rng = device(), np.random.default_rng(1)
    a, b = rng.normal(size=(37, 50)).astype(np.float32), rng.normal(size=(50, 29)).astype(np.float32)
    addresses = put(on, a), put(on, b), on.alloc(4 * 37 * 29)
    kernel = on.load(source, "product", ("i64",) * 3 + ("i32",) * 3)
    on.launch(kernel, (2, 3, 1), (16, 16, 1), (*addresses, 37, 29, 50))
    np.testing.assert_allclose(get(on, addresses[2], (37, 29)), a @ b, rtol=1e-4, atol=1e-4)


def test_arguments_may_be_numbers_of_any_dtype() -> None:
    source = """
def fill(p, a, b, c, d):
    if d:
        store_f64(p, 0, to_f64(a) + b + to_f64(c))
"""
    on = device()
    p = on.alloc(8)
    kernel = on.load(source, "fill", ("i64", "f32", "f64", "i32", "bool"))
    on.launch(kernel, (1, 1, 1), (1, 1, 1), (p, 0.5, 0.25, -3, True))
    assert get(on, p, 1, np.float64)[0] == -2.25


def test_a_captured_run_can_be_replayed() -> None:
    on, x = device(), np.arange(10, dtype=np.float32)
    p, q = put(on, x), on.alloc(40)
    replay = on.capture(lambda: launch(on, COPY, 1, 32, p, q, 10))
    on.to_device(p, x + 1)
    replay()
    np.testing.assert_array_equal(get(on, q, 10), x + 1)


# ---- what is refused


def message_of(on: EmulatedDevice, source: str, grid: int, block: int, *args: int, pointers: int = 2) -> str:
    with pytest.raises(DeviceError) as caught:
        launch(on, source, grid, block, *args, pointers=pointers)
    return str(caught.value)


def test_a_load_outside_a_buffer_names_thread_buffer_and_line() -> None:
    on = device()
    p, q = on.alloc(40), on.alloc(400)
    told = message_of(on, COPY, 2, 8, p, q, 12)
    assert "2 accesses to memory are wrong; the first is outside its buffers" in told
    assert "thread (2, 0, 0) of block (1, 0, 0) at byte 40 of a buffer of 40 bytes" in told
    assert "line 5: store_f32(q, i, load_f32(p, i))" in told


def test_a_store_outside_a_buffer_is_refused_and_changes_nothing() -> None:
    on = device()
    p, q, r = put(on, np.ones(100, np.float32)), on.alloc(40), put(on, np.zeros(100, np.float32))
    assert "byte 40 of a buffer of 40 bytes" in message_of(on, COPY, 1, 128, p, q, 100)
    assert not get(on, r, 100).any()


def test_a_wide_load_that_half_leaves_its_buffer_is_refused() -> None:
    on = device()
    source = "def wide(p, q, n):\n    a, b, c, d = load4_f32(p, n)\n    store_f32(q, 0, a + b + c + d)\n"
    p, q = on.alloc(24), on.alloc(4)
    assert "byte 16 of a buffer of 24 bytes" in message_of(on, source, 1, 1, p, q, 4)


def test_a_wide_access_that_is_not_aligned_is_refused() -> None:
    on = device()
    source = "def wide(p, q, n):\n    a, b, c, d = load4_f32(p, n)\n    store4_f32(q, n, a, b, c, d)\n"
    p, q = on.alloc(64), on.alloc(64)
    told = message_of(on, source, 1, 1, p, q, 2)
    assert "2 accesses to memory are wrong; the first is not aligned to 16 bytes" in told
    launch(on, source, 1, 1, p, q, 4)


def test_a_freed_buffer_and_address_zero_are_refused() -> None:
    on = device()
    p, q = on.alloc(40), on.alloc(40)
    on.free(p)
    assert "is outside its buffers" in message_of(on, COPY, 1, 8, p, q, 8)
    assert "is outside its buffers" in message_of(on, COPY, 1, 8, 0, q, 8)


def test_a_fresh_buffer_reads_as_nan() -> None:
    on = device()
    assert np.isnan(get(on, on.alloc(40), 10)).all()


def test_a_barrier_that_only_some_threads_reach_is_refused() -> None:
    source = "def some(p, n):\n    if cuda.threadIdx.x < n:\n        cuda.syncthreads()\n"
    for n in (5, 32):
        told = message_of(device(), source, 1, 64, 0, n, pointers=1)
        assert "diverge" in told and "thread 0 is at line 3: cuda.syncthreads()" in told
        assert f"thread {n} has returned" in told


def test_threads_at_two_different_barriers_are_refused() -> None:
    source = """
def two(p, n):
    if cuda.threadIdx.x < n:
        cuda.syncthreads()
    else:
        cuda.syncthreads()
"""
    told = message_of(device(), source, 1, 64, 0, 32, pointers=1)
    assert "thread 0 is at line 4" in told and "thread 32 is at line 6" in told


def test_a_shuffle_in_a_warp_that_is_not_full_is_refused() -> None:
    source = "def short(p, n):\n    store_f32(p, cuda.threadIdx.x, warp_sum(to_f32(1.0)))\n"
    on = device()
    assert "diverge" in message_of(on, source, 1, 40, on.alloc(160), 0, pointers=1)


def test_a_write_outside_a_shared_array_is_refused() -> None:
    source = "def spill(p, n):\n    s = cuda.shared.array(32, float32)\n    s[n] = to_f32(1.0)\n"
    for index in (32, 40):
        assert "outside a shared array" in message_of(device(), source, 1, 1, 0, index, pointers=1)
    launch(device(), source, 1, 1, 0, 31, pointers=1)


@pytest.mark.parametrize(("index", "thread"), [(8, 0), (-1, 0), (5, 3)])
def test_an_access_outside_a_shared_array_by_address_names_thread_and_line(index: int, thread: int) -> None:
    source = """
def over(p, n):
    a = shared_f32(8)
    b = shared_f32(8)
    shared_store_f32(a, cuda.threadIdx.x + n, to_f32(1.0))
    shared_store_f32(b, cuda.threadIdx.x, to_f32(2.0))
"""
    told = message_of(device(), source, 1, 4, 0, index, pointers=1)
    assert (
        f"{4 if index == 8 else 1} accesses to memory are wrong; the first is outside its shared arrays"
        in told
    )
    assert f"thread ({thread}, 0, 0)" in told and "line 5: shared_store_f32(a" in told
    launch(device(), source, 1, 4, 0, 4, pointers=1)


def test_a_forgotten_barrier_shows_as_nan_in_one_of_the_two_orders() -> None:
    source = """
def neighbour(p, n):
    s = cuda.shared.array(64, float32)
    t = cuda.threadIdx.x
    s[t] = to_f32(1.0)
    store_f32(p, t, s[(t + n) % 64])
"""
    wrong = []
    for reverse in (False, True):
        on = device(reverse=reverse)
        p = on.alloc(256)
        launch(on, source, 1, 64, p, 63, pointers=1)
        wrong.append(int(np.isnan(get(on, p, 64)).sum()))
    assert wrong == [1, 63]


def test_shared_memory_does_not_outlive_a_block() -> None:
    source = """
def inherit(p, n):
    s = cuda.shared.array(1, float32)
    if cuda.blockIdx.x == 0:
        s[0] = to_f32(7.0)
    store_f32(p, cuda.blockIdx.x, s[0])
"""
    on = device()
    p = on.alloc(8)
    launch(on, source, 2, 1, p, 0, pointers=1)
    np.testing.assert_array_equal(get(on, p, 2), [7, np.nan])


@pytest.mark.parametrize(
    ("grid", "block"), [((1, 1, 1), (1025, 1, 1)), ((0, 1, 1), (1, 1, 1)), ((1, 65536, 1), (1, 1, 1))]
)
def test_a_launch_outside_cudas_limits_is_refused(grid: Any, block: Any) -> None:
    on = device()
    kernel = on.load(COPY, "copy", ("i64", "i64", "i32"))
    with pytest.raises(DeviceError, match="limits"):
        on.launch(kernel, grid, block, (0, 0, 0))


def test_what_the_emulator_does_not_know_is_an_error_not_a_guess() -> None:
    source = "def ask(p, n):\n    cuda.threadfence()\n"
    with pytest.raises(DeviceError, match="does not know"):
        device().load(source, "ask", ("i64", "i32"))


def test_a_kernel_that_does_not_compile_says_which() -> None:
    with pytest.raises(DeviceError, match="kernel 'broken'"):
        device().load("def broken(p, n):\n    store_f32(p, 0, unknown)\n", "broken", ("i64", "i32"))


def test_wrong_arguments_and_copies_are_refused() -> None:
    on = device()
    p = on.alloc(16)
    with pytest.raises(DeviceError, match="takes 3 arguments"):
        on.launch(on.load(COPY, "copy", ("i64", "i64", "i32")), (1, 1, 1), (1, 1, 1), (p, p))
    with pytest.raises(DeviceError, match="byte 0 of a buffer of 16 bytes"):
        on.to_device(p, np.zeros(5, np.float32))
    with pytest.raises(DeviceError, match="contiguous"):
        on.to_device(p, np.zeros((2, 2), np.float32).T)


# ---- memory


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5000)), max_size=60))
def test_live_buffers_never_touch_and_freed_room_comes_back(steps: list[tuple[bool, int]]) -> None:
    memory = GuardedMemory(1 << 20)
    live: list[tuple[int, int]] = []
    for allocate, number in steps:
        if allocate or not live:
            address = memory.alloc(number)
            assert address % 256 == 0
            assert all(
                address + number + 255 <= other or other + size + 255 <= address for other, size in live
            )
            live.append((address, number))
        else:
            memory.free(live.pop(number % len(live))[0])
    for address, _ in live:
        memory.free(address)
    assert memory.alloc((1 << 20) - 512) == memory.base


def test_more_than_there_is_is_refused() -> None:
    with pytest.raises(DeviceError, match="cannot hold"):
        GuardedMemory(1 << 12).alloc(1 << 12)
    with pytest.raises(DeviceError, match="live buffer"):
        GuardedMemory(1 << 12).free(0)


# ---- compiling for a real device

COPY_SOURCE = KernelSource(COPY, "copy", ("i64", "i64", "i32"))


def test_a_cubin_is_kept_and_a_damaged_one_is_compiled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = compile_cubin(COPY_SOURCE, (9, 0), tmp_path)
    assert [p.suffix for p in sorted(tmp_path.iterdir())] == [".cubin", ".py"]
    assert next(tmp_path.glob("*.py")).read_text() == COPY
    calls: list[KernelSource] = []
    link = compiler.link_cubin
    monkeypatch.setattr(
        compiler, "link_cubin", lambda source, machine: calls.append(source) or link(source, machine)
    )
    assert compile_cubin(COPY_SOURCE, (9, 0), tmp_path) == first
    assert not calls
    next(tmp_path.glob("*.cubin")).write_bytes(b"damaged")
    assert compile_cubin(COPY_SOURCE, (9, 0), tmp_path).code[:4] == b"\x7fELF"
    assert calls == [COPY_SOURCE]


def test_ptx_by_numbas_public_interface_has_the_kernel_as_its_entry() -> None:
    ptx = compile_ptx(COPY_SOURCE, (8, 0))
    assert f".visible .entry {ptx.symbol}(" in ptx.text and ".target sm_80" in ptx.text


@pytest.mark.parametrize("machine", [(8, 0), (9, 0)])
def test_the_report_sees_shared_memory_and_local_memory(machine: tuple[int, int]) -> None:
    report = check(ROW_SUM, "row_sum", 2, 1, machine)
    assert report.shared_bytes == 512
    assert not report.spills
    indexed = """
def indexed(p, n):
    local = cuda.local.array(64, float32)
    for i in range(64):
        local[load_i32(p, i) & 63] = to_f32(i)
    store_f32(p, 0, local[n])
"""
    report = check(indexed, "indexed", 1, 1, machine)
    assert report.stack == 256 and report.spills


class RecordingDriver:
    """libcuda as far as RealDevice uses it: hands out numbers, writes down what it was asked."""

    def __init__(self, refuses: str = "") -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.refuses, self.next = refuses, 1000

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cu"):
            raise AttributeError(name)

        def function(*args: Any) -> int:
            self.calls.append((name, args))
            if name == self.refuses:
                return 700
            if name.startswith("cuGetError"):
                args[1]._obj.value = b"CUDA_ERROR_ILLEGAL_ADDRESS"
            elif name == "cuDeviceGetCount":
                args[0]._obj.value = 1
            elif name == "cuDeviceGetName":
                args[0].value = b"Recorder"
            elif name == "cuDeviceGetAttribute":
                args[0]._obj.value = {16: 132, 75: 9, 76: 0}[args[1]]
            elif name == "cuStreamEndCapture":
                args[1]._obj.value = 77
            elif args and hasattr(args[0], "_obj"):
                self.next += 1
                args[0]._obj.value = self.next
            return 0

        setattr(self, name, function)
        return function

    def named(self, name: str) -> list[tuple[Any, ...]]:
        return [args for called, args in self.calls if called == name]


@pytest.fixture
def recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RecordingDriver:
    monkeypatch.setenv("FLOWGRAPH_CACHE", str(tmp_path))
    return RecordingDriver()


def test_the_real_device_passes_what_the_driver_expects(recorder: RecordingDriver) -> None:
    on = RealDevice(driver=Driver(recorder))
    assert on.name == "Recorder (sm_90, cubins by nvJitLink)" and on.multiprocessors == 132
    p, q = on.alloc(40), on.alloc(40)
    on.to_device(p, np.zeros(10, np.float32))
    kernel = on.load(COPY, "copy", ("i64", "i64", "i32"))
    assert on.load(COPY, "copy", ("i64", "i64", "i32")) is kernel
    replay = on.capture(lambda: on.launch(kernel, (2, 1, 1), (8, 1, 1), (p, q, -10)))
    replay()
    function, *extents, shared, _, parameters, _ = recorder.named("cuLaunchKernel")[0]
    assert (function, extents, shared) == (kernel.function, [2, 1, 1, 8, 1, 1], 0)
    assert ctypes.cast(parameters[1], ctypes.POINTER(ctypes.c_int64))[0] == q
    assert ctypes.cast(parameters[2], ctypes.POINTER(ctypes.c_int32))[0] == -10
    assert recorder.named("cuGraphInstantiateWithFlags")[0][1] == 77
    assert len(recorder.named("cuGraphLaunch")) == 1
    on.close()
    assert sorted(args[0] for args in recorder.named("cuMemFree_v2")) == sorted((p, q))


def test_the_real_device_refuses_a_copy_while_it_records_and_ends_the_recording(
    recorder: RecordingDriver,
) -> None:
    on = RealDevice(driver=Driver(recorder))
    p = on.alloc(40)
    with pytest.raises(DeviceError, match="recorded"):
        on.capture(lambda: on.to_device(p, np.zeros(10, np.float32)))
    assert len(recorder.named("cuStreamEndCapture")) == 1


def test_the_real_device_falls_back_to_ptx_and_says_so(
    recorder: RecordingDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unable(*_: Any) -> None:
        raise ImportError("cannot import name 'Linker' from 'cuda.core'")

    monkeypatch.setattr("flowgraph.backends.cuda.device.compile_cubin", unable)
    on = RealDevice(driver=Driver(recorder))
    assert on.name == "Recorder (sm_90, PTX by the driver)"
    assert b".entry" in recorder.named("cuModuleLoadData")[0][1]


def test_a_driver_error_is_told_in_the_drivers_words(recorder: RecordingDriver) -> None:
    on = RealDevice(driver=Driver(recorder))
    recorder.refuses = "cuStreamSynchronize"
    with pytest.raises(DeviceError, match=r"cuStreamSynchronize failed: CUDA_ERROR_ILLEGAL_ADDRESS.*\(700\)"):
        on.synchronize()


def test_without_a_driver_the_reason_is_said() -> None:
    available, reason = cuda_available()
    if available:
        pytest.skip(f"there is a device: {reason}")
    assert "driver" in reason


def test_the_real_device_times_launches_between_events_and_gives_them_back(recorder: RecordingDriver) -> None:
    on = RealDevice(driver=Driver(recorder))
    kernel = on.load(COPY, "copy", ("i64", "i64", "i32"))
    before = len(recorder.calls)
    times = on.time([lambda: on.launch(kernel, (1, 1, 1), (8, 1, 1), (0, 0, -8))] * 2)
    called = [name for name, _ in recorder.calls[before:]]
    steps = [name for name in called if name in ("cuEventRecord", "cuLaunchKernel", "cuStreamSynchronize")]
    assert steps == [*["cuEventRecord", "cuLaunchKernel"] * 2, "cuEventRecord", "cuStreamSynchronize"]
    events = [args[0] for args in recorder.named("cuEventRecord")]
    assert len(times) == 2 and [args[1:] for args in recorder.named("cuEventElapsedTime")] == [
        (events[0], events[1]),
        (events[1], events[2]),
    ]
    assert [args[0] for args in recorder.named("cuEventDestroy_v2")] == events
