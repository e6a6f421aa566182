"""`fg.plots`: pictures of what diagnostics found, by matplotlib, which only these functions import.

Each draws into `ax`, or into new axes, and returns them: title, limits and file are the caller's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from flowgraph.errors import GraphError, ShapeError, listed, shown
from flowgraph.graph import origin as origins
from flowgraph.train.diagnostics import Diagnostics, Spread


def histograms(
    watch: Diagnostics, names: Sequence[str] | None = None, *, of: str = "gradient", row: int = -1, ax: Any = None
) -> Any:
    """Histograms of a row of the table, a line for each tensor; `of` "gradient" or "values".

    Edges that lie alike on both sides of 0 are drawn by magnitude on a logarithmic axis, without the bin around 0.
    """
    ax = _axes(ax)
    for name in _names(watch, names):
        spread = _spread(watch, name, of)
        if not spread.counts.size:
            problem = "these diagnostics count nothing" if len(watch) else "nothing was recorded yet"
            raise GraphError(problem, where=origins.here(), hint="histograms=True, and a fit")
        if spread.is_symmetric:
            edges, counts = spread.magnitudes()
            middle = np.sqrt(edges[1:] * edges[:-1])
            ax.set_xscale("log")
        else:
            edges, counts = spread.edges, spread.counts[:, 1:-1]
            middle = (edges[1:] + edges[:-1]) / 2
        ax.plot(middle, counts[row] / spread.counts[row].sum(), label=name)
    ax.set(xlabel=of if not spread.is_symmetric else f"|{of}|", ylabel="share of the elements")
    return ax


def course(watch: Diagnostics, names: Sequence[str] | None = None, *, of: str = "values", ax: Any = None) -> Any:
    """The mean over the steps of a training, and a band of one standard deviation on both sides, for each tensor."""
    ax = _axes(ax)
    for name in _names(watch, names):
        spread = _spread(watch, name, of)
        (line,) = ax.plot(watch.steps, spread.mean, label=name)
        low, high = spread.mean - spread.std, spread.mean + spread.std
        ax.fill_between(watch.steps, low, high, color=line.get_color(), alpha=0.15, linewidth=0.8)
    ax.set(xlabel="steps", ylabel="mean ± standard deviation")
    return ax


def saturation(watch: Diagnostics, names: Sequence[str] | None = None, *, ax: Any = None) -> Any:
    """The saturated share over the steps, for each tensor that has bounds."""
    ax = _axes(ax)
    for name in _names(watch, names):
        ax.plot(watch.steps, watch[name].saturated, label=name)
    ax.set(xlabel="steps", ylabel="saturated", ylim=(0, 1))
    return ax


def images(tiles: Any, columns: int | None = None, *, ax: Any = None) -> Any:
    """Grey pictures side by side: feature maps, patches, filters, (n, height, width). Each has its own scale of greys.

    Of a convolution's maps, `fg.plots.images(trainer.predict(maps, data)[0])`.
    """
    arrays = [np.asarray(tile, np.float64) for tile in tiles]
    if not arrays or any(a.ndim != 2 or a.shape != arrays[0].shape for a in arrays):
        found = ", ".join(str(a.shape) for a in arrays[:4])
        problem = f"pictures are (n, height, width), got {found or 'none'}"
        raise ShapeError(problem, where=origins.here(), hint="take one channel of each, as in x[:, 0]")
    ax = _axes(ax)
    (height, width), count = arrays[0].shape, len(arrays)
    columns = columns or min(count, max(1, round(np.sqrt(count * height / width))))
    rows = -(-count // columns)
    sheet = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1), np.nan)
    for k, tile in enumerate(arrays):
        spread = tile.max() - tile.min()
        top, left = k // columns * (height + 1), k % columns * (width + 1)
        sheet[top : top + height, left : left + width] = (tile - tile.min()) / (spread or 1.0)
    ax.imshow(sheet, cmap="gray", interpolation="nearest", vmin=0, vmax=1)
    ax.set_axis_off()
    return ax


def _axes(ax: Any) -> Any:
    if ax is not None:
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'flowgraph[examples]'; the numbers do not") from error
    return plt.subplots()[1]


def _names(watch: Diagnostics, names: Sequence[str] | None) -> Sequence[str]:
    for name in names or ():
        if name not in watch.tensors:
            problem = f"{shown(name)} is not measured"
            raise GraphError(problem, where=origins.here(), hint=f"there are {listed(watch.tensors)}")
    return list(watch.tensors) if names is None else names


def _spread(watch: Diagnostics, name: str, of: str) -> Spread:
    if of not in ("gradient", "values"):
        raise GraphError(f"of is 'gradient' or 'values', got {shown(of)}", where=origins.here())
    return watch[name].gradient if of == "gradient" else watch[name].values
