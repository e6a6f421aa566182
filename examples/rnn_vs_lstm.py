"""What the lecture says of its recurrent networks: that of the 1980s is extremely deep and very hard to train, the LSTM
has bits of memory. Two tasks of Hochreiter and Schmidhuber (1997), as Arjovsky, Shah and Bengio (2016) state them:

copying    ten symbols of eight kinds, T - 1 blanks, a mark; then the ten again. The cost is nats a place, of T + 20. To
           say blank until the mark and to guess after it costs 10 log(8) / (T + 20); an eighth of the ten are right.
adding     T numbers from [0, 1], two of which are marked, one in each half; what is their sum? The cost is the squared
           error. To say 1 always costs 1/6; to know the last number alone, 1/T less of that.

Both networks have the same optimiser and number of states, and orthogonal recurrent weights; every minibatch is new.
The RNN, which a high rate throws off, has two, and the better counts. As the memory must last about T turns, the
LSTM's biases begin so that its gates forget after 2 to T turns (Tallec and Ollivier 2018, "chrono
initialisation"). All data are generated. Quick: T = 20 and 40, few steps.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

import flowgraph as fg
from examples.common import Results, figure, run, save

KINDS, COPIED = 8, 10
BLANK, MARK = KINDS, KINDS + 1
BATCH, SET_STEPS, HELD_OUT = 8, 250, 16_384  # sequences a minibatch; minibatches a generated set; sequences to judge by
RATES = {"RNN": (0.0005, 0.0001), "LSTM": (0.005,)}  # each is tried, the best counts


def copying(count: int, length: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """x and y int32 (count, length + 20)."""
    symbols = rng.integers(0, KINDS, (count, COPIED))
    x = np.full((count, length + 2 * COPIED), BLANK, np.int32)
    y = x.copy()
    x[:, :COPIED], y[:, -COPIED:] = symbols, symbols
    x[:, -COPIED - 1] = MARK
    return {"x": x, "y": y}


def adding(count: int, length: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """x float32 (count, length, 2), numbers and marks; y float32 (count,)."""
    x = np.zeros((count, length, 2), np.float32)
    x[:, :, 0] = rng.random((count, length))
    rows = np.arange(count)
    for low, high in ((0, length // 2), (length // 2, length)):
        x[rows, rng.integers(low, high, count), 1] = 1
    return {"x": x, "y": (x[:, :, 0] * x[:, :, 1]).sum(axis=1)}


TASKS = {"copying": copying, "adding": adding}


def baseline(task: str, length: int) -> float:
    """What it costs to guess the symbols or to say that the sum is 1, expected of new sequences."""
    return COPIED * float(np.log(KINDS)) / (length + 2 * COPIED) if task == "copying" else 1 / 6


def layer(kind: str, inputs: int, hidden: int, length: int) -> fg.nn.Recurrent:
    if kind == "RNN":
        return fg.nn.RNN("rnn", inputs, hidden)
    lstm = fg.nn.LSTM("lstm", inputs, hidden)
    forget = np.log(np.random.default_rng(0).uniform(1, length - 1, hidden))  # 1 - logistic(log(k)) is 1 / (1 + k)
    lstm.b.value = np.concatenate([forget, -forget, np.zeros(2 * hidden)])
    return lstm


def trainer(task: str, kind: str, hidden: int, length: int, steps: int, rate: float) -> fg.Trainer:
    metrics = {}
    if task == "copying":
        x, y = (fg.input(n, ("batch", length + 2 * COPIED), "int32") for n in "xy")
        states, _ = layer(kind, KINDS + 2, hidden, length)(fg.one_hot(x, KINDS + 2, "float32"))
        logits = fg.nn.Dense("output", hidden, KINDS + 1)(states)
        cost = fg.mean(fg.cross_ent_of_softmax(logits, y))
        metrics = {"right": fg.nn.accuracy(logits[:, -COPIED:], y[:, -COPIED:])}
    else:
        x, y = fg.input("x", ("batch", length, 2)), fg.input("y", ("batch",))
        _, state = layer(kind, 2, hidden, length)(x)
        cost = fg.mean(fg.square(fg.nn.Dense("output", hidden, 1)(state[0])[:, 0] - y))
    rule = fg.optim.Adam(fg.optim.Cosine(rate, steps=steps), betas=(0.9, 0.99), clip_norm=0.1)
    return fg.Trainer(cost, rule, metrics, device="cpu", threads=1)


def learn(task: str, kind: str, hidden: int, length: int, steps: int, rate: float) -> Results:
    """Train on new sequences for `steps` steps. Costs by set, the step by which they first were a hundredth of the
    baseline's (None: never), and the scores on new data."""
    make, rng, start = TASKS[task], np.random.default_rng(1), time.perf_counter()
    made = trainer(task, kind, hidden, length, steps, rate)
    costs: list[float] = []
    for _ in range(steps // SET_STEPS):
        row = made.fit(make(BATCH * SET_STEPS, length, rng), batch_size=BATCH, progress=False)[-1]
        costs.append(float(f"{row['loss']:.5g}"))
    low = np.flatnonzero(np.array(costs) <= 0.01 * baseline(task, length))
    found: Results = {"rate": rate, "costs": costs, "reached": SET_STEPS * int(low[0] + 1) if len(low) else None}
    found |= made.evaluate(make(HELD_OUT, length, np.random.default_rng(2)), 64)
    found["of_baseline"] = found["loss"] / baseline(task, length)
    scores = f"{found['of_baseline']:.3f} of the baseline's cost, {time.perf_counter() - start:.0f} s"
    print(f"{task}, T = {length}, {kind}, rate {rate}: {scores}", flush=True)
    return found


def draw(results: Results, out: Path) -> None:
    """The costs by steps, a task a row, a length a column."""
    picture, axes = figure(2, 2, width=3.6, height=2.6)
    for row, task in zip(axes, TASKS, strict=True):
        for place, (length, found) in zip(row, results[task].items(), strict=True):
            for kind in RATES:
                costs = found[kind]["costs"]
                place.plot(SET_STEPS / 1000 * (np.arange(len(costs)) + 1), costs, label=kind)
            place.axhline(found["baseline"], color="#777777", linestyle=":", label="no memory")
            title = f"{task}, {length.replace('T', 'T = ')}"
            place.set(title=title, xlabel="thousands of steps", ylabel="cost", ylim=(0, 1.6 * found["baseline"]))
    axes[0, 0].legend()
    save(picture, out / "curves.svg")


def main(quick: bool, out: Path) -> Results:
    lengths, hidden, steps = ((20, 40), 64, 3000) if quick else ((50, 200), 128, 60_000)
    results: Results = {"hidden": hidden, "steps": steps}
    for task in TASKS:
        results[task] = {}
        for length in lengths:
            found: Results = {"baseline": baseline(task, length)}
            for kind, rates in RATES.items():
                tried = [learn(task, kind, hidden, length, steps, rate) for rate in rates]
                found[kind] = min(tried, key=lambda one: one["loss"])
            results[task][f"T{length}"] = found
    draw(results, out)
    return results


if __name__ == "__main__":
    run(main)
