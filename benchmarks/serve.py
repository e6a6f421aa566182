"""One contestant in a process of its own: `python -m benchmarks.serve NAME BATCH HIDDEN`.

Comes in, a line each: a number of steps. Goes out, a line each, as JSON: seconds and the last loss; before
them, once, how long import and build took. Ends at the end of input, idles in between: others have turns.
"""

from __future__ import annotations

import importlib
import json
import sys
from time import perf_counter

from benchmarks import workload


def main(name: str, batch: int, hidden: int) -> None:
    data = workload.make(batch, hidden)
    start = perf_counter()
    peer = importlib.import_module(f"benchmarks.peers.{name}")
    imported = perf_counter()
    run = peer.build(batch, hidden, data)
    built = perf_counter()
    tell(order=peer.ORDER, import_seconds=imported - start, build_seconds=built - imported)
    for line in sys.stdin:
        start = perf_counter()
        loss = run(int(line))
        tell(seconds=perf_counter() - start, loss=loss)


def tell(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
