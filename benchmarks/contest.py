"""Contestants side by side: each a process of its own, with a turn in each round, so that a noisy minute strikes all
alike.

Comes in: their names, and a workload: a module of `benchmarks` with `STEPS`, the steps of an epoch, and `make(*sizes)`,
the data of one size. Goes out: a row of figures for each. Knows no network.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from importlib import import_module
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"

TURN_SECONDS = 0.2  # long enough that waking threads does not count
REST_SECONDS = 0.25  # a team of threads may spin this long after its last work
LOSS_TOLERANCE = 1e-3  # relative; float32 sums in another order, an epoch


class Contestant:
    """A running `benchmarks.serve`; a context manager that ends it."""

    def __init__(self, name: str, workload: str, sizes: tuple[int, ...]) -> None:
        self.name, self.steps = name, import_module(f"benchmarks.{workload}").STEPS
        python = sys.executable if name.startswith("flowgraph") else str(PEERS_PYTHON)
        # OPENBLAS_* choose older kernels on some machines: no contestant gets them
        environment = {key: value for key, value in os.environ.items() if not key.startswith("OPENBLAS_")}
        self.process = subprocess.Popen(
            [python, "-m", "benchmarks.serve", name, workload, *map(str, sizes)],
            cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.facts = self._answer()
        first = self.run(self.steps)
        self.facts |= {"first_epoch_seconds": first["seconds"], "loss": first["loss"]}
        warm = min(self.run(self.steps)["seconds"] for _ in range(3))
        self.epochs = max(1, math.ceil(TURN_SECONDS / warm))
        self.microseconds: list[float] = []  # a step, one number a round

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(timeout=30)

    def run(self, steps: int) -> dict[str, float]:
        assert self.process.stdin
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return self._answer()

    def turn(self) -> None:
        steps = self.epochs * self.steps
        self.microseconds.append(self.run(steps)["seconds"] / steps * 1e6)

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with code {self.process.wait()}; its own words are above")
        return dict(json.loads(line))


def check_losses(contestants: list[Contestant]) -> None:
    """Who reads the same examples in the same order must have learned the same."""
    by_order = defaultdict(list)
    for contestant in contestants:
        by_order[contestant.facts["order"]].append(contestant)
    for order, group in by_order.items():
        losses = {contestant.name: contestant.facts["loss"] for contestant in group}
        if not all(map(math.isfinite, losses.values())):
            raise SystemExit(f"a loss is not finite: {losses}")
        least, most = min(losses.values()), max(losses.values())
        if order != "own" and most - least > LOSS_TOLERANCE * most:
            raise SystemExit(f"the contestants do not train the same network: {losses}")


def measure(names: list[str], workload: str, sizes: tuple[int, ...], rounds: int) -> list[dict[str, Any]]:
    """One row for each contestant, in the order named."""
    contestants: list[Contestant] = []
    try:
        for name in names:
            contestants.append(Contestant(name, workload, sizes))
        check_losses(contestants)
        for _ in range(rounds):
            for contestant in contestants:
                time.sleep(REST_SECONDS)
                contestant.turn()
    finally:
        for contestant in contestants:
            contestant.__exit__()
    return [
        {
            "name": each.name,
            "workload": workload,
            "sizes": sizes,
            "best": min(each.microseconds),
            "median": statistics.median(each.microseconds),
            "rounds": each.microseconds,
            **each.facts,
        }
        for each in contestants
    ]


def save(name: str, found: dict[str, Any]) -> str:
    """Write figures to a new file of the results, and say where."""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    file.write_text(json.dumps(found, indent=1))
    return str(file.relative_to(ROOT))
