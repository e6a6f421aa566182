"""Hours of ordinary use in minutes: does anything grow, or slow down? `python -m benchmarks.soak [--minutes 10]`

One process does in turn what a notebook left open does: trains and goes on from checkpoints, evaluates, predicts with
other batch sizes, declares and compiles new models of varying sizes and depths, and makes mistakes that are refused.
Every few seconds it records memory, open files, threads and speed. After a warm-up (the first third) each may only rise
as noise does: exit status 1 and the name of what grew otherwise. Prints a table, writes benchmarks/results/soak.json.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import flowgraph as fg

RESULTS = Path(__file__).parent / "results"
FOLDERS = 12  # of checkpoints, used in turn
WIDTHS = range(10, 200, 10)  # of models: what compiling remembers by shapes, up to a limit, is soon complete
GROWTH_MB = 8.0  # between two thirds of the time: what the collector and the allocator do by themselves is less
GROWTH_OBJECTS = 5  # a round: a forgotten model has thousands, a sample is one
SLOWEST = 0.7  # of the warm speed: other work on the machine explains a little


@dataclass(frozen=True)
class Sample:
    """The state of the process at a moment, and what it did since the last."""

    seconds: float
    resident_mb: float
    files: int
    threads: int
    native_threads: int
    objects: int
    rounds: int
    steps_per_second: float


class Use:
    """A user's afternoon. Counts the rounds."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.rounds, self.steps, self.stepping = folder, 0, 0, 0.0
        self.dice = np.random.default_rng(0)
        self.data: dict[str, np.ndarray] = {
            "x": self.dice.normal(size=(2048, 64)).astype(np.float32),
            "y": self.dice.integers(0, 10, 2048),
        }
        self.fixed, self.logits = self.model(96, 2)

    def model(self, hidden: int, depth: int) -> tuple[fg.Trainer, fg.Tensor]:
        x, y = fg.input("x", ("batch", 64)), fg.input("y", ("batch",), "int64")
        h, width = x, 64
        for number in range(depth):
            w = fg.parameter(f"w{number}", (width, hidden), fg.init.glorot_uniform())
            h, width = fg.tanh(fg.dropout(h @ w, 0.1)), hidden
        logits = h @ fg.parameter("out", (width, 10), fg.init.glorot_uniform())
        accuracy = fg.equal(fg.argmax(logits, axis=1), y)
        cost = fg.cross_ent_of_softmax(logits, y)
        return fg.Trainer(cost, fg.optim.Adam(0.001), {"accuracy": accuracy}, device="cpu"), logits

    def round(self) -> None:
        """One of everything."""
        start = time.perf_counter()
        self.fixed.fit(self.data, 2, 32, progress=False)
        self.stepping += time.perf_counter() - start
        self.steps += 2 * 2048 // 32
        # What a fit has recorded is the user's to keep, and grows with every epoch; here it would only hide a leak.
        self.fixed.history.replace([], np.empty(0))
        self.fixed.evaluate(self.data, int(self.dice.integers(1, 300)))
        self.fixed.predict(self.logits, {"x": self.data["x"]}, int(self.dice.integers(100, 2000)))
        self.new_model()
        self.mistakes()
        self.rounds += 1

    def new_model(self) -> None:
        """Declared, trained with a checkpoint, cut, resumed, and forgotten."""
        hidden, depth = int(self.dice.choice(WIDTHS)), 1 + self.rounds % 3
        path = self.folder / f"{self.rounds % FOLDERS}"
        some = {name: array[:500] for name, array in self.data.items()}
        shutil.rmtree(path, ignore_errors=True)
        for epochs in (1, 2):  # the second goes on where the first was left
            trainer, logits = self.model(hidden, depth)
            trainer.fit(some, epochs, 50, progress=False, checkpoint=path)
            trainer.predict(logits, {"x": some["x"]})

    def mistakes(self) -> None:
        """What is refused must not stay behind either."""
        attempts: tuple[Callable[[], object], ...] = (
            lambda: self.fixed.evaluate({"x": self.data["x"]}),
            lambda: self.logits @ self.logits,
            lambda: self.fixed.load(self.folder / "nowhere"),
        )
        for attempt in attempts:
            try:
                attempt()
            except fg.FlowgraphError:
                continue
            raise AssertionError("a mistake was not refused")


def measure(use: Use, start: float, steps: int, stepping: float) -> Sample:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Sample(
        seconds=round(time.perf_counter() - start, 1),
        resident_mb=round(pages * resource.getpagesize() / 1e6, 1),
        files=len(os.listdir("/proc/self/fd")),
        threads=threading.active_count(),
        native_threads=len(os.listdir("/proc/self/task")),
        objects=len(gc.get_objects()),
        rounds=use.rounds,
        steps_per_second=round((use.steps - steps) / max(use.stepping - stepping, 1e-9)),
    )


def soak(minutes: float, every: float) -> list[Sample]:
    """Use flowgraph for so long; a sample every so many seconds."""
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory() as folder:
        use, start = Use(Path(folder)), time.perf_counter()
        print("   seconds  resident MB  files  threads  native  objects  rounds  steps/s")
        while not samples or samples[-1].seconds < minutes * 60:
            steps, stepping, until = use.steps, use.stepping, time.perf_counter() + every
            use.round()
            while time.perf_counter() < until:
                use.round()
            s = measure(use, start, steps, stepping)
            samples.append(s)
            print(
                f"{s.seconds:10.1f}  {s.resident_mb:11.1f}  {s.files:5}  {s.threads:7}  {s.native_threads:6}  "
                f"{s.objects:7}  {s.rounds:6}  {s.steps_per_second:7.0f}",
                flush=True,
            )
    return samples


def verdict(samples: list[Sample]) -> list[str]:
    """What grew or slowed after the warm-up; nothing if all is well."""
    warm = samples[len(samples) // 3 :]
    half = len(warm) // 2
    early, late = warm[:half], warm[half:]
    problems = []
    for name, allowed in (("resident_mb", GROWTH_MB), ("files", 0), ("threads", 0), ("native_threads", 0)):
        # the least of each half: what is in use, without what happened to be waiting for collection
        grown = min(getattr(s, name) for s in late) - min(getattr(s, name) for s in early)
        if grown > allowed:
            problems.append(f"{name} grew by {grown:.1f} from the first half of the warm time to the second")
    objects = min(s.objects for s in late) - min(s.objects for s in early)
    rounds = late[0].rounds - early[0].rounds
    if objects > GROWTH_OBJECTS * rounds:
        problems.append(f"{objects} Python objects more after {rounds} rounds")
    speeds = [float(np.median([s.steps_per_second for s in half])) for half in (early, late)]
    if speeds[1] < SLOWEST * speeds[0]:
        problems.append(f"training slowed from {speeds[0]:.0f} to {speeds[1]:.0f} steps/s")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--every", type=float, default=10.0, help="seconds between samples (%(default)s)")
    arguments = parser.parse_args()
    samples = soak(arguments.minutes, arguments.every)
    if len(samples) < 6:
        parser.error(f"{len(samples)} samples are too few to judge by; give more minutes")
    problems = verdict(samples)
    RESULTS.mkdir(exist_ok=True)
    record = {"samples": [asdict(s) for s in samples], "problems": problems}
    (RESULTS / "soak.json").write_text(json.dumps(record, indent=1))
    print("\n".join(problems) or f"nothing grew in {samples[-1].rounds} rounds")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
