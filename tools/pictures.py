"""Draws the pictures that README and docs show, from the code they show. `make pictures`"""

from __future__ import annotations

import linecache
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def readme_program() -> dict[str, Any]:
    """Runs the README's Python blocks, in order, in one namespace."""
    names: dict[str, Any] = {}
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)):
        run_block(block, f"README.md block {number}", names)
    return names


def run_block(block: str, name: str, names: dict[str, Any]) -> None:
    """Runs a block of a page as if it were a file of that name: flowgraph reads variables' names off its lines."""
    linecache.cache[name] = (len(block), None, block.splitlines(keepends=True), name)
    exec(compile(block, name, "exec"), names)


if __name__ == "__main__":
    import flowgraph as fg

    names = readme_program()
    step = names["step"]
    for stage in ("backward", "kernels"):
        fg.show(step, ROOT / "docs" / "pictures" / f"{stage}.svg", stage=stage)
        print(f"docs/pictures/{stage}.svg")
