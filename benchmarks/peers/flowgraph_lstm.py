"""flowgraph's trainer on its LSTM layer, its weights set to the workload's."""

from __future__ import annotations

from collections.abc import Callable

import flowgraph as fg
from benchmarks.lstm_workload import CLASSES, INPUTS, RATE, STEPS, TIME, Data

ORDER = "given"


def build(batch: int, hidden: int, data: Data) -> Callable[[int], float]:
    x, y = fg.input("x", ("batch", TIME, INPUTS)), fg.input("y", ("batch",), dtype="int32")
    layer, out = fg.nn.LSTM("lstm", INPUTS, hidden), fg.nn.Dense("out", hidden, CLASSES)
    layer.w_x.value, layer.w_h.value, layer.b.value, out.w.value = data.w_x, data.w_h, data.b, data.v
    _, (last, _) = layer(x)
    cost = fg.mean(fg.cross_ent_of_softmax(out(last), y))
    trainer = fg.Trainer(cost, optimizer=fg.optim.SGD(RATE), device="cpu")

    def run(steps: int) -> float:
        arrays = {"x": data.x, "y": data.y}
        history = trainer.fit(arrays, epochs=steps // STEPS, batch_size=batch, shuffle=False, progress=False)
        return float(history.losses[-1])

    return run
