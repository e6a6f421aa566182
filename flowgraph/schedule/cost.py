"""How a kernel would walk memory under the schedule it would get, for choosing loop and memory orders.

In: a kernel. Out: for each of its buffers, element accesses that are not side by side in memory. Knows the CPU's
schedules only: what is side by side for its vectors is side by side for a GPU's warps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flowgraph.graph.size import estimate, product
from flowgraph.index_notation import Axis, Expr, Load, Var, walk
from flowgraph.kernels.kernel import Buffer, Kernel, Nest
from flowgraph.kernels.layout import Walk
from flowgraph.schedule.access import SIDE_BY_SIDE, accesses, as_walked, stride_along, varying
from flowgraph.schedule.cpu import (
    LANES,
    SINGLE,
    AcrossLanes,
    AlongRows,
    Panels,
    Product,
    Tile,
    as_product,
    choose,
    contraction_of,
    cycles,
)

TRANSPOSED = 0.25  # an element of a square transposed in registers, of one fetched by itself (measured: 0.2 to 0.3)
LINE = 0.25  # an element of a vector whose neighbours in the loop lie elsewhere (measured: 0.25)
REGISTERS = (8, 2)  # a register tile, of AVX-512: another one hardly changes what is side by side


def walk_of(kernel: Kernel) -> Walk:
    """How the kernel would walk its memory."""
    seen = as_walked(kernel)
    single = dict.fromkeys((b.name for b in seen.buffers), 0.0)
    for buffer, count in _single_accesses(seen):
        single[buffer.name] += count
    schedule = choose(seen, REGISTERS)
    return Walk(single, type(schedule).__name__ if isinstance(schedule, (Tile, Panels)) else "")


def _single_accesses(kernel: Kernel) -> Iterator[tuple[Buffer, float]]:
    schedule = choose(kernel, REGISTERS)
    if isinstance(schedule, Tile):
        product_ = as_product(kernel)
        assert product_ is not None
        yield from _packed(kernel, product_)
        yield from _along(kernel, kernel.nests[1:], product_.j)
    elif isinstance(schedule, Panels):
        contraction = contraction_of(kernel, schedule)
        if schedule.pack:
            packed = kernel.buffer(str(contraction.b.source))
            yield packed, cycles(kernel, contraction) * LANES / SINGLE  # its sums, too: an order may change how many
        yield from _along(contraction.after, contraction.after.nests, contraction.column)
    elif isinstance(schedule, AlongRows):
        for nest in kernel.nests:
            if nest.axes and not nest.in_order:
                yield from _along(kernel, [nest], nest.axes[-1])
                yield from _half_empty(kernel, nest, nest.axes[-1])
    elif kernel.axes:
        yield from _along(kernel, kernel.nests, kernel.axes[-1])
        for nest in kernel.nests:
            yield from _half_empty(kernel, nest, kernel.axes[-1])
        if isinstance(schedule, AcrossLanes):
            yield from _line_by_line(kernel, kernel.axes[-1])


def _packed(kernel: Kernel, found: Product) -> Iterator[tuple[Buffer, float]]:
    """The second operand of a product is copied into panels unless its rows lie side by side."""
    buffer = kernel.buffer(str(found.b.source))
    if stride_along(buffer.type.shape, found.b.index, found.j) == 1:
        return
    each = TRANSPOSED if stride_along(buffer.type.shape, found.b.index, found.k) == 1 else 1.0
    yield buffer, each * _count((*found.others, found.k, found.j))


def _half_empty(kernel: Kernel, nest: Nest, lane: Axis) -> Iterator[tuple[Buffer, float]]:
    """Vectors along an axis that is known to fill less than half of one: a load brings a few elements."""
    length = lane.extent
    if isinstance(length, int) and 0 < length < LANES // 2:
        for buffer, _ in accesses(kernel, nest):
            yield buffer, (1 / length - 1 / LANES) * _count((*kernel.axes, *nest.axes))


def _line_by_line(kernel: Kernel, lane: Axis) -> Iterator[tuple[Buffer, float]]:
    """Inner loops that fetch a whole line at each step, every one elsewhere in memory."""
    for nest in kernel.nests:
        if nest.axes:
            for buffer, index in accesses(kernel, nest):
                if stride_along(buffer.type.shape, index, lane) == 1:
                    yield buffer, LINE * _count((*kernel.axes, *nest.axes))


def _along(kernel: Kernel, nests: Sequence[Nest], lane: Axis) -> Iterator[tuple[Buffer, float]]:
    changing = varying(kernel, lane)
    for nest in nests:
        count = _count((*kernel.axes, *nest.axes))
        for buffer, index in accesses(kernel, nest):
            if not _together(buffer, index, lane, changing):
                yield buffer, count


def _together(buffer: Buffer, index: tuple[Expr, ...], lane: Axis, changing: frozenset[str]) -> bool:
    """Whether the lanes' elements are side by side, or one and the same."""
    if any(isinstance(e, Var) and e.name in changing for i in index for e in walk(i)):
        return False
    if any(isinstance(e, Load) for i in index for e in walk(i)):
        return False
    return stride_along(buffer.type.shape, index, lane) in (0, *SIDE_BY_SIDE)


def _count(axes: Sequence[Axis]) -> float:
    return estimate(product(axis.extent for axis in axes))
