"""What a user is told: the line at fault, both shapes, the remedy. One test a mistake."""

from __future__ import annotations

import inspect
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
    message = told(ShapeError, lambda: fg.input("x", (3,)) @ fg.parameter("w", (3, 4)))
    assert "(3,) and (3, 4)" in message and "elementwise" in message


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


# While a step is compiled


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
    with pytest.raises(FlowgraphError) as caught:
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


def test_a_row_number_out_of_range_is_found_through_views() -> None:
    ids = fg.input("ids", ("batch",), "int32")
    rows = fg.gather(fg.parameter("table", (6, 2)), fg.expand_dims(ids, 1))
    step = fg.compile(outputs=rows, device="reference")
    message = told(InputError, lambda: step(ids=np.array([0, 6], np.int32)))
    assert "ids[1] = 6" in message and "from 0 to 5" in message


def test_data_of_the_wrong_dtype() -> None:
    message = told_anywhere(DTypeError, lambda: program()(x=X.astype(np.float64), y=Y))
    assert "'x' is declared float32, got float64" in message and "x.astype('float32')" in message
    message = told_anywhere(DTypeError, lambda: program()(x=X, y=Y.astype(np.int64)))
    assert "'y' is declared int32, got int64" in message


def test_lists_of_real_numbers_are_not_taken_for_class_numbers() -> None:
    told_anywhere(DTypeError, lambda: program()(x=X, y=[0.0, 1.5, 2.0, 0.0, 1.0]))
    (cost,) = program()(x=X.tolist(), y=[0, 1, 2, 0, 1])
    assert cost.dtype == np.float32 and np.isfinite(cost)


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


def test_a_size_that_no_input_has() -> None:
    x = fg.input("x", ("batch",))
    step = fg.compile(outputs=fg.sum(x) * fg.size_of("time"), device="reference")
    with pytest.raises(InputError, match="'time' has no value"):
        step(x=np.ones(3, np.float32))
    (found,) = step.run(1, {"x": np.ones(3, np.float32)}, sizes={"time": 7})
    assert found == 21


# What is not an error


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
