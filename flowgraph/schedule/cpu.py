"""Schedules for the CPU: where the vectors run, what a task is, which register tile. Chosen from the kernel alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

from flowgraph.graph.size import Shape, Size, estimate, product
from flowgraph.index_notation import Apply, Axis, Expr, Extent, Index, Load, Var, axes_of, reindex, transform, walk
from flowgraph.kernels.kernel import Kernel, Nest
from flowgraph.schedule.access import (
    SIDE_BY_SIDE,
    accesses,
    coefficient,
    merge_axes,
    stride_along,
    suits_vectors,
    varying,
    vector_loads,
)
from flowgraph.schedule.begun import begun_sums

LANES = 16


@dataclass(frozen=True)
class Tile:
    """Products: rows × vectors of the result in registers; `pack` copies the second operand's panels first."""

    rows: int
    vectors: int
    pack: bool


@dataclass(frozen=True)
class Panels:
    """Products whose rows, columns and terms are any affine places, convolutions above all: a task computes up to
    `blocks` register tiles below one another, `depth` terms at a time from a packed panel of the second operand, and
    that for up to `panels` panels beside one another. Without `pack` the second operand lies in memory as panels do.
    """

    rows: int
    vectors: int
    blocks: int
    panels: int
    depth: int
    pack: bool = True


@dataclass(frozen=True)
class AcrossLanes:
    """Vectors run along the last outer axis; reductions are ordinary loops. A task is `block` elements of it."""

    block: int


@dataclass(frozen=True)
class AlongRows:
    """Vectors run along the inner axes of each nest; a task is one point of the outer axes."""


@dataclass(frozen=True)
class Strips:
    """Scatters: a task is `width` neighbours along the last outer axis. All tasks of a thread are one strip: it makes
    the steps of every nest in order, each along the strip in vectors, so that a row of a table is visited once.
    """

    width: int


@dataclass(frozen=True)
class Seen:
    """Where each integer comes first: one task that goes through them in order, with a table of those it has seen."""


CpuSchedule = Tile | Panels | AcrossLanes | AlongRows | Strips | Seen


@dataclass(frozen=True)
class Product:
    """The parts of a contraction kernel: c[i, j] = sum over k of a * b, then the epilogue."""

    i: Axis
    j: Axis
    k: Axis
    a: Load
    b: Load
    result: str
    others: tuple[Axis, ...] = ()  # axes of batches: one product at each of their points


def as_product(kernel: Kernel) -> Product | None:
    """The kernel as matrix products with an epilogue, if it is some: one at every point of the axes but the last and
    one more.
    """
    if len(kernel.axes) < 2 or not kernel.nests:
        return None
    first, rest = kernel.nests[0], kernel.nests[1:]
    if len(first.axes) != 1 or len(first.reductions) != 1 or first.lets or first.stores or any(n.axes for n in rest):
        return None
    (reduction,), (k,), (*leading, j) = first.reductions, first.axes, kernel.axes
    value = reduction.value
    if reduction.combiner != "sum" or not value.dtype.is_float:
        return None
    if not isinstance(value, Apply) or value.function != "mul":
        return None
    left, right = value.arguments
    if not isinstance(left, Load) or not isinstance(right, Load):
        return None
    if not all(_is_affine(e) for load in (left, right) for e in load.index):
        return None
    for a, b in ((left, right), (right, left)):
        if j in axes_of(a) or j not in axes_of(b) or not {k} <= axes_of(a) & axes_of(b):
            continue
        rows = [x for x in leading if x in axes_of(a) and x not in axes_of(b)]
        if rows:
            i = rows[-1]
            return Product(i, j, k, a, b, reduction.name, tuple(x for x in leading if x != i))
    return None


@dataclass(frozen=True)
class Contraction:
    """The parts of a sum of products over several axes: result[rows, columns] = sum over `summed` of a * b at each
    point of `others`. `after` is the rest of the kernel, in which the columns are one axis, `column`."""

    rows: tuple[Axis, ...]
    columns: tuple[Axis, ...]
    summed: tuple[Axis, ...]
    others: tuple[Axis, ...]
    a: Load
    b: Load
    result: str
    after: Kernel
    column: Axis
    transposed: bool  # whether b's neighbours in memory are terms, not columns


def as_contraction(kernel: Kernel) -> Contraction | None:
    """The kernel as sums of products over several axes with an epilogue, if it is that, with the rows and columns that
    cost least: a convolution's columns are places of the image, its weights' gradient's are maps."""
    found = _factors(kernel)
    if found is None:
        return None
    nest, left, right = found
    choices = []
    for a, b in ((left, right), (right, left)):
        rows = tuple(x for x in kernel.axes if x in axes_of(a) - axes_of(b))
        own = tuple(x for x in kernel.axes if x in axes_of(b) - axes_of(a))
        if not rows or not own:
            continue
        after, column, columns = _columns(kernel, own)
        others = tuple(x for x in kernel.axes if x not in rows and x not in columns)
        shape = kernel.buffer(str(b.source)).type.shape
        apart = stride_along(shape, b.index, columns[-1]) != 1
        transposed = len(columns) == 1 and apart and _run(shape, b, nest.axes) >= LANES
        name = nest.reductions[0].name
        made = Contraction(rows, columns, nest.axes, others, a, b, name, after, column, transposed)
        choices.append((cycles(kernel, made) + _apart(made), made))
    return min(choices, key=lambda choice: choice[0])[1] if choices else None


def contraction_of(kernel: Kernel, schedule: Panels) -> Contraction:
    """What a schedule of panels computes: of a second operand that lies in panels, the product as it stands."""
    if schedule.pack:
        contraction = as_contraction(kernel)
        assert contraction is not None
        return contraction
    found = as_product(kernel)
    assert found is not None
    i, j, k, after = (found.i,), (found.j,), (found.k,), replace(kernel, nests=kernel.nests[1:])
    return Contraction(i, j, k, found.others, found.a, found.b, found.result, after, found.j, transposed=False)


def _factors(kernel: Kernel) -> tuple[Nest, Load, Load] | None:
    """The nest that sums products, and their factors, both of which move with every axis of the sum."""
    if not kernel.nests or any(n.axes for n in kernel.nests[1:]):
        return None
    nest = kernel.nests[0]
    if not nest.axes or len(nest.reductions) != 1 or nest.lets or nest.stores or nest.sorts:
        return None
    (reduction,) = nest.reductions
    if reduction.running or reduction.combiner != "sum" or not reduction.value.dtype.is_float:
        return None
    match reduction.value:
        case Apply("mul", (Load() as left, Load() as right)):
            affine = all(_is_affine(e) for load in (left, right) for e in load.index)
            moving = all(axis in axes_of(load) for load in (left, right) for axis in nest.axes)
            return (nest, left, right) if affine and moving else None
    return None


def _columns(kernel: Kernel, own: tuple[Axis, ...]) -> tuple[Kernel, Axis, tuple[Axis, ...]]:
    """The kernel without its sum, with as many of the axes `own`, from the last on, made one as it walks together."""
    after = replace(kernel, nests=kernel.nests[1:])
    columns: tuple[Axis, ...] = own[-1:]
    column = own[-1]
    for axis in reversed(own[:-1]):
        place = kernel.axes.index(axis)
        merged = merge_axes(after, axis, column) if kernel.axes[place + 1] == columns[0] else None
        if merged is None:
            break
        after, columns = merged, (axis, *columns)
        column = next(x for x in after.axes if x.name == axis.name)
    return after, column, columns


def _run(shape: Shape, load: Load, summed: tuple[Axis, ...]) -> int:
    """How many terms, one after the other, lie side by side in memory."""
    length: Size = 1
    for axis in reversed(summed):
        if stride_along(shape, load.index, axis) != length:
            break
        length = length * axis.extent
    return estimate(length)


CHUNK = 16  # register tiles below one another that share a panel, unless there would be too few tasks
LONG_CHUNK, BESIDE = 32, 4  # of long sums, and panels beside one another
PIECE, SQUARE, SINGLE = 2.5, 5.0, 18.0  # cycles: a piece of a packed row, a vector transposed, one fetched by elements


def cycles(kernel: Kernel, found: Contraction) -> float:
    """What a contraction costs, roughly, but for stores that are not side by side: its sums, and what is packed."""
    rows, columns, summed, others = (
        estimate(product(x.extent for x in axes)) for axes in (found.rows, found.columns, found.summed, found.others)
    )
    vectors = -(-columns // LANES)
    sums = others * -(-rows // 8) * 8 * vectors * summed / 2
    lines = others * -(-rows // (8 * min(_blocks(found, 8, 2 * LANES)[0], CHUNK))) * summed
    last = max(estimate(found.columns[-1].extent), 1)
    pieces = -(-columns // last) * -(-last // LANES)
    along = stride_along(kernel.buffer(str(found.b.source)).type.shape, found.b.index, found.columns[-1])
    packed = SQUARE * vectors if found.transposed else (PIECE if along in SIDE_BY_SIDE else SINGLE) * pieces
    return sums + lines * packed + 4 * others * rows * vectors


def _apart(found: Contraction) -> float:
    """The cycles of accesses after the sums that are not side by side."""
    points = estimate(product(x.extent for x in (*found.others, *found.rows, *found.columns)))
    steps = (
        stride_along(b.type.shape, index, found.column)
        for nest in found.after.nests
        for b, index in accesses(found.after, nest)
    )
    return sum(step not in (0, *SIDE_BY_SIDE) for step in steps) * points * SINGLE / LANES


def _fills_a_tile(found: Contraction) -> bool:
    """Whether there are rows and columns enough for a register tile: of one channel a group, plain loops make more."""
    sides = (found.rows, found.columns)
    return all(estimate(product(x.extent for x in axes)) >= LEAST for axes in sides)


LEAST = 4  # rows or columns: half of a tile


def _panels(kernel: Kernel, found: Contraction, tile: tuple[int, int]) -> Panels:
    """As many tiles to a task as there may be with enough tasks for a team of threads."""
    narrow = isinstance(found.column.extent, int) and found.column.extent <= LANES
    rows, vectors = tile[0], 1 if narrow else tile[1]
    blocks, panels = _blocks(found, rows, vectors * LANES)
    return Panels(rows, vectors, blocks, panels, DEPTH)


LONG, MANY = 1024, 64  # terms, rows: of fewer the packing does not pay


def _is_long(found: Product) -> bool:
    """Whether a product has so many terms that the columns of a tile do not stay in the first level of cache, where
    each row of tiles reads them again: then they are packed, some terms at a time."""
    return estimate(found.k.extent) >= LONG and estimate(found.i.extent) >= MANY


def _blocks_of_panels(kernel: Kernel, found: Product, tile: tuple[int, int]) -> int:
    """How many tiles below one another read a panel that lies in memory; 0 if the second operand lies otherwise, or if
    few would read one. Matrices of one or two tiles' columns are panels: those of a batch, and blocks of columns
    (`passes.block_weights`). Some terms at a time, they stay in the first level of cache."""
    rows, width = tile[0], tile[1] * LANES
    columns = found.j.extent
    if columns not in (width, 2 * width) or not found.others:
        return 0
    if stride_along(kernel.buffer(str(found.b.source)).type.shape, found.b.index, found.k) != columns:
        return 0
    many = -(-estimate(found.i.extent) // rows)
    others = estimate(product(x.extent for x in found.others))
    return next((n for n in (CHUNK, CHUNK // 4, 2) if many > 1 and others * -(-many // n) >= TASKS // 2), 0)


def _blocks(found: Contraction, rows: int, width: int) -> tuple[int, int]:
    """How many tiles of so many rows and columns a task has below and beside one another, at most. In long sums each
    panel's rows are read from afar, and so are the columns of tiles: the more they are, the more each is used."""
    columns = -(-estimate(found.column.extent) // width)
    many = -(-estimate(product(x.extent for x in found.rows)) // rows)
    others = estimate(product(x.extent for x in found.others))
    is_long = estimate(product(x.extent for x in found.summed)) >= LONG

    def tasks(blocks: int, panels: int) -> int:
        return others * -(-columns // panels) * -(-many // blocks)

    below = (LONG_CHUNK, CHUNK, CHUNK // 4) if is_long and many >= LONG_CHUNK else (CHUNK, CHUNK // 4)
    blocks = next((n for n in below if tasks(n, 1) >= TASKS), 1)
    beside = (BESIDE, BESIDE // 2) if is_long else ()
    return blocks, next((n for n in beside if tasks(blocks, n) >= TASKS), 1)


TASKS = 32  # enough for a team, and for its threads to end together
DEPTH = 256  # terms of a panel: 32 KiB, which stay in the first level of cache; all tiles' sums start anew as often


@dataclass(frozen=True)
class First:
    """The parts of a kernel that finds, for every i, the first j with the same key: the number of the nest that does,
    the key at i, the name of the result."""

    nest: int
    key: Expr
    result: str


def as_first(kernel: Kernel) -> First | None:
    """The kernel as one that finds first equals, if it is one: min over j of (key[j] = key[i] ? j : n), with nothing
    but values and stores at single points around it."""
    inner = [k for k, nest in enumerate(kernel.nests) if nest.axes]
    if len(inner) != 1 or len(kernel.axes) != 1:
        return None
    (place,), (own,) = inner, kernel.axes
    nest = kernel.nests[place]
    if len(nest.reductions) != 1 or len(nest.axes) != 1 or nest.stores or nest.sorts:
        return None
    (reduction,), (other,) = nest.reductions, nest.axes
    if reduction.running or reduction.combiner != "min" or own.extent != other.extent:
        return None
    values = {let.name: let.value for earlier in kernel.nests[: place + 1] for let in earlier.lets}

    def written_out(expr: Expr) -> Expr:
        return transform(
            expr, lambda e: written_out(values[e.name]) if isinstance(e, Var) and e.name in values else None
        )

    match written_out(reduction.value):
        case Apply("select", (Apply("eq", (theirs, key)), Index(axis), Extent(size))):
            fits = axis == other and size == own.extent and key.dtype.kind == "int" and other not in axes_of(key)
            alike = theirs == reindex(key, {own: Index(other)})
            return First(place, key, reduction.name) if fits and alike else None
    return None


def _is_affine(expr: Expr) -> bool:
    """Whether an index is a sum of whole multiples of axes and of what stands still, as in a slice or a reversal."""
    if any(isinstance(e, (Load, Var)) for e in walk(expr)):
        return False
    return all(isinstance(coefficient(expr, axis), int) for axis in axes_of(expr))


def choose(kernel: Kernel, tile: tuple[int, int]) -> CpuSchedule:
    """The schedule of a (collapsed) kernel; `tile` is the register tile that suits this machine and dtype."""
    found = as_product(kernel)
    if found is not None:
        unit = stride_along(kernel.buffer(str(found.b.source)).type.shape, found.b.index, found.j) == 1
        narrow = isinstance(found.j.extent, int) and found.j.extent <= LANES
        goes_on = bool(begun_sums(kernel)[1])
        if unit and (blocks := _blocks_of_panels(kernel, found, tile)):
            return Panels(*tile, blocks, 1, DEPTH, pack=False)
        if (goes_on or (unit and _is_long(found))) and (contraction := as_contraction(kernel)) is not None:
            return _panels(kernel, contraction, tile)
        return Tile(tile[0], 1 if narrow else tile[1], pack=not unit)
    if as_first(kernel) is not None:
        return Seen()
    contraction = as_contraction(kernel)
    if contraction is not None and _fills_a_tile(contraction):
        return _panels(kernel, contraction, tile)
    inner = [nest for nest in kernel.nests if nest.axes]
    if not kernel.axes:
        return AlongRows()
    if not inner:
        return AcrossLanes(block=1024 if len(kernel.axes) == 1 else 0)
    if any(s.add for nest in inner for s in nest.stores):
        return Strips(LANES) if _stores_follow(kernel, kernel.axes[-1]) else AlongRows()
    if any(nest.sorts for nest in inner):
        return AlongRows()
    last = kernel.axes[-1]
    if any(nest.running for nest in inner):
        return AcrossLanes(block=LANES) if _stores_follow(kernel, last) else AlongRows()
    along = sum(suits_vectors(kernel, nest.axes[-1]) for nest in inner)
    across = suits_vectors(kernel, last)
    if along < across and _stores_are_apart(kernel, last):
        return AcrossLanes(block=LANES)
    if fills_more_lanes(kernel, inner, last):
        return AcrossLanes(block=0 if len(kernel.axes) > 1 else LANES)
    return AlongRows()


HORIZONTAL = 4  # what combining the lanes of a vector costs, in vector loads


def fills_more_lanes(kernel: Kernel, inner: list[Nest], last: Axis) -> bool:
    """Whether vectors along the last outer axis do more at once than vectors along inner axes that are known to be
    short: a window of a pool fills two or three lanes."""
    short = [nest.axes[-1].extent for nest in inner if not nest.in_order]
    if len(short) < len(inner) or not _stores_are_apart(kernel, last):
        return False
    known = [n for n in short if isinstance(n, int) and 0 < n < LANES // 2]
    if len(known) < len(short):
        return False
    points = [estimate(product(a.extent for a in nest.axes)) for nest in inner]
    combined = sum(len(nest.reductions) * HORIZONTAL / max(n, 1) for nest, n in zip(inner, points, strict=True))
    along = combined + sum(vector_loads(kernel, nest.axes[-1]) / n for nest, n in zip(inner, known, strict=True))
    return vector_loads(kernel, last) / min(estimate(last.extent) or 1, LANES) < along


def _stores_are_apart(kernel: Kernel, axis: Axis) -> bool:
    """Whether every store steps evenly along the axis, so that lanes write elements of their own."""
    changing = varying(kernel, axis)
    return all(
        stride_along(kernel.buffer(s.buffer).type.shape, s.index, axis) not in (0, None)
        and not any(isinstance(v, Var) and v.name in changing for e in s.index for v in walk(e))
        for nest in kernel.nests
        for s in nest.stores
    )


def _stores_follow(kernel: Kernel, axis: Axis) -> bool:
    """Whether every store writes consecutive elements along the axis: vectors are stored whole, never scattered."""
    changing = varying(kernel, axis)
    return all(
        stride_along(kernel.buffer(s.buffer).type.shape, s.index, axis) == 1
        and not any(isinstance(v, Var) and v.name in changing for e in s.index for v in walk(e))
        for nest in kernel.nests
        for s in nest.stores
    )
