"""Leaves: what a graph is given. Inputs (data), parameters (state), constants, and sizes as values."""

from __future__ import annotations

import difflib
import inspect
import itertools
import math
import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from flowgraph.errors import DeviceError, DTypeError, FlowgraphError, GraphError, InputError, ShapeError, shown
from flowgraph.graph import origin as origins
from flowgraph.graph.size import Dim, Shape, Size, as_size, evaluate, show_shape
from flowgraph.graph.tensor import Tensor, apply
from flowgraph.graph.types import DType, TensorType, as_dtype, boolean, int64
from flowgraph.index_notation import Axis, Body, Extent, Index, cast
from flowgraph.ops.base import Cotangents, Op, Sample

Initializer = Callable[[tuple[int, ...], np.random.Generator], np.ndarray]
INITIALIZERS = (  # the names in fg.init, for messages: a layer above makes them
    "glorot_uniform", "glorot_normal", "he_normal", "lecun_normal", "one_over_sqrt_n", "normal", "orthogonal",
    "uniform", "zeros",
)  # fmt: skip


class Value(np.ndarray[Any, np.dtype[Any]]):
    """What a parameter's value was when it was asked for. Written into it would be a copy, so it is read-only; what is
    computed from it, or copied, is an array like any other. `w.value += 1` sets the parameter to the sum.
    """

    def __setitem__(self, key: Any, new: Any) -> None:
        if not self.flags.writeable:
            raise GraphError(
                "a parameter's value is read-only: what is written into it would not reach the parameter",
                where=origins.here(),
                hint="assign a whole array: v = w.value.copy(); v[0] = 1.0; w.value = v",
            )
        super().__setitem__(key, new)

    def __repr__(self) -> str:
        return repr(np.asarray(self))


def _in_place(name: str) -> Callable[[Value, Any], Any]:
    """`v += x` of a value that is read-only: v is bound to the sum, which an assignment then takes to the parameter."""
    aside, within = getattr(np.ndarray, f"__{name}__"), getattr(np.ndarray, f"__i{name}__")
    return lambda self, other: (within if self.flags.writeable else aside)(self, other)


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor"):
    setattr(Value, f"__i{_name}__", _in_place(_name))


class Storage:
    """The value of a parameter: one aligned array that compiled programs update in place.

    Drawn from its initialiser on first use; `seed` and the parameter's name fix the numbers. A program on
    another device sets `pull`, which brings the newest value home before anyone reads it, and is told by
    `version` of writes.
    """

    def __init__(
        self, name: str, shape: tuple[int, ...], dtype: DType, init: Initializer | np.ndarray
    ) -> None:
        self.name, self.shape, self.dtype, self._init = name, shape, dtype, init
        self._array: np.ndarray | None = None
        self.version = 0
        self.pull: Callable[[], None] | None = None

    @property
    def drawn(self) -> bool:
        return self._array is not None

    def draw(self, seed: int) -> np.ndarray:
        """(Re)initialise from the initialiser with this seed."""
        if isinstance(self._init, np.ndarray):
            fresh = self._init
        else:
            entropy = np.random.SeedSequence([seed, *self.name.encode()])
            fresh = self._init(self.shape, np.random.Generator(np.random.Philox(entropy)))
        self.write(np.asarray(fresh, dtype=self.dtype.numpy))
        return self.array

    @property
    def array(self) -> np.ndarray:
        """The host array itself, without bringing a device's newer value home."""
        if self._array is None:
            self._array = aligned(self.shape, self.dtype.numpy)
            self.draw(0)
        return self._array

    def read(self) -> np.ndarray:
        if self.pull is not None:
            self.pull()
        return self.array

    def value(self) -> Value:
        """A copy that is not to be written to."""
        copy = self.read().copy().view(Value)
        copy.flags.writeable = False
        return copy

    def assign(self, value: Any) -> None:
        """Set from anything array-like of the same shape; raises ShapeError or DTypeError."""
        array = as_array(value, f"parameter {self.name!r}")
        if array.shape != self.shape:
            raise ShapeError(
                f"parameter {self.name!r} has shape {show_shape(self.shape)}, "
                f"the new value {show_shape(array.shape)}",
                where=origins.here(),
            )
        if not fits(array, self.dtype):
            raise DTypeError(
                f"parameter {self.name!r} is {self.dtype}, the new value {shown(value)} {array.dtype}",
                where=origins.here(),
            )
        self.write(array.astype(self.dtype.numpy))

    def write(self, value: np.ndarray) -> None:
        if self._array is None:
            self._array = aligned(self.shape, self.dtype.numpy)
        self._array[...] = value
        self.version += 1


HUGE_PAGE = 2**21


def aligned(shape: tuple[int, ...], dtype: Any, alignment: int = 64) -> np.ndarray:
    """A zeroed C-contiguous array whose first element lies on a cache line.

    A large one asks for huge pages: rows looked up all over a table of many small pages miss the TLB every time.
    Raises DeviceError if the machine has not that much memory.
    """
    dtype = np.dtype(dtype)
    count = math.prod(shape) * dtype.itemsize
    if count >= 2 * HUGE_PAGE:
        try:
            pages = mmap.mmap(-1, count + HUGE_PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, OverflowError) as error:
            raise DeviceError(f"no memory for {count:,} bytes", where=origins.here()) from error
        pages.madvise(mmap.MADV_HUGEPAGE)
        raw, alignment = np.frombuffer(pages, np.uint8), HUGE_PAGE
    else:
        raw = np.zeros(count + alignment, np.uint8)
    start = -raw.ctypes.data % alignment
    return raw[start : start + count].view(dtype).reshape(shape)


@dataclass(frozen=True)
class Leaf(Op):
    """Given, not computed."""

    family: ClassVar[str] = "leaf"


@dataclass(frozen=True)
class Input(Leaf):
    """Data fed at every call."""

    name: ClassVar[str] = "input"
    label: str
    type: TensorType = field(repr=False)
    key: int = field(repr=False, default=0)  # two inputs of one name are still two inputs

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        return (self.type,)


@dataclass(frozen=True)
class Parameter(Leaf):
    """State that updates change."""

    name: ClassVar[str] = "parameter"
    label: str
    type: TensorType = field(repr=False)
    storage: Storage = field(repr=False)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        return (self.type,)


@dataclass(frozen=True)
class Constant(Leaf):
    """An array known when the graph is declared."""

    name: ClassVar[str] = "constant"
    type: TensorType = field(repr=False)
    data: bytes = field(repr=False)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        return (self.type,)

    @property
    def array(self) -> np.ndarray:
        shape = tuple(evaluate(s, {}) for s in self.type.shape)
        return np.frombuffer(self.data, self.type.dtype.numpy).reshape(shape)

    def attributes(self) -> str:
        array = self.array
        return f"{array.item():g}" if array.ndim == 0 else show_shape(array.shape)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        return self.array


@dataclass(frozen=True)
class SizeOf(Op):
    """A size as a scalar value: the batch size in a mean."""

    name: ClassVar[str] = "size"
    family: ClassVar[str] = "leaf"
    size: Size
    dtype: DType

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        return (TensorType((), self.dtype),)

    def body(self, *types: TensorType) -> Body:
        return Body((), cast(Extent(self.size), self.dtype))

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        return ()

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        if not isinstance(self.size, int):
            raise GraphError(f"size {self.size} has no value outside a program")
        return np.asarray(self.size, self.dtype.numpy)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [Sample(cls(5, as_dtype("float32")), ()), Sample(cls(7, int64), ())]


@dataclass(frozen=True)
class Arange(Op):
    """0, 1, ... size - 1."""

    name: ClassVar[str] = "arange"
    family: ClassVar[str] = "leaf"
    size: Size
    dtype: DType

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        return (TensorType((self.size,), self.dtype),)

    def body(self, *types: TensorType) -> Body:
        axis = Axis("i0", self.size)
        return Body((axis,), cast(Index(axis), self.dtype))

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        return ()

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        return np.arange(self.size, dtype=self.dtype.numpy)  # type: ignore[arg-type]

    @classmethod
    def samples(cls) -> list[Sample]:
        return [Sample(cls(37, int64), ()), Sample(cls(5, as_dtype("float32")), ())]


def input(name: str, shape: Any = (), dtype: Any = "float32") -> Tensor:
    """Declare data that are fed at every call.

    `shape` is a tuple of ints and names of sizes, such as ("batch", 64); sizes of one name must agree when
    data are fed. Raises ShapeError or DTypeError.

    >>> import flowgraph as fg
    >>> fg.input("x", ("batch", 64))
    <Tensor x: float32(batch, 64)>
    """
    _require_name("input", name)
    type_ = TensorType(known_shape(shape), known_dtype(dtype))
    return apply(Input(name, type_, next(_keys)))[0].named(name)


def _require_name(what: str, name: object) -> None:
    if not isinstance(name, str):
        hint = f"the name comes first: fg.{what}('x', (8, 64))"
        raise GraphError(f"the name in fg.{what} is text, got {shown(name)}", where=origins.here(), hint=hint)


def parameter(
    name: str, shape: Any, init: Initializer | np.ndarray | None = None, dtype: Any = "float32"
) -> Tensor:
    """Declare state that training changes: a weight, a bias.

    `shape` is a tuple of ints. `init` is an initialiser (see `fg.init`), an array of that shape, or None for
    zeros. An array is copied. What an initialiser draws follows from the seed and the name, scope included: under
    another name other values are drawn. The value is `parameter.value`, a NumPy array to be read; assigning to it sets
    the parameter. Raises GraphError, ShapeError or DTypeError.

    >>> import flowgraph as fg
    >>> fg.parameter("b", (3,)).value
    array([0., 0., 0.], dtype=float32)
    """
    _require_name("parameter", name)
    dims = known_shape(shape)
    if not all(isinstance(d, int) for d in dims):
        raise ShapeError(
            f"parameter {name!r} needs a shape of ints, got {show_shape(dims)}", where=origins.here()
        )
    concrete = tuple(int(d) for d in dims)  # type: ignore[arg-type]
    kind = known_dtype(dtype)
    require_initializer(name, init)
    if init is None:
        init = aligned(concrete, kind.numpy)
    elif not callable(init):
        init = np.array(as_array(init, f"parameter {name!r}"))  # the caller's array stays the caller's
        if init.shape != concrete:
            raise ShapeError(
                f"parameter {name!r} has shape {show_shape(concrete)}, "
                f"its initial array {show_shape(init.shape)}",
                where=origins.here(),
                hint=f"init=np.full({show_shape(concrete)}, {init.item():g}) begins with one number"
                if init.ndim == 0
                else "nothing is stretched: give one number for each element",
            )
        if not fits(init, kind):
            raise DTypeError(
                f"parameter {name!r} is {kind}, its initial value {init.dtype}: {shown(init)}",
                where=origins.here(),
                hint=f"round it yourself, or declare the parameter with dtype='{init.dtype}'",
            )
    label = f"{origins.current_scope()}/{name}" if origins.current_scope() else str(name)
    storage = Storage(label, concrete, kind, init)
    return apply(Parameter(label, TensorType(concrete, kind), storage))[0].named(label)


def require_initializer(name: str, init: Any) -> None:
    """Raise GraphError for text, for what can be called but not as init(shape, generator), and for what only makes
    initialisers."""
    if isinstance(init, str):
        asked = init.lower().replace("xavier", "glorot").replace("kaiming", "he")

        def distance(known: str) -> float:
            return 0.0 if known.startswith(asked) else 1.0 - difflib.SequenceMatcher(None, asked, known).ratio()

        closest = sorted(INITIALIZERS, key=distance)
        raise GraphError(
            f"parameter {name!r}: init={init!r} is text, not an initialiser",
            where=origins.here(),
            hint=f"init=fg.init.{closest[0]}(), or of fg.init {', '.join(closest[1:])}; or an array",
        )
    if not callable(init):
        return
    try:
        signature = inspect.signature(init)
    except (TypeError, ValueError):  # of something written in C: nobody knows
        return
    called = getattr(init, "__name__", shown(init))
    makes_one = signature.return_annotation in (Initializer, "Initializer")
    try:
        signature.bind((), None)
    except TypeError:
        fits_call = False
    else:
        fits_call = True
    if makes_one or not fits_call:
        raise GraphError(
            f"parameter {name!r}: init={called} is no initialiser, which is called as init(shape, generator)",
            where=origins.here(),
            hint=f"{called}() makes one: mind the parentheses" if makes_one else "give an array, or one of fg.init",
        )


def constant(value: Any, dtype: Any = None) -> Tensor:
    """An array known when the graph is declared; Python floats are float32 and integers int32 unless `dtype`
    says otherwise.

    Raises DTypeError for an integer that does not fit, or a float where integers are asked for.
    """
    array = as_array(value, "a constant")
    if dtype is None and not isinstance(value, (np.ndarray, np.generic)):
        dtype = {"f": "float32", "i": "int32", "u": "int32"}.get(array.dtype.kind)
    kind = known_dtype(dtype if dtype is not None else array.dtype)
    if not fits(array, kind):
        is_real = array.dtype.kind == "f" and kind.kind == "int"
        raise DTypeError(
            f"constant {shown(value)} {'is not an integer' if is_real else f'does not fit {kind}'}",
            where=origins.here(),
            hint="give its dtype, as in fg.constant(value, 'int64'), or convert what it meets with fg.cast",
        )
    return apply(Constant(TensorType(array.shape, kind), array.astype(kind.numpy).tobytes()))[0]


def as_array(value: Any, what: str, where: object = None) -> np.ndarray:
    """Numbers of any layout as an array of the dtype NumPy gives them; a FlowgraphError if they are none."""
    try:
        array = np.asarray(value)
    except FlowgraphError as error:  # a tensor among them
        error.hint = "fg.stack and fg.concatenate make one tensor of several"
        raise
    except ValueError as error:
        raise ShapeError(
            f"{what}: {shown(value)} is no array: its rows differ in length",
            where=where or origins.here(),
        ) from error
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise InputError(
            f"{what}: {np.sum(value.mask)} of {value.size} elements are masked",
            where=where or origins.here(),
            hint="give them a value, as in x.filled(0.0), or leave these examples out",
        )
    if array.dtype.kind not in "fiub":
        raise DTypeError(
            f"{what} takes numbers, got {shown(array if array.ndim else value)}",
            where=where or origins.here(),
            hint="give an array of numbers"
            if not array.ndim
            else "objects may hide missing values: fill them in or leave them out, then .astype('float32')"
            if array.dtype.kind == "O"
            else "convert them first, for example with .astype('float32')",
        )
    return array


def fits(array: np.ndarray, kind: DType) -> bool:
    """Whether every number keeps its value in this dtype, up to a float's rounding."""
    if not array.size:
        return True
    if array.dtype.kind in "iu" and kind.kind == "int":
        limits = np.iinfo(kind.numpy)
        return bool(limits.min <= array.min() and array.max() <= limits.max)
    if array.dtype.kind == "f" and kind.is_float and array.dtype.itemsize > kind.itemsize:
        return bool((np.abs(array[np.isfinite(array)]) <= np.finfo(kind.numpy).max).all())
    return np.can_cast(array.dtype, kind.numpy, "same_kind")


def as_tensor(value: Any, like: Tensor | None = None, what: str = "this op") -> Tensor:
    """A tensor as it is; anything else as a constant: numbers, NumPy's too, and lists in the dtype of `like`, arrays
    in their own. A bool of Python's, which is what == makes of two tensors, only beside a tensor of bools.
    """
    if isinstance(value, Tensor):
        return value
    if isinstance(value, bool) and (like is None or like.dtype is not boolean):
        raise GraphError(
            f"{what}: got {value}, a bool of Python's, where it takes a tensor",
            where=origins.here(),
            hint="tensors are compared with fg.equal and fg.not_equal: == and != are identity, a bool of Python's",
        )
    if like is not None and isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, (bool, int, float, list, tuple, np.ndarray, np.generic)):
        raise GraphError(
            f"{what} takes tensors, numbers and arrays, got {shown(value)}", where=origins.here()
        )
    array = as_array(value, what)
    if like is None or isinstance(value, np.ndarray):
        return constant(value)
    if like.dtype is boolean and array.dtype.kind != "b":
        raise DTypeError(f"{what}: {shown(value)} meets a bool tensor", where=origins.here())
    return constant(value, like.dtype)


def as_operands(what: str, values: Sequence[Any]) -> tuple[Tensor, ...]:
    """The operands of an op; numbers, NumPy's too, and lists take the dtype of the first tensor of their kind."""
    tensors = [v for v in values if isinstance(v, Tensor)]

    def operand(value: Any) -> Tensor:
        if isinstance(value, (bool, int, float, list, tuple, np.generic)):
            kind = as_array(value, what).dtype.kind
            alike = (t for t in tensors if t.dtype.numpy.kind == kind)
            return as_tensor(value, next(alike, None), what)
        return as_tensor(value, None, what)

    return tuple(values) if len(tensors) == len(values) else tuple(map(operand, values))


def size_of(size: Any, dtype: Any = "float32") -> Tensor:
    """A size as a scalar tensor, such as the batch size: `fg.size_of("batch")`."""
    return apply(SizeOf(as_size(size), known_dtype(dtype)))[0]


def arange(size: Any, dtype: Any = "int64") -> Tensor:
    """0, 1, ... size - 1, where `size` may be a named size."""
    if isinstance(dtype, (int, np.integer, Dim)):
        raise GraphError(
            f"arange takes a length and a dtype, got {shown(size)} and {shown(dtype)}",
            where=origins.here(),
            hint="it counts from 0: start + fg.arange(stop - start)",
        )
    return apply(Arange(as_size(size), known_dtype(dtype)))[0]


def known_shape(shape: Any) -> Shape:
    """A shape from what users write, with their line in its error."""
    if isinstance(shape, (int, str)):
        shape = (shape,)
    try:
        return tuple(as_size(s) for s in shape)
    except ShapeError as error:
        error.where = error.where or origins.here()
        raise


def known_dtype(dtype: Any) -> DType:
    """`as_dtype` with the user's line in its error."""
    try:
        return as_dtype(dtype)
    except DTypeError as error:
        error.where = error.where or origins.here()
        raise


_keys = itertools.count(1)
