"""One training step of the lecture's network beside its peers: `python -m benchmarks.mlp [NAME ...]`.

The others are compared with the first. Prints a table a size, writes all to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import os
import platform
from typing import Any

from benchmarks import peak, workload
from benchmarks.contest import PEERS_PYTHON, measure, save

CONTESTANTS = ("flowgraph", "flowgraph_shuffled", "jax_scan", "jax_scan_shuffled", "jax_step", "torch_eager")


def report(rows: list[dict[str, Any]], peak_rate: float) -> str:
    """The table of one size; `peak_rate` in operations a second, of all cores together."""
    first, (batch, hidden) = rows[0], rows[0]["sizes"]
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
        rows += (table := measure(arguments.names, "workload", (batch, hidden), arguments.rounds))
        rate = max(rate, peak.all_cores("float", cores))  # a disturbed reading is too low, never too high
        print(report(table, rate), flush=True)
    machine = {"cpu": platform.processor() or platform.machine(), "cores": cores, "load_before": load_before}
    print(save("mlp", {"machine": machine, "peak": rate, "rows": rows}))


if __name__ == "__main__":
    main()
