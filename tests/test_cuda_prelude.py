"""The words of CUDA source mean what NumPy means (on the emulator), and become the SASS they should."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from flowgraph.backends.cuda.device import CudaDevice, RealDevice, cuda_available
from flowgraph.backends.cuda.emulator import EmulatedDevice
from flowgraph.backends.cuda.offline import check
from flowgraph.errors import DeviceError

DTYPES = {"f32": np.float32, "f64": np.float64, "i32": np.int32, "i64": np.int64, "bool": np.bool_}
MACHINES = [(8, 0), (9, 0)]
KINDS = ["emulated", "real"] if cuda_available()[0] else ["emulated"]
current = ["emulated"]


@cache
def open_device(kind: str) -> CudaDevice:
    return RealDevice() if kind == "real" else EmulatedDevice(memory=1 << 24)


@pytest.fixture(params=KINDS, autouse=True)
def on(request: pytest.FixtureRequest) -> None:
    """Every test runs on the emulator, and on a GPU where there is one."""
    current[0] = request.param


def elementwise(expression: str, arguments: dict[str, str], result: str) -> str:
    """A kernel that stores `expression` of its loaded arguments {name: dtype}."""
    pointers = ", ".join(f"p_{name}" for name in arguments)
    loads = "".join(f"        {name} = load_{dtype}(p_{name}, i)\n" for name, dtype in arguments.items())
    return (
        f"def kernel({pointers}, p_out, n):\n"
        "    i = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x\n"
        f"    if i < n:\n{loads}        store_{result}(p_out, i, {expression})\n"
    )


def evaluate(expression: str, result: str, **arrays: np.ndarray) -> np.ndarray:
    """The expression at every element, computed by the emulator, 32 threads a block."""
    names = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
    source = elementwise(expression, {k: names[a.dtype] for k, a in arrays.items()}, result)
    device = open_device(current[0])
    n = next(iter(arrays.values())).size
    addresses = []
    for array in arrays.values():
        addresses.append(device.alloc(array.nbytes))
        device.to_device(addresses[-1], array)
    out = np.empty(n, DTYPES[result])
    addresses.append(device.alloc(out.nbytes))
    kernel = device.load(source, "kernel", ("i64",) * len(addresses) + ("i32",))
    device.launch(kernel, (-(-n // 32), 1, 1), (32, 1, 1), (*addresses, n))
    device.to_host(addresses[-1], out)
    for address in addresses:
        device.free(address)
    return out


def floats(dtype: str) -> np.ndarray:
    """Special values, both signs of all magnitudes, and ordinary numbers."""
    kind = DTYPES[dtype]
    limits = np.finfo(kind)
    special = [
        0.0,
        -0.0,
        np.inf,
        -np.inf,
        np.nan,
        1.0,
        -1.0,
        0.5,
        -0.5,
        limits.max,
        limits.tiny,
        -limits.tiny,
    ]
    rng = np.random.default_rng(1)
    magnitudes = 10.0 ** rng.uniform(-30, 30, 500) * rng.choice([-1, 1], 500)
    return np.concatenate([special, magnitudes, rng.normal(0, 10, 500)]).astype(kind)


def ulps(actual: np.ndarray, exact: np.ndarray) -> float:
    """The largest distance from the right answer in units of its last place; infinite where NaN differs."""
    expected = exact.astype(actual.dtype)
    same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.abs(actual.astype(exact.dtype) - exact) / np.spacing(np.abs(expected)).astype(
            exact.dtype
        )
    distance = np.where(same, 0, np.where(np.isfinite(distance), distance, np.inf))
    return float(distance.max())


def reference(name: str, x: np.ndarray) -> np.ndarray:
    """The function in the widest float there is."""
    wide = x.astype(np.longdouble)
    if name == "logistic":
        e = np.exp(-np.abs(wide))
        return np.where(wide >= 0, 1, e) / (1 + e)
    if name == "softplus":
        return np.maximum(wide, 0) + np.log1p(np.exp(-np.abs(wide)))
    return getattr(np, {"absolute": "abs"}.get(name, name))(wide)


UNARY = ["exp", "log", "log1p", "expm1", "tanh", "logistic", "softplus", "sqrt", "floor", "absolute", "sign"]


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("name", UNARY)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_function_is_within_four_ulps_and_right_at_nan_and_infinity(name: str, dtype: str) -> None:
    x = floats(dtype)
    assert ulps(evaluate(f"{name}(x)", dtype, x=x), reference(name, x)) <= 4


@pytest.mark.parametrize("name", ["sin", "cos"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_sine_and_cosine_hold_for_large_arguments(name: str) -> None:
    x = floats("f32")
    x = x[~(np.abs(x) > 1e15) | np.isinf(x)]  # beyond, NumPy's own reduction is not exact in long double
    assert ulps(evaluate(f"{name}(x)", "f32", x=x), reference(name, x)) <= 4


def test_erf_agrees_with_the_c_library() -> None:
    import math

    x = floats("f64")
    expected = np.array([math.erf(v) for v in x])
    np.testing.assert_allclose(evaluate("erf(x)", "f64", x=x), expected, rtol=1e-14)


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("expression", "numpy"),
    [
        ("minimum(a, b)", np.minimum), ("maximum(a, b)", np.maximum),
        ("a + b", np.add), ("a - b", np.subtract),
        ("a * b", np.multiply), ("a / b", np.divide), ("floor_divide(a, b)", np.floor_divide),
        ("remainder(a, b)", np.remainder), ("select(a < b, a, b)", lambda a, b: np.where(a < b, a, b)),
    ],
)  # fmt: skip
def test_a_binary_float_operation_is_numpys(expression: str, numpy: np.ufunc, dtype: str) -> None:
    values = floats(dtype)[:40]
    a, b = np.repeat(values, values.size), np.tile(values, values.size)
    np.testing.assert_array_equal(evaluate(expression, dtype, a=a, b=b), numpy(a, b))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_power_is_within_four_ulps() -> None:
    rng = np.random.default_rng(2)
    a = np.concatenate([rng.uniform(0, 10, 500), [0, 0, -2, -2, np.inf, np.nan, 1]]).astype(np.float32)
    b = np.concatenate([rng.normal(0, 5, 500), [0, -1, 3, 0.5, -1, 0, np.nan]]).astype(np.float32)
    assert ulps(evaluate("power(a, b)", "f32", a=a, b=b), np.power(a.astype(np.longdouble), b)) <= 4


@pytest.mark.parametrize("dtype", ["i32", "i64"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("expression", "numpy"),
    [
        ("a // b", np.floor_divide), ("a % b", np.remainder), ("floor_divide(a, b)", np.floor_divide),
        ("remainder(a, b)", np.remainder), ("a + b", np.add), ("a - b", np.subtract), ("a * b", np.multiply),
        ("minimum(a, b)", np.minimum), ("maximum(a, b)", np.maximum), ("-a", lambda a, b: -a),
        ("absolute(a)", lambda a, b: np.abs(a)), ("sign(a)", lambda a, b: np.sign(a)),
    ],
)  # fmt: skip
def test_an_integer_operation_is_numpys_and_wraps_in_its_dtype(
    expression: str, numpy: np.ufunc, dtype: str
) -> None:
    limits = np.iinfo(DTYPES[dtype])
    values = np.array(
        [0, 1, -1, 2, -2, 7, -7, 1000, -1000, limits.max, limits.min, limits.min + 1], DTYPES[dtype]
    )
    a, b = np.repeat(values, values.size), np.tile(values, values.size)
    np.testing.assert_array_equal(evaluate(expression, dtype, a=a, b=b), numpy(a, b))


def test_int32_arithmetic_wraps_before_it_is_compared() -> None:
    a = np.array([2**31 - 1, 5], np.int32)
    np.testing.assert_array_equal(evaluate("a + 1 > a", "bool", a=a), [False, True])


@pytest.mark.parametrize("comparison", ["<", "<=", ">", ">=", "==", "!="])
def test_a_comparison_with_nan_is_numpys(comparison: str) -> None:
    values = floats("f32")[:12]
    a, b = np.repeat(values, values.size), np.tile(values, values.size)
    expected = eval(f"a {comparison} b", {"a": a, "b": b})
    np.testing.assert_array_equal(evaluate(f"a {comparison} b", "bool", a=a, b=b), expected)


@pytest.mark.parametrize("expression", ["a & b", "a | b", "~a", "~a & b", "minimum(a, b)", "maximum(a, b)"])
def test_logic_on_bools_is_numpys(expression: str) -> None:
    a, b = np.array([0, 0, 1, 1], bool), np.array([0, 1, 0, 1], bool)
    expected = eval(expression, {"a": a, "b": b, "minimum": np.minimum, "maximum": np.maximum})
    np.testing.assert_array_equal(evaluate(expression, "bool", a=a, b=b), expected)


@pytest.mark.parametrize("target", DTYPES)
@pytest.mark.parametrize("source", DTYPES)
def test_a_conversion_is_numpys(source: str, target: str) -> None:
    values = np.array([0, 1, -1, 2.75, -2.75, 100], np.float64)
    if source in ("f32", "f64") and target in ("f32", "f64", "bool"):
        values = np.concatenate([values, [np.nan, np.inf, -0.0]])
    x = values.astype(DTYPES[source])
    np.testing.assert_array_equal(evaluate(f"to_{target}(x)", target, x=x), x.astype(DTYPES[target]))


def test_constants_take_the_dtype_they_are_written_in() -> None:
    x = np.array([1.0, -1.0], np.float32)
    expected = np.array([np.float32(0.1), np.inf], np.float32)
    np.testing.assert_array_equal(
        evaluate("select(x > to_f32(0.0), to_f32(0.1), to_f32(inf))", "f32", x=x), expected
    )


def test_fma_rounds_once() -> None:
    x = np.array([1 + 2.0**-23], np.float32)
    assert evaluate("fma(x, x, to_f32(-1.0))", "f32", x=x)[0] == np.float32(float(x[0]) ** 2 - 1)


def test_index_division_takes_an_index_apart() -> None:
    i, n = np.arange(100, dtype=np.int32), np.full(100, 7, np.int32)
    np.testing.assert_array_equal(
        evaluate("index_div(i, n) * 100 + index_mod(i, n)", "i32", i=i, n=n), i // 7 * 100 + i % 7
    )


@pytest.mark.parametrize("dtype", ["f32", "f64", "i32", "i64"])
def test_warp_reductions_give_every_lane_the_same(dtype: str) -> None:
    x = np.random.default_rng(3).integers(-50, 50, 96).astype(DTYPES[dtype])
    for name, numpy in (("warp_sum", np.sum), ("warp_max", np.max), ("warp_min", np.min)):
        expected = np.repeat(numpy(x.reshape(3, 32), axis=1), 32)
        np.testing.assert_array_equal(evaluate(f"{name}(x)", dtype, x=x), expected)


def test_warp_extrema_propagate_nan_and_reduce_bools() -> None:
    x = np.arange(64, dtype=np.float32)
    x[40] = np.nan
    assert np.isnan(evaluate("warp_max(x)", "f32", x=x)).tolist() == [False] * 32 + [True] * 32
    flags = np.zeros(64, bool)
    flags[3] = True
    np.testing.assert_array_equal(evaluate("warp_max(f)", "bool", f=flags), [True] * 32 + [False] * 32)
    np.testing.assert_array_equal(evaluate("warp_min(~f)", "bool", f=flags), [False] * 32 + [True] * 32)


@pytest.mark.parametrize("dtype", DTYPES)
def test_shuffles_move_values_between_lanes(dtype: str) -> None:
    x = np.random.default_rng(4).integers(0, 2 if dtype == "bool" else 100, 32).astype(DTYPES[dtype])
    np.testing.assert_array_equal(evaluate("shuffle_xor(x, 5)", dtype, x=x), x[np.arange(32) ^ 5])
    down = np.concatenate([x[3:], x[29:]])
    np.testing.assert_array_equal(evaluate("shuffle_down(x, 3)", dtype, x=x), down)


@pytest.mark.parametrize(("dtype", "width"), [("f32", 4), ("i32", 4), ("f64", 4), ("f64", 2), ("i64", 2)])
def test_vector_loads_and_stores_keep_the_order_of_elements(dtype: str, width: int) -> None:
    lanes = [f"x{k}" for k in range(width)]
    source = (
        "def kernel(p, q, n):\n    i = cuda.threadIdx.x * " + f"{width}\n"
        f"    {', '.join(lanes)} = load{width}_{dtype}(p, i)\n"
        f"    store{width}_{dtype}(q, i, {', '.join(reversed(lanes))})\n"
    )
    x = np.arange(8 * width).astype(DTYPES[dtype])
    device, out = open_device(current[0]), np.empty_like(x)
    p, q = device.alloc(x.nbytes), device.alloc(x.nbytes)
    device.to_device(p, x)
    device.launch(device.load(source, "kernel", ("i64", "i64", "i32")), (1, 1, 1), (8, 1, 1), (p, q, x.size))
    device.to_host(q, out)
    np.testing.assert_array_equal(out, x.reshape(8, width)[:, ::-1].reshape(-1))


@pytest.mark.parametrize(
    "expression", ["minimum(x, 1.0)", "select(x, x, x)", "exp(to_i32(x))", "fma(x, x, to_f64(x))"]
)
def test_operands_of_different_dtypes_are_refused(expression: str) -> None:
    with pytest.raises(DeviceError, match="is not defined"):
        evaluate(expression, "f32", x=np.ones(1, np.float32))


def test_storing_a_float_of_another_width_is_refused() -> None:
    with pytest.raises(DeviceError, match="store_f32"):
        evaluate("to_f64(x)", "f32", x=np.ones(1, np.float32))


# ---- what the words become


@pytest.mark.parametrize("machine", MACHINES)
def test_four_floats_are_one_load_and_one_store(machine: tuple[int, int]) -> None:
    source = (
        "def kernel(p, q, n):\n    i = (cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x) * 4\n"
        "    if i + 3 < n:\n        a, b, c, d = load4_f32(p, i)\n        store4_f32(q, i, d, c, b, a)\n"
    )
    report = check(source, "kernel", 2, 1, machine)
    assert (report.count(r"LDG\.E\.128"), report.count(r"STG\.E\.128"), report.count("LDG|STG")) == (1, 1, 2)
    assert not report.spills


@pytest.mark.parametrize("machine", MACHINES)
def test_indices_are_computed_in_32_bits_and_memory_is_global(machine: tuple[int, int]) -> None:
    source = elementwise("load_f32(p_x, index_mod(i, n) * n + index_div(i, n))", {"x": "f32"}, "f32")
    report = check(source, "kernel", 2, 1, machine)
    assert report.count(r"LDG\.E") and report.count(r"STG\.E")
    assert not report.count(r"LD\.|ST\.|ISETP\S*\.EX|CALL"), report.instructions


@pytest.mark.parametrize("machine", MACHINES)
def test_float32_functions_use_no_double_precision_and_no_local_memory(machine: tuple[int, int]) -> None:
    total = " + ".join(f"{name}(x)" for name in [*UNARY, "erf"])
    report = check(elementwise(total, {"x": "f32"}, "f32"), "kernel", 2, 1, machine)
    assert not report.count(r"D(ADD|MUL|FMA|SETP)\b|F2F\.F64"), report.instructions
    assert not report.spills
    assert report.registers <= 40


@pytest.mark.parametrize("machine", MACHINES)
def test_only_what_says_fma_is_rounded_once(machine: tuple[int, int]) -> None:
    plain = check(elementwise("x * x + x", {"x": "f32"}, "f32"), "kernel", 2, 1, machine)
    assert plain.count("FFMA") == 0 and (plain.count("FMUL"), plain.count("FADD")) == (1, 1)
    fused = check(elementwise("fma(x, x, x)", {"x": "f32"}, "f32"), "kernel", 2, 1, machine)
    assert fused.count("FFMA") == 1 and fused.count("FMUL|FADD") == 0


@pytest.mark.parametrize("machine", MACHINES)
def test_a_warp_sum_is_five_shuffles(machine: tuple[int, int]) -> None:
    report = check(elementwise("warp_sum(x)", {"x": "f32"}, "f32"), "kernel", 2, 1, machine)
    assert report.count(r"SHFL\.BFLY") == 5
