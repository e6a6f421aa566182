"""Object files and this machine: its processor, what an object file asks for, loading one.

In: the bytes of a relocatable object file. Out: the address of its one entry. May not know numba (a warm
start must not import it), where object files are kept, or what the code in them does.
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass

import llvmlite.binding as llvm

from flowgraph.errors import FlowgraphError

# All that native code may ask of the process: nothing that allocates, takes a lock or knows Python.
MEMORY = frozenset({"memcpy", "memmove", "memset"})
MATHEMATICS = frozenset(
    f"{name}{kind}" for kind in ("", "f") for name in (
        "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil", "copysign", "cos", "cosh", "erf",
        "erfc", "exp", "exp2", "expm1", "fabs", "floor", "fma", "fmax", "fmin", "fmod", "frexp", "hypot", "ldexp",
        "lgamma", "log", "log10", "log1p", "log2", "nearbyint", "pow", "remainder", "rint", "round", "sin", "sinh",
        "sqrt", "tan", "tanh", "tgamma", "trunc"))
DRIVER = frozenset({"clock_gettime", "sched_yield", "syscall"})
ALLOWED = MEMORY | MATHEMATICS | DRIVER


class ObjectFileError(FlowgraphError):
    """An object file that must not be loaded; the message says why."""


@dataclass(frozen=True)
class Host:
    """The processor that code is compiled for; part of every key, since code for one may be illegal on
    another."""

    triple: str
    cpu: str
    features: str


@functools.cache
def host() -> Host:
    _initialize()
    return Host(llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())


@functools.cache
def _initialize() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


def target_machine() -> llvm.TargetMachine:
    """Code for exactly this processor that may be loaded anywhere: the large code model, because the memory
    manager promises neither that libc is within 2 GB nor that a kernel's constants are."""
    machine = host()
    return llvm.Target.from_triple(machine.triple).create_target_machine(
        cpu=machine.cpu, features=machine.features, opt=2, reloc="static", codemodel="large", jit=True)


def undefined_symbols(object_file: bytes) -> tuple[str, ...]:
    """The symbols that an ELF64 object expects the process to provide."""
    return tuple(sorted(name for name, section, _ in _symbols(object_file) if section == 0))


def defined_symbols(object_file: bytes) -> tuple[str, ...]:
    """The symbols that an ELF64 object offers to others."""
    return tuple(sorted(name for name, section, binding in _symbols(object_file) if section and binding))


def _symbols(object_file: bytes) -> list[tuple[str, int, int]]:
    """(name, section or 0 if undefined, binding or 0 if local)"""
    if object_file[:6] != b"\x7fELF\x02\x01":
        raise ObjectFileError("not a little-endian ELF64 object file")
    try:
        sections_at, = struct.unpack_from("<Q", object_file, 0x28)
        entry_size, count = struct.unpack_from("<HH", object_file, 0x3A)
        sections = [struct.unpack_from("<IIQQQQIIQQ", object_file, sections_at + k * entry_size)
                    for k in range(count)]
        found = []
        for _, kind, _, _, offset, size, link, _, _, entry in sections:
            if kind != 2:                                   # SHT_SYMTAB
                continue
            strings = sections[link][4]
            for at in range(offset + entry, offset + size, entry):       # the first symbol is always empty
                name, info, _, section = struct.unpack_from("<IBBH", object_file, at)
                if name:
                    start = strings + name
                    text = object_file[start:object_file.index(b"\0", start)].decode("ascii")
                    found.append((text, section, info >> 4))
    except (struct.error, IndexError, ValueError, OverflowError) as error:
        raise ObjectFileError(f"damaged ELF object file: {error}") from error
    return found


@functools.cache
def _own_machine() -> bytes:
    """The two bytes by which ELF files name the processor of this process."""
    with open("/proc/self/exe", "rb") as file:
        return file.read(20)[18:]


def check_kind(object_file: bytes, symbol: str) -> None:
    """Refuse what is not a relocatable object for this processor that offers `symbol` and nothing else."""
    defined = defined_symbols(object_file)
    if object_file[16:18] != b"\x01\x00":                   # ET_REL
        raise ObjectFileError("not a relocatable object file")
    if object_file[18:20] != _own_machine():
        raise ObjectFileError("an object file for another processor")
    if defined != (symbol,):
        raise ObjectFileError(f"the object defines {', '.join(defined) or 'nothing'}, not just {symbol}")


def check_symbols(object_file: bytes) -> None:
    """Refuse an object that asks for a symbol it may not have, or that the process does not have (LLVM's loader would
    abort the process instead of raising)."""
    for name in undefined_symbols(object_file):
        if name not in ALLOWED:
            raise ObjectFileError(f"the code refers to {name}: kernels may not allocate or call Python")
        if not llvm.address_of_symbol(name):
            raise ObjectFileError(f"the code refers to {name}, which this process does not have")


# Executable memory is never given back: an address may sit in a table, or a thread may rest in the code
# behind it.
_KEPT_FOR_LIFE: list[llvm.ExecutionEngine] = []


class Loader:
    """Puts objects into executable memory, where they stay for the life of the process."""

    def __init__(self) -> None:
        _initialize()
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target_machine())
        _KEPT_FOR_LIFE.append(self._engine)

    def load(self, object_file: bytes, symbol: str) -> int:
        """Put an object that passes the checks into memory; the address of `symbol`, native void(i64, i64, i64)."""
        check_kind(object_file, symbol)
        check_symbols(object_file)
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(object_file))
        self._engine.finalize_object()
        return int(self._engine.get_function_address(symbol))
