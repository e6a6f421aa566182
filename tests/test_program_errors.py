"""What a user is told: the line at fault, both shapes, the remedy. One test a mistake."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.errors import DeviceError, DTypeError, FlowgraphError, GraphError, InputError, ShapeError

HERE = __file__.rsplit("/", 1)[-1]


def told(kind: type[FlowgraphError], action: Callable[[], Any]) -> str:
    """The message of the error; its place must be in this file, on a line of the calling test."""
    with pytest.raises(kind) as caught:
        action()
    message = str(caught.value)
    caller = inspect.stack()[1].frame
    first = caller.f_code.co_firstlineno
    last = first + len(inspect.getsource(caller.f_code).splitlines())
    place = next(line for line in message.splitlines() if line.startswith("  at "))
    file, number = place.removeprefix("  at ").split(":")[:2]
    assert file.endswith(HERE), message
    assert first <= int(number) < last, message
    assert "  hint: " in message, message
    return message


def classifier() -> tuple[fg.Tensor, fg.Tensor, fg.Tensor, fg.Tensor]:
    x, y = fg.input("x", ("batch", 4)), fg.input("y", ("batch",), "int32")
    w = fg.parameter("w", (4, 3))
    return x, y, w, fg.mean(fg.cross_ent_of_softmax(x @ w, y))


# While the graph is declared


def test_a_product_whose_inner_sizes_differ() -> None:
    x, w = fg.input("x", ("batch", 64)), fg.parameter("w", (32, 10))
    message = told(ShapeError, lambda: fg.mul(x, w))
    assert "(batch, 64) and (32, 10)" in message and "64 columns meet 32 rows" in message
    assert "fg.transpose" in message
    assert "lambda: fg.mul(x, w)" in message  # the line itself is quoted


def test_a_product_of_something_that_is_no_matrix() -> None:
    message = told(ShapeError, lambda: fg.mul(fg.input("x", (3,)), fg.parameter("w", (3, 4))))
    assert "(3,) and (3, 4)" in message and "elementwise" in message


def test_a_batched_product_that_does_not_fit_says_which_axes_and_what_would() -> None:
    s, v = fg.input("s", ("batch", 4, 3)), fg.input("v", (4,))
    square = fg.input("square", ("batch", 4, 4))
    for action, problem, hint in (
        (lambda: s @ s, "first is 3, the last axis but one", "fg.swapaxes(x, -1, -2) of the second"),
        (lambda: s @ s.T, "first is 3, the last axis but one", "of the second exchanges its last two axes; .T"),
        (lambda: square @ square.T, "the leading axes (batch,) and (4,)", ".T reverses all axes"),
        (lambda: s.T @ s, "first is batch, the last axis but one", "of the first exchanges its last two axes; .T"),
        (lambda: s @ v, "first is 3, the only axis of the second 4", "fg.swapaxes(x, -1, -2) of the first"),
        (lambda: s @ fg.input("t", ("other", 3, 4)), "leading axes (batch,) and (other,)", "(..., i, j) @ (..., j, k)"),
    ):
        with pytest.raises(ShapeError) as caught:  # the message quotes this test's line, and with it what is expected
            action()
        assert caught.value.problem.startswith("matmul: shapes (") and HERE in str(caught.value)
        assert problem in caught.value.problem and hint in caught.value.hint


def test_a_bias_of_the_wrong_rank() -> None:
    x, b = fg.input("x", ("batch", 10)), fg.parameter("b", (1, 10))
    message = told(ShapeError, lambda: fg.add_bias(x, b))
    assert (
        "(batch, 10) and (1, 10)" in message
        and "rank 2, not 1" in message
        and "fg.parameter('b', (n,))" in message
    )


def test_a_bias_of_the_wrong_length() -> None:
    x, b = fg.input("x", ("batch", 10)), fg.parameter("b", (7,))
    message = told(ShapeError, lambda: fg.add_bias(x, b))
    assert "(batch, 10) and (7,)" in message


def test_shapes_that_do_not_broadcast() -> None:
    x, z = fg.input("x", ("batch", 10)), fg.input("z", ("time", 10))
    message = told(ShapeError, lambda: x + z)
    assert "(batch, 10) and (time, 10)" in message and "expand_dims" in message


def test_named_sizes_never_broadcast_even_if_they_might_be_one() -> None:
    x, z = fg.input("x", ("batch", 10)), fg.input("z", (5, 10))
    message = told(ShapeError, lambda: x * z)
    assert "batch against 5" in message


def test_two_dtypes_meet() -> None:
    x, z = fg.input("x", (3,)), fg.input("z", (3,), "float64")
    message = told(DTypeError, lambda: x + z)
    assert "float32(3,) and float64(3,)" in message and "fg.cast" in message


def test_arithmetic_on_bools() -> None:
    flags = fg.input("x", (3,)) > 0.0
    for action in (lambda: flags + flags, lambda: -flags, lambda: fg.sum(flags)):
        message = told(DTypeError, action)
        assert "bool(3,)" in message and "fg.cast" in message


def test_a_function_of_real_numbers_on_integers() -> None:
    y = fg.input("y", (3,), "int32")
    assert "int32(3,)" in told(DTypeError, lambda: fg.tanh(y))


def test_targets_of_another_shape() -> None:
    a, y = fg.input("a", ("batch", 10)), fg.input("y", ("batch", 1), "int32")
    message = told(ShapeError, lambda: fg.cross_ent_of_softmax(a, y))
    assert "(batch, 10)" in message and "(batch, 1)" in message and "one integer an example" in message


def test_an_axis_that_does_not_exist() -> None:
    x = fg.input("x", ("batch", 10))
    message = told(ShapeError, lambda: fg.sum(x, axis=2))
    assert "axis 2" in message and "(batch, 10)" in message and "-2 to 1" in message


def test_the_truth_value_of_a_symbolic_tensor() -> None:
    x = fg.input("x", ())
    message = told(FlowgraphError, lambda: 1 if x > 0.0 else 2)
    assert "fg.where" in message


def test_a_parameter_of_symbolic_shape() -> None:
    with pytest.raises(ShapeError, match=r"'w' needs a shape of ints, got \(batch, 3\)") as caught:
        fg.parameter("w", ("batch", 3))
    assert HERE in str(caught.value)


def test_a_constant_row_number_out_of_range() -> None:
    with pytest.raises(InputError, match="gather: 7 is out of range: ids run from 0 to 4") as caught:
        fg.gather(fg.parameter("t", (5, 2)), fg.constant([0, 7]))
    assert HERE in str(caught.value)


def test_an_integer_that_does_not_fit_its_dtype() -> None:
    y = fg.input("y", (3,), "int32")
    for action in (
        lambda: fg.constant(3_000_000_000),
        lambda: y + 3_000_000_000,
        lambda: fg.constant([0, -(2**31) - 1]),
        lambda: fg.constant(2**63),
        lambda: fg.constant(np.int64(2**31), "int32"),
    ):
        assert "does not fit int32" in told(DTypeError, action)
    assert fg.constant(3_000_000_000, "int64").op.array == 3_000_000_000
    assert fg.constant(2**31 - 1).op.array == 2**31 - 1


def test_a_parameter_of_integers_does_not_begin_with_halves() -> None:
    message = told(DTypeError, lambda: fg.parameter("n", (2,), np.array([0.5, 1.0]), "int32"))
    assert "'n' is int32" in message and "float64" in message
    told(DTypeError, lambda: fg.parameter("n", (), np.int64(2**40), "int32"))


def test_axes_are_never_taken_modulo_the_rank() -> None:
    x = fg.input("x", ("batch", 3, 1))
    for action in (
        lambda: fg.transpose(x, (3, 1, 2)),
        lambda: fg.transpose(x, (0, 0, 1)),
        lambda: fg.squeeze(x, 5),
        lambda: fg.squeeze(x, -4),
        lambda: fg.expand_dims(x, 4),
        lambda: fg.expand_dims(x, (0, 0)),
        lambda: fg.sum(x, axis=-4),
    ):
        message = told(ShapeError, action)
        assert "(batch, 3, 1)" in message and "axes run from" in message
    for action in (
        lambda: fg.transpose(x, (0.0, 1, 2)),
        lambda: fg.squeeze(x, 2.0),
        lambda: fg.expand_dims(x, "0"),
        lambda: fg.max(x, axis=1.0),
    ):
        assert "are no axes" in told(ShapeError, action)


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (lambda x: fg.sum(x, dim=1), "did you mean 'axis'? it has 'x', 'axis', 'keepdims'"),
        (lambda x: fg.softmax(x, dim=1), "did you mean 'axis'?"),
        (lambda x: fg.concatenate([x, x], dim=1), "did you mean 'axis'?"),
        (lambda x: fg.mean(x, axis=1, keepdim=True), "did you mean 'keepdims'?"),
        (lambda x: fg.std(x, where=x), "it has 'x', 'axis'"),
    ],
)
def test_a_setting_that_a_function_has_not(call: Callable[[fg.Tensor], object], hint: str) -> None:
    with pytest.raises(GraphError, match="has no setting") as caught:
        call(fg.input("x", (3, 4)))
    assert caught.value.hint.startswith(hint) and HERE in str(caught.value)


def test_a_maximum_of_no_elements() -> None:
    x = fg.input("x", ("batch", 0))
    for action in (lambda: fg.max(x, axis=1), lambda: fg.max(x), lambda: fg.softmax(x)):
        with pytest.raises(ShapeError, match=r"\(batch, 0\)") as caught:
            action()
        assert HERE in str(caught.value)


def test_a_comparison_of_tensors_by_python_s_own_sign() -> None:
    x = fg.input("x", (3,))
    message = told(GraphError, lambda: fg.where(x == 0, 1.0, x))
    assert "got False" in message and "fg.equal" in message


def test_a_python_bool_where_a_tensor_belongs_is_a_comparison_gone_wrong() -> None:
    x, y, flags = fg.input("x", (3,)), fg.input("y", (3,)), fg.input("flags", (3,), "bool")
    for action in (
        lambda: fg.cast(x == y, "float32"),
        lambda: fg.mean(x == y),
        lambda: fg.sum(x == y),
        lambda: x * (x == y),
        lambda: fg.maximum(x == y, x),
        lambda: fg.where(flags, x == y, x),
        lambda: (x == y) & flags,
        lambda: fg.concatenate([x == y, x]),
    ):
        message = told(GraphError, action)
        assert "got False" in message and "fg.equal" in message and "identity" in message
    assert fg.equal(flags, True).shape == fg.where(flags, flags, False).shape == (3,)


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (lambda x: np.exp(x), "use fg.exp(x)"),
        (lambda x: np.sum(x), "use fg.sum(x)"),
        (lambda x: np.maximum(x, 0.0), "use fg.maximum"),
        (lambda x: np.concatenate([x, x]), "use fg.concatenate"),
        (lambda x: np.linalg.norm(x), "use fg.norm"),
        (lambda x: np.linalg.inv(x), "what a program returns"),
        (lambda x: np.add.reduce(x), "what a program returns"),
        (lambda x: np.ones(3) == x, "fg.equal(x, y), == is identity"),
        (lambda x: operator.iadd(np.ones(3), x), "a = a + x"),
        (lambda x: operator.setitem(x, 0, 1.0), "fg.where"),
    ],
)
def test_a_function_of_numpys_on_a_tensor(call: Callable[[fg.Tensor], object], hint: str) -> None:
    with pytest.raises(GraphError) as caught:
        call(fg.input("x", (3,)))
    assert hint in caught.value.hint and HERE in str(caught.value)
    assert np.shape(fg.input("x", (3,))) == (3,) and np.ndim(fg.input("x", (3,))) == 1


def test_constants_and_scalars_obey_the_dtypes_of_reductions() -> None:
    flag = fg.input("flag", (), "bool")
    for action, problem in (
        (lambda: fg.mean(3), "mean needs floating-point values, got int32()"),
        (lambda: fg.sum(flag), "sum needs numbers, got bool()"),
        (lambda: fg.sum(np.True_), "sum needs numbers, got bool()"),
        (lambda: fg.any(1.0), "any needs bools, got float32()"),
    ):
        assert problem in told(DTypeError, action)
    assert fg.mean(3.0).shape == fg.sum(3).shape == ()


def test_a_loss_never_compares_every_prediction_with_every_target() -> None:
    x, y = fg.input("x", ("batch", 1)), fg.input("y", ("batch",))
    for loss in (fg.squared_error, fg.absolute_error, fg.huber):
        for a, b in ((x, y), (y, x), (fg.parameter("a", (4, 1)), np.ones(4, np.float32))):
            message = told(ShapeError, lambda loss=loss, a=a, b=b: loss(a, b))
            assert "1)" in message and ",)" in message and "fg.squeeze" in message and "fg.expand_dims" in message
        assert loss(x, 1.0).shape == loss(x, [1.0]).shape == x.shape  # what spreads one side only is what was asked for
        assert loss(fg.input("z", ("batch", 3)), np.ones(3, np.float32)).shape[1] == 3
    for loss in (fg.cross_ent_of_logistic, fg.binary_cross_ent):
        assert "(batch, 1)" in told(ShapeError, lambda loss=loss: loss(x, y))


def test_what_is_written_into_a_parameter_s_value_is_refused() -> None:
    w = fg.parameter("w", (3,), [1.0, 2.0, 3.0])

    def write() -> None:
        w.value[0] = 7

    def write_through_a_view() -> None:
        w.value[1:][0] = 7

    for action in (write, write_through_a_view):
        message = told(GraphError, action)
        assert "read-only" in message and "w.value = v" in message
    copy = same = w.value.copy()
    copy[0] = 6
    copy += [1, 0, 0]
    assert same is copy  # an array like any other
    w.value = copy
    w.value += 1
    w.value[1:] * 2.0
    assert w.value.tolist() == [8, 3, 4] and repr(w.value) == "array([8., 3., 4.], dtype=float32)"


def test_what_is_no_tensor_is_refused_by_every_function() -> None:
    x = fg.input("x", (3, 3))
    for function in (fg.tanh, fg.sum, fg.transpose, fg.softmax, fg.log, lambda t: fg.cast(t, "int32")):
        for wrong in ("x", None, object(), [x, x], [[1.0], [1.0, 2.0]]):
            with pytest.raises(FlowgraphError) as caught:
                function(wrong)
            assert HERE in str(caught.value)
    for action in (
        lambda: x @ "x",
        lambda: x + None,
        lambda: fg.gather(x, "rows"),
        lambda: fg.cast(x, "float16"),
        lambda: x * np.ones((3, 3), np.float16),
    ):
        with pytest.raises(FlowgraphError) as caught:
            action()
        assert HERE in str(caught.value)


def test_an_initialiser_that_was_not_called_is_seen_where_the_parameter_is_declared() -> None:
    for action, hint in (
        (lambda: fg.parameter("w", (3, 2), init=fg.init.glorot_uniform), "glorot_uniform() makes one"),
        (lambda: fg.parameter("w", (3, 2), init=fg.init.normal), "normal() makes one"),
        (lambda: fg.nn.Dense("d", 3, 2, init=fg.init.he_normal), "he_normal() makes one"),
        (lambda: fg.parameter("w", (3, 2), init=lambda shape: np.ones(shape)), "fg.init"),
    ):
        message = told(GraphError, action)
        assert "'w'" in message and "init(shape, generator)" in message and hint in message
    for made in (lambda i: fg.nn.Conv2D("c", 1, 4, 3, init=i), lambda i: fg.nn.GRU("g", 4, 8, init=i)):
        with pytest.raises(GraphError, match="init=glorot_uniform is no initialiser"):
            made(fg.init.glorot_uniform)
    ones = fg.parameter("w", (3, 2), init=lambda shape, generator: np.ones(shape))
    assert ones.value.sum() == 6


def test_an_initial_value_of_another_shape_says_how_to_fill() -> None:
    message = told(ShapeError, lambda: fg.parameter("b", (3,), init=0.5))
    assert "np.full((3,), 0.5)" in message
    assert "its initial array (4,)" in told(ShapeError, lambda: fg.parameter("b", (3,), init=np.zeros(4)))


def test_an_activation_is_a_function() -> None:
    assert "activation=fg.relu" in told(GraphError, lambda: fg.nn.Dense("d", 4, 3, activation="relu"))


def test_tensors_to_be_joined_are_a_list() -> None:
    x = fg.input("x", ("batch", 4))
    for action in (lambda: fg.concatenate(x, x), lambda: fg.stack(x), lambda: fg.stack([])):
        message = told(ShapeError, action)
        assert "takes a list of tensors, got" in message and "([a, b], axis=0)" in message


def test_two_tensors_are_not_reduced() -> None:
    x, y = fg.input("x", (3,)), fg.input("y", (3,))
    for function, meant in ((fg.max, "fg.maximum"), (fg.min, "fg.minimum"), (fg.sum, "fg.add")):
        assert meant in told(GraphError, lambda function=function: function(x, y))


def test_a_range_has_no_start() -> None:
    assert "start + fg.arange(stop - start)" in told(GraphError, lambda: fg.arange(0, 5))


def test_a_tensor_has_no_parts_by_name() -> None:
    x = fg.input("x", ("n", 4))
    for action in (lambda: x["a"], lambda: x[0, "a"]):
        assert "no part called 'a'" in told(GraphError, action)
    assert x[:"n"].shape == x.shape


def test_what_python_asks_of_values_is_answered_by_what_a_tensor_is() -> None:
    x, w = fg.input("x", ("batch", 4)), fg.parameter("w", (4, 3))
    for action in (lambda: float(fg.sum(x)), lambda: int(fg.sum(x)), lambda: np.array(x), lambda: np.asarray([x, x])):
        message = told(FlowgraphError, action)
        assert "has no value" in message and ".value" in message
    assert "it is batch" in told(FlowgraphError, lambda: len(x))
    assert "fg.stack" in told(FlowgraphError, lambda: fg.tanh([x, x]))
    assert len(w) == 4 and w.T.shape == (3, 4)


# While a step is compiled


def test_a_gradient_of_or_by_something_that_is_no_tensor() -> None:
    _, _, w, cost = classifier()
    for action in (
        lambda: fg.grad(cost, "w"),
        lambda: fg.grad(cost, None),
        lambda: fg.grad(cost, [w, "w"]),
        lambda: fg.grad(1.0, w),
    ):
        with pytest.raises(GraphError, match="tensor") as caught:
            action()
        assert HERE in str(caught.value)


def test_settings_of_a_program_that_make_no_sense() -> None:
    _, _, w, cost = classifier()
    for threads in (0, -1, 1.5, "2"):
        with pytest.raises(InputError, match="threads is a whole number of at least 1") as caught:
            fg.compile(outputs=cost, device="reference", threads=threads)
        assert HERE in str(caught.value)
    assert "got 0" in told(DeviceError, lambda: fg.compile(outputs=cost, device=0))
    for wrong in ({"outputs": 1.5}, {"outputs": "w"}, {"outputs": [None]}, {"updates": [w]}, {"inputs": 3}):
        with pytest.raises(GraphError) as caught:
            fg.compile(**({"outputs": cost} | wrong), device="reference")
        assert HERE in str(caught.value)


def test_two_inputs_or_two_parameters_of_one_name() -> None:
    x, other = fg.input("x", (3,)), fg.input("x", (3,))
    message = told(GraphError, lambda: fg.compile(outputs=x + other, device="reference"))
    assert "two inputs are called 'x'" in message and message.count(HERE) == 2
    first = fg.parameter("w", (3,), fg.init.normal())
    second = fg.parameter("w", (3,), fg.init.normal())
    message = told(GraphError, lambda: fg.compile(outputs=first * second, device="reference"))
    assert "two parameters are called 'w'" in message and message.count(HERE) == 2
    assert "first = fg.parameter" in message and "second = fg.parameter" in message and "fg.scope" in message
    told(GraphError, lambda: fg.compile(updates={first: first * 2.0, second: 0.0}, device="reference"))
    with fg.scope("other"):
        second = fg.parameter("w", (3,), fg.init.normal())
    fg.compile(outputs=first * second, device="reference")


def test_a_gradient_of_something_that_is_no_scalar() -> None:
    x = fg.input("x", ("batch", 3))
    cost = fg.tanh(x)
    message = told(ShapeError, lambda: fg.grad(cost, x))
    assert "(batch, 3)" in message and "fg.mean(cost)" in message


def test_an_update_of_something_that_is_no_parameter() -> None:
    x, _, _, cost = classifier()
    message = told(GraphError, lambda: fg.compile(outputs=cost, updates={x: x * 0.5}, device="reference"))
    assert "only parameters can be updated" in message and "Tensor x" in message and "fg.parameter" in message


def test_an_update_of_another_shape() -> None:
    _, _, w, cost = classifier()
    with pytest.raises(ShapeError) as caught:
        fg.compile(outputs=cost, updates={w: fg.transpose(w)}, device="reference")
    message = str(caught.value)
    assert "'w'" in message and "float32(3, 4)" in message and "float32(4, 3)" in message and HERE in message


def test_an_update_of_another_dtype_says_so() -> None:
    _, _, w, cost = classifier()
    with pytest.raises(DTypeError) as caught:
        fg.compile(outputs=cost, updates={w: fg.cast(w, "float64")}, device="reference")
    assert (
        "float64(4, 3)" in str(caught.value)
        and "float32(4, 3)" in str(caught.value)
        and HERE in str(caught.value)
    )


def test_an_input_that_is_not_listed() -> None:
    x, _, _, cost = classifier()
    message = told_anywhere(GraphError, lambda: fg.compile(inputs=[x], outputs=cost, device="reference"))
    assert "reads input 'y'" in message and "inputs=[...]" in message


def test_nothing_to_compute() -> None:
    with pytest.raises(GraphError, match="no outputs and no updates"):
        fg.compile(device="reference")


def test_a_device_that_does_not_exist() -> None:
    _, _, _, cost = classifier()
    message = told(DeviceError, lambda: fg.compile(outputs=cost, device="tpu"))
    assert "'tpu'" in message and "'reference'" in message


# While data are fed


def told_anywhere(kind: type[FlowgraphError], action: Callable[[], Any]) -> str:
    """The message of the error; its place is in this file, where the tensor at fault was declared."""
    with pytest.raises(kind) as caught:
        action()
    message = str(caught.value)
    assert f"{HERE}:" in message and "  hint: " in message, message
    return message


def program() -> fg.Program:
    x, y, _, cost = classifier()
    return fg.compile(inputs=[x, y], outputs=cost, device="reference")


X, Y = np.zeros((5, 4), np.float32), np.zeros(5, np.int32)


def test_a_class_number_out_of_range() -> None:
    for wrong in (3, -1):
        labels = np.array([0, 1, wrong, 2, wrong], np.int32)
        message = told_anywhere(InputError, lambda labels=labels: program()(x=X, y=labels))
        assert (
            f"y[2] = {wrong} is out of range" in message and "from 0 to 2" in message and "2 of 5" in message
        )
        assert "crossEntOfSoftMax" in message


@pytest.mark.parametrize("loss", [fg.cross_ent_of_logistic, fg.binary_cross_ent])
def test_an_answer_that_is_neither_yes_nor_no(loss: Callable[..., fg.Tensor]) -> None:
    x, y = fg.input("x", ("batch",)), fg.input("y", ("batch",), "int32")
    step = fg.compile(outputs=loss(x, y), device="reference")
    for wrong in (9, 2, -1):
        with pytest.raises(InputError) as caught:
            step(x=np.full(3, 0.5, np.float32), y=np.array([1, wrong, 0], np.int32))
        assert f"y[1] = {wrong} is out of range" in caught.value.problem and "from 0 to 1" in caught.value.problem
        hint = "targets are 1 for yes and 0 for no; where they are masked anyway, fg.clip(y, 0, 1)"
        assert caught.value.hint == hint and HERE in str(caught.value)
    with pytest.raises(InputError, match="a constant"):
        fg.compile(outputs=loss(fg.input('z', (2,)), fg.constant([0, 7])), device="reference")


def test_a_row_number_out_of_range_is_found_through_views() -> None:
    ids = fg.input("ids", ("batch",), "int32")
    rows = fg.gather(fg.parameter("table", (6, 2)), fg.expand_dims(ids, 1))
    step = fg.compile(outputs=rows, device="reference")
    message = told(InputError, lambda: step(ids=np.array([0, 6], np.int32)))
    assert "ids[1] = 6" in message and "from 0 to 5" in message


def test_a_constant_row_number_beyond_a_table_whose_rows_are_named() -> None:
    table = fg.input("table", ("rows", 2))
    for ids in (fg.constant([0, 3]), fg.expand_dims(fg.constant([0, 3]), 1)):
        step = fg.compile(outputs=fg.gather(table, ids), device="reference")
        assert step(table=np.ones((4, 2), np.float32))[0].size == 4
        message = told(InputError, lambda step=step: step(table=np.ones((3, 2), np.float32)))
        assert "= 3 is out of range" in message and "from 0 to 2" in message


def test_a_constant_row_number_behind_a_view_is_found_when_the_step_is_compiled() -> None:
    rows = fg.gather(fg.parameter("t", (3, 2)), fg.expand_dims(fg.constant([0, 3]), 1))
    message = told(InputError, lambda: fg.compile(outputs=rows, device="reference"))
    assert "a constant[1, 0] = 3" in message or "= 3 is out of range" in message


def test_a_maximum_over_a_named_size_that_is_0() -> None:
    x = fg.input("x", ("batch", "time"))
    step = fg.compile(outputs=fg.max(x, axis=1), device="reference")
    message = told(InputError, lambda: step(x=np.zeros((2, 0), np.float32)))
    assert "max over an axis of size 0: time = 0" in message
    assert step(x=np.zeros((0, 0), np.float32))[0].shape == (0,)
    probabilities = fg.compile(outputs=fg.softmax(x), device="reference")
    told(InputError, lambda: probabilities(x=np.zeros((2, 0), np.float32)))


def test_a_computed_row_number_of_a_table_without_rows() -> None:
    table, ids = fg.input("table", ("rows", 2)), fg.input("ids", ("batch",), "int32")
    step = fg.compile(outputs=fg.gather(table, ids + 1), device="reference")
    none = np.zeros((0, 2), np.float32)
    message = told(InputError, lambda: step(table=none, ids=np.zeros(3, np.int32)))
    assert "the table has no rows: rows = 0" in message
    assert step(table=none, ids=np.zeros(0, np.int32))[0].shape == (0, 2)


def test_data_of_the_wrong_dtype() -> None:
    message = told_anywhere(DTypeError, lambda: program()(x=X.astype(np.float64), y=Y))
    assert "'x' is declared float32, got float64" in message and "x.astype('float32')" in message
    message = told_anywhere(DTypeError, lambda: program()(x=X, y=Y.astype(np.int64)))
    assert "'y' is declared int32, got int64" in message


def test_lists_of_real_numbers_are_not_taken_for_class_numbers() -> None:
    told_anywhere(DTypeError, lambda: program()(x=X, y=[0.0, 1.5, 2.0, 0.0, 1.0]))
    (cost,) = program()(x=X.tolist(), y=[0, 1, 2, 0, 1])
    assert cost.dtype == np.float32 and np.isfinite(cost)


def test_lists_are_no_way_around_the_range_of_a_dtype() -> None:
    message = told_anywhere(DTypeError, lambda: program()(x=X, y=[0, 1, 2, 0, 2**32]))
    assert "'y' is declared int32, got int64" in message
    with pytest.raises(ShapeError, match="rows differ in length"):
        program()(x=[[1.0], [1.0, 2.0]], y=Y)


def test_data_of_the_wrong_rank() -> None:
    message = told_anywhere(ShapeError, lambda: program()(x=X[0], y=Y))
    assert "(batch, 4)" in message and "(4,)" in message and "2 axes" in message


def test_data_of_the_wrong_width() -> None:
    message = told_anywhere(ShapeError, lambda: program()(x=X[:, :3], y=Y))
    assert "(batch, 4)" in message and "(5, 3)" in message and "axis 1 is 3, not 4" in message


def test_batches_of_two_sizes() -> None:
    message = told_anywhere(ShapeError, lambda: program()(x=X, y=Y[:4]))
    assert "'y'" in message and "axis 0 is 4, not 5" in message and "batch = 5 by axis 0 of 'x'" in message


def test_an_input_that_is_missing() -> None:
    message = told_anywhere(InputError, lambda: program()(x=X))
    assert "missing input 'y'" in message and "takes 'x', 'y'" in message


def test_an_input_that_is_unknown() -> None:
    step = program()
    message = told(InputError, lambda: step(x=X, y=Y, z=X))
    assert "unknown input 'z'" in message and "takes 'x', 'y'" in message


def test_an_input_that_is_misspelt_is_both() -> None:
    message = told_anywhere(InputError, lambda: program()(x=X, Y=Y))
    assert "missing input 'y' and unknown input 'Y'" in message


def test_inputs_by_their_tensors_are_told_that_they_have_names() -> None:
    x, y, _, cost = classifier()
    trainer = fg.Trainer(cost, fg.optim.SGD(0.1), device="reference")
    step = fg.compile(outputs=cost, device="reference")
    for action in (lambda: step.run(1, {x: X, y: Y}), lambda: step({x: X, y: Y}), lambda: trainer.fit({x: X, y: Y})):
        with pytest.raises(InputError) as caught:
            action()
        assert caught.value.hint.removeprefix("data are given by name, not by tensor: ") in (
            "{'x': ..., 'y': ...}",
            "program(x=..., y=...)",
        )


def test_an_input_in_another_case_is_recognised() -> None:
    assert "did you mean 'y'?" in told_anywhere(InputError, lambda: program()(x=X, Y=Y))


def test_inputs_without_names_are_refused() -> None:
    step = program()
    message = told(InputError, lambda: step(X, Y))
    assert "an array of float32(5, 4) without one" in message and "program(x=..., y=...)" in message


def test_what_is_missing_is_no_number() -> None:
    assert "input 'x' takes numbers, got None" in told_anywhere(DTypeError, lambda: program()(x=None, y=Y))
    column = np.array([0, 1, None, 2, 0], object)  # what a nullable column becomes
    assert "missing values" in told_anywhere(DTypeError, lambda: program()(x=X, y=column))


def test_targets_in_another_form_say_how_to_convert_them() -> None:
    message = told_anywhere(ShapeError, lambda: program()(x=X, y=Y[:, None]))
    assert "(batch,), got (5, 1)" in message and "y[:, 0]" in message
    message = told_anywhere(DTypeError, lambda: program()(x=X, y=np.eye(3, dtype=np.float32)[Y]))
    assert "y.argmax(1).astype('int32')" in message


def test_messages_stay_short_whatever_was_given() -> None:
    x = fg.input("x", (3,))
    for wrong in ("a" * 1000, np.ones(1000), list(range(1000)), {"a": np.ones((50, 50))}):
        with pytest.raises(InputError) as caught:
            fg.compile(outputs=x, device="reference", threads=wrong)
        assert len(caught.value.problem) < 150 and "\n" not in caught.value.problem


def test_a_program_says_what_it_is() -> None:
    w, x = fg.parameter("w", (4,)), fg.input("x", ("batch", 4))
    step = fg.compile(outputs=x @ w, updates={w: w * 2.0}, device="reference")
    assert repr(step) == "<Program(x: float32(batch, 4)) -> (float32(batch,)), updates 'w', on reference>"


def test_a_size_that_no_input_has() -> None:
    x = fg.input("x", ("batch",))
    step = fg.compile(outputs=fg.sum(x) * fg.size_of("time"), device="reference")
    with pytest.raises(InputError, match="'time' has no value"):
        step(x=np.ones(3, np.float32))
    (found,) = step.run(1, {"x": np.ones(3, np.float32)}, sizes={"time": 7})
    assert found == 21


def test_sizes_and_steps_that_make_no_sense() -> None:
    x = fg.input("x", ("batch",))
    step = fg.compile(outputs=fg.sum(x) * fg.size_of("time"), device="reference")
    data = {"x": np.ones(3, np.float32)}
    message = told(InputError, lambda: step.run(1, data, sizes={"time": 7, "typo": 5}))
    assert "unknown size 'typo'" in message and "'batch', 'time'" in message
    for wrong in (-1, 2.0, "7", True):
        with pytest.raises(InputError, match="the size 'time' is a whole number of at least 0"):
            step.run(1, data, sizes={"time": wrong})
    for wrong in (0, -1, 1.5, "2", None):
        with pytest.raises(InputError, match="the number of steps is a whole number of at least 1") as caught:
            step.run(wrong, data, sizes={"time": 7})
        assert HERE in str(caught.value)
    assert step.run(np.int64(2), data, sizes={"time": np.int32(7)})[0] == 21


def test_masked_elements_are_not_fed_as_if_they_were_data() -> None:
    masked = np.ma.masked_array(X, mask=np.eye(5, 4) == 1)
    for action in (
        lambda: program()(x=masked, y=Y),
        lambda: fg.parameter("w", (5, 4), masked),
        lambda: fg.constant(masked),
        lambda: fg.input("x", (5, 4)) + masked,
    ):
        message = told_anywhere(InputError, action)
        assert "4 of 20 elements are masked" in message and "filled" in message
    program()(x=np.ma.masked_array(X), y=Y)  # no element is


# What is not an error


def test_arrays_lists_and_numbers_stand_where_tensors_may() -> None:
    x, ids = fg.input("x", (2, 3)), np.array([1, 0, 1])
    w, rows = fg.parameter("w", (2, 3)), np.ones((3, 3), np.float32)
    made = {
        "matrix on the right": x @ np.eye(3, dtype=np.float32),
        "matrix on the left": np.eye(2, dtype=np.float32) @ x,
        "list as a matrix": x @ [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
        "bias": fg.add_bias(x, [0.5, 1.5, 2.5]),
        "number": fg.tanh(1.0),
        "rows": fg.gather(x, [0, 1]),
        "row": fg.gather(x, 1),
        "scatter": fg.scatter_add(w, ids, rows),
        "labels": fg.cross_ent_of_softmax(x, np.array([0, 2])),
        "accuracy": fg.nn.accuracy(x, [0, 2]),
        "condition": fg.where(np.array([True, False, True]), x, 0.0),
    }
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = fg.compile([x], list(made.values()), device="reference")(x=value)
    found = dict(zip(made, found, strict=True))
    np.testing.assert_array_equal(found["matrix on the right"], value)
    np.testing.assert_array_equal(found["matrix on the left"], value)
    np.testing.assert_array_equal(found["list as a matrix"], value @ [[1, 2], [3, 4], [5, 6]])
    np.testing.assert_array_equal(found["bias"], value + np.array([0.5, 1.5, 2.5]))
    assert found["number"] == np.tanh(np.float32(1.0)) and found["row"].tolist() == [3, 4, 5]
    np.testing.assert_array_equal(found["scatter"], [[1] * 3, [2] * 3])
    np.testing.assert_array_equal(found["condition"], value * [1, 0, 1])
    assert found["rows"].shape == (2, 3) and found["labels"].shape == (2,) and found["accuracy"] == 0.5


def test_lists_of_numbers_take_the_dtype_of_what_they_meet() -> None:
    for dtype in ("float32", "float64"):
        x = fg.input("x", (3,), dtype)
        for made in (fg.add(x, [1.0, 2.0, 3.0]), [1, 2, 3] * x, x / (1.0, 2.0, 4.0), 0.5 - x):
            assert made.type == x.type
    x = fg.input("x", ("batch", 3))
    message = told(DTypeError, lambda: x + np.ones(3))  # an array has a dtype of its own
    assert "float32(batch, 3) and float64(3,)" in message and ".astype('float32')" in message


def test_axes_may_be_numpy_s_integers() -> None:
    x = fg.input("x", (2, 1, 3))
    zero, one = np.int64(0), np.int32(-2)
    assert fg.sum(x, axis=zero).shape == (1, 3) and fg.squeeze(x, one).shape == (2, 3)
    assert fg.expand_dims(x, np.int64(-1)).shape == (2, 1, 3, 1)
    assert fg.transpose(x, np.array([2, 0, -2])).shape == (3, 2, 1)


def test_an_array_that_a_parameter_began_with_stays_the_caller_s() -> None:
    begun = np.ones(3, np.float32)
    w = fg.parameter("w", (3,), begun)
    begun[:] = 7
    np.testing.assert_array_equal(w.value, [1, 1, 1])


def test_an_output_may_be_a_constant() -> None:
    found = fg.compile(outputs=[1.0, np.arange(3)], device="reference")()
    assert found[0] == 1.0 and found[1].tolist() == [0, 1, 2]


def test_all_updates_read_the_values_from_before_the_step() -> None:
    a, b = fg.parameter("a", (2,), np.array([1.0, 2.0])), fg.parameter("b", (2,), np.array([3.0, 4.0]))
    step = fg.compile(outputs=fg.sum(a), updates={a: b, b: a + b}, device="reference")
    (total,) = step()
    assert total == 3
    np.testing.assert_array_equal(a.value, [3, 4])
    np.testing.assert_array_equal(b.value, [4, 6])


def test_an_update_that_is_a_number_fills_the_parameter() -> None:
    w = fg.parameter("w", (2, 2), np.ones((2, 2)))
    fg.compile(updates={w: 0.5}, device="reference")()
    np.testing.assert_array_equal(w.value, np.full((2, 2), 0.5, np.float32))


def test_a_batch_of_any_size_runs_on_one_program() -> None:
    step = program()
    for rows in (1, 5, 64):
        (cost,) = step(x=np.zeros((rows, 4), np.float32), y=np.zeros(rows, np.int32))
        np.testing.assert_allclose(cost, np.log(3), rtol=1e-6)
