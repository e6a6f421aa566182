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

# Prefixes of symbols that a kernel may never ask for: numba's allocator and helpers, and Python itself.
FORBIDDEN = ("NRT_", "Py", "_Py", "numba_", "_ZN5numba")


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
    if object_file[:6] != b"\x7fELF\x02\x01":
        raise ObjectFileError("not a little-endian ELF64 object file")
    try:
        sections_at, = struct.unpack_from("<Q", object_file, 0x28)
        entry_size, count = struct.unpack_from("<HH", object_file, 0x3A)
        sections = [struct.unpack_from("<IIQQQQIIQQ", object_file, sections_at + k * entry_size)
                    for k in range(count)]
        names = []
        for _, kind, _, _, offset, size, link, _, _, entry in sections:
            if kind != 2:                                   # SHT_SYMTAB
                continue
            strings = sections[link][4]
            for at in range(offset + entry, offset + size, entry):       # the first symbol is always empty
                name, _, _, section = struct.unpack_from("<IBBH", object_file, at)
                if section == 0 and name:                   # SHN_UNDEF
                    start = strings + name
                    names.append(object_file[start:object_file.index(b"\0", start)].decode("ascii"))
    except (struct.error, IndexError, ValueError) as error:
        raise ObjectFileError(f"damaged ELF object file: {error}") from error
    return tuple(sorted(names))


def check_symbols(object_file: bytes) -> None:
    """Refuse an object that touches an allocator or Python, or that the process cannot satisfy (LLVM's
    loader would abort the process instead of raising)."""
    for name in undefined_symbols(object_file):
        if name.startswith(FORBIDDEN):
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
        """Put an object that passed `check_symbols` into memory; the address of `symbol`, native void(i64,
        i64, i64)."""
        check_symbols(object_file)
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(object_file))
        self._engine.finalize_object()
        address = self._engine.get_function_address(symbol)
        if not address:
            raise ObjectFileError(f"the object does not define {symbol}")
        return int(address)
