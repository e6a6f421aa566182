"""Every op of the registry, by its samples: types, values down every path, first and second derivatives."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest

from flowgraph.autodiff import backward
from flowgraph.graph.graph import Graph, verify
from flowgraph.graph.tensor import Tensor
from flowgraph.graph.types import TensorType, as_dtype
from flowgraph.ops.base import Op, Sample
from flowgraph.ops.classification import CrossEnt
from flowgraph.ops.elementwise import multiply
from flowgraph.ops.leaf import constant, input
from flowgraph.ops.reduce import sum as sum_
from tests.support.compare import Oracle, evaluate, widened
from tests.support.paths import PATHS, Feeds

OPS = {
    name: cls
    for name, cls in Op.registry.items()
    if cls.meaning() != "leaf" and cls.__module__.startswith("flowgraph.")
}
LEAVES = {"input", "parameter", "constant", "slot"}
SAMPLES = {f"{name}-{k}": sample for name, cls in OPS.items() for k, sample in enumerate(cls.samples())}
DIFFERENTIABLE = {
    name: s
    for name, s in SAMPLES.items()
    if s.operands
    and s.op.infer(*(TensorType(a.shape, as_dtype(a.dtype)) for a in s.arrays))[0].dtype.is_float
}

each_op = pytest.mark.parametrize("op_class", OPS.values(), ids=OPS)
each_sample = pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
each_derivative = pytest.mark.parametrize("sample", DIFFERENTIABLE.values(), ids=DIFFERENTIABLE)


def applied(sample: Sample) -> tuple[Tensor, Feeds]:
    """The op on inputs that will be fed the sample's arrays."""
    tensors = [input(f"x{k}", a.shape, a.dtype) for k, a in enumerate(sample.arrays)]
    return sample.op(*tensors), dict(zip(tensors, sample.arrays, strict=True))


# What a class must have


def test_only_leaves_have_no_meaning() -> None:
    given = {name for name, cls in Op.registry.items() if cls.meaning() == "leaf"}
    assert given == LEAVES


@each_op
def test_an_op_has_one_meaning_samples_a_docstring_and_a_family(op_class: type[Op]) -> None:
    assert op_class.meaning() in {"body", "expand", "scatter", "pieces", "running", "sorting", "loop"}
    assert op_class.__doc__ and not op_class.__doc__.startswith(
        op_class.__name__ + "("
    )  # not the dataclass's own
    assert op_class.samples()
    assert op_class.display
    assert op_class.family != "other"
    for inherited in (
        ("infer", "reference") if op_class.meaning() in ("expand", "loop") else ("infer", "reference", "vjp")
    ):
        assert getattr(op_class, inherited) is not getattr(Op, inherited), inherited


def test_a_class_with_two_meanings_is_refused() -> None:
    class Both(Op):
        def body(self, *types):
            raise AssertionError

        def expand(self, *inputs):
            raise AssertionError

    with pytest.raises(TypeError, match="more than one meaning"):
        Both.meaning()


def test_two_ops_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two ops are called 'tanh'"):

        class Other(Op):
            name = "tanh"

    assert Op.registry["tanh"].__name__ == "Tanh"


# Types and values


@each_sample
def test_the_inferred_type_is_the_type_of_what_the_reference_computes(sample: Sample) -> None:
    tensor, _ = applied(sample)
    made = sample.op.reference(*sample.arrays)
    for array, each in zip(made if isinstance(made, tuple) else (made,), tensor.node.outputs, strict=True):
        result = np.asarray(array)
        assert (result.shape, result.dtype) == (each.shape, each.dtype.numpy)
    verify(Graph((tensor,)))


@pytest.mark.parametrize("path", PATHS)
@each_sample
def test_every_path_computes_what_the_reference_computes(sample: Sample, path: str) -> None:
    tensor, feeds = applied(sample)
    graph = Graph((tensor,))
    oracle = Oracle(graph, feeds, {})
    assert not oracle.mismatch(PATHS[path](graph, feeds, {}))


@each_sample
def test_an_op_does_not_change_its_operands(sample: Sample) -> None:
    before = [a.copy() for a in sample.arrays]
    sample.op.reference(*sample.arrays)
    tensor, feeds = applied(sample)
    PATHS["fused"](Graph((tensor,)), feeds, {})
    for old, now in zip(before, sample.arrays, strict=True):
        np.testing.assert_array_equal(old, now)


# Derivatives, in float64


def in_float64(sample: Sample) -> Sample:
    arrays = tuple(a.astype(np.float64) if a.dtype.kind == "f" else a for a in sample.arrays)
    return Sample(widened(sample.op), arrays, sample.smooth)


def projected(tensor: Tensor, seed: int) -> Tensor:
    """A scalar: the tensor times fixed random numbers, summed."""
    weights = np.random.default_rng(seed).uniform(-1, 1, tensor.shape)
    return sum_(multiply(tensor, constant(weights)))


def assert_gradients(cost: Tensor, feeds: Feeds, wrt: list[Tensor]) -> list[Tensor]:
    """The gradients of a float64 cost, compared with central differences along random directions."""
    gradients = backward(cost, wrt)
    values = evaluate(Graph(tuple(gradients)), feeds, {})
    seeds = count()
    for tensor, gradient in zip(wrt, values, strict=True):
        assert gradient.shape == tensor.shape
        for _ in range(2):
            direction = np.random.default_rng(next(seeds)).choice([-1.0, 1.0], size=tensor.shape)
            step = 1e-5
            ends = [
                evaluate(Graph((cost,)), {**feeds, tensor: feeds[tensor] + s * step * direction}, {})[0]
                for s in (1, -1)
            ]
            expected = (ends[0] - ends[1]) / (2 * step)
            found = np.sum(gradient * direction)
            scale = np.abs(gradient).sum() + 1e-3
            assert abs(found - expected) <= 1e-6 * scale, (
                f"d/d{tensor.label}: {found}, by differences {expected}"
            )
    return gradients


@each_derivative
def test_gradients_agree_with_finite_differences(sample: Sample) -> None:
    tensor, feeds = applied(in_float64(sample))
    operands = list(feeds)
    assert_gradients(projected(tensor, 1), feeds, [operands[k] for k in sample.operands])


@each_derivative
def test_gradients_of_gradients_agree_with_finite_differences(sample: Sample) -> None:
    tensor, feeds = applied(in_float64(sample))
    wrt = [list(feeds)[k] for k in sample.operands]
    gradients = backward(projected(tensor, 1), wrt)
    total = projected(gradients[0], 2)
    for k, gradient in enumerate(gradients[1:], start=3):
        total = total + projected(gradient, k)
    assert_gradients(total, feeds, wrt)


@pytest.mark.parametrize("path", PATHS)
@each_derivative
def test_every_path_computes_the_gradients_the_reference_computes(sample: Sample, path: str) -> None:
    tensor, feeds = applied(sample)
    weights = np.random.default_rng(1).uniform(-1, 1, tensor.shape).astype(tensor.dtype.numpy)
    cost = sum_(multiply(tensor, constant(weights)))
    graph = Graph((cost, *backward(cost, [list(feeds)[k] for k in sample.operands])))
    assert not Oracle(graph, feeds, {}).mismatch(PATHS[path](graph, feeds, {}))


def test_the_second_derivative_of_cross_entropy_is_finite_where_a_class_has_no_probability() -> None:
    p, y = input("p", (3,), "float64"), input("y", (), "int32")
    (first,) = backward(CrossEnt()(p, y), [p])
    (second,) = backward(sum_(first), [p])
    feeds = {p: np.array([0.0, 0.5, 0.5]), y: np.array(1, np.int32)}
    for path in PATHS.values():
        found = path(Graph((first, second)), feeds, {})
        np.testing.assert_array_equal(found, [[0, -2, 0], [0, 4, 0]])
