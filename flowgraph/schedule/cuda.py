"""Schedules for CUDA: who computes which point, and what passes through shared memory.

Comes in: a collapsed kernel. Goes out: plain choices. May not know: numba, devices, the sizes of a run.
"""

from __future__ import annotations

from dataclasses import dataclass

from flowgraph.graph.size import Size, estimate, product
from flowgraph.graph.types import float32, float64, int32
from flowgraph.index_notation import Axis, Expr, Index, Load, axes_of, walk
from flowgraph.kernels.kernel import Buffer, Kernel, Nest
from flowgraph.schedule.access import accesses, stride_along, suits_vectors
from flowgraph.schedule.cpu import as_product, fills_more_lanes

WARP = 32
MANY = 16384  # points that occupy a device with a thread each
LONG = 4096  # elements of which one thread makes its own sum, at most
THREADS = 256
VECTOR = 4  # elements a thread takes at once: 16 bytes of float32
VECTOR_DTYPES = frozenset({float32, float64, int32})  # what the prelude has wide loads for


@dataclass(frozen=True)
class Elementwise:
    """Threads stride through all points, `width` neighbours along the last axis at a time."""

    width: int


@dataclass(frozen=True)
class Serial:
    """One thread a point of the outer axes; inner axes are loops: scatters (their order is fixed), the windows of
    convolutions and pools, and whatever no other schedule is sure to do right."""


@dataclass(frozen=True)
class Rows:
    """`lanes` threads share a point and walk its inner axes together: a warp, or several that meet in shared
    memory."""

    lanes: int


@dataclass(frozen=True)
class Columns:
    """A block takes `across` neighbours along the last outer axis; `lanes` threads share each and meet in
    shared memory."""

    across: int
    lanes: int


@dataclass(frozen=True)
class Tile:
    """Products: a block computes rows × columns of the result, `depth` of the sum at a time through shared
    memory; a thread computes each × each of them in registers."""

    rows: int
    columns: int
    depth: int
    each: int

    @property
    def threads(self) -> int:
        return self.rows * self.columns // self.each**2


CudaSchedule = Elementwise | Serial | Rows | Columns | Tile

# A small result has few blocks, so each is bound by latency: the deeper its tiles, the fewer times it waits.
SMALL, MIDDLE, LARGE = Tile(16, 16, 64, 1), Tile(64, 64, 16, 4), Tile(128, 128, 8, 8)


def choose(kernel: Kernel) -> CudaSchedule:
    """The schedule of a (collapsed) kernel."""
    found = as_product(kernel)
    if found is not None and not found.others:
        return _tile(found.i.extent, found.j.extent, kernel.buffer(str(found.a.source)).type.dtype.itemsize)
    inner = [nest for nest in kernel.nests if nest.axes]
    if not inner:
        return Elementwise(VECTOR if kernel.axes and walks_by_ones(kernel, kernel.axes[-1]) else 1)
    if any(nest.in_order for nest in kernel.nests) or not reads_back_own(kernel):
        return Serial()
    longest = max((estimate(product(a.extent for a in nest.axes)) for nest in inner), default=1)
    points = estimate(product(a.extent for a in kernel.axes))
    along = sum(suits_vectors(kernel, nest.axes[-1]) for nest in inner)
    across = suits_vectors(kernel, kernel.axes[-1]) if kernel.axes else along
    if kernel.axes and points >= MANY and longest <= LONG and fills_more_lanes(kernel, inner, kernel.axes[-1]):
        return Serial()  # windows: threads that are neighbours read neighbours, a warp would have lanes to spare
    if across > along:
        return Columns(WARP, THREADS // WARP)
    if longest <= 64:
        return Rows(WARP)
    return Rows(THREADS if points <= WARP else 128)


def _tile(rows: Size, columns: Size, itemsize: int) -> Tile:
    """Tiles as large as they can be while there are enough of them to occupy a device."""
    blocks = -(-estimate(rows) // MIDDLE.rows) * -(-estimate(columns) // MIDDLE.columns)
    if blocks < 32:
        return SMALL
    return LARGE if blocks >= 1024 and itemsize == 4 else MIDDLE


# What an access does along the axis whose points are taken four at a time.


def is_vector(buffer: Buffer, index: tuple[Expr, ...], axis: Axis) -> bool:
    """Whether four neighbours along the axis are 16 or 32 bytes in one place."""
    if not index or index[-1] != Index(axis) or buffer.type.dtype not in VECTOR_DTYPES or not buffer.aligned:
        return False
    return not any(axis in axes_of(e) for e in index[:-1])


def walks_by_ones(kernel: Kernel, axis: Axis) -> bool:
    """Whether every access steps by one element along the axis or stays, and some can be wide."""
    found = [(b, index) for nest in kernel.nests for b, index in accesses(kernel, nest)]
    steps = [stride_along(b.type.shape, index, axis) for b, index in found]
    return all(s in (0, 1) for s in steps) and any(is_vector(b, index, axis) for b, index in found)


def pitches(kernel: Kernel, nests: tuple[Nest, ...], axis: Axis) -> tuple[Size, ...]:
    """Sizes that must be multiples of four for the wide accesses along the axis to be aligned."""
    found: dict[Size, None] = {}
    for nest in nests:
        for buffer, index in accesses(kernel, nest):
            if is_vector(buffer, index, axis) and buffer.type.rank > 1:
                found.setdefault(buffer.type.shape[-1])
    return tuple(found)


def reads_back_own(kernel: Kernel) -> bool:
    """Whether every read of an output is of the element that the same point of the same loops has stored.

    Then threads that share inner axes in one fixed way need no barrier between nests. (What a nest without
    axes stores is written by one thread for all: reading that back does not count.)
    """
    stored: dict[str, tuple[tuple[Size, ...], tuple[object, ...]]] = {}
    outputs = {b.name for b in kernel.outputs}
    for nest in kernel.nests:
        extents = tuple(a.extent for a in nest.axes)

        def places(index: tuple[Expr, ...], nest: Nest = nest) -> tuple[object, ...]:
            own: dict[Expr, object] = {Index(a): k for k, a in enumerate(nest.axes)}
            return tuple(own.get(e, e) for e in index)

        for expr in nest.expressions():
            for e in walk(expr):
                if not isinstance(e, Load) or e.source not in outputs:
                    continue
                if not extents or stored.get(str(e.source)) != (extents, places(e.index)):
                    return False
        for store in nest.stores:
            stored[store.buffer] = (extents, places(store.index))
    return True
