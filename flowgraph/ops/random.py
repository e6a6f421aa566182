"""Random numbers and dropout: pure ops of a state, which is a parameter of two int64, [seed, step].

A draw is a function of (seed, step, stream, element): the stream tells the draws of one step apart, and `compile`
makes every step count one up. Nothing else is remembered, so a backward pass can have the same numbers again.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from flowgraph.errors import DTypeError, GraphError, InputError, ShapeError, shown
from flowgraph.graph import origin as origins
from flowgraph.graph.graph import topological
from flowgraph.graph.size import Shape, Size, evaluate, show_shape
from flowgraph.graph.tensor import Tensor
from flowgraph.graph.types import DType, TensorType, boolean, float32, float64, int32, int64
from flowgraph.index_notation import Body, Const, Expr, Extent, Index, Load, call
from flowgraph.index_notation import cast as cast_expr
from flowgraph.ops.alias import alias_table
from flowgraph.ops.base import Cotangents, Op, Sample, axes_for, require_float, values
from flowgraph.ops.bounds import ClipIndex
from flowgraph.ops.elementwise import add, cast, less, less_equal, multiply, subtract, where
from flowgraph.ops.functions import cos, log, sqrt
from flowgraph.ops.indexing import gather
from flowgraph.ops.leaf import Parameter, as_array, as_tensor, constant, known_dtype, known_shape, parameter
from flowgraph.ops.piecewise import floor
from flowgraph.ops.random_bits import uniform as uniform_bits
from flowgraph.ops.reduce import max as max_
from flowgraph.ops.reduce import sum as sum_
from flowgraph.ops.running import cumulative_sum
from flowgraph.ops.shape import expand_dims

AUTOMATIC = 2**23  # streams below are the user's; from here on they are numbered by a pass
_drawn = itertools.count(1)


@dataclass(frozen=True)
class Draw(Op):
    """What depends on a random state, its last input, by a stream.

    A negative stream has no number yet: `number_streams` gives it one, in the order of the graph.
    """

    family: ClassVar[str] = "random"
    stream: int

    def _number(self) -> int:
        if self.stream < 0:
            raise GraphError("a random draw has no numbers before its graph is compiled", where=origins.here())
        return self.stream

    def _check_state(self, state: TensorType) -> None:
        if state.shape != (2,) or state.dtype is not int64:
            raise DTypeError(f"a random state is int64(2), [seed, step], got {state}", hint="use fg.random.Generator")

    def _require_stream(self) -> None:
        if self.stream >= 2 * AUTOMATIC:
            raise InputError(f"streams are numbers below {AUTOMATIC}, got {self.stream}")

    def attributes(self) -> str:
        shown = (f for f in super().attributes().split(", ") if not f.startswith("stream=-"))
        return ", ".join(shown)

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        return (None,) * len(inputs)


@dataclass(frozen=True)
class RandomUniform(Draw):
    """Numbers evenly distributed in [0, 1): multiples of 2**-24, or of 2**-53 if `wide`. `word` tells apart several
    that belong to one element.
    """

    name: ClassVar[str] = "random_uniform"
    display: ClassVar[str] = "random"
    shape: Shape
    word: int = 0
    wide: bool = False
    dtype: DType = float32

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        self._check_state(types[0])
        self._require_stream()
        return (TensorType(self.shape, self.dtype),)

    def body(self, *types: TensorType) -> Body:
        axes = axes_for(self.shape)
        return Body(axes, cast_expr(_element(self, self.shape, self.word, self.wide), self.dtype))

    def reference(self, state: np.ndarray) -> np.ndarray:
        return _numbers(self, state, self.shape, self.word, self.wide).astype(self.dtype.numpy)

    @classmethod
    def samples(cls) -> list[Sample]:
        states = [np.array(s, np.int64) for s in ((0, 0), (2**40 + 17, 3), (-5, 2**35))]
        cases = [
            cls(0, (5, 17)), cls(3, (), 1), cls(AUTOMATIC + 7, (2, 3, 5), 3), cls(1, (40,), 2),
            cls(2, (5, 17), 0, True, float64), cls(2, (), 1, True, float64),
        ]  # fmt: skip
        return [Sample(op, (states[k % 3],)) for k, op in enumerate(cases)]


@dataclass(frozen=True)
class Bernoulli(Draw):
    """True with a probability, which is rounded up to a multiple of 2**-24; a byte an element where it is stored."""

    name: ClassVar[str] = "bernoulli"
    shape: Shape
    probability: float

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        self._check_state(types[0])
        self._require_stream()
        return (TensorType(self.shape, boolean),)

    def body(self, *types: TensorType) -> Body:
        axes = axes_for(self.shape)
        return Body(axes, call("lt", _element(self, self.shape, 0, False), float(np.float32(self.probability))))

    def reference(self, state: np.ndarray) -> np.ndarray:
        return np.asarray(_numbers(self, state, self.shape, 0, False) < np.float32(self.probability))

    @classmethod
    def samples(cls) -> list[Sample]:
        state = np.array([7, 1], np.int64)
        return [Sample(cls(4, s, p), (state,)) for s, p in (((5, 17), 0.3), ((), 0.5), ((40,), 1.0))]


def _element(op: Draw, shape: Shape, word: int, wide: bool) -> Expr:
    """The number of each point of `axes_for(shape)`, counted in row-major order."""
    number: Expr = Const(0, int64)
    for place, axis in enumerate(axes_for(shape)):
        index = Index(axis)
        number = index if place == 0 else call("add", call("mul", number, Extent(axis.extent)), index)
    seed, step = (Load(0, (Const(k, int64),), int64) for k in range(2))
    stream = Const(op.stream, int64)
    return call(f"random{word}", seed, step, stream, number, dtype=float64 if wide else float32)


def _numbers(op: Draw, state: np.ndarray, shape: Shape, word: int, wide: bool) -> np.ndarray:
    counts = tuple(int(s) for s in shape)  # type: ignore[arg-type]
    element = np.arange(math.prod(counts), dtype=np.int64).reshape(counts)
    return uniform_bits(state[0], state[1], op._number(), element, word, wide)


@dataclass(frozen=True)
class Dropout(Draw):
    """Each element 0 with the probability `rate`, else divided by 1 - rate, so that means stay (Srivastava and others
    2014). Takes the values and a random state. The identity when a model is evaluated.
    """

    name: ClassVar[str] = "dropout"
    display: ClassVar[str] = "dropOut"
    rate: float

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_float(self, types[0])
        self._check_state(types[1])
        return (types[0],)

    def expand(self, *inputs: Tensor) -> Tensor:
        x, state = inputs
        return self._thinned(x, state)

    def vjp(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Cotangents) -> Cotangents:
        (g,) = cotangents
        assert g is not None
        return self._thinned(g, inputs[1]), None

    def _thinned(self, x: Tensor, state: Tensor) -> Tensor:
        keep = Bernoulli(self.stream, x.shape, 1 - self.rate)(state)
        return where(keep, multiply(x, 1 / (1 - self.rate)), 0.0)

    def at_inference(self, *inputs: Tensor) -> Tensor:
        return inputs[0]

    def reference(self, x: np.ndarray, state: np.ndarray) -> np.ndarray:
        keep = _numbers(self, state, x.shape, 0, False) < np.float32(1 - self.rate)
        return np.where(keep, x * x.dtype.type(1 / (1 - self.rate)), x.dtype.type(0))

    @classmethod
    def samples(cls) -> list[Sample]:
        state = np.array([7, 1], np.int64)
        return [Sample(cls(4, 0.3), (values(*s), state)) for s in ((5, 17), (), (40,))]


@dataclass(frozen=True)
class TurnStates(Draw):
    """A random state for every turn of a loop, of the state that the loop is given: another seed for each turn, and for
    each loop (its stream), the same step. `level` is the number of loops within: seeds of each move by a number of its
    own, so that no two turns of nested loops have the same.
    """

    name: ClassVar[str] = "turn_states"
    turns: Size
    level: int = 0

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        self._check_state(types[0])
        return (TensorType((self.turns, 2), int64),)

    def body(self, *types: TensorType) -> Body:
        turn, place = axes_for((self.turns, 2))
        moved = call("add", call("mul", Index(turn), self._step()), (self.stream + 1) * LOOP % 2**62)
        value = Load(0, (Index(place),), int64)
        return Body((turn, place), call("select", call("eq", Index(place), 0), call("add", value, moved), value))

    def reference(self, state: np.ndarray) -> np.ndarray:
        turns = np.arange(evaluate(self.turns, {}), dtype=np.int64)
        seeds = state[0] + turns * np.int64(self._step()) + np.int64((self._number() + 1) * LOOP % 2**62)
        return np.stack([seeds, np.full_like(seeds, state[1])], axis=1)

    @classmethod
    def samples(cls) -> list[Sample]:
        cases = (cls(0, 7), cls(12, 1), cls(3, 5, 2))
        return [Sample(op, (np.array([5, 2], np.int64),)) for op in cases]

    def _step(self) -> int:
        """An odd number below 2**62: its multiples are all different."""
        return pow(TURN, self.level + 1, 2**62)


# Odd numbers that seeds move by (SplitMix64's, halved to stay below 2**62).
TURN, LOOP = 0x1E3779B97F4A7C15, 0x3F58476D1CE4E5B9


# States


class Generator:
    """A source of random numbers of its own: a parameter [seed, step], which every step of a program counts up.

    The same seed gives the same numbers, on every device and with any number of threads. Two generators of one program
    need different names.

    >>> import flowgraph as fg
    >>> source = fg.random.Generator(seed=1)
    >>> step = fg.compile(outputs=fg.random.uniform((2,), generator=source), device="reference")
    >>> first, second = step()[0], step()[0]
    >>> bool((first == second).any())
    False
    >>> source.seed(1)
    >>> bool((first == step()[0]).all())
    True
    """

    def __init__(self, seed: int = 0, name: str = "generator") -> None:
        self.state = parameter(name, (2,), np.array([0, 0], np.int64), "int64")
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """Begin anew: step 0 of this seed, an int of up to 64 bits."""
        if not isinstance(seed, (int, np.integer)) or not -(2**63) <= seed < 2**64:
            raise InputError(f"a seed is an int of 64 bits, got {shown(seed)}", where=origins.here())
        self.state.op.storage.write(np.array([int(seed) - (2**64 if seed >= 2**63 else 0), 0], np.int64))


DEFAULT = Generator(0, "random")
"""What draws that name no generator share, as NumPy's and PyTorch's do."""


def seed(seed: int) -> None:
    """Begin the default generator's numbers anew, in every program that draws from it."""
    DEFAULT.seed(seed)


def advanced(state: Tensor) -> Tensor:
    """The state of the next step."""
    return add(state, np.array([0, 1], np.int64))


def states_of(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The random states, among parameters, that these tensors depend on."""
    found = (n.inputs[-1] for n in topological(tensors) if isinstance(n.op, Draw))
    return list(dict.fromkeys(t for t in found if isinstance(t.op, Parameter)))


def _place(generator: Generator | Tensor | None, stream: int | None) -> tuple[int, Tensor]:
    """(stream, state) of a new draw."""
    if stream is None:
        stream = -next(_drawn)
    elif not isinstance(stream, int) or not 0 <= stream < AUTOMATIC:
        raise InputError(f"a stream is a number from 0 to {AUTOMATIC - 1}, got {shown(stream)}", where=origins.here())
    if generator is not None and not isinstance(generator, (Generator, Tensor)):
        raise InputError(f"a generator is a fg.random.Generator, got {shown(generator)}", where=origins.here())
    state = generator if isinstance(generator, Tensor) else (generator or DEFAULT).state
    return stream, state


def _float(what: str, dtype: Any) -> DType:
    kind = known_dtype(dtype)
    if not kind.is_float:
        raise DTypeError(f"{what} makes floats, not {kind}", where=origins.here())
    return kind


# The user's functions. `generator` is a Generator, or a state tensor; `stream` fixes which numbers of a step these are.


def uniform(
    shape: Any = (),
    low: Any = 0.0,
    high: Any = 1.0,
    dtype: Any = "float32",
    generator: Generator | Tensor | None = None,
    stream: int | None = None,
) -> Tensor:
    """Numbers evenly distributed in [low, high): float32 has 24 random bits, float64 53."""
    kind, dims = _float("uniform", dtype), known_shape(shape)
    number, state = _place(generator, stream)
    drawn = RandomUniform(number, dims, 0, kind is float64, kind)(state)
    if not isinstance(low, Tensor) and not isinstance(high, Tensor) and (low, high) == (0, 1):
        return drawn
    low, high = (v if isinstance(v, Tensor) else as_tensor(float(v), drawn) for v in (low, high))
    return add(low, multiply(drawn, subtract(high, low)))


def normal(
    shape: Any = (),
    mean: Any = 0.0,
    std: Any = 1.0,
    dtype: Any = "float32",
    generator: Generator | Tensor | None = None,
    stream: int | None = None,
) -> Tensor:
    """Normally distributed numbers (Box and Muller 1958). float32 ones lie within 5.8 deviations of the mean."""
    kind, dims = _float("normal", dtype), known_shape(shape)
    number, state = _place(generator, stream)
    first, second = (RandomUniform(number, dims, word, kind is float64, kind)(state) for word in (0, 1))
    radius = sqrt(multiply(-2.0, log(subtract(1.0, first))))  # 1 - u, in (0, 1], has a logarithm
    drawn = multiply(radius, cos(multiply(2 * math.pi, second)))
    if isinstance(mean, Tensor) or isinstance(std, Tensor) or (mean, std) != (0, 1):
        drawn = add(mean, multiply(drawn, std))
    return drawn


def bernoulli(
    probability: Any, shape: Any = (), generator: Generator | Tensor | None = None, stream: int | None = None
) -> Tensor:
    """Bools that are true with a probability: a number, or a float tensor that broadcasts to `shape`."""
    number, state = _place(generator, stream)
    if isinstance(probability, Tensor):
        return less(RandomUniform(number, known_shape(shape), 0, False, probability.dtype)(state), probability)
    return Bernoulli(number, known_shape(shape), _probability("bernoulli", probability))(state)


def randint(
    low: int,
    high: int,
    shape: Any = (),
    dtype: Any = "int32",
    generator: Generator | Tensor | None = None,
    stream: int | None = None,
) -> Tensor:
    """Integers evenly distributed in [low, high), by 53 random bits each: no number is favoured by more than
    (high - low) / 2**53.
    """
    kind = known_dtype(dtype)
    if kind not in (int32, int64):
        raise DTypeError(f"randint makes integers, not {kind}", where=origins.here())
    limits = np.iinfo(kind.numpy)
    if not (isinstance(low, int) and isinstance(high, int)) or not limits.min <= low < high <= limits.max + 1:
        problem = f"randint needs ints with low < high that fit {kind}, got {shown(low)}, {shown(high)}"
        raise InputError(problem, where=origins.here())
    if high - low > 2**53:
        raise InputError(f"randint draws from at most 2**53 numbers, got {high - low}", where=origins.here())
    number, state = _place(generator, stream)
    drawn = RandomUniform(number, known_shape(shape), 0, True, float64)(state)
    return add(cast(floor(multiply(drawn, float(high - low))), kind), low)


def categorical(
    weights: Any,
    shape: Any = None,
    dtype: Any = "int32",
    generator: Generator | Tensor | None = None,
    stream: int | None = None,
) -> Tensor:
    """Numbers k from 0 to n - 1, each drawn in proportion to weights[k]; one of weight 0 never comes.

    `weights` is an array (n,) of numbers from 0, which need not sum to 1: then a draw costs the same whatever n is
    (Walker's alias method; Vose 1991), and `shape` is () by default. Or it is a float tensor (..., n), such as a
    softmax: then its leading axes broadcast to `shape`, by default they are it, and a draw costs n additions. What a
    tensor holds is not checked: of weights that are all 0, or not finite, any k may come.

    Raises InputError, DTypeError or ShapeError.

    >>> import flowgraph as fg
    >>> fg.random.categorical([1, 0, 3], ("batch", 5))
    <Tensor where: int32(batch, 5)>
    """
    kind = known_dtype(dtype)
    if kind not in (int32, int64):
        raise DTypeError(f"categorical makes integers, not {kind}", where=origins.here())
    if isinstance(weights, Tensor):
        return _by_search(weights, shape, kind, *_place(generator, stream))
    share, other = alias_table(_weights(weights, kind))
    number, state = _place(generator, stream)
    n, dims = len(share), known_shape(() if shape is None else shape)
    spread = multiply(RandomUniform(number, dims, 0, True, float64)(state), float(n))
    column = floor(spread)
    coin = cast(subtract(spread, column), "float32")  # exact, but for the cast: 53 bits less those of the column
    column = ClipIndex(n, trusted=True)(cast(column, kind))  # below n already, as in randint; this tells the compiler
    return where(less(coin, gather(constant(share), column)), column, gather(constant(other, kind), column))


def _by_search(weights: Tensor, shape: Any, kind: DType, stream: int, state: Tensor) -> Tensor:
    """How many of the running sums are not above a number evenly distributed below the last of them."""
    if not weights.dtype.is_float or not weights.rank:
        problem = f"categorical draws by a float tensor (..., n) of weights, got {weights.type}"
        raise DTypeError(problem, where=origins.here())
    rows = weights.shape[:-1]
    dims = rows if shape is None else known_shape(shape)
    if len(rows) > len(dims) or any(a not in (1, b) for a, b in zip(rows, dims[len(dims) - len(rows) :], strict=True)):
        problem = f"weights {show_shape(weights.shape)} do not broadcast to draws {show_shape(dims)}"
        raise ShapeError(problem, where=origins.here(), hint="all axes of the weights but the last are those of a draw")
    sums = cumulative_sum(weights, axis=-1)
    drawn = RandomUniform(stream, dims, 0, weights.dtype is float64, weights.dtype)(state)
    place = multiply(expand_dims(drawn, -1), max_(sums, axis=-1, keepdims=True))
    return ClipIndex(weights.shape[-1], trusted=True)(sum_(cast(less_equal(sums, place), kind), axis=-1))


def _weights(given: Any, kind: DType) -> np.ndarray:
    """float64 (n,), finite, none below 0 and not all 0."""
    array = as_array(given, "categorical's weights")
    if array.ndim != 1 or not array.size or array.dtype.kind not in "iuf":
        problem = f"categorical's weights are numbers (n,), got {array.dtype} {show_shape(array.shape)}"
        raise ShapeError(problem, where=origins.here(), hint="rows of weights are a tensor: fg.constant(...)")
    array = array.astype(np.float64)
    bad = ~(np.isfinite(array) & (array >= 0))
    if bad.any():
        place = int(bad.argmax())
        problem = f"categorical's weights are finite and at least 0; number {place} of {len(array)} is {array[place]}"
        raise InputError(problem, where=origins.here())
    if not array.any():
        raise InputError(f"categorical's {len(array)} weights are all 0: nothing can be drawn", where=origins.here())
    if len(array) - 1 > np.iinfo(kind.numpy).max:
        raise InputError(f"{kind} has no number for each of {len(array)} weights", where=origins.here())
    return array


def dropout(
    x: Tensor, rate: float = 0.5, generator: Generator | Tensor | None = None, stream: int | None = None
) -> Tensor:
    """x with each element 0 with the probability `rate` and the others divided by 1 - rate.

    New ones every step. `fg.inference` makes it the identity, as a Trainer does where it evaluates or predicts.
    """
    x = as_tensor(x, what="dropout")
    rate = _probability("dropout", rate)
    if rate == 1:
        raise InputError("dropout of everything leaves nothing to scale: a rate below 1", where=origins.here())
    number, state = _place(generator, stream)
    return x if rate == 0 else Dropout(number, rate)(x, state)


def _probability(what: str, value: Any) -> float:
    if not isinstance(value, (int, float, np.floating)) or not 0 <= value <= 1:
        raise InputError(f"{what} needs a probability from 0 to 1, got {shown(value)}", where=origins.here())
    return float(value)
