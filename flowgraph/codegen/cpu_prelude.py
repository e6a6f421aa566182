"""The names that generated CPU source is written in.

Comes in: the text of a kernel. Goes out: the namespace to run that text in. numba is imported only when a
namespace is asked for: a program whose kernels are all kept needs only PRELUDE_VERSION. May not know any
kernel.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_NAMED = (_HERE / f"{name}.py" for name in ("cpu_prelude", "vector_math", "philox"))
_FILES = (*_NAMED, *sorted((_HERE / "cpu").glob("*.py")))

PRELUDE_VERSION = hashlib.sha256(b"\0".join(file.read_bytes() for file in _FILES)).hexdigest()
"""Changes with any file of the prelude; part of the key of a kept kernel."""

_PLACES = re.compile(r"\bplaces_([1-9])x([1-9]\d?)\b")
_PIECES = re.compile(r"\bpieces_([1-9]\d?)\b")
_TILE = re.compile(r"\btile_(?:(head|block|along|at)_)?(f32|f64)_([1-9]\d?)x([1-9])\b")


@cache
def _fixed_names() -> dict[str, object]:
    from flowgraph.codegen.cpu import memory, packing, seen, stack, vector

    return {**vector.FUNCTIONS, **memory.FUNCTIONS, **stack.FUNCTIONS, **packing.FUNCTIONS, **seen.FUNCTIONS}


@cache
def _places(tables: int, axes: int) -> object:
    from flowgraph.codegen.cpu.places import places

    return places(tables, axes)


@cache
def _pieces(axes: int) -> object:
    from flowgraph.codegen.cpu.places import pieces

    return pieces(axes)


@cache
def _tile(how: str, dtype: str, rows: int, vectors: int) -> object:
    from flowgraph.codegen.cpu.tile import tile

    return tile(dtype, rows, vectors, how)


def namespace() -> dict[str, object]:
    """Every name of the prelude but the tiles and the tables of places, whose shapes are free."""
    return dict(_fixed_names())


def namespace_for(source_text: str) -> dict[str, object]:
    """The namespace to run `source_text` in: the prelude, with the tiles and tables that the text mentions."""
    names = namespace()
    for tables, axes in set(_PLACES.findall(source_text)):
        names[f"places_{tables}x{axes}"] = _places(int(tables), int(axes))
    for axes in set(_PIECES.findall(source_text)):
        names[f"pieces_{axes}"] = _pieces(int(axes))
    for how, dtype, rows, vectors in set(_TILE.findall(source_text)):
        name = f"tile_{how}{'_' if how else ''}{dtype}_{rows}x{vectors}"
        names[name] = _tile(how, dtype, int(rows), int(vectors))
    return names


@cache
def default_tile(dtype: str) -> tuple[int, int]:
    """(rows, vectors) of the register tile that fills this machine's vector registers: accumulators and one
    row of B.

    AVX-512 has 32 registers of 64 bytes, AVX2 16 of 32, others at least 16 of 16.
    """
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    wide, single = features.get("avx512f", False), dtype == "f32"
    if wide:
        return (8, 2) if single else (8, 1)
    if features.get("avx2", False):
        return (6, 1) if single else (2, 1)
    return (2, 1) if single else (1, 1)


def lower(function: Any, symbol: str) -> Any:
    """The LLVM module of a kernel written in the prelude's names: see `codegen.cpu.target`."""
    from flowgraph.codegen.cpu import target

    return target.lower(function, symbol)
