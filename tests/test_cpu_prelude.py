"""The names generated CPU kernels are written in: every one on scalars and on vectors, against NumPy in
float64."""

from __future__ import annotations

import ctypes
import functools
import itertools
import math
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator

import llvmlite.binding as llvm
import numpy as np
import pytest

from flowgraph.codegen.cpu.target import lower
from flowgraph.codegen.cpu.value import LANES
from flowgraph.codegen.cpu_prelude import default_tile, namespace, namespace_for

NUMPY = {"f32": np.float32, "f64": np.float64, "i32": np.int32, "i64": np.int64, "bool": np.bool_}
NUMBERS = ("f32", "f64", "i32", "i64")
KEPT: list[object] = []
count = itertools.count()


# --- running a few lines of generated source ----------------------------------------------------------------


@functools.cache
def machine(cpu: str, features: str) -> llvm.TargetMachine:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(
        cpu=cpu, features=features, opt=2, reloc="static", codemodel="large", jit=True
    )


def host() -> tuple[str, str]:
    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


def module_of(source: str, symbol: str, processor: tuple[str, str] | None = None) -> llvm.ModuleRef:
    scope = namespace_for(source)
    exec(compile(source, "<kernel>", "exec"), scope)
    module = lower(scope["kernel"], symbol)  # type: ignore[arg-type]
    tuning = llvm.create_pipeline_tuning_options(speed_level=2)
    tuning.loop_vectorization = tuning.slp_vectorization = False
    passes = llvm.create_pass_builder(machine(*(processor or host())), tuning)
    passes.getModulePassManager().run(module, passes)
    return module


@functools.cache
def build(source: str, processor: tuple[str, str] | None = None) -> Callable[[int, int, int], None]:
    symbol = f"kernel{next(count)}"
    machine_code = machine(*(processor or host()))
    engine = llvm.create_mcjit_compiler(module_of(source, symbol, processor), machine_code)
    engine.finalize_object()
    KEPT.append(engine)
    word = ctypes.c_int64
    return ctypes.CFUNCTYPE(None, word, word, word)(engine.get_function_address(symbol))


def run(
    body: str, *arguments: np.ndarray | int, tasks: int = 1, processor: tuple[str, str] | None = None
) -> None:
    """Run `body` for each task t; it finds the arguments as p0, p1, ..."""
    lines = ["def kernel(args, lo, hi):", *(f"    p{k} = arg(args, {k})" for k in range(len(arguments)))]
    lines += ["    for t in range(lo, hi):", textwrap.indent(textwrap.dedent(body).strip(), " " * 8)]
    words = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments]
    table = np.array(words, np.int64)
    build("\n".join(lines) + "\n", processor)(table.ctypes.data, 0, tasks)


def both_ways(expression: str, result: str, *operands: np.ndarray) -> Iterator[np.ndarray]:
    """The expression in a, b, c over whole arrays: on vectors, then on scalars."""
    dtypes = [next(name for name, d in NUMPY.items() if d == a.dtype) for a in operands]
    size = len(operands[0])
    assert size % LANES == 0
    for vector in (True, False):
        prefix, index = ("v", f"{LANES} * t") if vector else ("", "t")
        out = np.zeros(size, NUMPY[result])
        loads = [
            f"{'abc'[k]} = {prefix}load_{d}(p{k + 1}, {index})" for k, d in enumerate(dtypes)
        ]
        body = "\n".join([*loads, f"{prefix}store_{result}(p0, {index}, {expression})"])
        run(body, out, *operands, tasks=size // LANES if vector else size)
        yield out


def samples(dtype: str, size: int = 256, seed: int = 0) -> np.ndarray:
    """Values of every size, with the special ones among them."""
    random = np.random.default_rng(seed)
    if dtype == "bool":
        return random.random(size) < 0.5
    if dtype in ("i32", "i64"):
        bits = 8 * NUMPY[dtype]().itemsize
        values = random.integers(-20, 20, size).astype(NUMPY[dtype])
        values[::7] = random.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1, len(values[::7]))
        values[:3] = np.iinfo(NUMPY[dtype]).min, np.iinfo(NUMPY[dtype]).max, 0
        return random.permutation(values)
    values = (random.standard_normal(size) * 10.0 ** random.integers(-3, 3, size)).astype(NUMPY[dtype])
    values[:6] = 0.0, -0.0, np.inf, -np.inf, np.nan, 1.0
    return random.permutation(values)


def same(got: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(got, expected.astype(got.dtype))


# --- arithmetic ---------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
class TestOperators:
    @pytest.mark.parametrize("dtype", NUMBERS)
    @pytest.mark.parametrize("operator", ["+", "-", "*", "<", "<=", ">", ">=", "==", "!="])
    def test_an_operator_does_what_numpy_does(self, dtype: str, operator: str) -> None:
        a, b = samples(dtype, seed=1), samples(dtype, seed=2)
        b[::5] = a[::5]
        expected = eval(f"a {operator} b")
        for got in both_ways(f"a {operator} b", dtype if operator in "+-*" else "bool", a, b):
            same(got, expected)

    @pytest.mark.parametrize("dtype", ["f32", "f64"])
    def test_division_of_floats_obeys_ieee(self, dtype: str) -> None:
        a, b = samples(dtype, seed=1), samples(dtype, seed=2)
        for got in both_ways("a / b", dtype, a, b):
            same(got, a / b)

    @pytest.mark.parametrize("dtype", ["i32", "i64"])
    @pytest.mark.parametrize("operator", ["//", "%"])
    def test_integers_divide_floored_and_never_trap(self, dtype: str, operator: str) -> None:
        a, b = samples(dtype, seed=1), samples(dtype, seed=2)
        smallest = np.iinfo(NUMPY[dtype]).min
        a[:6], b[:6] = [7, -7, 7, -7, 5, smallest], [2, 2, -2, -2, 0, -1]
        vectors, scalars = both_ways(f"a {operator} b", dtype, a, b)
        expected = eval(f"a {operator} b")
        same(vectors, expected)
        scalars[5] = expected[5]  # numba's own scalar smallest // -1 is 0: no trap, but nothing to rely on
        same(scalars, expected)

    @pytest.mark.parametrize("dtype", NUMBERS)
    def test_a_vector_meets_a_scalar_on_either_side(self, dtype: str) -> None:
        a = samples(dtype)
        expected = {"a - s": a - a[5], "s - a": a[5] - a, "s * a": a[5] * a, "s < a": a[5] < a}
        for expression, value in expected.items():
            result = "bool" if "<" in expression else dtype
            out = np.zeros(len(a), NUMPY[result])
            body = f"""
                a = vload_{dtype}(p1, 16 * t)
                s = load_{dtype}(p1, 5)
                vstore_{result}(p0, 16 * t, {expression})
            """
            run(body, out, a, tasks=len(a) // LANES)
            same(out, value)

    def test_floats_of_two_sizes_do_not_mix(self) -> None:
        with pytest.raises(Exception, match=r"vector\(f32\), vector\(f64\)"):
            run("vstore_f32(p0, 0, vload_f32(p0, 0) + vload_f64(p0, 0))", np.zeros(32))

    @pytest.mark.parametrize("expression", ["a & b", "a | b", "a ^ b", "~a", "a == b", "a != b"])
    def test_bools_combine(self, expression: str) -> None:
        a, b = samples("bool", seed=1), samples("bool", seed=2)
        for got in both_ways(expression, "bool", a, b):
            same(got, eval(expression))

    @pytest.mark.parametrize("dtype", NUMBERS)
    def test_unary_functions(self, dtype: str) -> None:
        a = samples(dtype)
        functions = {"-a": -a, "absolute(a)": np.abs(a), "sign(a)": np.sign(a), "floor(a)": np.floor(a)}
        for expression, expected in functions.items():
            for got in both_ways(expression, dtype, a):
                same(got, expected)

    @pytest.mark.parametrize("dtype", ["f32", "f64"])
    def test_square_root(self, dtype: str) -> None:
        a = samples(dtype)
        for got in both_ways("sqrt(a)", dtype, a):
            same(got, np.sqrt(a))

    @pytest.mark.parametrize("dtype", NUMBERS)
    def test_minimum_and_maximum_propagate_nan(self, dtype: str) -> None:
        a, b = samples(dtype, seed=1), samples(dtype, seed=2)
        for got in both_ways("minimum(a, b)", dtype, a, b):
            same(got, np.minimum(a, b))
        for got in both_ways("maximum(a, b)", dtype, a, b):
            same(got, np.maximum(a, b))

    def test_a_product_and_a_sum_contract_alike_on_scalars_and_vectors(self) -> None:
        a, b, c = (samples("f32", seed=k) for k in range(3))
        vectors, scalars = both_ways("a * b + c", "f32", a, b, c)
        same(vectors, scalars)

    @pytest.mark.parametrize("dtype", NUMPY)
    def test_select_chooses_lane_by_lane(self, dtype: str) -> None:
        c, a, b = samples("bool"), samples(dtype, seed=1), samples(dtype, seed=2)
        for got in both_ways("select(a, b, c)", dtype, c, a, b):
            same(got, np.where(c, a, b))

    @pytest.mark.parametrize("source", NUMPY)
    @pytest.mark.parametrize("target", NUMPY)
    def test_conversions(self, source: str, target: str) -> None:
        a = samples(source)
        if source in ("f32", "f64") and target in ("i32", "i64"):
            a = np.clip(np.nan_to_num(a), -1000, 1000)  # elsewhere the result is not defined
        for got in both_ways(f"to_{target}(a)", target, a):
            same(got, a.astype(NUMPY[target]))


# --- mathematics --------------------------------------------------------------------------------------------


def sweep(step: int = 4219) -> np.ndarray:
    """About a million float32 bit patterns over the whole range, and the special ones."""
    bits = np.arange(0, 2**32, step, dtype=np.uint64).astype(np.uint32)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 88.72284, -103.97, 1e-45, -1e-45]
    values = np.concatenate([np.array(special, np.float32), bits.view(np.float32)])
    return values[: len(values) // LANES * LANES]


def distance(got: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """|got - exact| in units of the last place of the float32 nearest to exact; 0 where both are the same
    special value."""
    nearest = exact.astype(np.float32)
    spacing = np.spacing(np.abs(np.where(np.isfinite(nearest), nearest, np.float32(1)))).astype(np.float64)
    equal = (got == nearest) | (np.isnan(got) & np.isnan(nearest))
    off = np.abs(got.astype(np.float64) - exact) / spacing
    return np.where(equal, 0.0, np.where(np.isnan(off), np.inf, off))


def logistic(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


EXACT: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "tanh": np.tanh,
    "sin": np.sin,
    "cos": np.cos,
    "erf": lambda x: np.array([math.erf(v) for v in x.tolist()]),
    "logistic": logistic,
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
class TestMathematics:
    @pytest.mark.parametrize("name", EXACT)
    def test_float32_functions_are_within_four_units_of_the_last_place(self, name: str) -> None:
        x = sweep()
        vectors = next(both_ways(f"{name}(a)", "f32", x))
        error = distance(vectors, EXACT[name](x.astype(np.float64)))
        worst = int(np.argmax(error))
        assert error[worst] <= 4, f"{name}({x[worst]!r}) = {vectors[worst]!r}, off by {error[worst]}"

    @pytest.mark.parametrize("processor", [("haswell", ""), ("skylake-avx512", "")], ids=["AVX2", "AVX-512"])
    @pytest.mark.parametrize("name", EXACT)
    def test_float32_functions_are_vector_instructions(self, name: str, processor: tuple[str, str]) -> None:
        if not llvm.get_process_triple().startswith("x86_64"):
            pytest.skip("x86 only")
        source = f"""
def kernel(args, lo, hi):
    out, x = arg(args, 0), arg(args, 1)
    for t in range(lo, hi):
        vstore_f32(out, 16 * t, {name}(vload_f32(x, 16 * t)))
"""
        assembly = machine(*processor).emit_assembly(module_of(source, "function", processor))
        register = {"haswell": "ymm", "skylake-avx512": "zmm"}[processor[0]]
        assert re.search(rf"v(mul|fmadd\d+)ps.*%{register}", assembly)
        assert not re.search(r"v(add|sub|mul|div|max|min|sqrt|fn?m(add|sub)\d+)ss", assembly)
        # beyond 16384, sin and cos ask the C library, lane by lane, in a branch of their own
        assert ("call" in assembly) == (name in ("sin", "cos"))

    @pytest.mark.parametrize("name", EXACT)
    def test_zeros_keep_their_sign(self, name: str) -> None:
        x = np.array([0.0, -0.0] * 8, np.float32)
        for got in both_ways(f"{name}(a)", "f32", x):
            assert np.array_equal(np.signbit(got), np.signbit(EXACT[name](x.astype(np.float64))))

    @pytest.mark.parametrize("name", EXACT)
    def test_a_scalar_and_a_lane_give_the_same_bits(self, name: str) -> None:
        x = sweep(70001)
        vectors, scalars = both_ways(f"{name}(a)", "f32", x)
        numbers = ~np.isnan(x)
        assert np.array_equal(vectors[numbers].view(np.int32), scalars[numbers].view(np.int32))

    @pytest.mark.parametrize("name", EXACT)
    def test_float64_functions_are_the_c_librarys(self, name: str) -> None:
        x = np.concatenate([samples("f64", 512), np.linspace(-20, 20, 512)])
        for got in both_ways(f"{name}(a)", "f64", x):
            np.testing.assert_allclose(got, EXACT[name](x), rtol=5e-16 * 4, atol=1e-300)

    def test_power_is_within_four_units_of_the_last_place(self) -> None:
        random = np.random.default_rng(0)
        a = np.exp(random.uniform(-80, 80, 2**17)).astype(np.float32)
        b = (random.uniform(-90, 90, 2**17) / np.maximum(1, np.abs(np.log(a)))).astype(np.float32)
        a[::3], b[::3] = -a[::3], np.rint(b[::3])
        a[:1000] = np.float32(1) + np.arange(1000, dtype=np.float32) * np.float32(1e-7)
        b[:1000] = 1e6
        vectors = next(both_ways("power(a, b)", "f32", a, b))
        assert distance(vectors, a.astype(np.float64) ** b.astype(np.float64)).max() <= 4

    @pytest.mark.parametrize("dtype", ["f32", "f64"])
    def test_power_treats_special_values_as_c_does(self, dtype: str) -> None:
        positive = [0.0, 1.0, 2.0, 0.5, 3.0, 2.5, 1e30, np.inf]
        special = [*positive, *(-v for v in positive), np.nan]
        pairs = np.array(list(itertools.product(special, special)), NUMPY[dtype])
        pairs = np.concatenate([pairs, np.ones((-len(pairs) % LANES, 2), NUMPY[dtype])])
        a, b = np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1])
        expected = np.power(a.astype(np.float64), b.astype(np.float64)).astype(NUMPY[dtype])
        for got in both_ways("power(a, b)", dtype, a, b):
            np.testing.assert_allclose(got, expected, rtol=4e-7 if dtype == "f32" else 1e-15)
            numbers = ~np.isnan(expected)
            assert np.array_equal(np.signbit(got[numbers]), np.signbit(expected[numbers]))


# --- lanes --------------------------------------------------------------------------------------------------


def tree(values: np.ndarray, combine: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.generic:
    while len(values) > 1:
        values = combine(values[: len(values) // 2], values[len(values) // 2 :])
    return values[0]


class TestLanes:
    @pytest.mark.parametrize("dtype", NUMBERS)
    def test_a_horizontal_sum_has_one_fixed_order(self, dtype: str) -> None:
        a = np.nan_to_num(samples(dtype, LANES), posinf=3, neginf=4)
        out = np.zeros(1, NUMPY[dtype])
        run(f"store_{dtype}(p0, 0, hsum(vload_{dtype}(p1, 0)))", out, a)
        with np.errstate(over="ignore"):
            assert out[0] == tree(a, np.add)

    @pytest.mark.parametrize("dtype", NUMBERS)
    @pytest.mark.parametrize("lane", range(LANES))
    def test_horizontal_extrema_find_every_lane(self, dtype: str, lane: int) -> None:
        a, out = np.zeros(LANES, NUMPY[dtype]), np.zeros(2, NUMPY[dtype])
        body = f"v = vload_{dtype}(p1, 0)\nstore_{dtype}(p0, 0, hmax(v))\nstore_{dtype}(p0, 1, hmin(v))"
        for value in (7, -7, *([np.nan] if dtype in ("f32", "f64") else [])):
            a[lane] = value
            run(body, out, a)
            same(out, np.array([a.max(), a.min()]))

    @pytest.mark.parametrize("true", [0, 1, 15, 16])
    def test_any_and_all(self, true: int) -> None:
        a, out = np.arange(LANES) < true, np.zeros(2, np.bool_)
        run("v = vload_bool(p1, 0)\nstore_bool(p0, 0, hany(v))\nstore_bool(p0, 1, hall(v))", out, a)
        assert out.tolist() == [bool(a.any()), bool(a.all())]

    def test_lane_numbers_and_splat(self) -> None:
        out = np.zeros(3 * LANES, np.int64)
        run("vstore_i64(p0, 0, lanes_i64(p1))\nvstore_i64(p0, 16, splat_i64(p1))", out, 5)
        assert out.tolist() == [*range(5, 21), *[5] * 16, *[0] * 16]

    @pytest.mark.parametrize("n", range(1, LANES + 1))
    def test_head_fills_the_lanes_behind(self, n: int) -> None:
        a, out = samples("f32", LANES), np.zeros(LANES, np.float32)
        run("vstore_f32(p0, 0, head(vload_f32(p1, 0), p2, to_f32(-3.0)))", out, a, n)
        same(out, np.where(np.arange(LANES) < n, a, np.float32(-3)))


# --- memory -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", NUMPY)
class TestMemory:
    @pytest.mark.parametrize("n", range(1, LANES + 1))
    def test_heads_touch_only_their_lanes(self, dtype: str, n: int) -> None:
        a, out = samples(dtype, 32), samples(dtype, 48, seed=9)
        expected = out.copy()
        expected[3 : 3 + n] = a[5 : 5 + n]
        expected[27:43] = np.where(np.arange(LANES) < n, a[5:21], NUMPY[dtype](0))
        run(
            f"""
            v = vload_head_{dtype}(p1, 5, p2)
            vstore_{dtype}(p0, 27, v)
            vstore_head_{dtype}(p0, 3, v, p2)
            """,
            out, a, n,
        )  # fmt: skip
        same(out, expected)

    def test_heads_do_not_touch_the_pages_around_them(self, dtype: str) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        page = 4096
        at = libc.mmap(None, 3 * page, 3, 0x22, -1, 0) + page
        for around in (at - page, at + page):
            assert libc.mprotect(ctypes.c_void_p(around), page, 0) == 0
        size, out = NUMPY[dtype]().itemsize, np.ones(LANES, NUMPY[dtype])
        run(
            f"""
            vstore_{dtype}(p0, 0, vload_head_{dtype}(p1, 0, 3))
            vstore_head_{dtype}(p1, 0, vload_{dtype}(p0, 0), 3)
            vstore_{dtype}(p0, 0, vload_strided_head_{dtype}(p2, 2, -1, 3))
            vstore_strided_head_{dtype}(p2, 2, vload_{dtype}(p0, 0), -1, 3)
            """,
            out, at + page - 3 * size, at,
        )  # fmt: skip
        same(out, np.zeros(LANES))

    def test_gathers(self, dtype: str) -> None:
        a, out = samples(dtype, 100), np.zeros(4 * LANES, NUMPY[dtype])
        indices = np.random.default_rng(0).integers(0, 100, LANES)
        run(
            f"""
            i = vload_i64(p2, 0)
            vstore_{dtype}(p0, 0, vgather_{dtype}(p1, i))
            vstore_{dtype}(p0, 16, vgather_head_{dtype}(p1, i, 5))
            vstore_{dtype}(p0, 32, vload_strided_{dtype}(p1, 7, 6))
            vstore_{dtype}(p0, 48, vload_strided_head_{dtype}(p1, 90, -6, 15))
            """,
            out, a, indices,
        )  # fmt: skip
        zeros = np.zeros(LANES, NUMPY[dtype])
        head = np.concatenate([a[indices[:5]], zeros[5:]])
        backwards = np.concatenate([a[90::-6][:15], zeros[15:]])
        same(out, np.concatenate([a[indices], head, a[7:100:6], backwards]))

    def test_neighbours_from_the_last_to_the_first(self, dtype: str) -> None:
        a, out, back = samples(dtype, 100), np.zeros(4 * LANES, NUMPY[dtype]), samples(dtype, 100, seed=1)
        expected = back.copy()
        run(
            f"""
            vstore_{dtype}(p0, 0, vload_strided_{dtype}(p1, 99, -1))
            vstore_{dtype}(p0, 16, vload_strided_{dtype}(p1, 15, -1))
            vstore_{dtype}(p0, 32, vload_strided_head_{dtype}(p1, 50, -1, 15))
            vstore_{dtype}(p0, 48, vload_strided_head_{dtype}(p1, 2, -1, 3))
            vstore_strided_{dtype}(p2, 99, vload_{dtype}(p1, 0), -1)
            vstore_strided_head_{dtype}(p2, 4, vload_{dtype}(p1, 20), -1, 5)
            vstore_strided_head_{dtype}(p2, 50, vload_{dtype}(p1, 20), -1, 0)
            """,
            out, a, back,
        )  # fmt: skip
        zeros = np.zeros(LANES, NUMPY[dtype])
        heads = [a[50:35:-1], zeros[:1], a[2::-1], zeros[:13]]
        same(out, np.concatenate([a[99:83:-1], a[15::-1], *heads]))
        expected[99:83:-1], expected[4::-1] = a[:16], a[20:25]
        same(back, expected)
        source = f"""def kernel(args, lo, hi):
    vstore_strided_{dtype}(lo, 0, vload_strided_{dtype}(hi, 0, -1), -1)
"""
        text = str(module_of(source, "from_the_last"))
        assert "gather" not in text and "scatter" not in text

    @pytest.mark.parametrize("transposed", [False, True])
    def test_packing_pads_with_zeros(self, dtype: str, transposed: bool) -> None:
        source = samples(dtype, 50 * 40).reshape(50, 40)
        block = source.T if transposed else source
        how = f"pack_transposed_{dtype}(p0, 50, p1, 40," if transposed else f"pack_{dtype}(p0, 50, p1, 40, 1,"
        for depth, n, width in [(7, 20, 32), (16, 16, 16), (5, 3, 48), (33, 37, 48), (34, 10, 32), (0, 3, 16)]:
            out = samples(dtype, 35 * 50, seed=4).reshape(35, 50)
            expected = out.copy()
            expected[:depth, :width] = 0
            expected[:depth, :n] = block[:depth, :n]
            run(f"{how} p2, p3, p4)", out, source, depth, n, width)
            same(out, expected)


# --- loops --------------------------------------------------------------------------------------------------

LOOPS = [(0, 5, 1), (0, 0, 1), (3, 3, 2), (7, 2, 1), (-4, 9, 3), (2, 18, 16), (2, 19, 16), (-9, -2, 5)]


@pytest.mark.parametrize("start, stop, step", LOOPS)
def test_loops_count_as_in_python(start: int, stop: int, step: int) -> None:
    """Bounds that the run knows and that the compiler knows, a loop in a loop, and one begun again."""
    numbers = [*range(start, stop, step)]
    for bounds in ("p1, p2, p3", f"{start}, {stop}, {step}"):
        out = np.full(2 * 20 * 20 + 1, 777, np.int64)
        body = f"""
            at = t * {len(numbers) ** 2}
            for i in range({bounds}):
                for j in range({bounds}):
                    store_i64(p0, at, 100 * i + j)
                    at += 1
            """
        run(body, out, start, stop, step, tasks=2)
        expected = 2 * [100 * i + j for i in numbers for j in numbers]
        assert out.tolist() == [*expected, *[777] * (len(out) - len(expected))]


def test_loops_of_one_bound_and_of_two_count_as_in_python() -> None:
    out = np.zeros(2, np.int64)
    body = """
        sum = 0
        for i in range(p1):
            sum += i + 1
        for i in range(p1, p2):
            sum += 1000 * i
        store_i64(p0, t, sum)
        """
    run(body, out, 4, 7, tasks=2)
    assert out.tolist() == [10 + 1000 * (4 + 5 + 6)] * 2


def test_a_loop_neither_divides_nor_raises() -> None:
    source = """def kernel(args, lo, hi):
    x = arg(args, 0)
    for i in range(lo, hi, arg(args, 1)):
        store_i64(x, i, i)
"""
    scope = namespace_for(source)
    exec(compile(source, "<kernel>", "exec"), scope)
    text = str(lower(scope["kernel"], "counts_up"))  # type: ignore[arg-type]
    assert not re.search(r"= [su](div|rem) ", text)
    assert re.findall(r"ret i32 (.*)", text) == ["0"]  # numba's status: no exception


# --- tables of places -----------------------------------------------------------------------------------------

WALKS = [((7,), (3,)), ((3, 5), (100, 2)), ((2, 1, 6), (50, 7, -1)),
         ((4, 3, 2, 2), (1000, 90, 8, 1)), ((1, 40), (9, 1))]


@pytest.mark.parametrize("extents, steps", WALKS)
def test_places_count_through_all_axes_from_any_point(extents: tuple[int, ...], steps: tuple[int, ...]) -> None:
    every = np.stack(np.unravel_index(np.arange(math.prod(extents)), extents)).T @ steps
    described = ", ".join(map(str, (*extents[1:], *steps)))
    for flat in (0, 1, len(every) // 2, len(every) - 1):
        for count in (0, 1, len(every) - flat):
            table = np.full(len(every) + 1, 777, np.int64)
            run(f"places_1x{len(extents)}(p0, p1, p2, {described})", table, count, flat)
            assert table.tolist() == [*every[flat : flat + count], *[777] * (len(table) - count)]
            both = np.full((2, len(table)), 777, np.int64)
            twice = ", ".join(map(str, (*extents[1:], *steps, *(5 * s for s in steps))))
            run(f"places_2x{len(extents)}(p0, p1, p2, p3, {twice})", both[0], both[1], count, flat)
            assert both[0].tolist() == table.tolist()
            assert both[1].tolist() == [*5 * every[flat : flat + count], *[777] * (len(table) - count)]


@pytest.mark.parametrize("extents, steps", WALKS)
def test_pieces_are_points_that_differ_in_the_last_axis_alone_sixteen_at_most(
    extents: tuple[int, ...], steps: tuple[int, ...]
) -> None:
    points = np.stack(np.unravel_index(np.arange(math.prod(extents)), extents)).T
    described = ", ".join(map(str, (*extents[1:], *steps)))
    for flat in (0, 1, len(points) // 2):
        count = min(len(points) - flat, 32)
        numbers, offsets, lengths, made = (np.full(33, 777, np.int64) for _ in range(4))
        call = f"pieces_{len(extents)}(p0, p1, p2, p3, p4, {described})"
        run(f"store_i64(p5, 0, {call})", numbers, offsets, lengths, count, flat, made)
        expected: list[list[int]] = []
        for t, point in enumerate(points[flat : flat + count]):
            if not expected or point[-1] == 0 or expected[-1][2] == LANES:
                expected.append([t, int(point @ steps), 0])
            expected[-1][2] += 1
        found = np.stack([numbers, offsets, lengths]).T[: made[0]]
        assert found.tolist() == expected


# --- the tile -----------------------------------------------------------------------------------------------


def tile_source(dtype: str, rows: int, vectors: int, full: str = "") -> str:
    """A whole product C = A B from tiles: full ones (of at most a block of terms, if asked), then single heads."""
    size = NUMPY[dtype]().itemsize

    def at(nv: int, head: bool) -> str:
        names = [f"c{i}_{j}" for i in range(rows) for j in range(nv)]
        operands = f"p0 + {size} * i * p6, p3 - i, p6, p7, p1 + {size} * j, p4, p5{', p4 - j' * head}"
        lines = [f"({', '.join(names)},) = tile_{'head_' if head else full}{dtype}_{rows}x{nv}({operands})"]
        for i, j in itertools.product(range(rows), range(nv)):
            store = "vstore_head" if head else "vstore"
            lines += [f"if i + {i} < p3:"]
            lines += [f"    {store}_{dtype}(p2, (i + {i}) * p4 + j + {16 * j}, c{i}_{j}{', p4 - j' * head})"]
        return textwrap.indent("\n".join(lines), " " * 8)

    return f"""
j = 0
while j + {LANES * vectors} <= p4:
    for i in range(0, p3, {rows}):
{at(vectors, False)}
    j += {LANES * vectors}
while j < p4:
    for i in range(0, p3, {rows}):
{at(1, True)}
    j += {LANES}
"""


@pytest.mark.parametrize("dtype", ["f32", "f64"])
class TestTile:
    @pytest.mark.parametrize("shape", [(1, 1), (3, 2), None])
    @pytest.mark.parametrize("transposed", [False, True])
    def test_tiles_of_any_row_count_and_column_tail_give_the_product(
        self, dtype: str, shape: tuple[int, int] | None, transposed: bool
    ) -> None:
        rows, vectors = shape or default_tile(dtype)
        source = tile_source(dtype, rows, vectors)
        random = np.random.default_rng(0)
        sizes = [(m, 5, 33) for m in range(1, 2 * rows + 1)]
        sizes += [(rows, 7, n) for n in range(1, 50)] + [(3, 0, 20)]
        for m, depth, n in sizes:
            a = random.standard_normal((m, depth)).astype(NUMPY[dtype])
            b = random.standard_normal((depth, n)).astype(NUMPY[dtype])
            c = np.full((m, n), np.nan, NUMPY[dtype])
            stored = np.ascontiguousarray(a.T) if transposed else a
            strides = (1, m) if transposed else (depth, 1)
            run(source, stored, b, c, m, n, depth, *strides)
            tolerance = 2e-6 if dtype == "f32" else 1e-14
            np.testing.assert_allclose(c, a.astype(np.float64) @ b.astype(np.float64), rtol=0, atol=tolerance)

    def test_the_bits_do_not_depend_on_the_tile(self, dtype: str) -> None:
        random = np.random.default_rng(1)
        a, b = (random.standard_normal(s).astype(NUMPY[dtype]) for s in ((13, 300), (300, 45)))
        results = []
        for rows, vectors in [(1, 1), (3, 2), (4, 1)]:
            c = np.zeros((13, 45), NUMPY[dtype])
            run(tile_source(dtype, rows, vectors), a, b, c, 13, 45, 300, 300, 1)
            results.append(c)
        assert all(np.array_equal(results[0], other) for other in results)

    @pytest.mark.parametrize("depth", [1, 2, 255, 256])
    def test_a_tile_of_one_block_of_terms_gives_the_same_bits(self, dtype: str, depth: int) -> None:
        random = np.random.default_rng(2)
        a, b = (random.standard_normal(s).astype(NUMPY[dtype]) for s in ((13, depth), (depth, 45)))
        results = []
        for full in ("", "block_"):
            c = np.zeros((13, 45), NUMPY[dtype])
            run(tile_source(dtype, 3, 2, full), a, b, c, 13, 45, depth, depth, 1)
            results.append(c)
        assert np.array_equal(*results)

    @pytest.mark.parametrize("how", ["along", "at"])
    @pytest.mark.parametrize("valid", [1, 2, 3])
    def test_a_tile_looks_up_where_its_terms_and_rows_are(self, dtype: str, how: str, valid: int) -> None:
        dice = np.random.default_rng(valid)
        a, b = (dice.integers(-9, 10, size).astype(NUMPY[dtype]) for size in (90, (20, 32)))
        rows = 7 * np.arange(3) if how == "along" else dice.integers(0, 45, 3)
        terms, out = dice.integers(0, 45, 20), np.zeros((3, 32), NUMPY[dtype])
        names = [f"c{k}" for k in range(6)]
        row = "7" if how == "along" else "p2"
        lines = [f"({', '.join(names)},) = tile_{how}_{dtype}_3x2(p0, {valid}, {row}, p3, p1, 32, 20)"]
        lines += [f"vstore_{dtype}(p4, {16 * k}, {name})" for k, name in enumerate(names[: 2 * valid])]
        run("\n".join(lines), a, b, rows, terms, out)
        same(out[:valid], a[rows[:valid, None] + terms] @ b)
        assert not out[valid:].any()


# --- machines and the whole ---------------------------------------------------------------------------------

EVERYTHING = """
def kernel(args, lo, hi):
    x = arg(args, 0)
    y = arg(args, 1)
    for t in range(lo, hi):
        v = vload_head_f32(x, 16 * t, 13)
        g = vgather_head_f32(x, lanes_i64(t) % 7, 9)
        w = exp(v) + tanh(g) * log(absolute(v)) + power(v, g) - sin(v) / softplus(g) + maximum(v, erf(g))
        (a, b) = tile_head_f32_2x1(x, 2, 1, 1, x, 16, 3, 5)
        d = select(to_i32(w) // to_i32(lanes_i64(t)) > 3, w + a * b, logistic(w))
        store_f32(y, 16 * t, hsum(d) + hmax(d) + expm1(load_f32(x, t)))
        vstore_f64(y, 16 * t, log1p(to_f64(d)))
"""


class TestWhole:
    @pytest.mark.parametrize("dtype", ["f32", "f64"])
    def test_memory_is_cleared_as_far_as_asked(self, dtype: str) -> None:
        out = np.full(40, np.nan, NUMPY[dtype])
        run(f"clear_{dtype}(p0 + {out.itemsize} * (3 + 10 * t), p1 - t)", out, 7, tasks=2)
        expected = np.full(40, np.nan, NUMPY[dtype])
        expected[3:10] = expected[13:19] = 0
        np.testing.assert_array_equal(out, expected)

    def test_loops_of_unknown_length_are_not_unrolled(self) -> None:
        def loads(stop: str) -> int:
            body = f"    for t in range({stop}):\n        store_f32(y, 3 * t, load_f32(y, 5 * t + lo))"
            text = f"def kernel(args, lo, hi):\n    y = arg(args, 0)\n{body}\n"
            return str(module_of(text, "kernel_of_loops")).count("load float")

        assert loads("hi") == 1
        assert loads("4") == 4

    def test_vectors_of_a_tuple_go_through_the_kernels_own_memory(self) -> None:
        a, out = samples("f32", 64), np.zeros(64, np.float32)
        run(
            """
            memory = stack_f32(32)
            spill_f32(memory, (vload_f32(p1, 32 * t), vload_f32(p1, 32 * t + 16)))
            for start in range(2):
                spill_sum_f32(memory, start, (vload_f32(p1, 32 * t), vload_f32(p1, 32 * t + 16)))
            for k in range(32):
                store_f32(p0, 32 * t + k, load_f32(memory, 31 - k))
            """,
            out, a, tasks=2,
        )  # fmt: skip
        same(out, (a + a).reshape(2, 32)[:, ::-1].ravel())

    def test_loop_bounds_are_pythons(self) -> None:
        out = np.zeros(1, np.int64)
        run("for i in range(max(p1, -3), min(p2, 9), 4): store_i64(p0, 0, load_i64(p0, 0) + i)", out, -5, 6)
        assert out[0] == sum(range(-3, 6, 4))

    def test_a_name_with_two_types_is_an_error(self) -> None:
        with pytest.raises(Exception, match="Cannot unify"):
            run("x = vload_f32(p0, 0)\nvstore_f32(p0, 0, x)\nx = load_f32(p0, 0)\nstore_f32(p0, 0, x)", 0)

    def test_a_kernel_refers_to_nothing_but_the_c_library(self) -> None:
        machine_code = machine(*host()).emit_object(module_of(EVERYTHING, "everything"))
        module = llvm.ObjectFileRef.from_data(machine_code)
        assert module.sections()  # a readable object
        undefined = {f.name for f in module_of(EVERYTHING, "again").functions if f.is_declaration}
        external = {name for name in undefined if not name.startswith("llvm.")}
        assert external <= {"sin", "log1p"}
        assert b"NRT_" not in machine_code
        assert b"Py" not in machine_code

    @pytest.mark.parametrize(
        "processor",
        [("x86-64-v2", ""), ("haswell", ""), ("skylake-avx512", "")],
        ids=["SSE4", "AVX2", "AVX-512"],
    )
    def test_every_generation_of_processors_has_code_for_every_name(self, processor: tuple[str, str]) -> None:
        if not llvm.get_process_triple().startswith("x86_64"):
            pytest.skip("x86 only")
        assembly = machine(*processor).emit_assembly(module_of(EVERYTHING, "everything", processor))
        width = {"x86-64-v2": "xmm", "haswell": "ymm", "skylake-avx512": "zmm"}[processor[0]]
        assert width in assembly

    def test_the_bits_do_not_depend_on_the_processors_vector_width(self) -> None:
        available = llvm.get_host_cpu_features()
        if not (available.get("avx2") and available.get("avx512f")):
            pytest.skip("needs a processor with two vector widths")
        x = samples("f32", 1024)
        body = """
            v = vload_f32(p1, 16 * t)
            store_f32(p0, t, hsum(tanh(v) * exp(sin(v)) + power(absolute(v), logistic(v))))
        """
        results = []
        for processor in [("haswell", ""), ("skylake-avx512", "")]:
            out = np.zeros(64, np.float32)
            run(body, out, x, tasks=64, processor=processor)
            results.append(out)
        same(results[0], results[1])

    def test_a_name_outside_a_kernel_says_so(self) -> None:
        with pytest.raises(TypeError, match="vload_f32 exists only inside a compiled kernel"):
            namespace()["vload_f32"](0, 0)  # type: ignore[operator]

    def test_the_namespace_holds_the_tiles_that_the_text_mentions(self) -> None:
        names = namespace_for("tile_f32_8x2(...) tile_head_f64_4x1(...)")
        assert names.keys() - namespace().keys() == {"tile_f32_8x2", "tile_head_f64_4x1"}

    def test_the_version_needs_no_compiler(self) -> None:
        code = "import sys; from flowgraph.codegen.cpu_prelude import PRELUDE_VERSION as version; "
        code += "print(len(version), 'numba' in sys.modules)"
        answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert answer.stdout.split() == ["64", "False"]
