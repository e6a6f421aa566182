"""Loops: what they compute, their gradients, what they cost, and what is said of wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flowgraph as fg
from flowgraph.errors import DTypeError, GraphError, InputError, ShapeError
from flowgraph.graph.graph import Graph
from flowgraph.kernels.kernel import LoopCall, kernel_calls
from flowgraph.ops.elementwise import Accumulate
from flowgraph.ops.scan import Scan
from flowgraph.plan.barriers import Access, Span, place_barriers, verify_barriers
from flowgraph.plan.turns import Turning, in_turn
from tests.support.compare import Oracle
from tests.support.paths import PATHS

each_path = pytest.mark.parametrize("path", PATHS)
Step = Callable[[Any, Any], tuple[Any, Any]]
rng = np.random.default_rng(0)
W, U, B = (rng.normal(0, 0.5, shape).astype(np.float32) for shape in ((5, 7), (7, 7), (7,)))


def cell(dtype: str = "float32") -> tuple[Step, list[fg.Tensor]]:
    """The recurrent network of the 1980s."""
    w, u, b = (fg.parameter(n, a.shape, a.astype(dtype), dtype) for n, a in (("w", W), ("u", U), ("b", B)))

    def step(h: fg.Tensor, x: fg.Tensor) -> tuple[fg.Tensor, fg.Tensor]:
        h = fg.tanh(fg.add_bias(x @ w + h @ u, b))
        return h, h

    return step, [w, u, b]


def network(rows: int = 3, dtype: str = "float32", **how: Any) -> tuple[Graph, dict[fg.Tensor, np.ndarray]]:
    """A cost of all states and the last one, and its gradients by parameters, data and the first state."""
    x = fg.input("x", ("time", "batch", 5), dtype)
    h0 = fg.input("h0", ("batch", 7), dtype)
    step, parameters = cell(dtype)
    last, every = fg.scan(step, h0, x, **how)
    cost = fg.sum(every * every) + fg.sum(fg.sin(last))
    graph = Graph((cost, last, every, *fg.grad(cost, [*parameters, x, h0])))
    data = np.random.default_rng(1)
    return graph, {x: data.normal(size=(11, rows, 5)).astype(dtype), h0: data.normal(size=(rows, 7)).astype(dtype)}


HOWS: dict[str, dict[str, Any]] = {
    "forward": {},
    "reverse": {"reverse": True},
    "checkpoint 3": {"checkpoint": 3},
    "checkpoint 4 reverse": {"checkpoint": 4, "reverse": True},
    "checkpoint 1": {"checkpoint": 1},
    "checkpoint 99": {"checkpoint": 99},
}
each_how = pytest.mark.parametrize("how", HOWS)


@each_path
@each_how
def test_every_path_computes_states_and_gradients(path: str, how: str) -> None:
    graph, feeds = network(**HOWS[how])
    sizes = {"time": 11, "batch": 3}
    assert not Oracle(graph, feeds, sizes).mismatch(PATHS[path](graph, feeds, sizes))


@each_how
def test_a_loop_computes_what_the_same_steps_written_out_do(how: str) -> None:
    graph, feeds = network(dtype="float64", **HOWS[how])
    found = PATHS["reference"](graph, feeds, {"time": 11, "batch": 3})
    x, h0 = fg.input("x", (11, "batch", 5), "float64"), fg.input("h0", ("batch", 7), "float64")
    step, parameters = cell("float64")
    h, states = h0, []
    reverse = HOWS[how].get("reverse", False)
    for t in reversed(range(11)) if reverse else range(11):
        h, _ = step(h, x[t])
        states.append(h)
    every = fg.stack(states[::-1] if reverse else states)
    cost = fg.sum(every * every) + fg.sum(fg.sin(h))
    written_out = Graph((cost, h, every, *fg.grad(cost, [*parameters, x, h0])))
    expected = PATHS["reference"](written_out, dict(zip((x, h0), feeds.values(), strict=True)), {"batch": 3})
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def test_gradients_agree_with_differences_and_so_do_their_gradients() -> None:
    from tests.test_registry import assert_gradients, projected

    x, h0 = fg.input("x", (4, 2, 5), "float64"), fg.input("h0", (2, 7), "float64")
    u = fg.input("u", (7, 7), "float64")

    def step(h: fg.Tensor, x: fg.Tensor) -> tuple[fg.Tensor, fg.Tensor]:
        h = fg.tanh(x @ W.astype(np.float64) + h @ u)
        return h, fg.sum(h * h, axis=1)

    last, every = fg.scan(step, h0, x)
    feeds = {t: np.random.default_rng(2).normal(size=t.shape) * 0.5 for t in (x, h0, u)}
    for seed, result in enumerate((last, every)):
        first = assert_gradients(projected(result, seed), feeds, [x, h0, u])
        assert_gradients(projected(first[2], 7) + projected(first[0], 8), feeds, [x, h0, u])


@each_path
def test_loops_in_loops(path: str) -> None:
    """Each row's running product with a matrix, and the sum of all of them."""
    x, w = fg.input("x", ("outer", "inner", 3)), fg.input("w", (3, 3))

    def inner(h: fg.Tensor, x: fg.Tensor) -> tuple[fg.Tensor, fg.Tensor]:
        h = fg.tanh(h @ w + x)
        return h, h * 2.0

    def outer(total: fg.Tensor, rows: fg.Tensor) -> tuple[fg.Tensor, tuple[fg.Tensor, fg.Tensor]]:
        last, every = fg.scan(inner, total * 0.5, rows)
        return total + last, (last, every)

    total, (lasts, every) = fg.scan(outer, fg.constant(np.zeros(3, np.float32)), x)
    cost = fg.sum(total) + fg.sum(lasts * lasts) + fg.sum(fg.sin(every))
    graph = Graph((cost, total, lasts, every, *fg.grad(cost, [x, w])))
    feeds = {x: rng.normal(size=(4, 5, 3)).astype("f4"), w: rng.normal(size=(3, 3)).astype("f4")}
    sizes = {"outer": 4, "inner": 5}
    assert not Oracle(graph, feeds, sizes).mismatch(PATHS[path](graph, feeds, sizes))


@each_path
def test_a_loop_without_turns_ends_as_it_begins(path: str) -> None:
    graph, feeds = network()
    feeds = {t: a[:0] if a.ndim == 3 else a for t, a in feeds.items()}
    _, last, every, *gradients = PATHS[path](graph, feeds, {"time": 0, "batch": 3})
    np.testing.assert_array_equal(last, list(feeds.values())[1])
    assert every.shape == (0, 3, 7) and not any(g.any() for g in gradients[:4])
    np.testing.assert_allclose(gradients[4], np.cos(last), rtol=1e-6)


def test_a_loop_of_constants() -> None:
    last, _ = fg.scan(lambda h, x: (fg.tanh(h + x), None), fg.constant([1.0, 2.0]), np.ones((3, 2), np.float32))
    (found,) = fg.compile(outputs=fg.einsum("a,a->", last, last), device="cpu")()
    h = np.array([1.0, 2.0])
    for _ in range(3):
        h = np.tanh(h + 1)
    np.testing.assert_allclose(found, h @ h, rtol=1e-6)


def test_any_structure_is_carried_and_stacked() -> None:
    def step(carry: dict[str, Any], x: tuple[fg.Tensor, fg.Tensor]) -> tuple[Any, Any]:
        count, (h, c) = carry["count"], carry["state"]
        return {"count": count + 1, "state": [c + x[0], h]}, {"sum": h + c, "twice": (x[1] * 2,)}

    a, b = fg.input("a", ("t", 3)), fg.input("b", ("t",), "int32")
    zeros = fg.constant(np.zeros(3, np.float32))
    carry, ys = fg.scan(step, {"count": 0, "state": [zeros, zeros + 1.0]}, (a, b))
    program = fg.compile(outputs=[carry["count"], *carry["state"], ys["sum"], ys["twice"][0]], device="cpu")
    count, h, c, sums, twice = program(a=np.ones((4, 3), np.float32), b=np.arange(4, dtype=np.int32))
    assert count == 4 and h.tolist() == [2, 2, 2] and c.tolist() == [3, 3, 3]
    assert twice.tolist() == [0, 2, 4, 6] and sums[:, 0].tolist() == [1, 2, 3, 4]


def test_a_number_of_turns_may_be_given_or_a_name() -> None:
    doubled, _ = fg.scan(lambda x, _: (x * 2.0, None), fg.input("x", (3,)), length="turns")
    program = fg.compile(outputs=doubled, device="cpu")
    assert program.run(1, {"x": np.ones(3, np.float32)}, sizes={"turns": 5})[0].tolist() == [32, 32, 32]


# What is in the loop, and what is not


def loops(graph: Graph) -> list[Scan]:
    return [n.op for n in graph.nodes() if isinstance(n.op, Scan)]


def test_one_forward_loop_serves_the_cost_and_its_gradient() -> None:
    graph, _ = network()
    optimised = fg.compile(outputs=graph.outputs, device="reference").graph
    forward, backward = sorted(loops(optimised), key=lambda op: op.reverse)
    assert (forward.reverse, backward.reverse) == (False, True)


def test_what_nobody_reads_is_not_carried_stacked_or_given() -> None:
    def step(carry: Any, x: Any) -> Any:
        h, unused = carry
        return (fg.tanh(h + x[0]), unused * x[1]), (h, unused)

    a, b = fg.input("a", ("t", 3)), fg.input("b", ("t", 3))
    one = fg.constant(np.ones(3, np.float32))
    (last, _), (states, _) = fg.scan(step, (one, one), (a, b))
    (loop,) = loops(fg.compile(outputs=[last, states], device="reference").graph)
    assert [len(part) for part in (loop.inner.carries, loop.inner.elements, loop.inner.emits)] == [1, 1, 1]


def test_what_no_turn_changes_is_given_and_computed_once() -> None:
    x, w = fg.input("x", ("t", 3)), fg.parameter("w", (3, 3), np.eye(3))

    def step(carry: Any, x: fg.Tensor) -> Any:
        h, scale = carry
        return (fg.tanh(x + h @ fg.exp(w)) * scale, scale), None

    (last, _), _ = fg.scan(step, (fg.constant(np.ones(3, np.float32)), fg.input("scale", (3,))), x)
    program = fg.compile(outputs=last, device="reference")
    (loop,) = loops(program.graph)
    assert len(loop.inner.carries) == 1
    assert "exp" not in {n.op.name for n in loop.inner.graph.nodes()}


def test_a_long_loop_has_as_many_kernels_as_a_short_one() -> None:
    def kernels(turns: int) -> int:
        x = fg.input("x", (turns, "batch", 5))
        step, parameters = cell()
        last, _ = fg.scan(step, fg.broadcast_to(fg.constant(0.0), ("batch", 7)), x)
        cost = fg.sum(last)
        program = fg.compile(outputs=fg.grad(cost, parameters), device="cpu")
        return len(program.kernels)

    assert kernels(10) == kernels(10_000) < 25


def test_states_that_are_stacked_are_not_copied() -> None:
    """The loop reads one element of the stack and writes the next."""
    graph, _ = network()
    program = fg.compile(outputs=graph.outputs[:3], device="cpu")
    (loop,) = [call for call in program.calls if isinstance(call, LoopCall)]
    assert [call.kernel.name for call in kernel_calls([loop])] == ["mul_add_add_bias_tanh_kernel"]
    assert program.plan.places[loop.outputs[1]].of is program.plan.places[loop.outputs[0]].of


def test_a_sum_over_turns_is_made_in_place() -> None:
    x, w = fg.input("x", ("t", "batch", 3)), fg.parameter("w", (3, 3), np.eye(3))
    total, _ = fg.scan(lambda s, x: (s + fg.transpose(x) @ x, None), w * 0.0, x)
    program = fg.compile(outputs=total, device="cpu")
    data = rng.normal(size=(6, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(program(x=data)[0], np.einsum("tbi,tbj->ij", data, data), rtol=1e-5)
    (slot,) = [t for call in program.plan.calls for t in call.inputs if t.label == "s"]
    assert not program.plan.places[slot].steps


def test_a_loop_may_begin_with_the_parameter_that_its_end_updates() -> None:
    x, state = fg.input("x", ("t", 3)), fg.parameter("state", (3,), np.ones(3))
    last, _ = fg.scan(lambda h, x: (fg.tanh(h + x), None), state, x)
    program = fg.compile(outputs=last * 2.0, updates={state: last}, device="cpu", check=True)
    data, h = rng.normal(size=(4, 3)).astype(np.float32), np.ones(3)
    for _ in range(2):
        (found,) = program(x=data)
        for row in data:
            h = np.tanh(h + row)
        np.testing.assert_allclose(state.value, h, rtol=1e-5)
        np.testing.assert_allclose(found, 2 * h, rtol=1e-5)


@each_path
def test_a_loop_may_begin_with_a_part_of_what_is_made_for_it(path: str) -> None:
    x = fg.input("x", ("t", 3))
    made = fg.exp(fg.input("y", (4, 3)))
    last, _ = fg.scan(lambda h, x: (fg.tanh(h + x), None), made[2], x)
    feeds = {x: rng.normal(size=(4, 3)).astype("f4"), made.node.inputs[0]: rng.normal(size=(4, 3)).astype("f4")}
    graph = Graph((last,))
    assert not Oracle(graph, feeds, {"t": 4}).mismatch(PATHS[path](graph, feeds, {"t": 4}))


# Randomness, anomalies, threads


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_draws_differ_from_turn_to_turn_and_dropout_is_the_same_in_the_gradient(device: str) -> None:
    x = fg.input("x", ("t", 4000))

    def step(carry: fg.Tensor, x: fg.Tensor) -> tuple[fg.Tensor, fg.Tensor]:
        thinned = fg.dropout(x, 0.5)
        return carry + fg.sum(thinned), thinned

    total, thinned = fg.scan(step, fg.constant(0.0), x)
    program = fg.compile(outputs=[thinned, fg.grad(total, x)], device=device)
    data = np.ones((3, 4000), np.float32)
    (first, gradient), (second, _) = program(x=data), program(x=data)
    np.testing.assert_array_equal(first, gradient)
    masks = [*first, *second]
    assert all(abs(m.mean() - 1) < 0.1 for m in masks)
    for k, mask in enumerate(masks):
        assert all(0.4 < np.mean(mask == other) < 0.6 for other in masks[:k])


@pytest.mark.parametrize("checkpoint", [1, 2, 3, 5])
def test_no_two_turns_of_a_loop_over_segments_or_of_nested_loops_draw_the_same(checkpoint: int) -> None:
    draws = fg.random.Generator(7)

    def turn(h: fg.Tensor, _: None) -> tuple[fg.Tensor, fg.Tensor]:
        return h, fg.random.uniform((3,), generator=draws)

    def loop(h: fg.Tensor, _: None) -> tuple[fg.Tensor, tuple[fg.Tensor, fg.Tensor]]:
        h, inner = fg.scan(turn, h, length=7, checkpoint=checkpoint)
        return h, (inner, fg.random.uniform((3,), generator=draws))

    _, (inner, outer) = fg.scan(loop, fg.constant(0.0), length=6, checkpoint=checkpoint)
    found = np.concatenate([a.ravel() for a in fg.compile(outputs=[inner, outer], device="cpu")()])
    assert len(np.unique(found)) == len(found) == 3 * 6 * 8


def test_inference_reaches_into_loops() -> None:
    x = fg.input("x", ("t", 40))
    total, _ = fg.scan(lambda s, x: (s + fg.dropout(x, 0.5), None), fg.constant(np.zeros(40, np.float32)), x)
    (found,) = fg.compile(outputs=fg.inference(total), device="cpu")(x=np.ones((3, 40), np.float32))
    assert (found == 3).all()


def test_a_nan_in_a_loop_is_traced_to_its_op_and_line() -> None:
    x = fg.input("x", ("t", 3))

    def step(h: fg.Tensor, x: fg.Tensor) -> tuple[fg.Tensor, None]:
        return h + fg.log(x), None  # the line

    last, _ = fg.scan(step, fg.constant(np.zeros(3, np.float32)), x)
    program = fg.compile(outputs=last, device="cpu", detect_anomaly=True)
    data = np.ones((5, 3), np.float32)
    program(x=data)
    data[2, 1] = -1.0
    with pytest.raises(fg.errors.NumericsError, match=r"(?s)log made .*nan.*test_scan\.py.*the line"):
        program(x=data)
    data[2, 1] = np.nan
    with pytest.raises(fg.errors.NumericsError, match=r"the input 'x'\[2, 1\] is nan"):
        program(x=data)


def test_the_bits_do_not_depend_on_the_number_of_threads() -> None:
    graph, feeds = network(rows=40)
    data = {t.op.label: a for t, a in feeds.items()}
    results = [
        fg.compile(outputs=graph.outputs, device="cpu", threads=threads).run(3, data) for threads in (1, 2, 4)
    ]
    for found in results[1:]:
        for a, b in zip(results[0], found, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_trainer_trains_a_loop() -> None:
    """The sum of a sequence of bits, modulo two, from its last state."""
    x, y = fg.input("x", ("batch", 6)), fg.input("y", ("batch",), "int32")
    step, _ = cell()
    inputs = fg.transpose(fg.broadcast_to(fg.expand_dims(x, 2), ("batch", 6, 5)), (1, 0, 2))
    last, _ = fg.scan(step, fg.broadcast_to(fg.constant(0.0), ("batch", 7)), inputs)
    out = fg.parameter("out", (7, 2), fg.init.glorot_uniform())
    trainer = fg.Trainer(fg.mean(fg.cross_ent_of_softmax(last @ out, y)), fg.optim.Adam(0.01), device="cpu", seed=3)
    bits = (np.arange(64)[:, None] >> np.arange(6)) & 1
    data = {"x": (2.0 * bits - 1).astype(np.float32), "y": (bits.sum(1) % 2).astype(np.int32)}
    history = trainer.fit(data, epochs=150, batch_size=16, progress=False)
    assert history[-1]["loss"] < 0.2 < 0.6 < history[0]["loss"]


# Turns and barriers


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_barriers_separate_every_conflict_of_all_turns(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 6))
    first = data.draw(st.integers(0, count - 1))
    stop = data.draw(st.integers(first + 1, count))
    loops_ = [Turning(first, stop, data.draw(st.integers(0, 9)))]
    if stop - first > 1 and data.draw(st.booleans()):
        loops_.append(Turning(first + 1, stop, data.draw(st.integers(0, 3))))

    def span(number: int) -> Span:
        around = [k for k, loop in enumerate(loops_) if loop.first <= number < loop.stop]
        start, size = data.draw(st.integers(0, 60)), data.draw(st.integers(1, 9))
        steps = tuple((k, data.draw(st.integers(-9, 9)), data.draw(st.booleans())) for k in around)
        return Span("arena", start, start + size, steps)

    launches = [
        Access((span(k),), (span(k),), data.draw(st.sampled_from((1, 2, 2, 2)))) for k in range(count)
    ]
    barriers = place_barriers(launches, loops_)
    verify_barriers(launches, barriers, loops_)
    since: list[Access] = []
    for number, at in in_turn(count, loops_):  # all turns, one by one
        launch = launches[number].at(at)
        if barriers[number]:
            since.clear()
        assert not any(launch.conflicts(other) for other in since)
        since.append(launch)


# What is said of wrong loops


def test_a_carry_of_another_type_is_named() -> None:
    x = fg.input("x", ("t", 3))
    with pytest.raises(ShapeError, match=r"carry 0 of a scan begins as float32\(3,\), and a turn makes it float32\(\)"):
        fg.scan(lambda h, x: (fg.sum(h + x), None), fg.constant(np.zeros(3, np.float32)), x)
    with pytest.raises(DTypeError, match="carry 0 of a scan begins as int32"):
        fg.scan(lambda h, x: (fg.cast(h, "float32"), None), fg.constant(0), x)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda x: fg.scan(lambda h, x: h, x[0], x), GraphError, "returns a pair"),
        (lambda x: fg.scan(lambda h, x: ((h, h), None), x[0], x), GraphError, r"structure \(\*, \*\), expected \*"),
        (lambda x: fg.scan(lambda h, x: (h, None), x[0]), GraphError, "needs xs, or length="),
        (lambda x: fg.scan(lambda h, x: (h, None), x[0], fg.sum(x)), ShapeError, "is a scalar"),
        (lambda x: fg.scan(lambda h, x: (h, None), x[0], (x, x[1:])), ShapeError, "one length"),
        (lambda x: fg.scan(lambda h, x: (h, None), x[0], x, length=4), ShapeError, "one length"),
        (lambda x: fg.scan(lambda h, x: (h, None), x[0], x, checkpoint=0), InputError, "at least 1, got 0"),
        (lambda x: fg.scan(lambda h, x: (h, x + "a"), x[0], x), GraphError, "takes tensors"),
    ],
)
def test_wrong_loops_are_refused(call: Callable[[fg.Tensor], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text) as caught:
        call(fg.input("x", ("t", 3)))
    assert "test_scan.py" in str(caught.value)


# Taken out of loops


def lstm(hidden: int = 6, only_last: bool = False, **how: Any) -> tuple[list[fg.Tensor], fg.Tensor, list[fg.Tensor]]:
    """x, the states or the last one, and the weights by the input, by the state, and the bias."""
    x = fg.input("x", ("time", "batch", 5))
    wx, wh = (fg.parameter(n, (k, 4 * hidden), fg.init.normal(0.3)) for n, k in (("wx", 5), ("wh", hidden)))
    b = fg.parameter("b", (4 * hidden,), fg.init.normal(0.3))

    def step(carry: Any, x: fg.Tensor) -> Any:
        h, c = carry
        i, f, o, g = fg.split(fg.add_bias(x @ wx + h @ wh, b), 4, axis=1)
        c = fg.logistic(f) * c + fg.logistic(i) * fg.tanh(g)
        h = fg.logistic(o) * fg.tanh(c)
        return (h, c), h

    zero = fg.broadcast_to(fg.constant(0.0), ("batch", hidden))
    (last, _), states = fg.scan(step, (zero, zero), x, **how)
    return [x], last if only_last else states, [wx, wh, b]


def products(graph: Graph) -> int:
    return sum(n.op.name in ("mul", "einsum") for n in graph.nodes())


def test_an_lstm_multiplies_its_whole_input_and_all_its_weights_gradients_at_once() -> None:
    _, states, weights = lstm()
    cost = fg.sum(states * states)
    graph = fg.compile(outputs=[cost, *fg.grad(cost, weights)], device="reference", check=True).graph
    forward, backward = sorted(loops(graph), key=lambda op: op.reverse)
    assert products(forward.inner.graph) == 1, "the state by its weights"
    assert products(backward.inner.graph) == 1, "the gradient by the same weights"
    assert products(graph) == 3, "the input by its weights; and two gradients of weights"
    assert len(backward.inner.carries) == 2, "nothing is summed turn by turn"
    assert "add_bias" in {n.op.name for n in forward.inner.graph.nodes()}


def test_a_product_that_no_turn_reads_is_made_after_the_loop() -> None:
    x = fg.input("x", ("time", "batch", 5))
    w, out = fg.parameter("w", (5, 5), np.eye(5)), fg.parameter("out", (5, 3), np.ones((5, 3)))

    def step(h: fg.Tensor, x: fg.Tensor) -> Any:
        h = fg.tanh(x + h @ w)
        return h, fg.tanh(h @ out)

    last, y = fg.scan(step, fg.broadcast_to(fg.constant(0.0), ("batch", 5)), x)
    graph = fg.compile(outputs=[last, y], device="reference").graph
    (loop,) = loops(graph)
    assert (products(loop.inner.graph), products(graph)) == (1, 1)
    assert loop.inner.emits == loop.inner.nexts


def test_a_lookup_in_a_loop_is_one_lookup_and_its_gradient_one_scatter() -> None:
    ids, table = fg.input("ids", ("time", "batch"), "int32"), fg.parameter("table", (50, 4), fg.init.normal(1.0))

    def step(h: fg.Tensor, row: fg.Tensor) -> Any:
        return fg.tanh(h + fg.gather(table, row)), None

    last, _ = fg.scan(step, fg.broadcast_to(fg.constant(0.0), ("batch", 4)), ids)
    update = table - 0.1 * fg.grad(fg.sum(last * last), table)
    program = fg.compile(updates={table: update}, device="cpu", check=True)
    assert not {n.op.name for op in loops(program.graph) for n in op.inner.graph.nodes()} & {"gather", "scatter_add"}
    assert [p.label for p, _ in program.plan.in_place] == ["table"]
    with pytest.raises(InputError, match=r"ids\[1, 2\] = 50 is out of range: gather takes integers from 0 to 49"):
        program(ids=np.array([[1, 2, 3], [4, 5, 50]], np.int32))


def test_checkpoints_take_a_tenth_of_the_memory() -> None:
    """The gradient of the last state of an LSTM, 1,000 turns: and no bit is another."""
    fed = np.random.default_rng(0).normal(size=(1000, 8, 5)).astype(np.float32)

    def run(**how: Any) -> tuple[int, list[np.ndarray]]:
        _, last, weights = lstm(32, only_last=True, **how)
        for k, w in enumerate(weights):
            w.value = np.random.default_rng(k).normal(0, 0.2, w.shape).astype(np.float32)
        cost = fg.sum(last)
        program = fg.compile(outputs=[cost, *fg.grad(cost, weights)], device="cpu")
        arena = program.memory({"time": 1000, "batch": 8}).arena
        assert arena is not None
        return arena, program(x=fed)

    (everything, one), (little, other) = run(), run(checkpoint=32)
    assert little <= everything / 10
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("time", "batch"), [(80, 16), (83, 32)])
def test_checkpoints_change_no_bit(reverse: bool, time: int, batch: int) -> None:
    """Of the states and all gradients, where segments end with panels of the products: every 256 rows."""
    random = np.random.default_rng(0)
    fed = random.normal(size=(time, batch, 5)).astype(np.float32)

    def results(**how: Any) -> list[np.ndarray]:
        (x,), states, weights = lstm(32, reverse=reverse, **how)
        for k, w in enumerate(weights):
            w.value = np.random.default_rng(k).normal(size=w.shape).astype(np.float32) * 0.2
        cost = fg.mean(states[0 if reverse else -1])
        return fg.compile(outputs=[cost, states, *fg.grad(cost, [x, *weights])], device="cpu")(x=fed)

    for one, other in zip(results(), results(checkpoint=16), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_segments_sum_goes_on_from_what_was_carried() -> None:
    """Gradients of weights, segment by segment: no addition after the product, and no zeros to begin with; what is left
    over, a loop of its own, is where the segments begin."""
    _, states, weights = lstm(checkpoint=4)
    cost = fg.mean(states[-1])
    graph = fg.compile(outputs=[cost, *fg.grad(cost, weights)], device="reference").graph
    segments = max((n for n in graph.nodes() if isinstance(n.op, Scan)), key=lambda n: len(n.op.inner.carries))
    body = segments.op.inner
    sums = [k for k, new in enumerate(body.nexts) if new.op.name == "accumulate"]
    assert len(sums) == 3
    for k in sums:
        assert body.nexts[k].node.inputs[0] is body.carries[k]
        assert segments.inputs[k].op.name in ("mul", "sum"), "the gradient of what is left over"


def test_a_sum_begins_with_no_users_value() -> None:
    """Which may be so large that no term would change it."""
    x = fg.input("x", ("time",))
    large = fg.parameter("large", (1000,), np.full(1000, 10.0))
    total, _ = fg.scan(lambda s, v: (s + 1e-3 * v, None), fg.constant(0.0), x, checkpoint=50)
    rows, _ = fg.scan(lambda s, v: (s + fg.sum(1e-3 * v * large), None), fg.constant(1e6), x)
    program = fg.compile(outputs=[fg.sum(large * large) + total, rows], device="cpu")
    first, second = program(x=np.full(10_000, 0.5, np.float32))
    assert abs(first - 100_005) < 0.01 and abs(second - 1_050_000) < 30


@pytest.mark.parametrize("how", [{}, {"checkpoint": 2}], ids=["plain", "checkpoint"])
def test_what_is_stacked_twice_given_or_carried_is_stacked(how: dict[str, int]) -> None:
    x, w = fg.input("x", (5, 3, 3)), fg.parameter("w", (3, 3), 2 * np.eye(3, dtype=np.float32))

    def step(h: fg.Tensor, e: fg.Tensor) -> Any:
        n = fg.tanh(h + e)
        return n, (n, n, fg.tanh(h + e), w, n @ w, h, e)

    _, stacks = fg.scan(step, fg.constant(np.zeros((3, 3), np.float32)), x, **how)
    fed = np.random.default_rng(0).normal(size=(5, 3, 3)).astype(np.float32)
    n, same, equal, given, product, carried, element = fg.compile(outputs=list(stacks), device="cpu")(x=fed)
    expected = [np.zeros((3, 3), np.float32)]
    for e in fed:
        expected.append(np.tanh(expected[-1] + e))
    for found in (n, same, equal):
        np.testing.assert_allclose(found, expected[1:], rtol=1e-5)
    np.testing.assert_allclose(carried, expected[:-1], rtol=1e-5)
    np.testing.assert_array_equal(element, fed)
    np.testing.assert_array_equal(given, np.broadcast_to(w.value, (5, 3, 3)))
    np.testing.assert_allclose(product, 2 * np.array(expected[1:]), rtol=1e-5)


def test_gradients_are_by_tensors_not_by_values_that_loops_make_twice() -> None:
    x = fg.input("x", (4, 3))
    _, (one, same, element) = fg.scan(lambda h, e: (h, (fg.tanh(e), fg.tanh(e), e)), fg.constant(0.0), x)
    cost = fg.sum(one * 2.0) + fg.sum(x * 3.0) + fg.sum(element * 5.0)
    found = fg.compile(outputs=fg.grad(cost, [one, same, element]), device="cpu")()
    assert [np.unique(g).tolist() for g in found] == [[2.0], [0.0], [5.0]]


def test_a_sum_of_nothing_that_is_stacked_needs_no_stack() -> None:
    """Numbers drawn and added up in each turn: one turn's memory, however many turns."""
    total, _ = fg.scan(lambda s, _: (s + fg.sum(fg.random.normal((1000,))), None), fg.constant(0.0), length="turns")
    arena = fg.compile(outputs=[total], device="cpu").memory({"turns": 10_000}).arena
    assert arena is not None and arena < 500_000


@pytest.mark.parametrize("terms", [3, 256, 300])
@pytest.mark.parametrize("columns", [5, 48])
@pytest.mark.parametrize("path", ["cpu", "cuda"])
def test_a_sum_may_begin_with_a_value(path: str, columns: int, terms: int) -> None:
    """Of products and of elements, on tiles and loops; with other uses of the sum it is an addition."""
    x, y = fg.input("x", (terms, 20)), fg.input("y", (terms, columns))
    begin, row = fg.input("begin", (20, columns)), fg.input("row", (columns,))
    product, total = fg.transpose(x) @ y, fg.sum(y, axis=0)
    outputs = [Accumulate()(begin, product), Accumulate()(row, total), Accumulate()(row, fg.max(total * y[:1], axis=0))]
    outputs += [fg.tanh(total)] if terms == 3 else []
    random = np.random.default_rng(terms + columns)
    feeds = {t: random.normal(size=t.shape).astype(np.float32) for t in (x, y, begin, row)}
    graph = Graph(tuple(outputs))
    assert not Oracle(graph, feeds, {}).mismatch(PATHS[path](graph, feeds, {}))


@pytest.mark.parametrize("columns", [5, 48])
def test_two_sums_one_after_the_other_are_one(columns: int) -> None:
    random = np.random.default_rng(columns)
    x, y = (random.normal(size=(1024, n)).astype(np.float32) for n in (40, columns))

    def product(rows: int) -> tuple[fg.Tensor, fg.Tensor]:
        x, y = fg.input("x", (rows, 40)), fg.input("y", (rows, columns))
        return fg.transpose(x) @ y, fg.sum(fg.reshape(y, (rows // 64, 64, columns)), axis=(0, 1))

    def going_on(rows: int) -> fg.Program:
        first = fg.input("product", (40, columns)), fg.input("sum", (columns,))
        return fg.compile(
            outputs=[Accumulate()(a, b) for a, b in zip(first, product(rows), strict=True)], device="cpu"
        )

    whole = fg.compile(outputs=product(1024), device="cpu")(x=x, y=y)
    made = fg.compile(outputs=product(256), device="cpu")(x=x[:256], y=y[:256])
    made = going_on(512)(x=x[256:768], y=y[256:768], product=made[0], sum=made[1])
    made = going_on(256)(x=x[768:], y=y[768:], product=made[0], sum=made[1])
    for one, other in zip(whole, made, strict=True):
        np.testing.assert_array_equal(one, other)


@each_path
@pytest.mark.parametrize("how", [{}, {"checkpoint": 3}], ids=["all", "checkpoints"])
def test_every_path_computes_an_lstm(path: str, how: dict[str, Any]) -> None:
    (x,), states, weights = lstm(**how)
    cost = fg.sum(states * states)
    graph = Graph((cost, states, *fg.grad(cost, [*weights, x])))
    feeds, sizes = {x: rng.normal(size=(7, 3, 5)).astype("f4")}, {"time": 7, "batch": 3}
    assert not Oracle(graph, feeds, sizes).mismatch(PATHS[path](graph, feeds, sizes))
