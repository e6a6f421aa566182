"""Recurrent layers: a cell's weights, and a loop of it along the time axis of a batch.

All take x (batch, time, inputs) and give the states of all times (batch, time, hidden) and the last one. Sequences of
unequal length are padded at their ends: `lengths` (batch,) says how long each is. A state beyond a sequence's end is 0,
and the last state is that of the sequence's last element, in reverse that of its first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from flowgraph.errors import GraphError, ShapeError, shown
from flowgraph.graph import origin as origins
from flowgraph.graph.origin import scope
from flowgraph.graph.size import show_shape
from flowgraph.graph.tensor import Tensor
from flowgraph.nn.init import glorot_uniform, orthogonal
from flowgraph.nn.layers import Layer, one_tensor
from flowgraph.ops.bounds import Lengths
from flowgraph.ops.contraction import add_bias, mul
from flowgraph.ops.elementwise import add, less, multiply, subtract, where
from flowgraph.ops.functions import logistic, tanh
from flowgraph.ops.leaf import Initializer, arange, constant, parameter, require_initializer
from flowgraph.ops.pieces import concatenate
from flowgraph.ops.scan import scan
from flowgraph.ops.shape import broadcast_to, expand_dims, transpose
from flowgraph.ops.slicing import split

State = tuple[Tensor, ...]


class Recurrent(Layer):
    """What recurrent layers share: the weights of a cell and its loop. A cell is `states` values of (batch, hidden),
    the first of which is its output, and a turn: from x·w_x + b (batch, gates · hidden) and the state to the next.

    w_x is (inputs, gates · hidden), w_h (hidden, gates · hidden), b (gates · hidden,), the gates side by side; w_x is
    drawn by `init` for each gate (Glorot's uniform by default), w_h orthogonal for each (Saxe and others 2014).
    """

    gates = 1
    states = 1

    def __init__(
        self,
        name: str,
        inputs: int,
        hidden: int,
        *,
        init: Initializer | None = None,
        recurrent_init: Initializer | None = None,
        dtype: str = "float32",
    ) -> None:
        self.name, self.inputs, self.hidden = name, inputs, hidden
        with scope(name):
            width = self.gates * hidden
            self.w_x = parameter("w_x", (inputs, width), side_by_side(self.gates, init or glorot_uniform()), dtype)
            recurrent = side_by_side(self.gates, recurrent_init or orthogonal())
            self.w_h = parameter("w_h", (hidden, width), recurrent, dtype)
            self.b = parameter("b", (width,), self._bias(), dtype)

    @property
    def parameters(self) -> list[Tensor]:
        return [self.w_x, self.w_h, self.b]

    def _bias(self) -> np.ndarray:
        return np.zeros(self.gates * self.hidden)

    def turn(self, z: Tensor, state: State) -> State:
        """The next state, from x·w_x + b and the state."""
        raise NotImplementedError(type(self).__name__)

    def step(self, x: Tensor, state: State) -> State:
        """One turn by itself: from x (batch, inputs) and the state, tensors (batch, hidden), to the next state.

        For a loop of one's own, whose input depends on the last output, as in sampling.
        """
        with scope(self.name):
            return self.turn(add_bias(mul(x, self.w_x), self.b), state)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {self.inputs} to {self.hidden}>"

    def _require_fit(self, x: Tensor, lengths: Any, state: Any) -> None:
        """ShapeError or GraphError for what the layer cannot be called with."""
        what = f"{type(self).__name__} {self.name!r}"
        if x.rank != 3 or x.shape[2] != self.inputs:
            hint = "time is the middle axis; fg.expand_dims adds one"
            if x.rank == 3:
                made = f'fg.nn.{type(self).__name__}("{self.name}", {self.inputs}, {self.hidden})'
                hint = f"{made} reads vectors of {self.inputs} and has {self.hidden} outputs"
            problem = f"{what} takes (batch, time, {self.inputs}), got {show_shape(x.shape)}"
            raise ShapeError(problem, where=origins.here(), hint=hint)
        if lengths is not None and not isinstance(lengths, Tensor):
            hint = 'fg.input("lengths", ("batch",), "int32"), fed with the data'
            raise GraphError(f"{what} takes lengths as a tensor, got {shown(lengths)}", where=origins.here(), hint=hint)
        if state is not None:
            fits = isinstance(state, (tuple, list)) and len(state) == self.states
            if not fits or not all(isinstance(t, Tensor) and t.rank == 2 and t.shape[1] == self.hidden for t in state):
                wanted = ", ".join([f"(batch, {self.hidden})"] * self.states)
                problem = f"{what} takes a state that is a tuple of {self.states}: {wanted}; got {shown(state)}"
                raise ShapeError(problem, where=origins.here())

    def __call__(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        *,
        state: State | None = None,
        reverse: bool = False,
        checkpoint: int | None = None,
    ) -> tuple[Tensor, State]:
        """The outputs of all times, (batch, time, hidden), and the last state, a tuple of (batch, hidden): (h,) of an
        RNN and a GRU, (h, c) of an LSTM.

        Beyond the end of a sequence, outputs are zeros, and the last state is that of its end: of a sentence use
        that, not `outputs[:, -1]`. `state` is what to begin with instead of zeros; `reverse` goes from the last element
        to the first; for `checkpoint` see `fg.scan`. Raises ShapeError for an x of another rank or width, or for
        another state; InputError, when data are fed, for a length of 0 or beyond the time axis.
        """
        x = one_tensor(self, x)
        self._require_fit(x, lengths, state)
        batch, time = x.shape[:2]
        with scope(self.name):
            nothing = tuple(_zeros((batch, self.hidden), x.dtype.name) for _ in range(self.states))
            begin = nothing if state is None else state
            turns = transpose(x, (1, 0, 2))
            if lengths is None:
                place = None
            else:
                lengths = Lengths(time)(lengths)
                place = arange(time, lengths.dtype)

            def turn(old: State, parts: tuple[Tensor, Tensor | None]) -> tuple[State, Tensor]:
                x, now = parts
                new = self.turn(add_bias(mul(x, self.w_x), self.b), old)
                if now is None or lengths is None:
                    return new, new[0]
                going_on = broadcast_to(expand_dims(less(now, lengths), 1), new[0].shape)
                kept = tuple(where(going_on, a, b) for a, b in zip(new, old, strict=True))
                return kept, where(going_on, new[0], 0.0)

            last, every = scan(turn, begin, (turns, place), reverse=reverse, checkpoint=checkpoint)
            return transpose(every, (1, 0, 2)), last


class RNN(Recurrent):
    """The network of the 1980s (Elman 1990): h' = tanh(x·w_x + h·w_h + b). Another `activation` may be given.

    >>> import flowgraph as fg
    >>> outputs, (last,) = fg.nn.RNN("rnn", 8, 16)(fg.input("x", ("batch", "time", 8)))
    >>> outputs
    <Tensor transpose: float32(batch, time, 16)>
    """

    def __init__(
        self, name: str, inputs: int, hidden: int, activation: Callable[[Tensor], Tensor] = tanh, **how: Any
    ) -> None:
        super().__init__(name, inputs, hidden, **how)
        self.activation = activation

    def turn(self, z: Tensor, state: State) -> State:
        (h,) = state
        return (self.activation(add(z, mul(h, self.w_h))),)


class LSTM(Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber 1997; Gers and others 2000), as the lecture has it:

        (1)  f, i, o = logistic(x·w_x + h·w_h + b), the gates; g = tanh(of the same), the candidate
        (2)  c' = f·c + i·g
        (3)  h' = o·tanh(c')

    The state is (h, c). Gates lie as f, i, o, g. The bias of f begins at `forget_bias`, so that a new cell remembers
    (Jozefowicz and others 2015).

    >>> import flowgraph as fg
    >>> outputs, (h, c) = fg.nn.LSTM("lstm", 8, 16)(fg.input("x", ("batch", "time", 8)))
    >>> h.shape
    (batch, 16)
    """

    gates, states = 4, 2

    def __init__(self, name: str, inputs: int, hidden: int, *, forget_bias: float = 1.0, **how: Any) -> None:
        self.forget_bias = forget_bias
        super().__init__(name, inputs, hidden, **how)

    def _bias(self) -> np.ndarray:
        return np.repeat([self.forget_bias, 0.0, 0.0, 0.0], self.hidden)

    def turn(self, z: Tensor, state: State) -> State:
        h, c = state
        forget, take, show, candidate = split(add(z, mul(h, self.w_h)), self.gates, axis=1)
        c = add(multiply(logistic(forget), c), multiply(logistic(take), tanh(candidate)))
        return multiply(logistic(show), tanh(c)), c


class GRU(Recurrent):
    """The gated recurrent unit (Cho and others 2014):

        r, u = logistic(x·w_x + h·w_h + b);  n = tanh(x·w_x + b + r·(h·w_h));  h' = (1 - u)·n + u·h

    Gates lie as r, u, n. The reset is applied after the product, as in cuDNN and PyTorch, with one bias. The state is
    (h,), a tuple of one.

    >>> import flowgraph as fg
    >>> outputs, (h,) = fg.nn.GRU("gru", 8, 16)(fg.input("x", ("batch", "time", 8)))
    >>> h.shape
    (batch, 16)
    """

    gates = 3

    def turn(self, z: Tensor, state: State) -> State:
        (h,) = state
        by_x, by_h = split(z, 3, axis=1), split(mul(h, self.w_h), 3, axis=1)
        reset, keep = (logistic(add(a, b)) for a, b in zip(by_x[:2], by_h[:2], strict=True))
        new = tanh(add(by_x[2], multiply(reset, by_h[2])))
        return (add(multiply(subtract(1.0, keep), new), multiply(keep, h)),)


class Bidirectional(Layer):
    """Two recurrent layers over the same sequence, one in reverse; their outputs side by side.

    >>> import flowgraph as fg
    >>> outputs, _ = fg.nn.BiLSTM("tagger", 8, 16)(fg.input("x", ("batch", "time", 8)))
    >>> outputs.shape
    (batch, time, 32)
    """

    def __init__(self, name: str, forward: Recurrent, backward: Recurrent) -> None:
        self.name, self.forward, self.backward = name, forward, backward

    @property
    def parameters(self) -> list[Tensor]:
        return [*self.forward.parameters, *self.backward.parameters]

    def __call__(
        self, x: Tensor, lengths: Tensor | None = None, *, checkpoint: int | None = None
    ) -> tuple[Tensor, tuple[State, State]]:
        """The outputs of all times (batch, time, 2 · hidden), and the last states of both layers: the one in reverse
        ends at the first element."""
        with scope(self.name):
            ahead, last = self.forward(x, lengths, checkpoint=checkpoint)
            back, first = self.backward(x, lengths, reverse=True, checkpoint=checkpoint)
            return concatenate([ahead, back], axis=2), (last, first)


class BiLSTM(Bidirectional):
    """An LSTM in each direction (Graves and Schmidhuber 2005), `hidden` wide each."""

    def __init__(self, name: str, inputs: int, hidden: int, **how: Any) -> None:
        with scope(name):
            forward, backward = (LSTM(direction, inputs, hidden, **how) for direction in ("forward", "backward"))
        super().__init__(name, forward, backward)


def side_by_side(count: int, init: Initializer) -> Initializer:
    """An initialiser of matrices that lie side by side, each drawn by itself."""
    require_initializer("w", init)

    def draw(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
        one = (*shape[:-1], shape[-1] // count)
        return np.concatenate([init(one, generator) for _ in range(count)], axis=-1)

    return draw


def _zeros(shape: Sequence[Any], dtype: str) -> Tensor:
    return broadcast_to(constant(0.0, dtype), shape)
