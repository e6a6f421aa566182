"""How a kernel walks through memory: strides of its loads and stores along its axes. Shared by all schedules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from flowgraph.graph.size import Shape, Size, exact_quotient, product
from flowgraph.index_notation import Apply, Axis, Const, Expr, Extent, Index, Load, Var, axes_of, transform, walk
from flowgraph.kernels.kernel import Buffer, Kernel, Nest


def stride_along(shape: Shape, index: tuple[Expr, ...], axis: Axis) -> Size | None:
    """Elements between neighbours along an axis, 0 if the access does not move, None if it is not affine in it."""
    total: Size = 0
    for place, expr in enumerate(index):
        if axis not in axes_of(expr):
            continue
        step = coefficient(expr, axis)
        if step is None:
            return None
        total = total + step * product(shape[place + 1 :])
    return total


def coefficient(expr: Expr, axis: Axis) -> Size | None:
    """How much an index grows with an axis, if it is affine in it: 2 in 2*i + 1, -1 in n - 1 - i."""
    if axis not in axes_of(expr):
        return 0
    if isinstance(expr, Index):
        return 1
    if not isinstance(expr, Apply) or expr.function not in ("add", "sub", "neg", "mul"):
        return None
    if expr.function == "mul":
        for factor, rest in (expr.arguments, expr.arguments[::-1]):
            number = _number(factor)
            inner = coefficient(rest, axis)
            if number is not None and inner is not None:
                return number * inner
        return None
    parts = [coefficient(a, axis) for a in expr.arguments]
    if any(p is None for p in parts):
        return None
    known = [p for p in parts if p is not None]
    if expr.function == "neg":
        return -known[0]
    return known[0] + known[1] if expr.function == "add" else known[0] + -1 * known[1]


def _number(expr: Expr) -> Size | None:
    """The size that a constant or an extent stands for."""
    if isinstance(expr, Const):
        return int(expr.value)
    return expr.size if isinstance(expr, Extent) else None


def varying(kernel: Kernel, axis: Axis) -> frozenset[str]:
    """The named values of a kernel that depend on an axis of its own."""
    found: set[str] = set()
    for nest in kernel.nests:
        named = [*((x.name, x.value) for x in nest.lets), *((r.name, r.value) for r in nest.reductions)]
        for name, value in named:
            if axis in axes_of(value) or found & {e.name for e in walk(value) if isinstance(e, Var)}:
                found.add(name)
    return frozenset(found)


def accesses(kernel: Kernel, nest: Nest) -> Iterator[tuple[Buffer, tuple[Expr, ...]]]:
    """Every load and store of a nest: the buffer and the index."""
    for expr in nest.expressions():
        for e in walk(expr):
            if isinstance(e, Load):
                yield kernel.buffer(str(e.source)), e.index
    for store in nest.stores:
        yield kernel.buffer(store.buffer), store.index


SIDE_BY_SIDE = (1, -1)  # steps between elements of one vector load, which may have to be turned
GATHER = 4  # what gathering a vector costs, in loads of consecutive elements


def vector_loads(kernel: Kernel, axis: Axis) -> int:
    """What the accesses of the inner loops cost as vectors along an axis, in loads of consecutive elements."""
    inner = [nest for nest in kernel.nests if nest.axes]
    strides = [stride_along(b.type.shape, index, axis) for nest in inner for b, index in accesses(kernel, nest)]
    return sum(0 if s == 0 else 1 if s in SIDE_BY_SIDE else GATHER for s in strides)


def suits_vectors(kernel: Kernel, axis: Axis) -> int:
    """How well the accesses of the inner loops suit vectors along an axis: those of consecutive elements count for it,
    those of elements apart against it. What stands outside of the inner loops is done once, so how counts for little.
    """
    changing = varying(kernel, axis)

    def worth(shape: Shape, index: tuple[Expr, ...]) -> int:
        scattered = any(isinstance(v, Var) and v.name in changing for e in index for v in walk(e))
        stride = None if scattered else stride_along(shape, index, axis)
        if stride == 0:
            return 0
        return 1 if stride in SIDE_BY_SIDE else -GATHER

    inner = [nest for nest in kernel.nests if nest.axes]
    return sum(worth(b.type.shape, index) for nest in inner for b, index in accesses(kernel, nest))


def as_walked(kernel: Kernel) -> Kernel:
    """The kernel with as few axes as its accesses allow, and as many as they need to move evenly along each."""
    return split_columns(collapse(kernel))


def split_columns(kernel: Kernel) -> Kernel:
    """The last axis taken apart where loads take it apart, as `JoinedColumns` does: each of the two steps evenly."""
    if not kernel.axes:
        return kernel
    *others, axis = kernel.axes
    parts = {e for expr in kernel.expressions() for e in walk(expr) if isinstance(e, Apply) and _is_part(e, axis)}
    widths = {e.arguments[1] for e in parts}
    if {e.function for e in parts} != {"floordiv", "mod"} or len(widths) != 1:
        return kernel
    (width,) = widths
    size = _number(width)
    blocks = exact_quotient(axis.extent, size) if size else None
    if blocks is None or size is None:
        return kernel
    block, column = Axis(f"{axis.name}_block", blocks), Axis(axis.name, size)
    found: dict[Expr, Expr] = {e: Index(block if e.function == "floordiv" else column) for e in parts}
    found[Index(axis)] = Index(block) * width + Index(column)
    nests = tuple(nest.mapped(lambda expr: transform(expr, found.get)) for nest in kernel.nests)
    return replace(kernel, axes=(*others, block, column), nests=nests)


def _is_part(expr: Apply, axis: Axis) -> bool:
    return expr.function in ("floordiv", "mod") and expr.arguments[0] == Index(axis)


def collapse(kernel: Kernel) -> Kernel:
    """Neighbouring outer axes that every access walks together, or not at all, become one: loops get longer.

    Only the kernel's own view of its buffers changes: a (29, 17) array is the same memory as one of 493.
    """
    changed = not any(nest.sorts for nest in kernel.nests)
    while changed:
        changed = False
        for first, second in zip(kernel.axes, kernel.axes[1:], strict=False):
            merged = merge_axes(kernel, first, second)
            if merged is not None:
                kernel, changed = merged, True
                break
    return kernel


def merge_axes(kernel: Kernel, first: Axis, second: Axis) -> Kernel | None:
    """The kernel with two neighbouring outer axes as one, called as the first was; None if an access walks them apart.
    """
    joint = Axis(first.name, first.extent * second.extent)
    places: dict[str, int] = {}
    for nest in kernel.nests:
        for expr in _values(nest):
            if any(isinstance(e, Index) and e.axis in (first, second) for e in _outside_loads(expr)):
                return None
        for buffer, index in accesses(kernel, nest):
            used = [e for e in index if {first, second} & axes_of(e)]
            if not used:
                if places.setdefault(buffer.name, -1) != -1:
                    return None
                continue
            place = next(k for k, e in enumerate(index) if {first, second} & axes_of(e))
            adjacent = index[place : place + 2] == (Index(first), Index(second)) and len(used) == 2
            if not adjacent or buffer.type.shape[place : place + 2] != (first.extent, second.extent):
                return None
            if places.setdefault(buffer.name, place) != place:
                return None

    def index_of(name: str, index: tuple[Expr, ...]) -> tuple[Expr, ...]:
        place = places.get(name, -1)
        return index if place < 0 else (*index[:place], Index(joint), *index[place + 2 :])

    def rebuild(expr: Expr) -> Expr:
        def rule(e: Expr) -> Expr | None:
            if isinstance(e, Load) and places.get(str(e.source), -1) >= 0:
                return replace(e, index=tuple(rebuild(i) for i in index_of(str(e.source), e.index)))
            return None

        return transform(expr, rule)

    def view(buffer: Buffer) -> Buffer:
        place = places.get(buffer.name, -1)
        shape = buffer.type.shape
        if place < 0:
            return buffer
        return replace(buffer, type=replace(buffer.type, shape=(*shape[:place], joint.extent, *shape[place + 2 :])))

    def merged(nest: Nest) -> Nest:
        stores = tuple(replace(s, index=index_of(s.buffer, s.index)) for s in nest.stores)
        return replace(nest, stores=stores).mapped(rebuild)

    nests = tuple(map(merged, kernel.nests))
    axes = tuple(joint if a == first else a for a in kernel.axes if a != second)
    return replace(
        kernel, axes=axes, nests=nests, inputs=tuple(map(view, kernel.inputs)), outputs=tuple(map(view, kernel.outputs))
    )


def _values(nest: Nest) -> Iterator[Expr]:
    """The nest's expressions but for the plain axes of its stores' indices."""
    yield from (let.value for let in nest.lets)
    yield from (reduction.value for reduction in nest.reductions)
    for store in nest.stores:
        yield store.value
        yield from (e for e in store.index if not isinstance(e, Index))


def _outside_loads(expr: Expr) -> Iterator[Expr]:
    """Subexpressions that are not part of a load's index."""
    stack: list[Expr] = [expr]
    while stack:
        item = stack.pop()
        yield item
        if not isinstance(item, (Load, Const)):
            stack.extend(getattr(item, "arguments", ()))
        elif isinstance(item, Load):
            # an index computed from the axes themselves (a lookup) keeps them apart
            stack.extend(e for e in item.index if not isinstance(e, Index))
