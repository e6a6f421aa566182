"""From fused groups to kernels: the bodies of a group's ops written into one another.

Names inside a kernel come from its ops, never from the user, so equal structure gives equal text; what the user called
things, and where, is in the kernel's comments.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from flowgraph.graph.graph import Graph
from flowgraph.graph.names import names
from flowgraph.graph.origin import Origin
from flowgraph.graph.size import Shape, show_shape
from flowgraph.graph.tensor import Node, Tensor
from flowgraph.graph.text import show_op
from flowgraph.graph.types import TensorType
from flowgraph.index_notation import Apply, Axis, Const, Expr, Index, Load, Var, reindex, transform
from flowgraph.kernels.fuse import Fusion, fuse
from flowgraph.kernels.group import Group, body_of
from flowgraph.kernels.kernel import (
    Buffer,
    Call,
    Kernel,
    KernelCall,
    Let,
    LoopCall,
    Nest,
    Reduction,
    Sort,
    Store,
    verify_kernel,
)
from flowgraph.kernels.lookups import name_lookups
from flowgraph.kernels.merge import merge_nests
from flowgraph.ops.leaf import Constant, Leaf
from flowgraph.ops.scan import own_copy
from flowgraph.ops.shape import Reshape


def build_kernels(graph: Graph) -> list[Call]:
    """The kernels of an optimised graph, and its loops of kernels, producers first."""
    fusion = fuse(graph)
    called = names(graph)
    return [
        loop_call(*group.nodes) if group.kind == "loop" else _Builder(fusion, number, called).build()
        for number, group in enumerate(fusion.groups)
    ]


def loop_call(node: Node) -> LoopCall:
    """The kernels of a loop. The same body may be in the graph twice, in a loop and in one that computes it again."""
    body = own_copy(node.op.inner)
    return LoopCall(node, body, tuple(build_kernels(body.graph)))


def outer_axes(shape: Shape) -> tuple[Axis, ...]:
    """The outer loops over a shape: i, j, l, ..."""
    letters = "ijlmnpq"
    return tuple(Axis(letters[k] if k < len(letters) else f"i{k}", size) for k, size in enumerate(shape))


@dataclass
class _Open:
    """A nest being written."""

    axes: tuple[Axis, ...]
    lets: list[Let] = field(default_factory=list)
    reductions: list[Reduction] = field(default_factory=list)
    stores: list[Store] = field(default_factory=list)
    sorts: list[Sort] = field(default_factory=list)
    memo: dict[tuple[Tensor, tuple[Expr, ...]], Expr] = field(default_factory=dict)

    def close(self) -> Nest:
        return Nest(self.axes, tuple(self.lets), tuple(self.reductions), tuple(self.stores), tuple(self.sorts))


class _Builder:
    def __init__(self, fusion: Fusion, number: int, called: dict[Tensor, str]) -> None:
        self.fusion, self.number, self.called = fusion, number, called
        self.group: Group = fusion.groups[number]
        self.axes = outer_axes(self.group.shape)
        self.taken: dict[str, int] = {}
        self.inputs: dict[tuple[Tensor, Shape], Buffer] = {}  # a tensor and the shape it is read under
        self.outputs: dict[Tensor, Buffer] = {}
        self.work: list[Buffer] = []
        self.scalars: dict[Tensor, Var] = {}
        self.nests: list[_Open] = []

    def build(self) -> KernelCall:
        group = self.group
        templates = {
            "scatter": self._scatter,
            "pieces": self._pieces,
            "running": self._running,
            "sorting": self._sorting,
        }
        write = templates.get(group.kind, self._node)
        for node in group.nodes:
            write(node)
        kernel = Kernel(
            axes=self.axes,
            nests=tuple(n.close() for n in self.nests if n.lets or n.reductions or n.stores or n.sorts),
            inputs=tuple(self.inputs.values()),
            outputs=tuple(self.outputs.values()),
            work=tuple(self.work),
            name="_".join(dict.fromkeys(n.op.name for n in group.nodes))[:60].rstrip("_") + "_kernel",
            origin=Origin().merge(*(n.origin for n in group.nodes)),
            comments=self._comments(),
            reason=group.reason,
        )
        operands = tuple(tensor for tensor, _ in self.inputs)
        return KernelCall(verify_kernel(name_lookups(merge_nests(kernel))), operands, tuple(self.outputs))

    # one member of the group

    def _node(self, node: Node) -> None:
        body, tensor = body_of(node), node.outputs[0]
        outer = len(self.axes)
        inner = tuple(Axis(f"c{k}" if k else "c", a.extent) for k, a in enumerate(body.axes[outer:]))
        reduced = tuple(Axis(f"r{k}" if k else "r", a.extent) for k, a in enumerate(body.reduce))
        mapping: dict[Axis, Expr] = {
            old: Index(new) for old, new in zip((*body.axes, *body.reduce), (*self.axes, *inner, *reduced), strict=True)
        }
        stored = tensor in self.fusion.stored
        if body.reduce:
            nest = self._nest(reduced)
            value = self._substitute(node, reindex(body.value, mapping), nest)
            name = self._fresh(node.op.name)
            nest.reductions.append(Reduction(name, body.combiner, value))
            self.scalars[tensor] = Var(name, tensor.dtype)
            if stored:
                self._store(tensor, self._nest(()), Var(name, tensor.dtype))
        elif not inner:
            nest = self._nest(())
            if isinstance(node.op, Reshape):
                value = self._value(tensor, tuple(map(Index, self.axes)), nest)
            else:
                value = self._let(node, self._substitute(node, reindex(body.value, mapping), nest), nest)
            self.scalars[tensor] = value  # type: ignore[assignment]
            if stored:
                self._store(tensor, nest, value)
        elif stored:  # a row that only this kernel reads is recomputed where it is read
            nest = self._nest(inner)
            index = tuple(map(Index, (*self.axes, *inner)))
            self._store(tensor, nest, self._value(tensor, index, nest))

    def _scatter(self, node: Node) -> None:
        scatter = node.op.scatter(*(t.type for t in node.inputs))
        base, tensor = node.inputs[0], node.outputs[0]
        mapping: dict[Axis, Expr] = {old: Index(new) for old, new in zip(scatter.parallel, self.axes, strict=True)}
        steps = tuple(Axis(f"s{k}" if k else "s", a.extent) for k, a in enumerate(scatter.sequential))
        mapping |= {old: Index(new) for old, new in zip(scatter.sequential, steps, strict=True)}
        rows = Axis("row", base.shape[scatter.axis])
        start = self._nest((rows,))
        outer = tuple(map(Index, self.axes))
        point = (*outer[: scatter.axis], Index(rows), *outer[scatter.axis :])
        self._store(tensor, start, self._value(base, point, start), point)
        nest = self._nest(steps)
        where = tuple(self._substitute(node, reindex(e, mapping), nest) for e in scatter.index)
        added = self._substitute(node, reindex(scatter.value, mapping), nest)
        nest.stores.append(Store(self.outputs[tensor].name, where, added, add=True))

    def _pieces(self, node: Node) -> None:
        parallel, pieces = node.op.pieces(*(t.type for t in node.inputs))
        shared: dict[Axis, Expr] = {old: Index(new) for old, new in zip(parallel, self.axes, strict=True)}
        buffer = Buffer("y0", node.outputs[0].type)
        self.outputs[node.outputs[0]] = buffer
        for piece in pieces:
            inner = tuple(Axis(f"c{k}" if k else "c", a.extent) for k, a in enumerate(piece.axes))
            nest = self._nest(inner)
            mapping = shared | {old: Index(new) for old, new in zip(piece.axes, inner, strict=True)}
            value = self._substitute(node, reindex(piece.value, mapping), nest)
            nest.stores.append(Store(buffer.name, tuple(reindex(e, mapping) for e in piece.index), value))

    def _running(self, node: Node) -> None:
        running, tensor = node.op.running(*(t.type for t in node.inputs)), node.outputs[0]
        step = Axis("s", running.along.extent)
        others = iter(self.axes)
        point = tuple(Index(step if a == running.along else next(others)) for a in running.axes)
        nest = self._nest((step,))
        value = self._substitute(node, reindex(running.value, dict(zip(running.axes, point, strict=True))), nest)
        name = self._fresh(node.op.name)
        nest.reductions.append(Reduction(name, running.combiner, value, running=True))
        self._store(tensor, nest, Var(name, tensor.dtype), point)

    def _sorting(self, node: Node) -> None:
        sorting, tensor = node.op.sorting(*(t.type for t in node.inputs)), node.outputs[0]
        place = Axis("s", sorting.along.extent)
        others = iter(self.axes)
        point = tuple(Index(place if a == sorting.along else next(others)) for a in sorting.axes)
        nest = self._nest((place,))
        key = self._substitute(node, reindex(sorting.key, dict(zip(sorting.axes, point, strict=True))), nest)
        self.outputs[tensor] = Buffer("y0", tensor.type)
        self.work.append(Buffer("w0", tensor.type))
        nest.sorts.append(Sort("y0", "w0", point, key, sorting.descending))

    # values

    def _value(self, tensor: Tensor, index: tuple[Expr, ...], nest: _Open) -> Expr:
        """The element of a tensor at a point: bound already, computed here, or loaded."""
        if tensor in self.scalars:
            return self.scalars[tensor]
        key = (tensor, index)
        if key in nest.memo:
            return nest.memo[key]
        node = tensor.node
        mine = self.fusion.member_of.get(tensor) == self.number
        if isinstance(node.op, Constant) and tensor.type.count == 1:
            return Const(node.op.array.reshape(()).item(), tensor.dtype)
        if tensor in self.outputs and not (nest.stores and nest.stores[-1].buffer == self.outputs[tensor].name):
            return Load(self.outputs[tensor].name, index, tensor.dtype)  # stored by an earlier nest: read it back
        source = _reshaped(tensor)
        if source is not tensor and (isinstance(source.op, Leaf) or source in self.fusion.stored):
            result: Expr = Load(self._input(source, tensor.shape), index, tensor.dtype)
        elif node in self.fusion.inlined or mine:
            body = body_of(node)
            expr = self._substitute(node, reindex(body.value, dict(zip(body.axes, index, strict=True))), nest)
            result = self._let(node, expr, nest) if isinstance(expr, Apply) else expr
        else:
            assert isinstance(node.op, Leaf) or tensor in self.fusion.stored, node
            result = Load(self._input(tensor, tensor.shape), index, tensor.dtype)
        nest.memo[key] = result
        return result

    def _input(self, tensor: Tensor, shape: Shape) -> str:
        """The name of the buffer that is a tensor's memory under a shape."""
        key = (tensor, shape)
        if key not in self.inputs:
            self.inputs[key] = Buffer(f"x{len(self.inputs)}", TensorType(shape, tensor.dtype))
        return self.inputs[key].name

    def _substitute(self, node: Node, expr: Expr, nest: _Open) -> Expr:
        """A body's expression with the node's operands written in."""

        def rule(e: Expr) -> Expr | None:
            if isinstance(e, Load) and isinstance(e.source, int):
                point = tuple(self._substitute(node, i, nest) for i in e.index)
                return self._value(node.inputs[e.source], point, nest)
            return None

        return transform(expr, rule)

    def _let(self, node: Node, value: Expr, nest: _Open) -> Expr:
        name = self._fresh(node.op.name)
        nest.lets.append(Let(name, value))
        return Var(name, value.dtype)

    # statements

    def _nest(self, axes: tuple[Axis, ...]) -> _Open:
        """A nest with these axes: the last one if it has the same axes and nothing is lost by adding to it."""
        if self.nests and self.nests[-1].axes == axes and (not axes or not self._uses_results_of_last()):
            return self.nests[-1]
        nest = _Open(axes)
        self.nests.append(nest)
        return nest

    def _uses_results_of_last(self) -> bool:
        # conservatively: a nest that reduces is never extended, its result may be what is needed next
        return bool(self.nests[-1].reductions)

    def _store(self, tensor: Tensor, nest: _Open, value: Expr, index: tuple[Expr, ...] | None = None) -> None:
        buffer = Buffer(f"y{len(self.outputs)}", tensor.type)
        self.outputs[tensor] = buffer
        if index is None:
            index = tuple(map(Index, (*self.axes, *nest.axes)))
        nest.stores.append(Store(buffer.name, index, value))

    def _fresh(self, name: str) -> str:
        count = self.taken.get(name, 0)
        self.taken[name] = count + 1
        return f"{name}_{count}" if count else f"{name}_"

    def _comments(self) -> tuple[str, ...]:
        """One line an op: the user's name for its result, the op, the user's lines; then the buffers."""
        lines = []
        for node in self.group.nodes:
            place = ", ".join(line.short for line in node.origin.lines[:3])
            reads = ", ".join(self.called[t] for t in node.inputs)
            passes = f"  [{', '.join(node.origin.passes)}]" if node.origin.passes else ""
            lines.append(f"{self.called[node.outputs[0]]} = {show_op(node)}({reads})  {place}{passes}")
        for (tensor, shape), buffer in self.inputs.items():
            view = "" if shape == tensor.shape else f", read as {show_shape(shape)}"
            lines.append(f"{buffer.name} is {self.called[tensor]}, {tensor.type}{view}")
        for tensor, buffer in self.outputs.items():
            lines.append(f"{buffer.name} is {self.called[tensor]}, {tensor.type}")
        return tuple(lines)


def _reshaped(tensor: Tensor) -> Tensor:
    """The tensor whose memory this one is, under another shape; itself if it is no reshape."""
    while isinstance(tensor.op, Reshape):
        tensor = tensor.node.inputs[0]
    return tensor


def build_copy(
    source: Tensor, target: Tensor, why: str = "the old value is still read where the new one is made"
) -> KernelCall:
    """A kernel that copies one tensor over another of the same type."""
    axes = outer_axes(source.shape)
    index = tuple(map(Index, axes))
    kernel = Kernel(
        axes=axes,
        nests=(Nest(stores=(Store("y0", index, Load("x0", index, source.dtype)),)),),
        inputs=(Buffer("x0", source.type),),
        outputs=(Buffer("y0", target.type),),
        name="copy_kernel",
        origin=target.origin,
        comments=(f"{target.label} = {source.label or source.op.name}",),
        reason=why,
    )
    return KernelCall(verify_kernel(kernel), (source,), (target,))
