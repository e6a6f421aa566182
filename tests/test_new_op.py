"""Adding an op touches one place: everything below knows `softclip` from its class alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.errors import DTypeError, ShapeError
from flowgraph.graph.graph import Graph, verify
from flowgraph.graph.text import to_text
from flowgraph.graph.types import TensorType
from flowgraph.index_notation import Body, call
from flowgraph.kernels.build import build_kernels
from flowgraph.ops.base import Cotangents, Op, Sample, axes_for, indices, load, values
from flowgraph.ops.elementwise import Elementwise
from flowgraph.viz.dot import to_dot
from flowgraph.viz.graphs import from_graph
from tests.support.compare import Oracle
from tests.support.paths import PATHS, optimise
from tests.support.random_graphs import random_case, smooth_elementwise


@pytest.fixture(scope="module", autouse=True)
def softclip_class() -> Iterator[type[Op]]:
    """The op, registered for this file's tests only."""

    @dataclass(frozen=True)
    class Softclip(Elementwise):
        """limit * x / (limit + |x|): the identity near zero, never beyond the limit."""

        name: ClassVar[str] = "softclip"
        display: ClassVar[str] = "softClip"
        limit: float = 1.0

        def body(self, *types: TensorType) -> Body:
            axes = axes_for(types[0].shape)
            x = load(0, types[0], indices(axes))
            return Body(axes, call("mul", x, self.limit) / (call("absolute", x) + self.limit))

        def vjp(
            self, inputs: Sequence[fg.Tensor], outputs: Sequence[fg.Tensor], cotangents: Cotangents
        ) -> Cotangents:
            (g,), (x,) = cotangents, inputs
            magnitude = fg.where(x > 0.0, x, -x)
            root = self.limit / (magnitude + self.limit)
            return (g * root * root,)

        def reference(self, x: np.ndarray) -> np.ndarray:  # type: ignore[override]
            return x / (1 + np.abs(x) / x.dtype.type(self.limit))

        @classmethod
        def samples(cls) -> list[Sample]:
            return [*cls._samples(1), Sample(cls(2.5), (values(9, 20, low=0.1, high=9),))]

    smooth_elementwise.cache_clear()
    yield Softclip
    del Op.registry["softclip"]
    smooth_elementwise.cache_clear()


@pytest.fixture
def softclip(softclip_class: type[Op]) -> Op:
    return softclip_class(2.0)  # type: ignore[call-arg]


def step(softclip: Op) -> tuple[Graph, dict[fg.Tensor, np.ndarray]]:
    """A layer with the new op, its gradient and its update."""
    x, y = fg.input("x", ("batch", 6)), fg.input("y", ("batch",), "int32")
    w = fg.parameter("w", (6, 4), values(6, 4, seed=1))
    h = softclip(x @ w)
    cost = fg.mean(fg.cross_ent_of_softmax(h, y))
    graph = Graph((cost, h), ((w, w - 0.5 * fg.grad(cost, w)),))
    return graph, {x: values(29, 6), y: values(29, low=0, high=4, dtype="int32")}


@pytest.mark.parametrize("path", PATHS)
def test_it_runs_down_every_path_forward_backward_and_with_its_update(softclip: Op, path: str) -> None:
    graph, feeds = step(softclip)
    assert not Oracle(graph, feeds, {"batch": 29}).mismatch(PATHS[path](graph, feeds, {"batch": 29}))


def test_it_trains(softclip: Op) -> None:
    graph, feeds = step(softclip)
    program = fg.compile(None, graph.outputs, dict(graph.updates), device="reference")
    data = {t.op.label: v for t, v in feeds.items()}
    costs = [float(program(**data)[0]) for _ in range(30)]
    assert costs[-1] < costs[0]


def test_it_fuses_into_the_product_before_it(softclip: Op) -> None:
    x, w = fg.input("x", ("batch", 6)), fg.parameter("w", (6, 4))
    assert len(build_kernels(optimise(Graph((softclip(x @ w),))))) == 1


def test_it_is_printed_by_its_display_name_and_attributes(softclip: Op) -> None:
    text = to_text(Graph((softclip(fg.input("x", (3,))),)))
    assert "softClip[limit=2.0](x)" in text and "test_new_op.py" in text


def test_it_is_drawn(softclip: Op) -> None:
    drawn = to_dot(from_graph(step(softclip)[0]))
    assert "softClip" in drawn


def test_equal_attributes_are_one_op_and_other_attributes_another(
    softclip: Op, softclip_class: type[Op]
) -> None:
    x = fg.input("x", (3,))
    merged = optimise(Graph((softclip(x), softclip(x), softclip_class(3.0)(x))))  # type: ignore[call-arg]
    assert merged.outputs[0] is merged.outputs[1] is not merged.outputs[2]


def test_its_errors_name_the_users_line(softclip: Op) -> None:
    with pytest.raises(DTypeError, match=r"softClip needs floating-point values, got int32\(3,\)") as caught:
        softclip(fg.input("x", (3,), "int32"))
    assert "test_new_op.py" in str(caught.value)


def test_random_graphs_take_it_in_by_themselves(softclip_class: type[Op]) -> None:
    found = [s for s in range(200) if any(n.op.name == "softclip" for n in random_case(s).graph.nodes())]
    assert found
    for seed in found[:10]:
        case = random_case(seed)
        oracle = Oracle(case.graph, case.feeds, case.sizes)
        assert not oracle.mismatch(PATHS["fused"](case.graph, case.feeds, case.sizes))


def test_its_gradient_and_its_gradients_gradient_agree_with_differences(softclip_class: type[Op]) -> None:
    from tests.test_registry import applied, assert_gradients, in_float64, projected

    for sample in softclip_class.samples():
        tensor, feeds = applied(in_float64(sample))
        verify(Graph((tensor,)))
        gradients = assert_gradients(projected(tensor, 1), feeds, list(feeds))
        assert_gradients(projected(gradients[0], 2), feeds, list(feeds))


def test_a_composite_needs_nothing_but_its_expansion() -> None:
    @dataclass(frozen=True)
    class Twice(Op):
        """x + x, as a composition."""

        name: ClassVar[str] = "twice_for_this_test"

        def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
            return types

        def expand(self, *inputs: fg.Tensor) -> fg.Tensor:
            return inputs[0] + inputs[0]

    try:
        x = fg.input("x", (3,))
        graph = Graph((fg.grad(fg.sum(Twice()(x) * x), x),))
        data = np.array([1.0, 2.0, 3.0], np.float32)
        for path in ("unfused", "fused"):
            np.testing.assert_array_equal(PATHS[path](graph, {x: data}, {})[0], 4 * data)
    finally:
        del Op.registry["twice_for_this_test"]


def test_a_shape_error_of_an_op_is_a_shape_error_of_the_user(softclip: Op) -> None:
    with pytest.raises(ShapeError, match=r"test_new_op\.py"):
        softclip(fg.input("x", (3,))) @ fg.input("z", (4, 5))
