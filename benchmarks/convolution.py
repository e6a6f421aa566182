"""What convolutions cost: `python -m benchmarks.convolution`. LeNet's layers, some larger ones, a step of LeNet.

One thread's processor time, the best of 40 runs of 2 steps, so that a loaded machine says the same; GFLOP/s count the
products of the forward direction in all three directions.
"""

from __future__ import annotations

from time import process_time
from typing import Any

import numpy as np

import flowgraph as fg

BATCH = 32
LAYERS: tuple[tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]], ...] = (
    ("1 -> 20, 28x28, 5x5", (1, 28, 28), (20, 1, 5, 5), {}),
    ("20 -> 50, 12x12, 5x5", (20, 12, 12), (50, 20, 5, 5), {}),
    ("64 -> 64, 14x14, 3x3", (64, 14, 14), (64, 64, 3, 3), {"padding": "same"}),
    ("64 -> 64, 14x14, 3x3 / 2", (64, 14, 14), (64, 64, 3, 3), {"padding": 1, "stride": 2}),
    ("64 of 1, 14x14, 3x3", (64, 14, 14), (64, 1, 3, 3), {"padding": "same", "groups": 64}),
)


def best(program: fg.Program, data: dict[str, np.ndarray]) -> float:
    program.run(2, data)

    def once() -> float:
        start = process_time()
        program.run(2, data)
        return (process_time() - start) / 2

    return min(once() for _ in range(40))


def layer(image: tuple[int, ...], weights: tuple[int, ...], options: dict[str, Any]) -> tuple[float, dict[str, float]]:
    """Operations of the forward direction, and seconds of each direction."""
    x, w = fg.input("x", (BATCH, *image)), fg.input("w", weights)
    y = fg.conv2d(x, w, **options)
    g = fg.input("g", y.shape)
    dx, dw = fg.grad(fg.sum(y * g), [x, w])
    rng = np.random.default_rng(0)
    tensors: dict[str, Any] = {"x": x, "w": w, "g": g}
    data = {name: rng.uniform(-1, 1, t.shape).astype(np.float32) for name, t in tensors.items()}
    directions = {"forward": ("xw", y), "by image": ("wg", dx), "by weights": ("xg", dw)}
    seconds = {}
    for way, (inputs, output) in directions.items():
        program = fg.compile([tensors[name] for name in inputs], [output], device="cpu", threads=1)
        seconds[way] = best(program, {name: data[name] for name in inputs})
    return 2.0 * data["g"].size * float(np.prod(weights[1:])), seconds


def lenet() -> tuple[fg.Program, dict[str, np.ndarray]]:
    """A training step of LeNet: two layers of 5x5 with 20 and 50 maps, each pooled by 2, and 500 units."""
    rng = np.random.default_rng(0)

    def parameter(name: str, *shape: int) -> fg.Tensor:
        inputs = float(np.prod(shape[1:] if len(shape) > 2 else shape[:1]))
        return fg.parameter(name, shape, (rng.standard_normal(shape) / np.sqrt(inputs)).astype(np.float32))

    x, y = fg.input("x", ("batch", 1, 28, 28)), fg.input("y", ("batch",), dtype="int32")
    w1, w2 = parameter("w1", 20, 1, 5, 5), parameter("w2", 50, 20, 5, 5)
    w3, w4 = parameter("w3", 800, 500), parameter("w4", 500, 10)
    b1, b2 = fg.parameter("b1", (20, 1, 1)), fg.parameter("b2", (50, 1, 1))
    b3, b4 = fg.parameter("b3", (500,)), fg.parameter("b4", (10,))
    h = fg.max_pool2d(fg.relu(fg.conv2d(x, w1) + b1), 2)
    h = fg.max_pool2d(fg.relu(fg.conv2d(h, w2) + b2), 2)
    h = fg.relu(fg.add_bias(fg.reshape(h, (h.shape[0], -1)) @ w3, b3))
    cost = fg.mean(fg.cross_ent_of_softmax(fg.add_bias(h @ w4, b4), y))
    parameters = [w1, b1, w2, b2, w3, b3, w4, b4]
    updates = {p: p - 0.01 * g for p, g in zip(parameters, fg.grad(cost, parameters), strict=True)}
    program = fg.compile([x, y], [cost], updates, device="cpu", threads=1)
    data = {"x": rng.random((BATCH, 1, 28, 28), np.float32), "y": rng.integers(0, 10, BATCH).astype(np.int32)}
    return program, data


def main() -> None:
    for name, image, weights, options in LAYERS:
        operations, seconds = layer(image, weights, options)
        shown = (f"{way} {1e6 * s:7.0f} us {operations / s / 1e9:5.1f} GF/s" for way, s in seconds.items())
        print(f"{name:<26}", "   ".join(shown), flush=True)
    print(f"{'LeNet, a step':<26} {1e3 * best(*lenet()):.2f} ms", flush=True)


if __name__ == "__main__":
    main()
