"""One training step of the lecture's network beside its peers: `python -m benchmarks.mlp [NAME ...]`.

Every contestant is a process of its own and has a turn in each round, so that a noisy minute strikes all
alike; the others are compared with the first. Prints a table a size, writes all to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Self

from benchmarks import peak, workload

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"

CONTESTANTS = ("flowgraph", "flowgraph_shuffled", "jax_scan", "jax_scan_shuffled", "jax_step", "torch_eager")
TURN_SECONDS = 0.2  # long enough that waking threads does not count
REST_SECONDS = 0.25  # a team of threads may spin this long after its last work
LOSS_TOLERANCE = 1e-3  # relative; float32 sums in another order, 64 steps


class Contestant:
    """A running `benchmarks.serve`; a context manager that ends it."""

    def __init__(self, name: str, batch: int, hidden: int) -> None:
        self.name = name
        python = sys.executable if name.startswith("flowgraph") else str(PEERS_PYTHON)
        # OPENBLAS_* choose older kernels on some machines: no contestant gets them
        environment = {key: value for key, value in os.environ.items() if not key.startswith("OPENBLAS_")}
        self.process = subprocess.Popen(
            [python, "-m", "benchmarks.serve", name, str(batch), str(hidden)],
            cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.facts = self._answer()
        first = self.run(workload.STEPS)
        self.facts |= {"first_epoch_seconds": first["seconds"], "loss": first["loss"]}
        warm = min(self.run(workload.STEPS)["seconds"] for _ in range(3))
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
        steps = self.epochs * workload.STEPS
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


def measure(names: list[str], batch: int, hidden: int, rounds: int) -> list[dict[str, Any]]:
    """One row for each contestant, in the order named."""
    contestants: list[Contestant] = []
    try:
        for name in names:
            contestants.append(Contestant(name, batch, hidden))
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
            "batch": batch,
            "hidden": hidden,
            "best": min(each.microseconds),
            "median": statistics.median(each.microseconds),
            "rounds": each.microseconds,
            **each.facts,
        }
        for each in contestants
    ]


def report(rows: list[dict[str, Any]], peak_rate: float) -> str:
    """The table of one size; `peak_rate` in operations a second, of all cores together."""
    first, batch, hidden = rows[0], rows[0]["batch"], rows[0]["hidden"]
    work = workload.operations(batch, hidden)
    limit = work / peak_rate * 1e6
    lines = [
        f"784-{hidden}-10, batch {batch}; products alone at the cores' peak would take {limit:.0f} µs",
        f"  {'':20} {'best µs':>8} {'median':>8} {'× ' + first['name']:>20} {'of peak':>8} {'1st epoch':>10}",
    ]
    for row in rows:
        ratio = row["median"] / first["median"]
        lines.append(
            f"  {row['name']:20} {row['best']:8.0f} {row['median']:8.0f} {ratio:20.2f} "
            f"{limit / row['median']:8.0%} {row['first_epoch_seconds']:8.2f} s"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(CONTESTANTS), help=f"of: {' '.join(CONTESTANTS)}")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(CONTESTANTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    if not PEERS_PYTHON.exists():
        parser.error("there is no environment for the peers: run `make bench-peers-env`")

    cores = len(os.sched_getaffinity(0))
    load_before = os.getloadavg()[0]
    rate = peak.all_cores("float", cores)
    print(f"{cores} cores, load {load_before:.2f}; peak {rate / cores / 1e9:.0f} GF/s a core, all at once")
    if load_before > 0.3:
        print("the machine is not quiet: compare the ratios, not the microseconds")
    rows = []
    for batch, hidden in workload.SIZES:
        rows += (table := measure(arguments.names, batch, hidden, arguments.rounds))
        rate = max(rate, peak.all_cores("float", cores))  # a disturbed reading is too low, never too high
        print(report(table, rate), flush=True)
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"mlp-{time.strftime('%Y%m%d-%H%M%S')}.json"
    machine = {"cpu": platform.processor() or platform.machine(), "cores": cores, "load_before": load_before}
    file.write_text(json.dumps({"machine": machine, "peak": rate, "rows": rows}, indent=1))
    print(file.relative_to(ROOT))


if __name__ == "__main__":
    main()
