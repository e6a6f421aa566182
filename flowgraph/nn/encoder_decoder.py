"""Sequence to sequence: an encoder reads one sequence, a decoder writes another, with or without attention to what was
read.

In training the decoder is given the true sequence, an element behind (teacher forcing). In use it is given what it
wrote: a loop whose next input is chosen from its last output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flowgraph.errors import GraphError, InputError, ShapeError, shown
from flowgraph.graph import origin as origins
from flowgraph.graph.origin import scope
from flowgraph.graph.tensor import Tensor
from flowgraph.nn.attention import Attention
from flowgraph.nn.init import glorot_uniform
from flowgraph.nn.layers import Dense, Embedding, Layer
from flowgraph.nn.recurrent import LSTM, BiLSTM, State, side_by_side
from flowgraph.ops.classification import log_softmax
from flowgraph.ops.contraction import add_bias, mul
from flowgraph.ops.einsum import matmul
from flowgraph.ops.elementwise import add, cast, divide, equal, multiply, not_equal, where
from flowgraph.ops.functions import power, tanh
from flowgraph.ops.indexing import gather, take_along_axis
from flowgraph.ops.leaf import arange, constant, parameter
from flowgraph.ops.logic import floor_divide, remainder
from flowgraph.ops.pieces import concatenate
from flowgraph.ops.piecewise import minimum
from flowgraph.ops.random import dropout
from flowgraph.ops.reduce import sum as sum_
from flowgraph.ops.scan import scan
from flowgraph.ops.shape import broadcast_to, expand_dims, reshape, squeeze, transpose
from flowgraph.ops.sorting import top_k
from flowgraph.ops.statistics import argmax

IMPOSSIBLE = -1e30  # the logarithm of no chance, without infinities


@dataclass(frozen=True)
class Read:
    """What an encoder made of sources: `states` (batch, time, width), `lengths` (batch,), and what a decoder begins
    with: `state` and `attended`, each (batch, hidden)."""

    states: Tensor
    lengths: Tensor
    state: State
    attended: Tensor


class EncoderDecoder(Layer):
    """An LSTM in each direction reads the source, an LSTM writes the target (Sutskever, Vinyals and Le 2014):

        (1)  s_1 ... s_n and the last states = BiLSTM(source)
        (2)  h_0 = tanh(last h · w), c_0 = tanh(last c · w)
        (3)  h_t = LSTM(word_{t-1}, a_{t-1}, h_{t-1})
        (4)  a_t = tanh([h_t, context_t] · w), where context_t = attention(h_t; s_1 ... s_n)
        (5)  logits_t = a_t · w + b

    a_t is fed back (Luong, Pham and Manning 2015, "input feeding"). `attention` is a score of `Attention`; with None,
    a_t = h_t, and all that the decoder knows of the source is the state that it begins with. `encoder` is "bilstm" or
    "lstm". Words are numbers; `size` is the width of their embeddings, which `dropout` thins, as it does a_t.

    >>> import flowgraph as fg
    >>> model = fg.nn.EncoderDecoder("translate", 5000, 6000, 64, 128)
    >>> source, target = (fg.input(n, ("batch", f"{n}_time"), "int32") for n in ("source", "target"))
    >>> lengths = fg.input("lengths", ("batch",), "int32")
    >>> model(source, lengths, target).shape
    (batch, target_time, 6000)
    """

    def __init__(
        self,
        name: str,
        source_words: int,
        target_words: int,
        size: int,
        hidden: int,
        *,
        encoder: str = "bilstm",
        attention: str | None = "additive",
        dropout: float = 0.0,
        dtype: str = "float32",
    ) -> None:
        layers = {"lstm": (LSTM, 1), "bilstm": (BiLSTM, 2)}
        if encoder not in layers:
            problem = f"an encoder is 'lstm' or 'bilstm', got {shown(encoder)}"
            raise GraphError(problem, where=origins.here())
        self.name, self.hidden, self.dropout, self.words = name, hidden, dropout, target_words
        with scope(name):
            layer, directions = layers[encoder]
            width = directions * hidden
            self.attention: Attention | None = None
            self.w_a: Tensor | None = None
            self.source = Embedding("source", source_words, size, dtype=dtype)
            self.target = Embedding("target", target_words, size, dtype=dtype)
            self.encoder = layer("encoder", size, hidden, dtype=dtype)
            self.bridges = [Dense(f"bridge_{part}", width, hidden, tanh, dtype=dtype) for part in "hc"]
            self.decoder = LSTM("decoder", size, hidden, dtype=dtype)
            self.parts: list[Any] = [self.source, self.target, self.encoder, *self.bridges, self.decoder]
            if attention is not None:
                inner = hidden if attention == "additive" else None
                self.attention = Attention("attention", hidden, width, inner, attention, dtype=dtype)
                self.combine = Dense("combine", hidden + width, hidden, tanh, dtype=dtype)
                self.w_a = parameter("w_a", (hidden, 4 * hidden), side_by_side(4, glorot_uniform()), dtype)
                self.parts += [self.attention, self.combine]
            self.output = Dense("output", hidden, target_words, dtype=dtype)
            self.parts.append(self.output)

    @property
    def parameters(self) -> list[Tensor]:
        return [p for part in self.parts for p in part.parameters] + ([] if self.w_a is None else [self.w_a])

    def __call__(self, source: Tensor, lengths: Tensor, target: Tensor) -> Tensor:
        """Logits (batch, target time, target words): at each place those of the word after it.

        source (batch, source time) and target (batch, target time) are numbers of words, the target from the symbol of
        its beginning on; lengths (batch,) are the source's. The cost is
        `fg.nn.sequence_cross_ent(logits, next_words, target_lengths)`.
        """
        _require_rank(self.name, "target", target, 2)
        with scope(self.name):
            read = self.read(source, lengths)
            words = transpose(dropout(self.target(target), self.dropout), (1, 0, 2))

            def step(carry: tuple[State, Tensor], word: Tensor) -> tuple[tuple[State, Tensor], Tensor]:
                state, attended, _ = self.turn(read, word, *carry)
                return (state, attended), attended

            _, every = scan(step, (read.state, read.attended), words)
            every = dropout(transpose(every, (1, 0, 2)), self.dropout)
            assert self.output.b is not None
            return add_bias(matmul(every, self.output.w), self.output.b)

    def read(self, source: Tensor, lengths: Tensor) -> Read:
        """What the encoder makes of sources."""
        _require_rank(self.name, "source", source, 2)
        with scope(self.name):
            states, last = self.encoder(dropout(self.source(source), self.dropout), lengths)
            both = last if isinstance(self.encoder, BiLSTM) else (last,)
            h, c = (
                bridge(concatenate(parts, axis=1) if len(parts) > 1 else parts[0])
                for bridge, parts in zip(self.bridges, zip(*both, strict=True), strict=True)
            )
            return Read(states, lengths, (h, c), broadcast_to(constant(0.0, h.dtype), h.shape))

    def turn(self, read: Read, word: Tensor, state: State, attended: Tensor) -> tuple[State, Tensor, Tensor | None]:
        """The next state, a_t and the weights of attention (batch, source time), from the last word's vector."""
        z = add_bias(mul(word, self.decoder.w_x), self.decoder.b)
        if self.attention is None or self.w_a is None:
            state = self.decoder.turn(z, state)
            return state, state[0], None
        state = self.decoder.turn(add(z, mul(attended, self.w_a)), state)
        context, weights = self.attention(state[0], read.states, lengths=read.lengths)
        return state, self.combine(concatenate([state[0], context], axis=1)), weights

    def greedy(
        self, source: Tensor, lengths: Tensor, *, begin: int, end: int, most: int
    ) -> tuple[Tensor, Tensor | None]:
        """(words int32 (batch, most), weights (batch, most, source time) or None): the likeliest word at each turn.

        `begin` and `end` are the numbers of the symbols that stand before and after a target; what follows the end is
        `end`, too. Weights are those of attention.
        """
        self._check(begin, end, most)
        with scope(self.name):
            read = self.read(source, lengths)
            first = broadcast_to(constant(begin, "int32"), read.states.shape[:1])

            def step(carry: Any, nothing: None) -> tuple[Any, Any]:
                word, state, attended = carry
                state, attended, weights = self.turn(read, self.target(word), state, attended)
                likeliest = cast(argmax(self.output(attended), axis=1), "int32")
                word = where(equal(word, end), word, likeliest)
                return (word, state, attended), (word, weights)

            _, (words, weights) = scan(step, (first, read.state, read.attended), length=most)
            return transpose(words), None if weights is None else transpose(weights, (1, 0, 2))

    def beam(
        self, source: Tensor, lengths: Tensor, *, begin: int, end: int, most: int, width: int = 4, penalty: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """(words int32 (batch, most), scores (batch,)): the best of `width` targets that are pursued side by side.

        The score is log p(target | source) / length^penalty, the length with its end; a penalty of 0 prefers short
        targets. Otherwise as `greedy`, which is a beam of width 1.
        """
        self._check(begin, end, most)
        if not 1 <= width <= self.words:
            raise InputError(f"a beam of width {width} over {self.words} words", where=origins.here())
        with scope(self.name):
            read = self.read(source, lengths)
            batch, words = read.states.shape[0], self.words

            def spread(x: Tensor) -> Tensor:
                """Each row `width` times."""
                wide = broadcast_to(expand_dims(x, 1), (batch, width, *x.shape[1:]))
                return reshape(wide, (batch * width, *x.shape[1:]))

            h, c = read.state
            wide = Read(spread(read.states), spread(read.lengths), (spread(h), spread(c)), spread(read.attended))
            dtype = read.states.dtype
            ended = where(equal(arange(words), end), constant(0.0, dtype), IMPOSSIBLE)  # after the end only the end

            def step(carry: Any, nothing: None) -> tuple[Any, Any]:
                last, totals, state, attended = carry
                vectors = self.target(reshape(last, (batch * width,)))
                state, attended, _ = self.turn(wide, vectors, state, attended)
                chances = reshape(log_softmax(self.output(attended)), (batch, width, words))
                chances = where(expand_dims(equal(last, end), 2), ended, chances)
                totals, places = top_k(reshape(add(expand_dims(totals, 2), chances), (batch, width * words)), width)
                parents, new = floor_divide(places, words), cast(remainder(places, words), "int32")
                rows = reshape(add(expand_dims(multiply(arange(batch), width), 1), parents), (batch * width,))
                state = tuple(gather(part, rows) for part in state)
                return (new, totals, state, gather(attended, rows)), (new, parents)

            first = broadcast_to(constant(begin, "int32"), (batch, width))
            alone = where(equal(arange(width), 0), constant(0.0, dtype), IMPOSSIBLE)  # equal at first: one counts
            carry = (first, broadcast_to(alone, (batch, width)), wide.state, wide.attended)
            (_, totals, _, _), (written, parents) = scan(step, carry, length=most)

            def back(place: Tensor, turn: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
                """What stood at these places of the beam, and where it came from."""
                words, parents = turn
                return take_along_axis(parents, place, 1), take_along_axis(words, place, 1)

            every = broadcast_to(arange(width), (batch, width))
            _, written = scan(back, every, (written, parents), reverse=True)
            written = transpose(written, (1, 2, 0))
            count = minimum(add(sum_(cast(not_equal(written, end), dtype), axis=2), 1.0), float(most))
            scores = divide(totals, power(count, penalty))
            best = expand_dims(argmax(scores, axis=1), 1)
            chosen = take_along_axis(written, broadcast_to(expand_dims(best, 2), (batch, 1, most)), 1)
            return squeeze(chosen, 1), squeeze(take_along_axis(scores, best, 1), 1)

    def _check(self, begin: int, end: int, most: int) -> None:
        for name, word in (("begin", begin), ("end", end)):
            if not 0 <= word < self.words:
                raise InputError(f"{name}={word} is none of {self.words} words", where=origins.here())
        if most < 1:
            raise InputError(f"at most {most} words leave nothing to write", where=origins.here())


def _require_rank(name: str, what: str, x: Tensor, rank: int) -> None:
    if x.rank != rank or x.dtype.kind != "int":
        raise ShapeError(
            f"{what} of {name!r} is {x.type}",
            where=origins.here(),
            hint="numbers of words, integers (batch, time)",
        )
