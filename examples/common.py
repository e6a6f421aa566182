"""What the examples share: their command line, their file of results, the style of their plots."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

Results = dict[str, Any]
"""What an example found, by name: numbers, texts and lists of them. Its docs page quotes them."""

Main = Callable[[bool, Path], Results]


def run(main: Main) -> None:
    """The command line of an example. Results are written to `results.json` beside the pictures, and printed in short,
    with the folder's name."""
    name = Path(sys.argv[0]).stem
    parser = argparse.ArgumentParser(prog=f"python -m examples.{name}", description=sys.modules["__main__"].__doc__)
    parser.add_argument("--quick", action="store_true", help="half a minute on small data, to see that it works")
    parser.add_argument("--out", type=Path, default=Path("out") / name, help="folder for pictures and results")
    asked = parser.parse_args()
    if find_spec("matplotlib") is None:
        parser.error("it draws with matplotlib, which is not installed: pip install -e '.[viz,examples]'")
    asked.out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    results = main(asked.quick, asked.out)
    results["seconds"] = round(time.perf_counter() - start, 1)
    results["cores"] = len(os.sched_getaffinity(0))
    text = json.dumps(results, indent=1, ensure_ascii=False)
    (asked.out / "results.json").write_text(text + "\n", encoding="utf-8")
    print(summary(results))
    print(f"in {asked.out}: {', '.join(sorted(made.name for made in asked.out.iterdir()))}")


def summary(results: Results, width: int = 100) -> str:
    """A line a result, cut to a width."""
    lines = (f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in results.items())
    return "\n".join(line if len(line) <= width else line[: width - 1] + "…" for line in lines)


COLORS = ("#2a6f97", "#d1495b", "#66a182", "#edae49", "#6c4f9c", "#777777", "#8c564b")


def figure(rows: int = 1, columns: int = 1, width: float = 4.0, height: float = 3.0, **settings: Any) -> Any:
    """A figure and its axes, as of `matplotlib.pyplot.subplots`; each of the axes is `width` by `height` inches."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({
        "svg.hashsalt": "flowgraph",  # the same picture, the same file
        "svg.fonttype": "none",  # text stays text
        "font.family": "sans-serif",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.prop_cycle": plt.cycler(color=COLORS),
    })  # fmt: skip
    return plt.subplots(rows, columns, figsize=(width * columns, height * rows), constrained_layout=True, **settings)


def save(picture: Any, path: Path) -> None:
    """Write a figure as SVG, and forget it."""
    import matplotlib.pyplot as plt

    picture.savefig(path, metadata={"Date": None})
    plt.close(picture)


def draw_training(curves: Mapping[str, Sequence[Sequence[float]]], ylabel: str, path: Path, **levels: float) -> None:
    """Pairs (training, held out) by epoch, under a name each: held out as a line, training dashed. `levels` are drawn
    across, with their names, `_` for a space."""
    picture, axes = figure(width=5.5)
    for number, (name, rows) in enumerate(curves.items()):
        training, held_out = zip(*rows, strict=True)
        epochs = range(1, len(rows) + 1)
        axes.plot(epochs, held_out, color=f"C{number}", label=name)
        axes.plot(epochs, training, "--", color=f"C{number}", linewidth=0.8)
    for name, level in levels.items():
        axes.axhline(level, color="#777777", linewidth=0.8, linestyle=":", label=name.replace("_", " "))
    axes.set(xlabel="epoch", ylabel=ylabel)
    axes.legend(frameon=False, fontsize=8)
    save(picture, path)


def draw_weights(rows: Sequence[str], columns: Sequence[str], weights: Any, path: Path) -> None:
    """Weights from 0 to 1 of words, in columns, for words, in rows."""
    picture, axes = figure(width=0.45 * len(columns) + 1.5, height=0.33 * len(rows) + 1.2)
    axes.imshow(weights[: len(rows), : len(columns)], cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right")
    axes.set_yticks(range(len(rows)), rows)
    save(picture, path)
