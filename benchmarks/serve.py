"""One contestant in a process of its own: `python -m benchmarks.serve NAME WORKLOAD SIZE...`.

Comes in, a line each: a number of steps. Goes out, a line each, as JSON: seconds and the last loss; before
them, once, how long import and build took. Ends at the end of input, idles in between: others have turns.
"""

from __future__ import annotations

import importlib
import json
import sys
from time import perf_counter


def main(name: str, workload: str, *sizes: int) -> None:
    data = importlib.import_module(f"benchmarks.{workload}").make(*sizes)
    start = perf_counter()
    peer = importlib.import_module(f"benchmarks.peers.{name}")
    imported = perf_counter()
    run = peer.build(*sizes, data)
    built = perf_counter()
    tell(order=peer.ORDER, import_seconds=imported - start, build_seconds=built - imported)
    for line in sys.stdin:
        start = perf_counter()
        loss = run(int(line))
        tell(seconds=perf_counter() - start, loss=loss)


def tell(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
