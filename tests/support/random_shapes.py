"""Steps of random graphs that move elements: slices, reversal, pieces, reshapes."""

from __future__ import annotations

from typing import Any

from flowgraph.graph.tensor import Tensor
from flowgraph.ops import pieces, shape, slicing

COVERED = {"slice", "flip", "concatenate", "pad", "reshape"}


def cut(g: Any) -> Tensor | None:
    """A slice, by position, of what may be a named size."""
    x = g.any_float(at_least=1)
    key: list[Any] = []
    for size, actual in zip(x.shape, g.counts(x.shape), strict=True):
        start = g.random.randint(0, actual - 1)
        stop = g.random.randint(start + 1, actual)
        choices: list[Any] = [slice(None), slice(start, stop), slice(start, None, g.random.randint(1, 3)), start]
        choices += [slice(None, None, -1)]
        if isinstance(size, int):
            choices += [slice(stop - 1, start - 1 if start else None, -1), -1]
        key.append(g.random.choice(choices))
    return x[tuple(key)]


def reverse(g: Any) -> Tensor | None:
    x = g.any_float(at_least=1)
    return slicing.flip(x, g.random.sample(range(x.rank), g.random.randint(1, x.rank)))


def join(g: Any) -> Tensor | None:
    """Tensors that agree but along one axis, some of them the same, one after the other or on a new axis."""
    x = g.any_float(at_least=1)
    axis = g.random.randrange(x.rank)

    def others(t: Tensor) -> Any:
        return (*t.shape[:axis], *t.shape[axis + 1 :])

    found = [t for t in g.floats if t.dtype == x.dtype and t.rank == x.rank and others(t) == others(x)]
    parts = [x, *(g.random.choice([*found, x]) for _ in range(g.random.randint(1, 2)))]
    if x.rank < 3 and g.random.random() < 0.3:
        return pieces.stack([t for t in parts if t.shape == x.shape], axis)
    return pieces.concatenate(parts, axis)


def surround(g: Any) -> Tensor | None:
    x = g.any_float(at_least=1)
    widths = [(g.random.choice((0, 0, 1, 3)), g.random.choice((0, 0, 1, 2))) for _ in x.shape]
    return pieces.pad(x, widths, g.random.choice((0.0, 0.0, 1.5)))


def refold(g: Any) -> Tensor | None:
    x = g.any_float(at_least=1)
    if g.random.random() < 0.4 and x.rank > 1:
        return shape.reshape(x, (*x.shape[: x.rank - 2], -1))
    if g.random.random() < 0.5:
        return shape.ravel(x)
    whole = [s for s in x.shape if isinstance(s, int) and s > 3]
    if whole and x.rank < 3:
        place = x.shape.index(whole[0])
        divisors = [d for d in range(2, whole[0]) if whole[0] % d == 0]
        if divisors:
            return shape.reshape(x, (*x.shape[:place], -1, g.random.choice(divisors), *x.shape[place + 1 :]))
    order = list(range(x.rank))
    g.random.shuffle(order)
    return shape.reshape(x, [x.shape[k] for k in order])


STEPS = (cut, cut, reverse, join, join, surround, refold, refold)
