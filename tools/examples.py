"""Runs examples in full and writes what their docs pages show: `python -m tools.examples [NAME ...]`. `make examples`

Each in a process of its own, one after the other. Its pictures and `results.json` take the place of what
`docs/examples/NAME/` has once it is done; what fails or is stopped leaves that as it was. One that fails is named at
the end, with its exit status; the others run all the same.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent


def names() -> list[str]:
    """All examples, in order."""
    return sorted(p.stem for p in (ROOT / "examples").glob("*.py") if p.stem not in ("__init__", "common"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools.examples", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="examples to run; all by default")
    parser.add_argument("--quick", action="store_true", help="their quick modes; results go to out/, not to docs/")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(names()):
        parser.error(f"no example {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    chosen, failed = asked.names or names(), []
    for number, name in enumerate(chosen, 1):
        print(f"[{number}/{len(chosen)}] {name}", flush=True)
        out = ROOT / ("out" if asked.quick else "docs/examples") / name
        start = time.perf_counter()
        with TemporaryDirectory() as made:
            command = [sys.executable, "-m", f"examples.{name}", "--out", made, *(["--quick"] if asked.quick else [])]
            status = subprocess.run(command, cwd=ROOT, check=False).returncode
            if status:
                failed.append(f"{name} (exit status {status})")
            else:
                shutil.rmtree(out, ignore_errors=True)
                shutil.copytree(made, out)
        where = "failed" if status else f"in {out.relative_to(ROOT)}"
        print(f"[{number}/{len(chosen)}] {name}: {time.perf_counter() - start:.0f} s, {where}", flush=True)
    if failed:
        print("failed:", ", ".join(failed), file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
