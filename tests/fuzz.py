"""`python -m tests.fuzz`: random graphs down every path, until stopped. Prints a minimal reproducer for each
failure.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time

from tests.support.compare import Oracle
from tests.support.paths import PATHS
from tests.support.random_graphs import random_case
from tests.support.reproduce import report


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--paths", default=",".join(PATHS), help=f"of {', '.join(PATHS)} (default: all)")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="how long (default: until Ctrl-C)"
    )
    parser.add_argument(
        "--seed", type=int, default=10_000, help="the first seed (the tests have those below 10000)"
    )
    parser.add_argument("--count", type=int, help="how many graphs (default: no limit)")
    parser.add_argument("--operations", type=int, default=12, help="ops drawn a graph")
    parser.add_argument("--failures", type=int, default=5, help="stop after so many")
    asked = parser.parse_args()
    names = asked.paths.split(",")
    unknown = set(names) - set(PATHS)
    if unknown:
        parser.error(f"no path {', '.join(sorted(unknown))}; there are {', '.join(PATHS)}")

    failures, done, start = 0, 0, time.monotonic()
    seeds = (
        itertools.count(asked.seed) if asked.count is None else range(asked.seed, asked.seed + asked.count)
    )
    try:
        for seed in seeds:
            if time.monotonic() - start > asked.seconds or failures >= asked.failures:
                break
            try:
                case = random_case(seed, asked.operations)
            except Exception as error:
                error.add_note(f"while drawing the graph of seed {seed}")
                raise
            oracle = Oracle(case.graph, case.feeds, case.sizes)
            for name in names:
                try:
                    problem = oracle.mismatch(PATHS[name](case.graph, case.feeds, case.sizes))
                except Exception as error:
                    problem = f"{type(error).__name__}: {error}"
                if problem:
                    failures += 1
                    print(f"\n=== {problem}\n{report(case, name, PATHS[name])}", flush=True)
            done += 1
            if done % 500 == 0:
                print(
                    f"{done} graphs, {failures} failures, {done / (time.monotonic() - start):.0f} a second",
                    flush=True,
                )
    except KeyboardInterrupt:
        print()
    print(f"{done} graphs from seed {asked.seed} down {', '.join(names)}: {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
