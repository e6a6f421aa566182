"""The encoder and decoder against the equations, written out in NumPy for one pair of sequences at a time."""

from __future__ import annotations

import numpy as np
import pytest

import flowgraph as fg
from flowgraph.errors import GraphError, InputError, ShapeError
from tests.support.gradients import assert_parameters_have_gradients
from tests.test_recurrent import lstm, written_out

rng = np.random.default_rng(0)
SOURCE = rng.integers(0, 11, (4, 6)).astype(np.int32)
LENGTHS = np.array([6, 3, 1, 5], np.int32)
TARGET = rng.integers(0, 9, (4, 5)).astype(np.int32)
BEGIN, END = 1, 2


def inputs() -> tuple[fg.Tensor, fg.Tensor, fg.Tensor]:
    source, target = (fg.input(name, ("batch", f"{name}_time"), "int32") for name in ("source", "target"))
    return source, fg.input("lengths", ("batch",), "int32"), target


def model(attention: str | None = "general", encoder: str = "bilstm", dtype: str = "float32") -> fg.nn.EncoderDecoder:
    made = fg.nn.EncoderDecoder("model", 11, 9, 5, 7, attention=attention, encoder=encoder, dtype=dtype)
    for seed, p in enumerate(made.parameters):  # larger than first weights: differences show
        p.value = np.random.default_rng(seed).normal(size=p.shape) * 0.7
    return made


class ByHand:
    """The decoder of one source, in NumPy."""

    def __init__(self, made: fg.nn.EncoderDecoder, source: np.ndarray) -> None:
        self.made = made
        words = made.source.w.value.astype("f8")[source][None]
        length = [len(source)]
        if isinstance(made.encoder, fg.nn.BiLSTM):
            ahead, last = written_out("LSTM", made.encoder.forward, words, length, False)
            back, first = written_out("LSTM", made.encoder.backward, words, length, True)
            self.states = np.concatenate([ahead, back], axis=2)[0]
            ends = [np.concatenate([a[0], b[0]]) for a, b in zip(last, first, strict=True)]
        else:
            outputs, last = written_out("LSTM", made.encoder, words, length, False)
            self.states, ends = outputs[0], [part[0] for part in last]
        self.begin = tuple(np.tanh(e @ b.w.value + b.b.value) for e, b in zip(ends, made.bridges, strict=True))

    def turn(self, word: int, state: tuple, attended: np.ndarray) -> tuple[tuple, np.ndarray, np.ndarray]:
        """The next state, what is fed back, and the logarithms of the chances of the next word."""
        made, cell = self.made, self.made.decoder
        x = made.target.w.value.astype("f8")[word]
        w_x, w_h, b = (p.value.astype("f8") for p in cell.parameters)
        if made.attention is None:
            state = lstm(x, w_x, w_h, b, state)
            attended = state[0]
        else:
            state = lstm(x, w_x, w_h, b + attended @ made.w_a.value, state)
            scores = self.states @ (state[0] @ made.attention.w.value)
            weights = np.exp(scores - scores.max())
            context = weights @ self.states / weights.sum()
            attended = np.tanh(np.concatenate([state[0], context]) @ made.combine.w.value + made.combine.b.value)
        logits = attended @ made.output.w.value + made.output.b.value
        return state, attended, logits - np.log(np.exp(logits).sum())

    def beam(self, width: int, most: int, penalty: float = 1.0) -> tuple[list[int], float]:
        """The best of `width` targets, each a list of words."""
        beam = [([BEGIN], 0.0, self.begin, np.zeros(7))]
        for _ in range(most):
            found = []
            for words, total, state, attended in beam:
                if words[-1] == END:
                    found.append(([*words, END], total, state, attended))
                    continue
                after, fed, chances = self.turn(words[-1], state, attended)
                found += [([*words, word], total + chance, after, fed) for word, chance in enumerate(chances)]
            beam = sorted(found, key=lambda entry: -entry[1])[:width]
        lengths = [min(sum(word != END for word in words[1:]) + 1, most) for words, *_ in beam]
        score, words = max((b[1] / length**penalty, b[0]) for b, length in zip(beam, lengths, strict=True))
        return words[1:], score


@pytest.mark.parametrize(("attention", "encoder"), [("general", "bilstm"), (None, "bilstm"), (None, "lstm")])
def test_logits_under_teacher_forcing_are_those_of_the_equations(attention: str | None, encoder: str) -> None:
    made = model(attention, encoder)
    logits = made(*inputs())
    device = "cpu" if attention else "reference"
    (found,) = fg.compile(outputs=logits, device=device)(source=SOURCE, lengths=LENGTHS, target=TARGET)
    for row, length in enumerate(LENGTHS):
        hand = ByHand(made, SOURCE[row, :length])
        state, attended = hand.begin, np.zeros(7)
        for step, word in enumerate(TARGET[row]):
            state, attended, chances = hand.turn(word, state, attended)
            ours = found[row, step].astype("f8")
            np.testing.assert_allclose(ours - np.log(np.exp(ours).sum()), chances, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("attention", ["additive", None])
def test_every_parameter_has_the_gradient_of_finite_differences(attention: str | None) -> None:
    made = model(attention, dtype="float64")
    logits = made(*inputs())
    after, ends = fg.input("after", ("batch", "target_time"), "int32"), fg.input("ends", ("batch",), "int32")
    cost = fg.nn.sequence_cross_ent(logits, after, ends)
    assert len({p.label for p in made.parameters}) == len(made.parameters)
    feeds = {"source": SOURCE, "lengths": LENGTHS, "target": TARGET, "after": np.roll(TARGET, -1, axis=1)}
    assert_parameters_have_gradients(cost, made.parameters, **feeds, ends=np.array([5, 2, 4, 1], np.int32))


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_greedy_and_beam_search_write_what_they_write_by_hand(device: str) -> None:
    made = model()
    source, lengths, _ = inputs()
    greedy, weights = made.greedy(source, lengths, begin=BEGIN, end=END, most=6)
    how = {"begin": BEGIN, "end": END, "most": 6}
    beams = [made.beam(source, lengths, **how, width=w, penalty=p) for w, p in ((1, 1), (4, 0.5))]
    program = fg.compile(outputs=[greedy, weights, *beams[0], *beams[1]], device=device)
    first, given, narrow, _, wide, scores = program(source=SOURCE, lengths=LENGTHS)
    np.testing.assert_allclose(given.sum(axis=2), 1, rtol=1e-5)
    assert not given[1, :, 3:].any() and given[1, :, :3].all()
    for row, length in enumerate(LENGTHS):
        hand = ByHand(made, SOURCE[row, :length])
        words, _ = hand.beam(1, 6)
        assert first[row].tolist() == words == narrow[row].tolist()
        words, score = hand.beam(4, 6, 0.5)
        assert wide[row].tolist() == words
        np.testing.assert_allclose(scores[row], score, rtol=1e-4)


def test_a_model_without_attention_has_no_weights_of_it() -> None:
    source, lengths, _ = inputs()
    words, weights = model(None).greedy(source, lengths, begin=BEGIN, end=END, most=3)
    assert weights is None and words.shape == (source.shape[0], 3)


def test_what_an_encoder_decoder_cannot_do_is_said() -> None:
    source, lengths, target = inputs()
    made = model()
    with pytest.raises(GraphError, match="an encoder is 'lstm' or 'bilstm', got 'gru'"):
        model(encoder="gru")
    with pytest.raises(GraphError, match="attention cannot score by 'cosine'"):
        model("cosine")
    with pytest.raises(ShapeError, match=r"target of 'model' is int32\(batch,\)"):
        made(source, lengths, fg.input("words", ("batch",), "int32"))
    with pytest.raises(ShapeError, match=r"source of 'model' is float32\(batch, 4\)"):
        made.read(fg.input("x", ("batch", 4)), lengths)
    with pytest.raises(InputError, match="end=9 is none of 9 words"):
        made.greedy(source, lengths, begin=1, end=9, most=3)
    with pytest.raises(InputError, match="at most 0 words leave nothing to write"):
        made.beam(source, lengths, begin=1, end=2, most=0)
    with pytest.raises(InputError, match="a beam of width 10 over 9 words"):
        made.beam(source, lengths, begin=1, end=2, most=3, width=10)
    program = fg.compile(outputs=made(source, lengths, target), device="reference")
    with pytest.raises(InputError, match=r"source\[0, 1\] = 11 is out of range"):
        program(source=np.array([[0, 11]], np.int32), lengths=np.array([2], np.int32), target=TARGET[:1])
