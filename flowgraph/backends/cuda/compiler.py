"""Source text of a generated kernel -> LLVM IR (for the emulator), PTX, or a cubin that is kept on disk.

In: source text in the words of `codegen.cuda_prelude`, the kernel's name, its signature ("i64" for an
address, "i32" for a size, …), a compute capability. Out: text or bytes plus the symbol to launch. Needs no
GPU and no driver. May not know: devices, schedules, what the kernel computes.
"""

from __future__ import annotations

import hashlib
import linecache
import re
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from types import FunctionType
from typing import Any

from flowgraph.backends import kept
from flowgraph.backends.kept import DamagedEntryError, KeptFiles
from flowgraph.errors import DeviceError

Capability = tuple[int, int]


@dataclass(frozen=True)
class KernelSource:
    """A kernel as text: what is compiled, and with its digest what it is filed under."""

    text: str
    entry: str
    signature: tuple[str, ...]  # dtype names, in the order of the parameters

    @property
    def digest(self) -> str:
        return hashlib.sha256("\0".join((self.text, self.entry, *self.signature)).encode()).hexdigest()


@dataclass(frozen=True)
class KernelIR:
    """LLVM IR in NVVM's dialect, and the symbol of the kernel in it."""

    text: str
    symbol: str


@dataclass(frozen=True)
class Cubin:
    """Machine code for one compute capability; `log` is ptxas's account of registers, stack and spills."""

    code: bytes
    symbol: str
    log: str


def _function(source: KernelSource) -> FunctionType:
    """The kernel as a Python function whose lines numba's messages can show."""
    from flowgraph.codegen.cuda_prelude import namespace

    filename = f"<flowgraph cuda kernel {source.entry} {source.digest[:12]}>"
    linecache.cache[filename] = (len(source.text), None, source.text.splitlines(keepends=True), filename)
    names: dict[str, Any] = {**namespace(), "__name__": "flowgraph_kernel"}
    exec(compile(source.text, filename, "exec"), names)
    function: FunctionType = names[source.entry]
    return function


def _argument_types(source: KernelSource) -> list[Any]:
    from flowgraph.codegen.cuda.word import DTYPES

    return [DTYPES[name] for name in source.signature]


def _library(source: KernelSource, capability: Capability, lines: bool = False) -> tuple[Any, str]:
    """The front end only: typed and lowered to LLVM IR, nothing handed to NVVM yet."""
    from flowgraph.codegen.cuda.target import lower

    try:
        return lower(_function(source), _argument_types(source), capability, lines)
    except Exception as error:
        raise DeviceError(f"kernel '{source.entry}' does not compile for CUDA: {error}") from error


@lru_cache(maxsize=512)
def kernel_ir(source: KernelSource, capability: Capability = (9, 0), lines: bool = False) -> KernelIR:
    """The kernel's LLVM IR; with `lines`, instructions carry the line of the source they came from."""
    library, symbol = _library(source, capability, lines)
    if len(library.llvm_strs) != 1:
        raise DeviceError(
            f"kernel '{source.entry}' calls device functions; generated kernels use the prelude only"
        )
    return KernelIR(library.llvm_strs[0], symbol)


def compile_ptx(source: KernelSource, capability: Capability) -> KernelIR:
    """PTX through numba's public interface alone: where `codegen.cuda.target` does not fit the numba-cuda."""
    from numba import cuda

    from flowgraph.codegen.cuda.word import types

    try:
        signature = types.void(*_argument_types(source))
        text, _ = cuda.compile_ptx(_function(source), signature, device=False, cc=capability)
    except Exception as error:
        raise DeviceError(f"kernel '{source.entry}' does not compile to PTX: {error}") from error
    symbol = re.search(r"\.entry\s+([\w$]+)", text)
    if symbol is None:
        raise DeviceError(f"numba-cuda's PTX for kernel '{source.entry}' has no entry")
    return KernelIR(text, symbol[1])


LINK_OPTIONS = ("-lto", "-fma=0", "-Xptxas=-v")


def link_cubin(source: KernelSource, capability: Capability) -> Cubin:
    """Machine code by libNVVM and nvJitLink, optimised at link time; IEEE division.

    No contraction to FMA: what fusion computes in two places must come out the same (is x its own row's
    maximum?), and a sum of products that wants FMA says so.
    """
    from cuda.bindings import nvjitlink

    library, symbol = _library(source, capability)
    options = ["-arch=sm_{}{}".format(*capability), *LINK_OPTIONS]
    try:
        image = bytes(library.get_ltoir(cc=capability))
        linker = nvjitlink.create(len(options), options)
        try:
            kind = nvjitlink.InputType.LTOIR
            nvjitlink.add_data(linker, kind, image, len(image), source.entry)
            nvjitlink.complete(linker)
            code = bytearray(nvjitlink.get_linked_cubin_size(linker))
            nvjitlink.get_linked_cubin(linker, code)
            log = bytearray(nvjitlink.get_info_log_size(linker))
            nvjitlink.get_info_log(linker, log)
        finally:
            nvjitlink.destroy(linker)
    except Exception as error:
        raise DeviceError(
            f"kernel '{source.entry}' does not link for sm_{capability[0]}{capability[1]}: {error}",
            hint="the CUDA compiler packages must be of one version; see `flowgraph doctor`",
        ) from error
    return Cubin(bytes(code), symbol, bytes(log).decode())


# ---- the store


@cache
def _versions() -> str:
    """Everything besides the source that decides what a cubin is."""
    from importlib import metadata

    from flowgraph.codegen.cuda_prelude import PRELUDE_VERSION

    def version(package: str) -> str:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return "absent"

    names = ("numba-cuda", "cuda-bindings", "nvidia-nvvm", "nvidia-cuda-nvcc", "nvidia-nvjitlink", "llvmlite")
    versions = [f"{name}={version(name)}" for name in names]
    return ";".join([*versions, *LINK_OPTIONS, f"prelude={PRELUDE_VERSION}"])


def default_folder() -> Path:
    """cuda/ in the folder of kept kernels."""
    return kept.default_folder() / "cuda"


@lru_cache(maxsize=8)
def kept_cubins(folder: Path) -> KeptFiles:
    """The cubins in a folder."""
    return KeptFiles(folder, ".cubin")


def compile_cubin(source: KernelSource, capability: Capability, folder: Path | None = None) -> Cubin:
    """The kernel's cubin: the kept one if it is what was written, else compiled and kept.

    Two files a kernel, named by the digest of source, versions and capability: `.py` to read, and `.cubin`.
    """
    store = kept_cubins(folder or default_folder())
    key = hashlib.sha256(f"{source.digest};{_versions()};sm_{capability}".encode()).hexdigest()[:32]
    try:
        found = store.read(key)
    except DamagedEntryError:
        found = None
    if found is not None:
        code, about = found
        return Cubin(code, about["symbol"], about["log"])
    cubin = link_cubin(source, capability)
    store.write_text(key, source.text)
    store.write(key, cubin.code, {"symbol": cubin.symbol, "log": cubin.log})
    return cubin


def address_and_size_signature(n_pointers: int, n_sizes: int) -> tuple[str, ...]:
    """The kernel ABI: buffer addresses first, then sizes."""
    return ("i64",) * n_pointers + ("i32",) * n_sizes
