"""Fusion: how many kernels a graph becomes, why, and that each kernel is well formed and reads no more than
it must.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.errors import VerificationError
from flowgraph.graph.graph import Graph
from flowgraph.graph.size import estimate
from flowgraph.graph.types import float32, float64, int32
from flowgraph.index_notation import CHEAP, Apply, Axis, Const, Expr, Index, Load, cast, walk
from flowgraph.kernels.build import build_kernels
from flowgraph.kernels.fuse import fuse
from flowgraph.kernels.group import body_of, is_contraction, reads_of
from flowgraph.kernels.kernel import Kernel, KernelCall, Let, Nest, Store, kernel_calls, verify_kernel
from flowgraph.kernels.recompute import points_of
from flowgraph.ops.leaf import Leaf
from flowgraph.ops.shape import Injective, Reshape
from tests.support.compare import Oracle
from tests.support.paths import optimise, run_calls
from tests.support.random_graphs import random_case

Step = tuple[Graph, dict[fg.Tensor, np.ndarray]]


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def demo(hidden: int = 32, rows: int = 29) -> Step:
    """The lecture's network 64-H-10 with its step of SGD."""
    x, y = fg.input("x", ("batch", 64)), fg.input("y", ("batch",), dtype="int32")
    w1, b1 = (
        fg.parameter("w1", (64, hidden), numbers(64, hidden) / 8),
        fg.parameter("b1", (hidden,), numbers(hidden)),
    )
    w2, b2 = fg.parameter("w2", (hidden, 10), numbers(hidden, 10)), fg.parameter("b2", (10,), numbers(10))
    a = fg.tanh(fg.add_bias(fg.tanh(fg.add_bias(fg.mul(x, w1), b1)) @ w2, b2))
    cost = fg.mean(fg.cross_ent_of_softmax(a, y))
    parameters = (w1, b1, w2, b2)
    updates = tuple((p, p - 0.1 * d) for p, d in zip(parameters, fg.grad(cost, parameters), strict=True))
    labels = np.random.default_rng(1).integers(0, 10, rows).astype(np.int32)
    return Graph((cost,), updates), {x: numbers(rows, 64, seed=2), y: labels}


def layer(reduction: Callable[[fg.Tensor], fg.Tensor], rows: int = 29) -> Step:
    """Z = add*(mul(X, W), B); A = tanh(Z), its gradient and update."""
    x = fg.input("x", ("batch", 17))
    w, b = fg.parameter("w", (17, 11), numbers(17, 11)), fg.parameter("b", (11,), numbers(11, seed=1))
    cost = reduction(fg.tanh(fg.add_bias(fg.mul(x, w), b)))
    dw, db = fg.grad(cost, [w, b])
    return Graph((cost,), ((w, w - 0.1 * dw), (b, b - 0.1 * db))), {x: numbers(rows, 17, seed=2)}


def kernels(*outputs: fg.Tensor) -> list[KernelCall]:
    return build_kernels(optimise(Graph(outputs)))


def assert_right(
    graph: Graph, feeds: dict[fg.Tensor, np.ndarray], calls: list[KernelCall], rows: int
) -> None:
    sizes = {"batch": rows}
    assert not Oracle(graph, feeds, sizes).mismatch(run_calls(optimise(graph), calls, feeds, sizes))


# How many kernels


def test_a_training_step_of_the_lectures_network_is_nine_kernels() -> None:
    graph, feeds = demo()
    calls = build_kernels(optimise(graph))
    assert len(calls) <= 9, "\n".join(f"{c.kernel.name}: {c.kernel.reason}" for c in calls)
    assert_right(graph, feeds, calls, 29)


@pytest.mark.parametrize("reduction", [fg.mean, fg.sum], ids=["mean", "sum"])
@pytest.mark.parametrize("rows", [1, 16, 29])
def test_a_layer_with_gradient_and_update_is_four_kernels(
    reduction: Callable[[fg.Tensor], fg.Tensor], rows: int
) -> None:
    graph, feeds = layer(reduction, rows)
    calls = build_kernels(optimise(graph))
    assert len(calls) <= 4, "\n".join(f"{c.kernel.name}: {c.kernel.reason}" for c in calls)
    assert_right(graph, feeds, calls, rows)


X, Y = ("batch", 10), ("batch",)
ONE_KERNEL: dict[str, Callable[[], fg.Tensor]] = {
    "softmax": lambda: fg.softmax(fg.input("x", X)),
    "softmax of a scaled and shifted row": lambda: fg.softmax(2.0 * fg.input("x", X) + 1.0),
    "log of softmax": lambda: fg.log(fg.softmax(fg.input("x", X))),
    "the lecture's cost by class numbers": lambda: fg.cross_ent_of_softmax(
        fg.input("x", X), fg.input("y", Y, "int32")
    ),
    "a chain of elementwise ops": lambda: fg.tanh(fg.exp(-fg.input("x", X)) * 2.0) + fg.input("z", X),
    "a product with bias and tanh": lambda: fg.tanh(
        fg.add_bias(fg.mul(fg.input("x", X), fg.parameter("w", (10, 7))), fg.parameter("b", (7,)))
    ),
    "a product of transposes": lambda: fg.transpose(fg.input("x", X)) @ fg.input("z", X),
    "a lookup and what follows": lambda: fg.tanh(
        fg.gather(fg.parameter("t", (50, 8)), fg.input("y", Y, "int32"))
    ),
    "rows, normalised": lambda: fg.input("x", X) - fg.mean(fg.input("z", X), axis=1, keepdims=True),
    "views": lambda: fg.squeeze(fg.expand_dims(fg.transpose(fg.input("x", X)), 0), 0) + 1.0,
}


@pytest.mark.parametrize("make", ONE_KERNEL.values(), ids=ONE_KERNEL)
def test_one_kernel_is_enough(make: Callable[[], fg.Tensor]) -> None:
    calls = kernels(make())
    assert len(calls) == 1, "\n".join(f"{c.kernel}\n# {c.kernel.reason}" for c in calls)


def test_softmax_reads_its_row_only_and_stores_only_its_result() -> None:
    (call,) = kernels(fg.softmax(fg.input("x", X)))
    assert [len(b.type.shape) for b in call.kernel.buffers] == [2, 2]
    assert len(call.kernel.nests) == 3  # maximum, sum, quotient


def test_equal_layers_of_any_width_share_one_kernel_structure() -> None:
    def hidden(name: str, width: str) -> Kernel:
        x = fg.input(name, ("batch", width))
        (call,) = kernels(fg.tanh(x * 2.0))
        return call.kernel

    assert hidden("first", "n") == hidden("second", "n")
    assert hash(hidden("first", "n")) == hash(hidden("second", "n"))


# What a kernel says


def test_every_kernel_says_why_it_is_one_and_where_it_comes_from() -> None:
    for call in build_kernels(optimise(demo()[0])):
        assert call.kernel.reason
        assert any("test_fusion.py:" in line for line in call.kernel.comments)
        assert call.kernel.origin.lines


def test_names_of_the_user_never_become_names_in_a_kernel() -> None:
    x = fg.input("os; import sys", (3,)).named("): exec(")
    (call,) = kernels(fg.tanh(x).named("__import__('os')"))
    text = str(call.kernel)
    assert "import" not in text and "exec" not in text


# What a kernel may not do


def graphs() -> list[Graph]:
    steps = [demo()[0], layer(fg.mean)[0], layer(fg.sum)[0]]
    return [*(optimise(g) for g in steps), *(optimise(random_case(seed, 16).graph) for seed in range(150))]


def test_no_kernel_reads_what_it_could_recompute_by_one_cheap_op() -> None:
    """1 - h*h from h, a mask from logits: computed again where they are read, never stored for another
    kernel (but where the reader is itself written into others: such chains must end somewhere).
    """
    for graph in graphs():
        fusion, consumers = fuse(graph), graph.consumers()
        for tensor in fusion.stored - set(graph.roots):
            body = body_of(tensor.node) if tensor.node.op.meaning() == "body" else None
            if body is None or body.reduce or _read_by_a_template(tensor, consumers):
                continue
            if any(c in fusion.inlined and not isinstance(c.op, Injective) for c in consumers[tensor]):
                continue
            if any(points_of(c) > estimate(tensor.type.count) for c in _through_views(tensor, consumers)):
                continue  # a reader that repeats it along an axis would compute it again at every point of that
            functions = {e.function for e in walk(body.value) if isinstance(e, Apply)}
            sources = [t for t, _ in reads_of(tensor.node, fusion.inlined)]
            large = [t.dtype.itemsize for t in sources if t.type.count == tensor.type.count]
            if sum(large) > tensor.dtype.itemsize:
                continue  # to read two arrays wherever it is needed may cost more than to store one
            free = all(isinstance(t.op, Leaf) or t in fusion.stored for t in sources)
            assert not (functions <= CHEAP and free), tensor


def _through_views(tensor: fg.Tensor, consumers: dict) -> list:
    """What reads a value, directly or through views of it."""
    found = []
    for node in consumers[tensor]:
        found += _through_views(node.outputs[0], consumers) if isinstance(node.op, Injective) else [node]
    return found


def _read_by_a_template(tensor: fg.Tensor, consumers: dict) -> bool:
    """Whether a contraction or scatter reads the tensor, perhaps through views: those read arrays."""
    return any(
        c.op.meaning() != "body"
        or isinstance(c.op, Reshape)
        or (
            not body_of(c).reduce
            and any(_read_by_a_template(t, consumers) for t in c.outputs if body_is_view(c))
        )
        or is_contraction(c)
        for c in consumers[tensor]
    )


def body_is_view(node) -> bool:
    return isinstance(body_of(node).value, Load)


def test_what_a_kernel_stores_is_asked_for_or_read_by_another() -> None:
    for graph in graphs():
        calls = build_kernels(graph)
        read = {t for call in calls for t in call.inputs} | set(graph.roots)
        for call in calls:
            if isinstance(call, KernelCall):  # a loop's results may go unread
                assert set(call.outputs) <= read, call.kernel


def test_no_value_is_stored_by_two_kernels() -> None:
    for graph in graphs():
        stored = [t for call in build_kernels(graph) for t in call.outputs]
        assert len(stored) == len(set(stored))


# The verifier rejects broken kernels


def softmax_kernel() -> Kernel:
    (call,) = kernels(fg.softmax(fg.input("x", X)))
    return call.kernel


def scatter_kernel() -> Kernel:
    zeros, ids, added = fg.parameter("t", (5, 4)), fg.input("y", Y, "int32"), fg.input("a", ("batch", 4))
    (call,) = kernels(fg.scatter_add(zeros, ids, added))
    return call.kernel


def last(kernel: Kernel, **changes: object) -> Kernel:
    """The kernel with its last nest changed."""
    return replace(kernel, nests=(*kernel.nests[:-1], replace(kernel.nests[-1], **changes)))  # type: ignore[arg-type]


def store(kernel: Kernel, **changes: object) -> Kernel:
    return last(kernel, stores=(replace(kernel.nests[-1].stores[-1], **changes),))  # type: ignore[arg-type]


def reads_back(row: Expr) -> Nest:
    """A nest that reads the kernel's output at this row."""
    return Nest((), (Let("back", Load("y0", (row, Const(0, int32)), float32)),))


OTHER = Axis("elsewhere", 3)
BROKEN: dict[str, tuple[Callable[[Kernel], Kernel], str]] = {
    "a value used before it is defined": (lambda k: replace(k, nests=k.nests[::-1]), "before it is defined"),
    "a value never defined": (lambda k: last(k, lets=()), "before it is defined"),
    "a result never stored": (lambda k: last(k, stores=()), "never stored"),
    "a name given twice": (lambda k: last(k, lets=(*k.nests[-1].lets, k.nests[-1].lets[0])), "defined twice"),
    "an axis out of scope": (lambda k: last(k, axes=(OTHER,)), "not in scope"),
    "a buffer that does not exist": (lambda k: replace(k, inputs=()), "bad load"),
    "a store into an input": (lambda k: store(k, buffer="x0"), "not an output"),
    "a store of another dtype": (lambda k: store(k, value=Const(1, int32)), "bad store"),
    "a store with too few indices": (lambda k: store(k, index=(Index(k.axes[0]),)), "bad store"),
    "a load of another dtype": (
        lambda k: store(k, value=cast(Load("x0", k.nests[-1].stores[-1].index, float64), float32)),
        "bad load",
    ),
    "two buffers of one name": (lambda k: replace(k, outputs=(*k.outputs, k.inputs[0])), "two buffers"),
    "an output read before it is stored": (
        lambda k: replace(k, nests=(reads_back(Index(k.axes[0])), *k.nests)),
        "before it is stored",
    ),
    "an output read at another point of the outer loops": (
        lambda k: replace(k, nests=(*k.nests, reads_back(Const(0, int32)))),
        "another point",
    ),
    "one element written by many points": (
        lambda k: store(k, index=(Const(0, int32), k.nests[-1].stores[-1].index[1])),
        "every point",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("mutate", "message"), BROKEN.values(), ids=BROKEN)
def test_the_verifier_rejects(mutate: Callable[[Kernel], Kernel], message: str) -> None:
    whole = verify_kernel(softmax_kernel())
    with pytest.raises(VerificationError, match=message):
        verify_kernel(mutate(whole))


def test_the_verifier_rejects_a_scatter_whose_parallel_points_meet() -> None:
    whole = verify_kernel(scatter_kernel())
    (added,) = whole.nests[-1].stores
    with pytest.raises(VerificationError, match="every point"):
        verify_kernel(
            last(
                whole, stores=(Store(added.buffer, (added.index[0], Const(0, int32)), added.value, add=True),)
            )
        )


def test_the_verifier_accepts_every_kernel_of_the_random_graphs() -> None:
    for seed in range(100):
        for call in kernel_calls(build_kernels(optimise(random_case(seed).graph))):
            assert verify_kernel(call.kernel) is call.kernel
            assert not any(
                isinstance(e, Load) and isinstance(e.source, int)
                for x in call.kernel.expressions()
                for e in walk(x)
            )


def test_what_is_read_through_twice_is_followed_once() -> None:
    """Each step reads its operand twice: followed blindly, 60 of them would take 2**60 walks."""
    x, k = fg.input("x", ("n",), "int32"), fg.input("k", ("n",), "int32")
    h = x
    for _ in range(60):
        h = fg.where(fg.equal(h, k), 1, h)
    assert 1 <= len(kernels(fg.cast(h, "float32"))) <= 8


def test_long_chains_of_what_costs_nothing_are_cut() -> None:
    x, k, f = fg.input("x", ("n",), "int32"), fg.input("k", ("n",), "int32"), fg.input("f", ("n",))
    h = f
    for step in range(300):
        h = fg.where(fg.equal(x, k), h, float(step))
    calls = kernels(h)
    assert len(calls) <= 30
    assert all(len(nest.lets) < 200 for call in calls for nest in call.kernel.nests)


def test_two_groups_stay_apart_if_the_node_that_needs_both_reads_one_elsewhere() -> None:
    x, y = fg.input("x", ("batch", "batch")), fg.input("y", ("batch", "batch"))
    graph = optimise(Graph((fg.flip(fg.tanh(x + y), 1) * fg.exp(y),)))
    assert len(fuse(graph).groups) == 2
