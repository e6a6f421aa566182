"""One training step of an LSTM and of LeNet beside PyTorch and JAX: `python -m benchmarks.systems [lstm|lenet ...]`.

Prints a table, writes all to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import os
import platform
from importlib import import_module

from benchmarks import peak
from benchmarks.contest import PEERS_PYTHON, measure, save

SIZES: dict[str, tuple[tuple[int, ...], ...]] = {
    "lstm": ((32, 128), (32, 512)),  # batch, hidden
    "lenet": ((32,), (128,)),  # batch
}
PEERS = ("flowgraph", "torch", "jax")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("systems", nargs="*", default=list(SIZES), help=f"of: {' '.join(SIZES)}")
    parser.add_argument("--peers", nargs="*", default=list(PEERS), help=f"of: {' '.join(PEERS)}")
    parser.add_argument("--rounds", type=int, default=9)
    asked = parser.parse_args()
    if unknown := {*asked.systems, *asked.peers} - {*SIZES, *PEERS}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    if not PEERS_PYTHON.exists():
        parser.error("there is no environment for the peers: run `make bench-peers-env`")
    cores, load_before = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    rate = peak.all_cores("float", cores)
    print(f"{cores} cores, load {load_before:.2f}; peak {rate / cores / 1e9:.0f} GF/s a core, all at once")
    if load_before > 0.3:
        print("the machine is not quiet: compare the ratios, not the times")
    print(f"{'':24} {'best ms':>8} {'median':>8} {'x flowgraph':>12} {'of peak':>8} {'1st epoch':>10}")
    every = []
    for system in asked.systems:
        work = import_module(f"benchmarks.{system}_workload").operations
        for sizes in SIZES[system]:
            names = [f"{peer}_{system}" for peer in asked.peers]
            every += (rows := measure(names, f"{system}_workload", sizes, asked.rounds))
            for row in rows:
                label = f"{row['name']} {'x'.join(map(str, sizes))}"
                share = work(*sizes) / rate / row["median"] * 1e6
                print(
                    f"{label:24} {row['best'] / 1e3:8.2f} {row['median'] / 1e3:8.2f} "
                    f"{row['median'] / rows[0]['median']:12.2f} {share:8.0%} {row['first_epoch_seconds']:8.2f} s",
                    flush=True,
                )
    machine = {"cpu": platform.processor() or platform.machine(), "cores": cores, "load_before": load_before}
    print(save("systems", {"machine": machine, "peak": rate, "rows": every}))


if __name__ == "__main__":
    main()
