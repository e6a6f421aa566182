"""Sums that begin with a value and go on from it.

Comes in: a kernel with `accumulate(total, sum)`. Goes out: the kernel without it, and what each of its sums begins
with. A schedule that adds terms to a total from the start makes use of this; for others `accumulate` is an addition.
"""

from __future__ import annotations

from dataclasses import replace

from flowgraph.index_notation import Apply, Const, Expr, Load, Var, walk
from flowgraph.kernels.kernel import Kernel, Let


def begun_sums(kernel: Kernel, *more: str) -> tuple[Kernel, dict[str, Expr]]:
    """The kernel in which such sums, its own or `more`, are used as they are, and their beginnings by the sums' names.
    A beginning is a number, or an element that another kernel has made; a sum that has other uses begins with 0."""
    reductions = [r for nest in kernel.nests for r in nest.reductions if not r.running and r.value.dtype.is_float]
    sums = {*more, *(r.name for r in reductions if r.combiner == "sum")}
    uses = [e.name for expr in kernel.expressions() for e in walk(expr) if isinstance(e, Var)]
    inputs = {b.name for b in kernel.inputs}
    found: dict[str, Expr] = {}

    def continued(let: Let) -> Let:
        match let.value:
            case Apply("accumulate", ((Load() | Const()) as total, Var() as terms)) if terms.name in sums:
                read = [e for e in walk(total) if isinstance(e, (Load, Var))]
                known = all(isinstance(e, Load) and e.source in inputs for e in read)
                if known and uses.count(terms.name) == 1:
                    found[terms.name] = total
                    return Let(let.name, terms)
        return let

    nests = tuple(nest if nest.axes else replace(nest, lets=tuple(map(continued, nest.lets))) for nest in kernel.nests)
    return (replace(kernel, nests=nests), found) if found else (kernel, {})
