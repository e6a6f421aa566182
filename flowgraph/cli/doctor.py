"""`flowgraph doctor`: what flowgraph finds on this machine, and what to do about what it misses."""

from __future__ import annotations

import os
import platform
import sys
from argparse import Namespace
from collections.abc import Iterator
from importlib import metadata

import flowgraph
from flowgraph.backends.cpu.threads import available_threads
from flowgraph.backends.cuda.device import cuda_available
from flowgraph.backends.kept import KeptFiles, default_folder
from flowgraph.datasets.cache import data_folder, state_of
from flowgraph.datasets.catalogue import CATALOGUE
from flowgraph.viz.svg import find_engine

PACKAGES = ("numpy", "numba", "llvmlite", "networkx", "safetensors", "tqdm", "graphviz-pure", "numba-cuda")
FEATURES = ("sse4.2", "avx", "avx2", "fma", "avx512f", "avx512bf16", "amx-tile", "neon", "sve")


def doctor(arguments: Namespace) -> int:
    if arguments.clear_cache:
        for what, kept in stores():
            size = kept.info().size
            kept.clear()
            print(f"cleared {what}: {size / 1e6:.1f} MB in {kept.folder or 'memory'}")
        return 0
    rows = list(findings())
    width = max(len(name) for name, _ in rows)
    for name, found in rows:
        print(f"{name:<{width}}  {found}")
    return 0


def findings() -> Iterator[tuple[str, str]]:
    """(what was looked for, what was found)"""
    yield "flowgraph", f"{flowgraph.__version__} in {os.path.dirname(flowgraph.__file__)}"
    yield "python", f"{platform.python_version()} {sys.executable}"
    yield "system", f"{platform.system()} {platform.release()}, {platform.machine()}"
    for package in PACKAGES:
        yield package, _version(package)
    yield "processor", _processor()
    usable, present = available_threads(), os.cpu_count() or 1
    limited = "" if usable == present else f" of {present}: affinity or a container's quota limits the rest"
    yield "threads", f"{usable}{limited}"
    for what, kept in stores():
        yield what, _kept(kept)
    here = sum(state_of(entry) == "here" for entry in CATALOGUE.values())
    yield "data sets", f"{here} of {len(CATALOGUE)} in {data_folder()}; `flowgraph data list` names them"
    yield (
        "pictures",
        find_engine() or "no layout engine for SVG: pip install 'flowgraph[viz]'; .dot and .mmd need none",
    )
    usable_cuda, why = cuda_available()
    yield "cuda", why if usable_cuda else f"not usable: {why}"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    from flowgraph.backends.cpu.machine_code import host

    enabled = {f.removeprefix("+") for f in host().features.split(",") if f.startswith("+")}
    return f"{host().cpu}: {' '.join(f for f in FEATURES if f in enabled)}"


def stores() -> Iterator[tuple[str, KeptFiles]]:
    """The folders of kept kernels."""
    yield "kept kernels", KeptFiles(default_folder(), ".o")
    yield "kept cubins", KeptFiles(default_folder() / "cuda", ".cubin")


def _kept(kept: KeptFiles) -> str:
    info, limit = kept.info(), kept.limit / 1e6
    return (
        f"{info.entries} in {kept.folder or 'memory only'}, {info.size / 1e6:.1f} MB of at most {limit:.0f}; "
        "$FLOWGRAPH_CACHE moves them, $FLOWGRAPH_CACHE_LIMIT limits them, --clear-cache removes them"
    )
