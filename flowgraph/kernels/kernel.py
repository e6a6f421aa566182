"""K, the kernel language: loop nests over index notation. Plain data, printable, with a verifier.

A kernel runs its nests one after the other at every point of its outer `axes` (all parallel). A nest has inner axes of
its own: it binds values, stores elements, and combines values over its axes into scalars that later nests may read.
Softmax is three nests over one row; a matrix product is one summing nest and one storing nest at every (i, j).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from flowgraph.errors import VerificationError
from flowgraph.graph.origin import Origin
from flowgraph.graph.size import Size, show_shape
from flowgraph.graph.tensor import Node, Tensor
from flowgraph.graph.types import TensorType
from flowgraph.index_notation import Axis, Expr, Extent, Index, Load, Var, show, walk
from flowgraph.ops.slicing import memory_of


@dataclass(frozen=True)
class Buffer:
    """An array a kernel reads or writes, C-contiguous. An element of a stack may begin anywhere: it is not aligned."""

    name: str
    type: TensorType
    aligned: bool = True

    @property
    def bytes(self) -> Size:
        return self.type.count * self.type.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.name}: {self.type.dtype}{show_shape(self.type.shape)}"


@dataclass(frozen=True)
class Let:
    """A named value."""

    name: str
    value: Expr

    def __str__(self) -> str:
        return f"{self.name} = {show(self.value)}"


@dataclass(frozen=True)
class Store:
    """buffer[index] = value; with `add`, buffer[index] += value, in the order of the nest's axes."""

    buffer: str
    index: tuple[Expr, ...]
    value: Expr
    add: bool = False

    def __str__(self) -> str:
        return f"{self.buffer}[{', '.join(map(show, self.index))}] {'+=' if self.add else '='} {show(self.value)}"


@dataclass(frozen=True)
class Reduction:
    """A value combined over the nest's axes ("sum", "max", "min"), accumulated in the value's dtype.

    A running one is combined in the order of the nest's one axis, and what there is so far (this step included) is a
    name that the nest's stores may use.
    """

    name: str
    combiner: str
    value: Expr
    running: bool = False

    def __str__(self) -> str:
        return f"{self.name} = {'running ' if self.running else ''}{self.combiner}({show(self.value)})"


@dataclass(frozen=True)
class Sort:
    """buffer[index] = the positions along the nest's one axis that sort `key`, stably; `work` is as large again."""

    buffer: str
    work: str
    index: tuple[Expr, ...]
    key: Expr
    descending: bool

    def __str__(self) -> str:
        how = "argsort_descending" if self.descending else "argsort"
        return f"{self.buffer}[{', '.join(map(show, self.index))}] = {how}({show(self.key)})"


@dataclass(frozen=True)
class Nest:
    """Loops over `axes` inside the outer loops. Without axes its lets are visible to later nests."""

    axes: tuple[Axis, ...] = ()
    lets: tuple[Let, ...] = ()
    reductions: tuple[Reduction, ...] = ()
    stores: tuple[Store, ...] = ()
    sorts: tuple[Sort, ...] = ()

    @property
    def running(self) -> bool:
        """Whether it stores what is combined so far."""
        return any(r.running for r in self.reductions)

    @property
    def in_order(self) -> bool:
        """Whether its steps must be made one after the other."""
        return self.running or bool(self.sorts) or any(s.add for s in self.stores)

    def expressions(self) -> Iterator[Expr]:
        for let in self.lets:
            yield let.value
        for reduction in self.reductions:
            yield reduction.value
        for store in self.stores:
            yield from (*store.index, store.value)
        for sort in self.sorts:
            yield from (*sort.index, sort.key)

    def mapped(self, change: Callable[[Expr], Expr]) -> Nest:
        """The nest with every expression changed."""
        return replace(
            self,
            lets=tuple(replace(x, value=change(x.value)) for x in self.lets),
            reductions=tuple(replace(r, value=change(r.value)) for r in self.reductions),
            stores=tuple(
                replace(s, index=tuple(map(change, s.index)), value=change(s.value)) for s in self.stores
            ),
            sorts=tuple(replace(s, index=tuple(map(change, s.index)), key=change(s.key)) for s in self.sorts),
        )


@dataclass(frozen=True)
class Kernel:
    """One kernel. Equality is structural: name, origin and comments do not count."""

    axes: tuple[Axis, ...]
    nests: tuple[Nest, ...]
    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    work: tuple[Buffer, ...] = ()  # memory of a launch's own
    name: str = field(compare=False, default="kernel")
    origin: Origin = field(compare=False, default_factory=Origin)
    comments: tuple[str, ...] = field(compare=False, default=())
    reason: str = field(compare=False, default="")

    def __hash__(self) -> int:
        """Structural, computed once: kernels are looked up again and again while their loops are chosen."""
        known = self.__dict__.get("hash")
        if known is None:
            known = self.__dict__["hash"] = hash((self.axes, self.nests, self.inputs, self.outputs, self.work))
        return known

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "hash"}  # strings hash anew in every process

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        return (*self.inputs, *self.outputs, *self.work)

    def buffer(self, name: str) -> Buffer:
        return next(b for b in self.buffers if b.name == name)

    def sizes(self) -> tuple[Size, ...]:
        """The run-time sizes the kernel depends on, in a canonical order: extents first, then buffer dimensions."""
        found: dict[Size, None] = {}
        for axis in (*self.axes, *(a for nest in self.nests for a in nest.axes)):
            found.setdefault(axis.extent)
        for buffer in self.buffers:
            for size in buffer.type.shape[1:]:
                found.setdefault(size)
        for nest in self.nests:
            for expr in nest.expressions():
                for e in walk(expr):
                    if isinstance(e, Extent):
                        found.setdefault(e.size)
        return tuple(found)

    def expressions(self) -> Iterator[Expr]:
        for nest in self.nests:
            yield from nest.expressions()

    def __str__(self) -> str:
        signature = ", ".join(map(str, self.inputs)) + " -> " + ", ".join(map(str, self.outputs))
        lines = [f"kernel {self.name}({signature})"]
        indent = "  "
        if self.axes:
            lines.append(f"{indent}for {', '.join(map(str, self.axes))}:")
            indent += "  "
        for nest in self.nests:
            inner = indent
            if nest.axes:
                verb = "reduce" if nest.reductions else "for"
                lines.append(f"{indent}{verb} {', '.join(map(str, nest.axes))}:")
                inner += "  "
            lines += [f"{inner}{item}" for item in (*nest.lets, *nest.reductions, *nest.stores, *nest.sorts)]
        return "\n".join(lines)


@dataclass(frozen=True)
class KernelCall:
    """A kernel applied to tensors of the graph: what its buffers stand for."""

    kernel: Kernel
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def operands(self) -> dict[str, Tensor]:
        """What each of the kernel's inputs and outputs stands for, by the buffer's name."""
        buffers = (*self.kernel.inputs, *self.kernel.outputs)
        return {b.name: t for b, t in zip(buffers, (*self.inputs, *self.outputs), strict=True)}


@dataclass(frozen=True)
class LoopCall:
    """A loop: the calls of its body, made at every turn. `node` is the loop in the graph (an `ops.scan.Scan`); `body`
    is its body, of tensors that are this call's own (an `ops.scan.Body`)."""

    node: Node
    body: Any
    calls: tuple[Call, ...]

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What it reads, or parts of that: see `ops.slicing.memory_of`."""
        return tuple(memory_of(t)[0] for t in self.node.inputs)

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        return self.node.outputs


Call: TypeAlias = "KernelCall | LoopCall"


def kernel_calls(calls: Iterable[Call]) -> Iterator[KernelCall]:
    """The calls of kernels, in order, those in loops once."""
    for call in calls:
        if isinstance(call, LoopCall):
            yield from kernel_calls(call.calls)
        else:
            yield call


def verify_kernel(kernel: Kernel) -> Kernel:
    """Every name defined before use, every axis in scope, every output stored, and no point of the outer loops reads or
    writes what another one writes; else VerificationError."""

    def fail(message: str) -> None:
        raise VerificationError(f"kernel {kernel.name}: {message}\n{kernel}", where=kernel.origin)

    buffers = {b.name: b for b in kernel.buffers}
    if len(buffers) != len(kernel.buffers):
        fail("two buffers of one name")
    outer = tuple(map(Index, kernel.axes))
    known: set[str] = set()
    stored: set[str] = set()
    for nest in kernel.nests:
        axes = {*kernel.axes, *nest.axes}
        local = set(known)

        def check(expr: Expr, axes: set[Axis] = axes, local: set[str] = local) -> None:
            for e in walk(expr):
                if isinstance(e, Index) and e.axis not in axes:
                    fail(f"axis {e.axis} is not in scope in {show(expr)}")
                if isinstance(e, Var) and e.name not in local:
                    fail(f"{e.name} is used before it is defined")
                if isinstance(e, Load):
                    buffer = buffers.get(str(e.source))
                    if buffer is None or len(e.index) != buffer.type.rank or e.dtype != buffer.type.dtype:
                        fail(f"bad load {show(e)}")
                    elif buffer in kernel.outputs and buffer.name not in stored:
                        fail(f"{buffer.name} is read before it is stored")
                    elif buffer in kernel.outputs and not set(outer) <= set(e.index):
                        fail(f"{show(e)} is stored at another point of the outer loops, which run in any order")

        for let in nest.lets:
            check(let.value)
            if let.name in local:
                fail(f"{let.name} is defined twice")
            local.add(let.name)
            if not nest.axes:
                known.add(let.name)
        for reduction in nest.reductions:
            check(reduction.value)
            if reduction.name in known:
                fail(f"{reduction.name} is defined twice")
            known.add(reduction.name)
            if reduction.running:
                local.add(reduction.name)
                if len(nest.axes) != 1:
                    fail(f"{reduction.name} runs along {len(nest.axes)} axes")
        for store in nest.stores:
            for expr in (*store.index, store.value):
                check(expr)
            target = buffers.get(store.buffer)
            if target not in kernel.outputs:
                fail(f"{store.buffer} is not an output")
            elif store.value.dtype != target.type.dtype or len(store.index) != target.type.rank:
                fail(f"bad store {store}")
            elif not all(index in store.index for index in outer):
                fail(f"{store} writes the same element at every point of an outer loop")
            stored.add(store.buffer)
        for sort in nest.sorts:
            for expr in (*sort.index, sort.key):
                check(expr)
            known_places = {b.name: b for b in (*kernel.outputs, *kernel.work)}
            if not {sort.buffer, sort.work} <= set(known_places) or len(nest.axes) != 1:
                fail(f"bad sort {sort}")
            elif any(known_places[b].type != known_places[sort.buffer].type for b in (sort.buffer, sort.work)):
                fail(f"{sort} needs working memory of the type of its result")
            elif not all(index in sort.index for index in outer):
                fail(f"{sort} writes the same element at every point of an outer loop")
            stored.add(sort.buffer)
    if stored != {b.name for b in kernel.outputs}:
        fail("an output is never stored")
    return kernel
