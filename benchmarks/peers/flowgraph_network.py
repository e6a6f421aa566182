"""What the flowgraph contestants share: the network, its trainer, and the run that shuffles or does not."""

from __future__ import annotations

from collections.abc import Callable

import flowgraph as fg
from benchmarks.workload import CLASSES, PIXELS, RATE, STEPS, Data


def build(batch: int, hidden: int, data: Data, shuffle: bool, device: str = "cpu") -> Callable[[int], float]:
    x, y = fg.input("x", ("batch", PIXELS)), fg.input("y", ("batch",), dtype="int32")
    w1, b1 = fg.parameter("w1", (PIXELS, hidden), init=data.w1), fg.parameter("b1", (hidden,))
    w2, b2 = fg.parameter("w2", (hidden, CLASSES), init=data.w2), fg.parameter("b2", (CLASSES,))
    logits = fg.tanh(fg.tanh(x @ w1 + b1) @ w2 + b2)
    cost = fg.mean(fg.cross_ent_of_softmax(logits, y))
    trainer = fg.Trainer(cost, optimizer=fg.optim.SGD(RATE), device=device)

    def run(steps: int) -> float:
        history = trainer.fit(
            {"x": data.x, "y": data.y},
            epochs=steps // STEPS,
            batch_size=batch,
            shuffle=shuffle,
            progress=False,
        )
        return float(history.losses[-1])

    return run
