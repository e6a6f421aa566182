"""Nests over the same extents that do not wait for one another become one nest: fewer passes over a row.

In softmax's cost, the sum of exponentials and the logit that the class picks both wait for the maximum only, so one
pass computes both.
"""

from __future__ import annotations

from dataclasses import replace

from flowgraph.index_notation import Axis, Expr, Index, Load, Var, reindex, transform, walk
from flowgraph.kernels.kernel import Kernel, Let, Nest, Reduction, Store


def merge_nests(kernel: Kernel) -> Kernel:
    """Move each nest into the earliest nest with equal extents that comes after everything it reads."""
    nests: list[Nest] = []
    for nest in kernel.nests:
        place = _earliest(nests, nest)
        if place is None:
            nests.append(nest)
        else:
            nests[place], _ = _join(nests[place], nest)
    return replace(kernel, nests=tuple(nests))


def _earliest(nests: list[Nest], nest: Nest) -> int | None:
    """The first nest that may take this one in, or None."""
    needed = {e.name for x in nest.expressions() for e in walk(x) if isinstance(e, Var)} - {x.name for x in nest.lets}
    loaded = {str(e.source) for x in nest.expressions() for e in walk(x) if isinstance(e, Load)}
    candidate: int | None = None
    extents = [a.extent for a in nest.axes]
    if not nest.axes or nest.in_order:
        return None
    for place, earlier in enumerate(nests):
        defines = {r.name for r in earlier.reductions} | ({x.name for x in earlier.lets} if not earlier.axes else set())
        stores = {s.buffer for s in earlier.stores}
        if needed & defines or loaded & stores or {s.buffer for s in nest.stores} & stores:
            candidate = None  # everything up to here must come first
        elif candidate is None and [a.extent for a in earlier.axes] == extents and not earlier.in_order:
            candidate = place
    return candidate


def _join(first: Nest, second: Nest) -> tuple[Nest, dict[str, str]]:
    """One nest doing both, and new names for values of the second that the first computes already."""
    axes: dict[Axis, Expr] = {old: Index(new) for old, new in zip(second.axes, first.axes, strict=True)}
    lets = list(first.lets)
    known: dict[Expr, str] = {x.value: x.name for x in first.lets}
    renamed: dict[str, str] = {}

    def adapt(expr: Expr) -> Expr:
        def rule(e: Expr) -> Expr | None:
            return Var(renamed[e.name], e.dtype) if isinstance(e, Var) and e.name in renamed else None

        return transform(reindex(expr, axes), rule)

    for let in second.lets:
        value = adapt(let.value)
        if value in known:
            renamed[let.name] = known[value]
        else:
            known[value] = let.name
            lets.append(Let(let.name, value))
    reductions = tuple(Reduction(r.name, r.combiner, adapt(r.value)) for r in second.reductions)
    stores = tuple(Store(s.buffer, tuple(map(adapt, s.index)), adapt(s.value), s.add) for s in second.stores)
    return Nest(first.axes, tuple(lets), (*first.reductions, *reductions), (*first.stores, *stores)), renamed


def join_nests(kernel: Kernel) -> Kernel:
    """Nests without axes that follow one another become one, unless the later one reads what the earlier stores."""
    nests: list[Nest] = []
    renamed: dict[str, str] = {}
    for nest in kernel.nests:
        nest = _with_names(nest, renamed)
        loaded = {str(e.source) for x in nest.expressions() for e in walk(x) if isinstance(e, Load)}
        if nests and not nests[-1].axes and not nest.axes and not loaded & {s.buffer for s in nests[-1].stores}:
            nests[-1], same = _join(nests[-1], nest)
            renamed |= same
        else:
            nests.append(nest)
    return replace(kernel, nests=tuple(nests))


def _with_names(nest: Nest, renamed: dict[str, str]) -> Nest:
    """The nest reading values by their new names."""

    def adapt(expr: Expr) -> Expr:
        return transform(
            expr, lambda e: Var(renamed[e.name], e.dtype) if isinstance(e, Var) and e.name in renamed else None
        )

    if not renamed:
        return nest
    return replace(
        nest,
        lets=tuple(Let(x.name, adapt(x.value)) for x in nest.lets),
        reductions=tuple(replace(r, value=adapt(r.value)) for r in nest.reductions),
        stores=tuple(replace(s, index=tuple(map(adapt, s.index)), value=adapt(s.value)) for s in nest.stores),
        sorts=tuple(replace(s, index=tuple(map(adapt, s.index)), key=adapt(s.key)) for s in nest.sorts),
    )
