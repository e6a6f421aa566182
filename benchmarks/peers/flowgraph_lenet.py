"""flowgraph's trainer on LeNet."""

from __future__ import annotations

from collections.abc import Callable

import flowgraph as fg
from benchmarks.lenet_workload import CLASSES, PIXELS, RATE, STEPS, Data

ORDER = "given"


def build(batch: int, data: Data) -> Callable[[int], float]:
    x, y = fg.input("x", ("batch", 1, PIXELS, PIXELS)), fg.input("y", ("batch",), dtype="int32")
    w1, w2, w3, w4 = (fg.parameter(f"w{k}", w.shape, init=w) for k, w in enumerate(data.weights, 1))
    b1, b2 = fg.parameter("b1", (20, 1, 1)), fg.parameter("b2", (50, 1, 1))
    b3, b4 = fg.parameter("b3", (500,)), fg.parameter("b4", (CLASSES,))
    h = fg.max_pool2d(fg.relu(fg.conv2d(x, w1) + b1), 2)
    h = fg.max_pool2d(fg.relu(fg.conv2d(h, w2) + b2), 2)
    h = fg.relu(fg.add_bias(fg.reshape(h, ("batch", 800)) @ w3, b3))
    cost = fg.mean(fg.cross_ent_of_softmax(fg.add_bias(h @ w4, b4), y))
    trainer = fg.Trainer(cost, optimizer=fg.optim.SGD(RATE), device="cpu")

    def run(steps: int) -> float:
        arrays = {"x": data.x, "y": data.y}
        history = trainer.fit(arrays, epochs=steps // STEPS, batch_size=batch, shuffle=False, progress=False)
        return float(history.losses[-1])

    return run
