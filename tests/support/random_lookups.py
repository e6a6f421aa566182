"""Steps of random graphs that look up, add and combine along an axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowgraph.graph.tensor import Tensor
from flowgraph.ops import distinct, indexing, running, sorting

COVERED = {"take_along_axis", "add_along_axis", "cumulative_sum", "argsort", "first_equal"}


def take(g: Any) -> Tensor | None:
    """Elements at given integers along any axis."""
    x = g.any_float(at_least=1)
    axis = g.random.randrange(x.rank)
    dims = g.some_shape(g.random.randint(0, 1))
    if x.rank - 1 + len(dims) > 3:
        return None
    return indexing.gather(x, g.new_integers(dims, g.counts((x.shape[axis],))[0]), axis)


def along(g: Any) -> Tensor | None:
    """Each line by integers of its own; or added where they say."""
    x = g.any_float(at_least=1)
    axis = g.random.randrange(x.rank)
    lines = (*x.shape[:axis], g.random.choice(g.dims), *x.shape[axis + 1 :])
    ids = g.new_integers(lines, g.counts((x.shape[axis],))[0])
    if g.random.random() < 0.5:
        return indexing.take_along_axis(x, ids, axis)
    added = g.new_float(lines, -1, 1, x.dtype.name)
    return indexing.AddAlongAxis(axis)(x, ids, added)


def add(g: Any) -> Tensor | None:
    x = g.any_float(at_least=2)
    axis = g.random.randrange(x.rank)
    dims = g.some_shape(1)
    ids = g.new_integers(dims, g.counts((x.shape[axis],))[0])
    added = g.new_float((*x.shape[:axis], *dims, *x.shape[axis + 1 :]), -1, 1, x.dtype.name)
    return indexing.scatter_add(x, ids, added, axis)


def so_far(g: Any) -> Tensor | None:
    x = g.any_float(at_least=1)
    return running.cumulative_sum(x, g.random.randrange(x.rank))


def in_order(g: Any) -> Tensor | None:
    """Sorted, or the largest few, where no two are so near that roundings could exchange them."""
    x = g.any_float(at_least=1)
    axis = g.random.randrange(x.rank)
    gaps = np.diff(np.sort(g.value(x), axis), axis=axis)
    if (gaps < 1e-3).any():
        return None
    if g.random.random() < 0.5:
        return sorting.sort(x, axis, g.random.random() < 0.5)
    largest, places = sorting.top_k(x, g.random.randint(1, g.counts((x.shape[axis],))[0]), axis)
    return g.random.choice((largest, places))


def distinct_rows(g: Any) -> Tensor | None:
    """Rows added up where their integers are the same."""
    x = g.any_float(at_least=1)
    ids = g.new_integers((x.shape[0],), 3)
    return indexing.scatter_add(x, distinct.first_equal(ids), x)


STEPS = (take, along, add, so_far, in_order, distinct_rows)
