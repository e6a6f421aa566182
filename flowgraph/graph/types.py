"""What is known of a value before it has one: dtype and shape."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flowgraph.errors import DTypeError
from flowgraph.graph.size import Shape, Size, product, show_shape


@dataclass(frozen=True)
class DType:
    """A number format. `code` is the short name used in kernels ("f32")."""

    name: str
    code: str
    itemsize: int
    kind: str  # "float", "int" or "bool"

    @property
    def numpy(self) -> np.dtype:
        return np.dtype(self.name)

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    def __str__(self) -> str:
        return self.name

    __repr__ = __str__


float32 = DType("float32", "f32", 4, "float")
float64 = DType("float64", "f64", 8, "float")
int32 = DType("int32", "i32", 4, "int")
int64 = DType("int64", "i64", 8, "int")
boolean = DType("bool", "bool", 1, "bool")
DTYPES = {d.name: d for d in (float32, float64, int32, int64, boolean)}
BY_CODE = {d.code: d for d in DTYPES.values()}


def as_dtype(value: object) -> DType:
    """A DType from a DType, a name, or anything NumPy takes for a dtype.

    Raises DTypeError for a format flowgraph does not have.
    """
    if isinstance(value, DType):
        return value
    try:
        name = np.dtype(value).name  # type: ignore[call-overload]
    except TypeError:
        name = str(value)
    if name not in DTYPES:
        raise DTypeError(f"dtype {name!r} is not supported", hint="use one of " + ", ".join(DTYPES))
    return DTYPES[name]


@dataclass(frozen=True)
class TensorType:
    """Shape and dtype of a value."""

    shape: Shape
    dtype: DType = float32

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def count(self) -> Size:
        return product(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}{show_shape(self.shape)}"
