"""A one-hot vector times a matrix is a row of the matrix: the two ways to write an embedding are one program.

The lecture: h = x W for a one-hot x "is really the i-th row of W". Written as a product with `fg.one_hot(ids)` or as
`fg.gather(W, ids)`, the compiler makes the same kernels of both, in training, too: no one-hot matrix exists, and the
gradient adds to the rows that were looked up instead of being a dense matrix. Data: letters of the play that ships.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import flowgraph as fg
from examples.common import Results, run


def model(by_product: bool, rows: int, width: int, classes: int) -> tuple[fg.Tensor, fg.Tensor, list[fg.Tensor]]:
    """A linear classifier of embedded numbers: (the embeddings of a batch, the cost, the parameters)."""
    ids, y = fg.input("ids", ("batch",), "int32"), fg.input("next", ("batch",), "int32")
    w = fg.parameter("W", (rows, width), init=fg.init.normal(0.1))
    h = fg.one_hot(ids, rows) @ w if by_product else fg.gather(w, ids)
    last = fg.nn.Dense("last", width, classes)
    return h, fg.mean(fg.cross_ent_of_softmax(last(h), y)), [w, *last.parameters]


def main(quick: bool, out: Path) -> Results:
    text = fg.datasets.load_tempest().text[: 10_000 if quick else None]
    letters = {c: k for k, c in enumerate(sorted(set(text)))}
    coded = np.array([letters[c] for c in text], np.int32)
    data = {"ids": coded[:-1], "next": coded[1:]}
    rows, width = 30_000, 100  # the vocabulary of the lecture's picture

    forward, step, trained, losses = {}, {}, {}, {}
    for name in ("product", "lookup"):
        h, cost, parameters = model(name == "product", rows, width, 10)
        forward[name] = fg.compile(outputs=h, device="cpu", threads=1)
        updates = {p: p - 0.1 * g for p, g in zip(parameters, fg.grad(cost, parameters), strict=True)}
        step[name] = fg.compile(outputs=cost, updates=updates, device="cpu", threads=1)
        fg.show(forward[name], out / f"{name}.svg", stage="declared", title=f"declared: {name}")

        _, cost, parameters = model(name == "product", len(letters), 32, len(letters))
        trainer = fg.Trainer(cost, fg.optim.SGD(1.0), device="cpu", threads=1)
        losses[name] = trainer.fit(data, epochs=1 if quick else 5, progress=not quick)[-1]["loss"]
        trained[name] = parameters[0].value
    fg.show(forward["product"], out / "compiled.svg", stage="kernels", title="compiled: either")
    kernel = str(forward["product"].kernels[0])
    print(kernel)

    def same(programs: dict[str, fg.Program]) -> bool:
        first, second = ([str(kernel) for kernel in program.kernels] for program in programs.values())
        return first == second

    return {
        "kernel": kernel.split("\n"),
        "same_kernels": {"forward": same(forward), "training": same(step)},
        "same_bits": bool(np.array_equal(trained["product"], trained["lookup"])),
        "loss": losses["lookup"],
        "memory": {
            "step": step["product"].memory({"batch": 32}).bytes("arena") / 1e3,
            "one_hot": 32 * rows * 4 / 1e3,
            "gradient": rows * width * 4 / 1e3,
        },
    }


if __name__ == "__main__":
    run(main)
