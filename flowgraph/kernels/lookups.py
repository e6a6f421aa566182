"""Row numbers found once: an index that is itself looked up gets a name, outside of the loops it does not need.

In a kernel that reads table[ids[i], c] for every c, `ids[i]` is the same for the whole row. The compiler below could
not know: a store in the loop might change it.
"""

from __future__ import annotations

from dataclasses import replace

from flowgraph.graph.types import int64
from flowgraph.index_notation import Const, Expr, Index, Load, Var, axes_of, transform, walk
from flowgraph.kernels.kernel import Kernel, Let, Nest


def name_lookups(kernel: Kernel) -> Kernel:
    """Name every index that is looked up, and move what a nest's own axes do not change in front of the nest."""
    loads = (e for x in kernel.expressions() for e in walk(x) if isinstance(e, Load))
    written = (s.index for nest in kernel.nests for s in nest.stores)
    if not any(_looked_up(e) for index in (*(x.index for x in loads), *written) for e in index):
        return kernel
    outputs = {b.name for b in kernel.outputs}
    taken = {x.name for nest in kernel.nests for x in nest.lets}
    taken |= {x.name for nest in kernel.nests for x in nest.reductions}
    nests: list[Nest] = []
    outside: dict[Expr, str] = {}  # what has a name that all later nests see
    for nest in kernel.nests:
        named = _Naming(nest, outputs, taken, dict(outside)).rewrite()
        if not named.axes:
            nests.append(named)
            outside |= {x.value: x.name for x in named.lets if _looked_up(x.value)}
            continue
        inner = set(named.axes)
        moved: list[Let] = []
        kept: list[Let] = []
        varying: set[str] = {r.name for r in named.reductions}
        for let in named.lets:
            names = {e.name for e in walk(let.value) if isinstance(e, Var)}
            own = any(isinstance(e, Load) and e.source in outputs for e in walk(let.value))
            if axes_of(let.value) & inner or names & varying or own or let.value.dtype.kind != "int":
                varying.add(let.name)
                kept.append(let)
            else:
                moved.append(let)
        if moved:
            nests.append(Nest(lets=tuple(moved)))
            outside |= {x.value: x.name for x in moved}
        nests.append(replace(named, lets=tuple(kept)))
    return replace(kernel, nests=tuple(nests))


def _looked_up(e: Expr) -> bool:
    return not isinstance(e, (Index, Const, Var)) and any(isinstance(x, Load) for x in walk(e))


class _Naming:
    """One nest with its looked-up indices as lets of their own."""

    def __init__(self, nest: Nest, outputs: set[str], taken: set[str], known: dict[Expr, str]) -> None:
        self.nest, self.outputs, self.taken, self.known = nest, outputs, taken, known
        self.lets: list[Let] = []

    def rewrite(self) -> Nest:
        nest = self.nest
        for let in nest.lets:
            self.lets.append(Let(let.name, self._named(let.value)))
        reductions = tuple(replace(r, value=self._named(r.value)) for r in nest.reductions)
        stores = tuple(
            replace(s, index=tuple(self._index(e) for e in s.index), value=self._named(s.value)) for s in nest.stores
        )
        return replace(nest, lets=tuple(self.lets), reductions=reductions, stores=stores)

    def _named(self, expr: Expr) -> Expr:
        def rule(e: Expr) -> Expr | None:
            if isinstance(e, Load):
                return replace(e, index=tuple(self._index(i) for i in e.index))
            return None

        return transform(expr, rule)

    def _index(self, e: Expr) -> Expr:
        if not _looked_up(e):
            return e
        if any(isinstance(x, Load) and x.source in self.outputs for x in walk(e)):
            return e  # what the kernel itself writes is read where it is needed
        value = self._named(e)
        if value not in self.known:
            name = next(n for k in range(len(self.taken) + 1) if (n := f"row_{k}") not in self.taken)
            self.taken.add(name)
            self.lets.append(Let(name, value))
            self.known[value] = name
        return Var(self.known[value], int64)

