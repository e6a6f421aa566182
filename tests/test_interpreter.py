"""The NumPy interpreter of K, on kernels written by hand: it is the oracle for fusion, so nothing generated
vouches for it.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from flowgraph.graph.size import named
from flowgraph.graph.types import TensorType, boolean, float32, float64, int32, int64
from flowgraph.index_notation import FUNCTIONS, RANDOM, Apply, Axis, Const, Expr, Extent, Index, Load, Var, call, cast
from flowgraph.kernels import interpret as interpreter
from flowgraph.kernels.interpret import interpret
from flowgraph.kernels.kernel import Buffer, Kernel, Let, Nest, Reduction, Store, verify_kernel

N, M = named("n"), named("m")
i, j, r, s = Axis("i", N), Axis("j", M), Axis("r", M), Axis("s", N)
X = Buffer("x", TensorType((N, M)))
ROWS = Buffer("rows", TensorType((N,)))
OUT = Buffer("y", TensorType((N, M)))
DATA = np.array([[1.0, -2.0, 4.0], [0.5, 8.0, -1.0]], np.float32)
SIZES = {"n": 2, "m": 3}


def at(buffer: Buffer, *axes: Axis) -> Load:
    return Load(buffer.name, tuple(map(Index, axes)), buffer.type.dtype)


def run(kernel: Kernel, *arrays: np.ndarray, **sizes: int) -> np.ndarray:
    (result,) = interpret(verify_kernel(kernel), arrays, sizes or SIZES)
    return result


def test_a_pointwise_kernel_computes_every_point() -> None:
    value = call("mul", at(X, i, j), 2.0) + call("absolute", at(X, i, j))
    kernel = Kernel(
        (i, j),
        (Nest((), (Let("v", value),), (), (Store("y", (Index(i), Index(j)), Var("v", float32)),)),),
        (X,),
        (OUT,),
    )
    np.testing.assert_array_equal(run(kernel, DATA), 2 * DATA + np.abs(DATA))


@pytest.mark.parametrize(
    ("combiner", "expected"), [("sum", [3.0, 7.5]), ("max", [4.0, 8.0]), ("min", [-2.0, -1.0])]
)
def test_a_reduction_combines_a_row(combiner: str, expected: list[float]) -> None:
    nests = (
        Nest((r,), (), (Reduction("total", combiner, at(X, i, r)),)),
        Nest((), (), (), (Store("y", (Index(i),), Var("total", float32)),)),
    )
    out = Buffer("y", TensorType((N,)))
    np.testing.assert_array_equal(
        run(Kernel((i,), nests, (X,), (out,)), DATA), np.array(expected, np.float32)
    )


def test_later_nests_see_results_and_outer_values_of_earlier_ones() -> None:
    nests = (
        Nest((r,), (), (Reduction("top", "max", at(X, i, r)),)),
        Nest((), (Let("twice", Var("top", float32) * 2.0),)),
        Nest((j,), (), (), (Store("y", (Index(i), Index(j)), at(X, i, j) - Var("twice", float32)),)),
    )
    np.testing.assert_array_equal(
        run(Kernel((i,), nests, (X,), (OUT,)), DATA), DATA - 2 * DATA.max(1, keepdims=True)
    )


def test_a_nest_reads_back_what_an_earlier_nest_stored() -> None:
    nests = (
        Nest((j,), (), (), (Store("y", (Index(i), Index(j)), call("neg", at(X, i, j))),)),
        Nest((r,), (), (Reduction("total", "sum", at(OUT, i, r)),)),
        Nest((j,), (), (), (Store("z", (Index(i), Index(j)), at(OUT, i, j) + Var("total", float32)),)),
    )
    kernel = verify_kernel(Kernel((i,), nests, (X,), (OUT, Buffer("z", OUT.type))))
    y, z = interpret(kernel, (DATA,), SIZES)
    np.testing.assert_array_equal(y, -DATA)
    np.testing.assert_array_equal(z, -DATA - DATA.sum(1, keepdims=True))


def test_adding_stores_add_once_for_each_step_even_to_the_same_row() -> None:
    ids, added = Buffer("ids", TensorType((N,), int32)), Buffer("added", TensorType((N, M)))
    table = Buffer("table", TensorType((4, M)))
    row = Axis("row", 4)
    nests = (
        Nest((row,), (), (), (Store("y", (Index(row), Index(j)), at(table, row, j)),)),
        Nest((s,), (), (), (Store("y", (cast(at(ids, s), int64), Index(j)), at(added, s, j), add=True),)),
    )
    kernel = Kernel((j,), nests, (table, ids, added), (Buffer("y", table.type),))
    start = np.ones((4, 3), np.float32)
    found = run(kernel, start, np.array([2, 2], np.int32), DATA)
    np.testing.assert_array_equal(
        found, start + np.array([[0] * 3, [0] * 3, DATA.sum(0), [0] * 3], np.float32)
    )
    np.testing.assert_array_equal(start, 1)  # inputs are never written


def test_integers_choose_rows() -> None:
    ids = Buffer("ids", TensorType((N,), int64))
    kernel = Kernel(
        (i, j),
        (Nest((), (), (), (Store("y", (Index(i), Index(j)), Load("x", (at(ids, i), Index(j)), float32)),)),),
        (X, ids),
        (OUT,),
    )
    np.testing.assert_array_equal(run(kernel, DATA, np.array([1, 1])), DATA[[1, 1]])


def test_sizes_and_indices_are_int64() -> None:
    out = Buffer("y", TensorType((N,), int64))
    kernel = Kernel(
        (i,), (Nest((), (), (), (Store("y", (Index(i),), Index(i) + Extent(N * M)),)),), (), (out,)
    )
    found = run(kernel, n=3, m=5)
    assert found.dtype == np.int64 and found.tolist() == [15, 16, 17]


def test_a_kernel_without_axes_computes_one_number() -> None:
    whole = (s, r)
    nests = (
        Nest(whole, (), (Reduction("t", "sum", at(X, s, r)),)),
        Nest((), (), (), (Store("y", (), Var("t", float32)),)),
    )
    found = run(Kernel((), nests, (X,), (Buffer("y", TensorType(())),)), DATA)
    assert found.shape == () and found == DATA.sum()


def test_an_empty_batch_sums_to_zero() -> None:
    nests = (
        Nest((s,), (), (Reduction("t", "sum", at(X, s, j)),)),
        Nest((), (), (), (Store("y", (Index(j),), Var("t", float32)),)),
    )
    out = Buffer("y", TensorType((M,)))
    np.testing.assert_array_equal(
        run(Kernel((j,), nests, (X,), (out,)), np.zeros((0, 3), np.float32), n=0, m=3), np.zeros(3)
    )


def test_sums_are_accumulated_in_the_dtype_of_the_values() -> None:
    flags = Buffer("x", TensorType((N,), int32))
    nests = (
        Nest((s,), (), (Reduction("t", "sum", at(flags, s)),)),
        Nest((), (), (), (Store("y", (), Var("t", int32)),)),
    )
    assert (
        run(
            Kernel((), nests, (flags,), (Buffer("y", TensorType((), int32)),)),
            np.array([3, -5], np.int32),
            n=2,
        ).dtype
        == np.int32
    )


# Functions


POINTS = np.array([-np.inf, -90.0, -20.0, -1.5, -1e-6, 0.0, 1e-6, 0.5, 1.5, 20.0, 90.0, np.inf, np.nan])
EXACT = {
    "exp": math.exp, "expm1": math.expm1, "tanh": math.tanh, "erf": math.erf, "sin": math.sin,
    "cos": math.cos,
    "logistic": lambda x: 1 / (1 + math.exp(-x)) if x > -700 else 0.0,
    "softplus": lambda x: max(x, 0.0) + math.log1p(math.exp(-abs(x))),
    "absolute": abs, "floor": math.floor, "neg": lambda x: -x, "log": math.log, "log1p": math.log1p,
    "sqrt": math.sqrt,
    "sign": lambda x: (x > 0) - (x < 0),
}  # fmt: skip


def apply(function: str, *arrays: np.ndarray, dtype=None) -> np.ndarray:
    """One function at every element."""
    kinds = {"float32": float32, "float64": float64, "int32": int32, "int64": int64, "bool": boolean}
    buffers = tuple(Buffer(f"x{k}", TensorType((N,), kinds[a.dtype.name])) for k, a in enumerate(arrays))
    value: Expr = call(function, *(at(b, i) for b in buffers), dtype=dtype)
    out = Buffer("y", TensorType((N,), value.dtype))
    return run(
        Kernel((i,), (Nest((), (), (), (Store("y", (Index(i),), value),)),), buffers, (out,)),
        *arrays,
        n=len(arrays[0]),
    )


@pytest.mark.parametrize("function", EXACT)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_functions_of_one_value_are_right_to_two_ulp(function: str, dtype: str) -> None:
    def exact(x: float) -> float:
        try:
            return float(EXACT[function](x))
        except (OverflowError, ValueError):
            return {"exp": math.inf, "expm1": math.inf, "softplus": math.inf, "floor": x}.get(
                function, -math.inf if function in ("log", "log1p") and x in (0, -1) else math.nan
            )

    data = POINTS.astype(dtype)
    found = apply(function, data)
    assert found.dtype == data.dtype
    for x, value in zip(data.tolist(), found, strict=True):
        if math.isnan(x) or (math.isinf(x) and function not in EXACT):
            assert np.isnan(value)
            continue
        with np.errstate(over="ignore"):
            expected = np.array(exact(x)).astype(dtype)
        if np.isfinite(expected):
            assert abs(float(value) - float(expected)) <= 2 * np.spacing(np.abs(expected)), (
                function,
                x,
                value,
                expected,
            )
        else:
            assert np.array_equal(value, expected, equal_nan=True), (function, x, value, expected)


def test_binary_functions_follow_numpy() -> None:
    a, b = np.array([7, -7, 7, -7], np.int32), np.array([2, 2, -2, -2], np.int32)
    np.testing.assert_array_equal(apply("floordiv", a, b), a // b)
    np.testing.assert_array_equal(apply("mod", a, b), a % b)
    nan, one = np.array([np.nan, 1.0], np.float32), np.array([1.0, np.nan], np.float32)
    assert np.isnan(apply("maximum", nan, one)).all() and np.isnan(apply("minimum", nan, one)).all()
    np.testing.assert_array_equal(apply("power", np.array([2.0, -2.0]), np.array([3.0, 2.0])), [8, 4])
    np.testing.assert_array_equal(apply("div", np.array([1.0, 0.0]), np.array([0.0, 0.0])), [np.inf, np.nan])


def test_comparisons_and_choices_are_bool_and_exact() -> None:
    a, b = np.array([0.0, -0.0, np.nan], np.float32), np.array([-0.0, 1.0, np.nan], np.float32)
    for name, ufunc in {
        "eq": np.equal,
        "ne": np.not_equal,
        "lt": np.less,
        "le": np.less_equal,
        "gt": np.greater,
        "ge": np.greater_equal,
    }.items():
        found = apply(name, a, b)
        assert found.dtype == np.bool_
        np.testing.assert_array_equal(found, ufunc(a, b))
    flag = np.array([True, False, True])
    np.testing.assert_array_equal(apply("select", flag, a, b, dtype=float32), np.where(flag, a, b))
    np.testing.assert_array_equal(apply("and", flag, ~flag), [False] * 3)
    np.testing.assert_array_equal(apply("or", flag, ~flag), [True] * 3)
    np.testing.assert_array_equal(apply("not", flag), ~flag)


def test_casts_truncate_towards_zero() -> None:
    values = np.array([1.9, -1.9, 0.0, 3.0], np.float32)
    np.testing.assert_array_equal(apply("cast", values, dtype=int32), np.array([1, -1, 0, 3], np.int32))
    np.testing.assert_array_equal(apply("cast", values, dtype=boolean), [True, True, False, True])


def test_the_interpreter_knows_every_function_of_the_notation() -> None:
    assert set(interpreter.FUNCTIONS) | {"cast"} | RANDOM.keys() == FUNCTIONS


def test_constants_keep_their_dtype() -> None:
    value = Apply("add", (Const(0.1, float64), Const(0.2, float64)), float64)
    out = Buffer("y", TensorType((), float64))
    assert run(Kernel((), (Nest((), (), (), (Store("y", (), value),)),), (), (out,))) == 0.1 + 0.2
