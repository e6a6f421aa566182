"""The names that generated CUDA source is written in.

Goes out: the namespace to run the text of a kernel in. numba-cuda is imported only when it is asked for: a
program whose kernels are all kept needs only PRELUDE_VERSION. May not know any kernel, schedule or device.

A kernel is a function of int64 buffer addresses and int32 sizes. Besides the functions of codegen.cuda it
sees `cuda` (threadIdx, blockIdx, blockDim, gridDim, syncthreads, shared.array), the types float32 … boolean
for shared arrays, and `inf` and `nan`. int32 stays int32 under + - * // % and with literal integers, as in
NumPy; // and % are floored.
"""

from __future__ import annotations

import hashlib
from functools import cache
from math import inf, nan
from pathlib import Path

_HERE = Path(__file__).parent
_SHARED = (_HERE / "philox.py", _HERE / "cpu" / "value.py")
_FILES = (_HERE / "cuda_prelude.py", *_SHARED, *sorted((_HERE / "cuda").glob("*.py")))

PRELUDE_VERSION = hashlib.sha256(b"\0".join(file.read_bytes() for file in _FILES)).hexdigest()
"""Changes with any file of the prelude; part of the key of a kept cubin."""


@cache
def _names() -> dict[str, object]:
    from numba import cuda

    from flowgraph.codegen.cuda import memory, random, scalar, shared, warp
    from flowgraph.codegen.cuda.word import DTYPES

    types = dict(zip(("float32", "float64", "int32", "int64", "boolean"), DTYPES.values(), strict=True))
    return {
        "cuda": cuda,
        "inf": inf,
        "nan": nan,
        **types,
        **memory.FUNCTIONS,
        **scalar.FUNCTIONS,
        **random.FUNCTIONS,
        **warp.FUNCTIONS,
        **shared.FUNCTIONS,
    }


def namespace() -> dict[str, object]:
    """Every name of the prelude."""
    return dict(_names())
