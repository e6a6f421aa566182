"""`python3 -m flowgraph.gpu_check`: is everything right on this machine's GPU, and how fast is it?

Runs every op of the registry by its samples, and the demo network, on the device; compares with NumPy; then
takes times. Writes gpu_check.json and prints the table last. Exit status: 0 all right, 1 something is wrong,
2 there is no GPU. With --emulate the first half runs on the emulator, which has no times to tell. Needs no
network.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import flowgraph as fg
from flowgraph.backends.cuda.device import CudaDevice, cuda_available
from flowgraph.backends.select import first_cuda_device
from flowgraph.compile import compile
from flowgraph.graph.tensor import Tensor
from flowgraph.ops.base import Op, Sample
from flowgraph.program import Program

ULPS = 4.0  # allowed error of an element, besides what NumPy's own float32 gets wrong
FACTOR = 8.0  # of NumPy's own largest error: sums may be added in another order
STEPS = 3
WIDER = {np.dtype(np.float32): np.float64, np.dtype(np.float64): np.longdouble}  # for the truth


@dataclass
class Finding:
    """One comparison: the largest error in ulp, and what is wrong (empty if nothing is)."""

    what: str
    ulps: float
    problem: str = ""


@dataclass
class Timing:
    """One measurement: microseconds, and what that is in a unit of its own."""

    what: str
    microseconds: float
    rate: str = ""
    peers: dict[str, float] = field(default_factory=dict)  # microseconds of other libraries


# Is it right?


def compare(what: str, got: np.ndarray, own: np.ndarray, truth: np.ndarray, each: bool = False) -> Finding:
    """A result against a truth in more digits; `own` is what NumPy computes in the declared dtype.

    Errors count in ulp: of each element itself, or of the largest where elements are sums (`each` false).
    """
    if got.shape != own.shape or got.dtype != own.dtype:
        return Finding(what, 0.0, f"is {got.dtype}{got.shape}, not {own.dtype}{own.shape}")
    if got.size == 0 or own.dtype.kind != "f":
        wrong = int((got != own).sum())
        return Finding(what, 0.0, f"{wrong} of {got.size} elements differ" if wrong else "")
    special = ~np.isfinite(own) | ~np.isfinite(truth)
    same = (got == own) | (np.isnan(got) & np.isnan(own))
    if (special & ~same).any() or (~special & ~np.isfinite(got)).any():
        return Finding(what, 0.0, "infinities or NaN are not where NumPy has them")
    exact = np.where(special, 0, truth).astype(np.longdouble)
    error = np.abs(np.where(special, 0, got) - exact)
    own_error = np.abs(np.where(special, 0, own) - exact).max()
    size = np.abs(exact if each else np.abs(exact).max(keepdims=True)).astype(own.dtype)
    unit = np.spacing(np.maximum(size, np.finfo(own.dtype).tiny)).astype(np.longdouble)
    ulps = float((error / unit).max())
    allowed = ULPS * unit + FACTOR * own_error
    return Finding(what, ulps, "" if (error <= allowed).all() else f"{ulps:.1f} ulp")


def first_result(made: Any) -> np.ndarray:
    """The first result of an op's reference, which may have several."""
    return np.asarray(made[0] if isinstance(made, tuple) else made)


def check_sample(name: str, sample: Sample, device: CudaDevice) -> Finding:
    """An op's sample on the device."""
    tensors = [fg.input(f"x{k}", a.shape, a.dtype) for k, a in enumerate(sample.arrays)]
    wide = [a.astype(WIDER[a.dtype]) if a.dtype.kind == "f" else a for a in sample.arrays]
    with np.errstate(all="ignore"):
        own, truth = (first_result(sample.op.reference(*arrays)) for arrays in (sample.arrays, wide))
    try:
        program = compile(tensors, sample.op(*tensors), device=device)
        (got,) = program(**{f"x{k}": a for k, a in enumerate(sample.arrays)})
    except Exception as error:  # whatever it is, the others are to be checked too
        return Finding(name, 0.0, f"{type(error).__name__}: {error}")
    return compare(name, got, own, truth, each=sample.op.family == "elementwise")


def samples() -> list[tuple[str, Sample]]:
    classes = [
        (n, c)
        for n, c in Op.registry.items()
        if c.meaning() != "leaf" and c.__module__.startswith("flowgraph.")
    ]
    return [(f"{name} {k}", sample) for name, cls in classes for k, sample in enumerate(cls.samples())]


def network(device: Any, layers: Sequence[int], dtype: str = "float32") -> tuple[Program, list[Tensor]]:
    """The training step of a network of tanh layers, softmax and cross-entropy, SGD; and its parameters."""
    values, parameters = fg.input("x", ("batch", layers[0]), dtype=dtype), []
    classes, hidden = fg.input("y", ("batch",), dtype="int32"), values
    for k, (width, following) in enumerate(pairwise(layers)):
        w = fg.parameter(f"w{k}", (width, following), init=fg.init.glorot_uniform(), dtype=dtype)
        b = fg.parameter(f"b{k}", (following,), dtype=dtype)
        parameters += [w, b]
        hidden = fg.add_bias(hidden @ w, b)
        if k < len(layers) - 2:
            hidden = fg.tanh(hidden)
    cost = fg.mean(fg.cross_ent_of_softmax(hidden, classes))
    updates = {p: p - 0.1 * g for p, g in zip(parameters, fg.grad(cost, parameters), strict=True)}
    return compile([values, classes], [cost], updates, device=device), parameters


def examples(batch: int, width: int, dtype: str = "float32") -> dict[str, np.ndarray]:
    random = np.random.default_rng(batch)
    values = random.normal(size=(batch, width)).astype("float32").astype(dtype)
    return {"x": values, "y": random.integers(0, 10, batch).astype("int32")}


def check_network(batch: int, device: CudaDevice) -> list[Finding]:
    """Some steps of the demo network: the loss and the parameters after them."""
    results = []
    for where, dtype in ((device, "float32"), ("reference", "float32"), ("reference", "float64")):
        program, parameters = network(where, (64, 32, 10), dtype)
        for parameter in parameters:  # the same numbers for all
            shape = parameter.value.shape
            start = np.random.default_rng(shape).uniform(-0.2, 0.2, shape).astype("float32")
            parameter.value = start.astype(dtype)
        data = examples(batch, 64, dtype)
        for _ in range(STEPS):
            outputs = program(**data)
        results.append([*outputs, *(p.value for p in parameters)])
    names = ["loss", "w0", "b0", "w1", "b1"]
    return [
        compare(f"network, batch {batch}: {name}", *values)
        for name, *values in zip(names, *results, strict=True)
    ]


# How fast is it?


def seconds_a_step(run: Callable[[int], object], enough: float = 0.2) -> float:
    """Time of one step: the difference between many and few, for a call has costs of its own."""
    run(1)
    few, many = 1, 4
    while True:
        times = []
        for steps in (few, many):
            best = np.inf
            for _ in range(3):
                start = time.perf_counter()
                run(steps)
                best = min(best, time.perf_counter() - start)
            times.append(best)
        if times[1] - times[0] > enough or many > 1 << 20:
            return (times[1] - times[0]) / (many - few)
        many *= 4


def time_network(layers: Sequence[int], batch: int, device: CudaDevice) -> Timing:
    program, _ = network(device, layers)
    data = examples(batch, layers[0])
    seconds = seconds_a_step(lambda steps: program.run(steps, data))
    shape = "-".join(map(str, layers))
    return Timing(f"training step {shape}, batch {batch}", 1e6 * seconds, f"{len(program.kernels)} kernels")


def time_product(m: int, n: int, k: int, device: CudaDevice) -> Timing:
    """A product that never leaves the device: c becomes a b."""
    random = np.random.default_rng(0)
    a, b = (fg.parameter(x, s, init=random.uniform(-1, 1, s)) for x, s in (("a", (m, k)), ("b", (k, n))))
    c = fg.parameter("c", (m, n))
    program = compile([], [], {c: a @ b}, device=device)
    seconds = seconds_a_step(lambda steps: settle(program, steps, device))
    rate = f"{2e-12 * m * n * k / seconds:.1f} TFLOP/s"
    peers = {name: 1e6 * t for name, t in peer_products(m, n, k)}
    return Timing(f"product {m} x {n} x {k}, float32", 1e6 * seconds, rate, peers)


def time_elementwise(count: int, device: CudaDevice) -> Timing:
    w = fg.parameter("w", (count,), init=np.ones(count))
    program = compile([], [], {w: w * 0.999 + 0.001}, device=device)
    seconds = seconds_a_step(lambda steps: settle(program, steps, device))
    return Timing(f"w * 0.999 + 0.001, {count} floats", 1e6 * seconds, f"{8e-12 * count / seconds:.2f} TB/s")


def settle(program: Program, steps: int, device: CudaDevice) -> None:
    program.run(steps, {})
    device.synchronize()


def peer_products(m: int, n: int, k: int) -> list[tuple[str, float]]:
    """The product by other libraries, where they are installed, in full float32."""
    found = []
    try:
        import torch

        torch.backends.cuda.matmul.allow_tf32 = False
        a, b = torch.rand(m, k, device="cuda"), torch.rand(k, n, device="cuda")

        def by_torch(steps: int) -> None:
            for _ in range(steps):
                torch.mm(a, b)
            torch.cuda.synchronize()

        found.append(("torch", seconds_a_step(by_torch)))
    except ImportError:
        print("torch is not installed: no comparison with it")
    try:
        import cupy

        x, y = cupy.random.rand(m, k, dtype=cupy.float32), cupy.random.rand(k, n, dtype=cupy.float32)

        def by_cupy(steps: int) -> None:
            for _ in range(steps):
                cupy.matmul(x, y)
            cupy.cuda.Device().synchronize()

        found.append(("cupy", seconds_a_step(by_cupy)))
    except ImportError:
        print("cupy is not installed: no comparison with it")
    return found


# The command


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="flowgraph.gpu_check", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=Path("out"), help="folder for gpu_check.json (default: out)"
    )
    parser.add_argument("--emulate", action="store_true", help="check on the emulator: no GPU, no times")
    options = parser.parse_args(arguments)
    if options.emulate:
        from flowgraph.backends.cuda.emulator import EmulatedDevice

        device: CudaDevice = EmulatedDevice()
    else:
        usable, reason = cuda_available()
        if not usable:
            print(f"no GPU to check: {reason}\n--emulate checks the kernels without one", file=sys.stderr)
            return 2
        device = first_cuda_device()
    print(f"checking {device.name}", flush=True)
    findings = [check_sample(name, sample, device) for name, sample in samples()]
    findings += [finding for batch in (29, 32) for finding in check_network(batch, device)]
    timings: list[Timing] = []
    for what, measure in [] if options.emulate else planned_timings(device):
        try:
            timings.append(measure())
        except Exception as error:  # the table is to be seen all the same
            findings.append(Finding(f"time of {what}", 0.0, f"{type(error).__name__}: {error}"))
    options.out.mkdir(parents=True, exist_ok=True)
    report = {
        "device": device.name,
        "capability": list(device.capability),
        "multiprocessors": device.multiprocessors,
        "findings": [asdict(f) for f in findings],
        "timings": [asdict(t) for t in timings],
    }
    path = options.out / "gpu_check.json"
    path.write_text(json.dumps(report, indent=1))
    print(f"written to {path}\n")
    print("\n".join(table(device.name, findings, timings)))
    return int(any(f.problem for f in findings))


def planned_timings(device: CudaDevice) -> list[tuple[str, Callable[[], Timing]]]:
    return [
        ("the demo network", lambda: time_network((64, 32, 10), 32, device)),
        ("a small network", lambda: time_network((784, 128, 10), 32, device)),
        ("a middle network", lambda: time_network((784, 512, 10), 128, device)),
        ("a middle product", lambda: time_product(1024, 1024, 1024, device)),
        ("a large product", lambda: time_product(4096, 4096, 4096, device)),
        ("elementwise", lambda: time_elementwise(1 << 26, device)),
    ]


def table(device: str, findings: Sequence[Finding], timings: Sequence[Timing]) -> list[str]:
    """The summary: what is wrong, the largest errors, the times."""
    wrong = [f for f in findings if f.problem]
    lines = [f"{device}: {len(findings) - len(wrong)} of {len(findings)} comparisons right"]
    lines += [f"  WRONG  {f.what}: {f.problem}" for f in wrong]
    worst = sorted((f for f in findings if not f.problem), key=lambda f: -f.ulps)[:5]
    lines += [f"  {f.ulps:6.1f} ulp  {f.what}" for f in worst]
    for t in timings:
        peers = "".join(f", {name} {us:.1f} us" for name, us in t.peers.items())
        lines.append(f"  {t.microseconds:10.1f} us  {t.what}  ({t.rate}{peers})")
    return lines


if __name__ == "__main__":
    sys.exit(main())
