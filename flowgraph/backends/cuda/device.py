"""A CUDA device as this backend sees it: buffers by address, kernels by handle, launches, one recorded graph.

In: addresses, arrays, source text. Out: results in host arrays, or a `DeviceError` with the driver's own
words. The one module that loads CUDA's driver: through ctypes, whose interface has not changed in years, so
that no version of a Python binding can be the wrong one. May not know: graphs, schedules, what a kernel
computes.
"""

from __future__ import annotations

import ctypes
import itertools
import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Protocol

import numpy as np

from flowgraph.backends.cuda.compiler import Capability, KernelSource, compile_cubin, compile_ptx
from flowgraph.errors import DeviceError

Extent = tuple[int, int, int]


class CudaDevice(Protocol):
    """What the backend needs of a device; `RealDevice` and `emulator.EmulatedDevice` provide it.

    A launch passes the handle it got from the same device's `load`. All work is ordered as it was asked for;
    `to_host` waits for what came before. `capture` runs `run` to record its launches and returns a function
    that replays them with the same addresses and sizes; kernels must be loaded before, and `run` may only
    launch. `time` has each of `runs` launch its work and returns the seconds that each took on the device.
    """

    name: str
    capability: Capability
    multiprocessors: int

    def alloc(self, nbytes: int) -> int: ...
    def free(self, address: int) -> None: ...
    def to_device(self, address: int, array: np.ndarray[Any, Any]) -> None: ...
    def to_host(self, address: int, array: np.ndarray[Any, Any]) -> None: ...
    def load(self, source_text: str, entry: str, signature: Sequence[str]) -> Any: ...
    def launch(self, handle: Any, grid: Extent, block: Extent, args: Sequence[float]) -> None: ...
    def capture(self, run: Callable[[], None]) -> Callable[[], None]: ...
    def synchronize(self) -> None: ...
    def time(self, runs: Sequence[Callable[[], None]]) -> list[float]: ...
    def close(self) -> None: ...


_INT, _UINT, _POINTER, _U64, _SIZE = (
    ctypes.c_int,
    ctypes.c_uint,
    ctypes.c_void_p,
    ctypes.c_uint64,
    ctypes.c_size_t,
)
_FUNCTIONS: dict[str, tuple[Any, ...]] = {  # name in libcuda -> parameter types; each returns CUresult
    "cuInit": (_UINT,),
    "cuDeviceGetCount": (_POINTER,),
    "cuDeviceGet": (_POINTER, _INT),
    "cuDeviceGetName": (_POINTER, _INT, _INT),
    "cuDeviceGetAttribute": (_POINTER, _INT, _INT),
    "cuDevicePrimaryCtxRetain": (_POINTER, _INT),
    "cuDevicePrimaryCtxRelease_v2": (_INT,),
    "cuCtxSetCurrent": (_POINTER,),
    "cuMemAlloc_v2": (_POINTER, _SIZE),
    "cuMemFree_v2": (_U64,),
    "cuMemcpyHtoDAsync_v2": (_U64, _POINTER, _SIZE, _POINTER),
    "cuMemcpyDtoHAsync_v2": (_POINTER, _U64, _SIZE, _POINTER),
    "cuStreamCreate": (_POINTER, _UINT),
    "cuStreamDestroy_v2": (_POINTER,),
    "cuStreamSynchronize": (_POINTER,),
    "cuStreamBeginCapture_v2": (_POINTER, _INT),
    "cuStreamEndCapture": (_POINTER, _POINTER),
    "cuGraphInstantiateWithFlags": (_POINTER, _POINTER, _U64),
    "cuGraphLaunch": (_POINTER, _POINTER),
    "cuGraphDestroy": (_POINTER,),
    "cuGraphExecDestroy": (_POINTER,),
    "cuModuleLoadData": (_POINTER, ctypes.c_char_p),
    "cuModuleGetFunction": (_POINTER, _POINTER, ctypes.c_char_p),
    "cuModuleUnload": (_POINTER,),
    "cuFuncLoad": (_POINTER,),
    "cuEventCreate": (_POINTER, _UINT),
    "cuEventRecord": (_POINTER, _POINTER),
    "cuEventElapsedTime": (_POINTER, _POINTER, _POINTER),
    "cuEventDestroy_v2": (_POINTER,),
    "cuLaunchKernel": (_POINTER, *(_UINT,) * 7, _POINTER, _POINTER, _POINTER),
}
_MULTIPROCESSORS, _MAJOR, _MINOR = 16, 75, 76  # CU_DEVICE_ATTRIBUTE_…
_NON_BLOCKING, _RELAXED = 1, 2  # CU_STREAM_…, CU_STREAM_CAPTURE_MODE_…


class Driver:
    """libcuda: `driver(name, …)` calls a function and raises a `DeviceError` unless it succeeds."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self._functions: dict[str, Any] = {}
        for name, parameters in _FUNCTIONS.items():
            function = getattr(library, name, None)
            if function is not None:
                function.argtypes, function.restype = parameters, _INT
                self._functions[name] = function

    def has(self, name: str) -> bool:
        return name in self._functions

    def __call__(self, name: str, *args: Any) -> None:
        if name not in self._functions:
            raise DeviceError(f"the NVIDIA driver has no {name}", hint="update the driver")
        code = self._functions[name](*args)
        if code:
            raise DeviceError(f"{name} failed: {self._message(code)}")

    def out(self, name: str, kind: Any, *args: Any) -> Any:
        """Call a function whose first parameter is where the result goes."""
        result = kind()
        self(name, ctypes.byref(result), *args)
        return result.value

    def _message(self, code: int) -> str:
        text = ctypes.c_char_p()
        words = []
        for name in ("cuGetErrorName", "cuGetErrorString"):
            if getattr(self._library, name)(code, ctypes.byref(text)) == 0 and text.value:
                words.append(text.value.decode())
        return f"{': '.join(words) or 'unknown error'} ({code})"


@cache
def _driver() -> Driver:
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        library = ctypes.CDLL(name)
    except OSError as error:
        raise DeviceError(
            f"there is no NVIDIA driver here ({name} cannot be loaded: {error})",
            hint="install the NVIDIA driver, or use device='cpu'; `flowgraph doctor` tells more",
        ) from error
    driver = Driver(library)
    driver("cuInit", 0)
    return driver


def cuda_available() -> tuple[bool, str]:
    """Whether a CUDA device can be used, and the reason in words (of the failure, or which device)."""
    try:
        driver = _driver()
        if driver.out("cuDeviceGetCount", ctypes.c_int) == 0:
            return False, "the NVIDIA driver sees no device"
        name = _device_name(driver, 0)
    except DeviceError as error:
        return False, error.problem
    try:
        from flowgraph.codegen.cuda import word  # noqa: F401  (it imports numba-cuda, whose absence is the question)
    except ImportError as error:
        return False, f"numba-cuda cannot be imported: {error}"
    return True, name


def _device_name(driver: Driver, ordinal: int) -> str:
    text = ctypes.create_string_buffer(256)
    driver("cuDeviceGetName", text, len(text), driver.out("cuDeviceGet", ctypes.c_int, ordinal))
    return text.value.decode()


_PROBE = KernelSource(
    "def probe(p0, n0):\n    if n0 > 0:\n        store_f32(p0, n0, exp(load_f32(p0, n0)))\n",
    "probe",
    ("i64", "i32"),
)
_WORD: dict[str, Any] = {
    "i64": ctypes.c_int64,
    "i32": ctypes.c_int32,
    "f32": ctypes.c_float,
    "f64": ctypes.c_double,
    "bool": ctypes.c_bool,
}


class RealKernel:
    """A function in a loaded module, with the table its arguments are passed in."""

    def __init__(self, source: KernelSource, function: int) -> None:
        self.source, self.function = source, function
        self.words = [_WORD[name]() for name in source.signature]
        self.pointers = (ctypes.c_void_p * max(1, len(self.words)))(
            *(ctypes.addressof(w) for w in self.words)
        )


class RealDevice:
    """An NVIDIA GPU: its primary context (shared with other libraries) and one stream of our own."""

    def __init__(self, ordinal: int = 0, driver: Driver | None = None) -> None:
        self._driver = driver or _driver()
        count = self._driver.out("cuDeviceGetCount", ctypes.c_int)
        if not 0 <= ordinal < count:
            raise DeviceError(f"there is no CUDA device {ordinal}; the driver sees {count}")
        self._device = self._driver.out("cuDeviceGet", ctypes.c_int, ordinal)
        major, minor, self.multiprocessors = (
            self._driver.out("cuDeviceGetAttribute", ctypes.c_int, attribute, self._device)
            for attribute in (_MAJOR, _MINOR, _MULTIPROCESSORS)
        )
        self.capability: Capability = (major, minor)
        self._context = self._driver.out("cuDevicePrimaryCtxRetain", ctypes.c_void_p, self._device)
        self._enter()
        self._stream = self._driver.out("cuStreamCreate", ctypes.c_void_p, _NON_BLOCKING)
        self._modules: list[int] = []
        self._graphs: list[int] = []
        self._kernels: dict[KernelSource, RealKernel] = {}
        self._live: set[int] = set()
        self._capturing = False
        self._binary, route = self._choose_compiler()
        self.name = f"{_device_name(self._driver, ordinal)} (sm_{major}{minor}, {route})"

    def _enter(self) -> None:
        """Make the context current in this thread."""
        self._driver("cuCtxSetCurrent", self._context)

    def _choose_compiler(self) -> tuple[Callable[[KernelSource], tuple[bytes, str]], str]:
        """Cubins by nvJitLink, or PTX that the driver assembles where the packages cannot do that."""

        def cubin(source: KernelSource) -> tuple[bytes, str]:
            compiled = compile_cubin(source, self.capability)
            return compiled.code, compiled.symbol

        def ptx(source: KernelSource) -> tuple[bytes, str]:
            compiled = compile_ptx(source, self.capability)
            return compiled.text.encode() + b"\0", compiled.symbol

        failures = []
        for binary, route in ((cubin, "cubins by nvJitLink"), (ptx, "PTX by the driver")):
            try:
                self._function(*binary(_PROBE))
                return binary, route
            except (
                DeviceError,
                ImportError,
                AttributeError,
            ) as error:  # what another version of a package may raise
                failures.append(f"{route}: {error}")
        raise DeviceError(
            "this installation cannot compile CUDA kernels: " + "; ".join(failures),
            hint="pip install 'flowgraph[cuda]'",
        )

    def _function(self, image: bytes, symbol: str) -> int:
        module = self._driver.out("cuModuleLoadData", ctypes.c_void_p, image)
        self._modules.append(module)
        function: int = self._driver.out("cuModuleGetFunction", ctypes.c_void_p, module, symbol.encode())
        if self._driver.has("cuFuncLoad"):  # lazy loading inside a capture would break it
            self._driver("cuFuncLoad", function)
        return function

    def alloc(self, nbytes: int) -> int:
        self._enter()
        address: int = self._driver.out("cuMemAlloc_v2", ctypes.c_uint64, max(nbytes, 1))
        self._live.add(address)
        return address

    def free(self, address: int) -> None:
        if address not in self._live:
            raise DeviceError(f"{address:#x} is not the address of a live buffer")
        self._enter()
        self.synchronize()
        self._live.remove(address)
        self._driver("cuMemFree_v2", address)

    def _copy(self, function: str, array: np.ndarray[Any, Any], *args: Any) -> None:
        if not array.flags.c_contiguous:
            raise DeviceError("only C-contiguous arrays can be copied to or from the device")
        if self._capturing:
            raise DeviceError("cannot copy while launches are being recorded")
        if array.nbytes:
            self._enter()
            self._driver(function, *args, array.nbytes, self._stream)
            self._driver("cuStreamSynchronize", self._stream)

    def to_device(self, address: int, array: np.ndarray[Any, Any]) -> None:
        self._copy("cuMemcpyHtoDAsync_v2", array, address, array.ctypes.data)

    def to_host(self, address: int, array: np.ndarray[Any, Any]) -> None:
        self._copy("cuMemcpyDtoHAsync_v2", array, array.ctypes.data, address)

    def load(self, source_text: str, entry: str, signature: Sequence[str]) -> RealKernel:
        source = KernelSource(source_text, entry, tuple(signature))
        if source not in self._kernels:
            self._enter()
            self._kernels[source] = RealKernel(source, self._function(*self._binary(source)))
        return self._kernels[source]

    def launch(self, handle: RealKernel, grid: Extent, block: Extent, args: Sequence[float]) -> None:
        if len(args) != len(handle.words):
            raise DeviceError(
                f"kernel '{handle.source.entry}' takes {len(handle.words)} arguments, not {len(args)}"
            )
        for word, value in zip(handle.words, args, strict=True):
            word.value = value
        self._enter()
        self._driver("cuLaunchKernel", handle.function, *grid, *block, 0, self._stream, handle.pointers, None)

    def capture(self, run: Callable[[], None]) -> Callable[[], None]:
        self._enter()
        self._driver("cuStreamBeginCapture_v2", self._stream, _RELAXED)
        self._capturing, recorded = True, ctypes.c_void_p()
        try:
            run()
        finally:
            self._capturing = False
            self._driver("cuStreamEndCapture", self._stream, ctypes.byref(recorded))
        graph = recorded.value
        executable = self._driver.out("cuGraphInstantiateWithFlags", ctypes.c_void_p, graph, 0)
        self._driver("cuGraphDestroy", graph)
        self._graphs.append(executable)

        def replay() -> None:
            self._enter()
            self._driver("cuGraphLaunch", executable, self._stream)

        return replay

    def synchronize(self) -> None:
        self._enter()
        self._driver("cuStreamSynchronize", self._stream)

    def time(self, runs: Sequence[Callable[[], None]]) -> list[float]:
        """Between events before and after each: a launch that waits for the host to ask for it counts the wait."""
        self._enter()
        events: list[int] = []
        try:
            for run in (None, *runs):
                if run is not None:
                    run()
                events.append(self._driver.out("cuEventCreate", ctypes.c_void_p, 0))
                self._driver("cuEventRecord", events[-1], self._stream)
            self.synchronize()
            pairs = itertools.pairwise(events)
            return [1e-3 * self._driver.out("cuEventElapsedTime", ctypes.c_float, a, b) for a, b in pairs]
        finally:
            for event in events:
                self._driver("cuEventDestroy_v2", event)

    def close(self) -> None:
        """Give everything back; the device is of no use afterwards."""
        self.synchronize()
        for function, handles in (
            ("cuGraphExecDestroy", self._graphs),
            ("cuMemFree_v2", list(self._live)),
            ("cuModuleUnload", self._modules),
            ("cuStreamDestroy_v2", [self._stream]),
        ):
            for handle in handles:
                self._driver(function, handle)
        self._live.clear()
        self._kernels.clear()
        self._driver("cuDevicePrimaryCtxRelease_v2", self._device)
