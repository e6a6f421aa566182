"""The lecture's network in Python: declare it, train it, look at it.

python examples/digits/digits.py
"""

from __future__ import annotations

from pathlib import Path

import flowgraph as fg


def main(out: Path = Path("out/digits")) -> float:
    """Trains on real digits, writes two pictures and the generated source; returns the held-out accuracy."""
    x = fg.input("x", ("batch", 64))
    y = fg.input("y", ("batch",), dtype="int32")
    w1 = fg.parameter("w1", (64, 32), init=fg.init.glorot_uniform())
    b1 = fg.parameter("b1", (32,))
    w2 = fg.parameter("w2", (32, 10), init=fg.init.glorot_uniform())
    b2 = fg.parameter("b2", (10,))

    a1 = fg.tanh(fg.add_bias(fg.mul(x, w1), b1))
    a2 = fg.tanh(fg.add_bias(fg.mul(a1, w2), b2))
    c = fg.mean(fg.cross_ent_of_softmax(a2, y))

    trainer = fg.Trainer(c, fg.optim.SGD(0.7), metrics={"accuracy": fg.nn.accuracy(a2, y)}, seed=0)
    train, test = fg.datasets.load_digits().split()
    held_out = {"x": test.images, "y": test.labels}
    history = trainer.fit({"x": train.images, "y": train.labels}, epochs=30, batch_size=32, validation=held_out)

    digit = trainer.predict(a2, {"x": test.images[:10]}).argmax(axis=1)
    print("predicted", digit, "\nlabels   ", test.labels[:10])

    out.mkdir(parents=True, exist_ok=True)
    fg.show(c, out / "declared.svg")
    fg.show(trainer.program, out / "kernels.svg", stage="kernels")
    (out / "source.py").write_text(trainer.program.source(), encoding="utf-8")
    return float(history[-1]["val_accuracy"])


if __name__ == "__main__":
    print(f"held-out accuracy {100 * main():.2f} %")
