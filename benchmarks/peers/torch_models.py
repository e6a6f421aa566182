"""PyTorch's side of `benchmarks.equivalence`: the same models, built of its own modules.

`python -m benchmarks.peers.torch_models MODEL FILE.npz STEPS` in the peers' environment. The file has the data
("data/...") and the first weights by flowgraph's names ("weights/..."); the losses of all steps are printed as JSON.
Where PyTorch keeps weights otherwise (gates in the order i, f, g, o, matrices as (outputs, inputs),
a second bias in an LSTM), they are moved there, and the second bias stays 0.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

Arrays = dict[str, np.ndarray]
GATES = [1, 0, 3, 2]  # flowgraph's f, i, o, g as PyTorch's i, f, g, o


def set_to(parameter: Any, value: np.ndarray) -> None:
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(np.ascontiguousarray(value)))


def set_dense(layer: Any, weights: Arrays, name: str) -> None:
    set_to(layer.weight, weights[f"{name}/w"].T)
    set_to(layer.bias, weights[f"{name}/b"])


def gates(value: np.ndarray) -> np.ndarray:
    """A matrix (inputs, 4 · hidden) or a bias, its gates in PyTorch's order and its outputs first."""
    parts = np.split(value, 4, axis=-1)
    return np.concatenate([parts[k] for k in GATES], axis=-1).T


def set_lstm(layer: Any, weights: Arrays, name: str, suffix: str = "") -> None:
    set_to(getattr(layer, f"weight_ih{suffix}"), gates(weights[f"{name}/w_x"]))
    set_to(getattr(layer, f"weight_hh{suffix}"), gates(weights[f"{name}/w_h"]))
    set_to(getattr(layer, f"bias_ih{suffix}"), gates(weights[f"{name}/b"]))
    second = getattr(layer, f"bias_hh{suffix}")
    set_to(second, np.zeros(second.shape))
    second.requires_grad_(False)


class Lstm(nn.Module):
    """A classifier of sequences by an LSTM's last state."""

    def __init__(self, weights: Arrays) -> None:
        super().__init__()
        inputs, width = weights["lstm/w_x"].shape
        self.lstm = nn.LSTM(inputs, width // 4, batch_first=True)
        self.out = nn.Linear(width // 4, weights["out/b"].size)
        set_lstm(self.lstm, weights, "lstm", "_l0")
        set_dense(self.out, weights, "out")

    def forward(self, x: Any, y: Any) -> Any:
        _, (h, _) = self.lstm(x)
        return functional.cross_entropy(self.out(h[0]), y)


class Cnn(nn.Module):
    """Two convolutions with pools, two dense layers."""

    def __init__(self, weights: Arrays) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(*weights[f"{n}/w"].shape[1::-1], 3, padding=1) for n in ("conv1", "conv2"))
        self.hidden, self.out = (nn.Linear(*weights[f"{n}/w"].shape) for n in ("hidden", "out"))
        for layer, name in ((self.first, "conv1"), (self.second, "conv2")):
            set_to(layer.weight, weights[f"{name}/w"])
            set_to(layer.bias, weights[f"{name}/b"])
        set_dense(self.hidden, weights, "hidden")
        set_dense(self.out, weights, "out")

    def forward(self, x: Any, y: Any) -> Any:
        x = functional.max_pool2d(torch.relu(self.first(x)), 2)
        x = functional.max_pool2d(torch.relu(self.second(x)), 2)
        return functional.cross_entropy(self.out(torch.tanh(self.hidden(x.flatten(1)))), y)


class SkipGram(nn.Module):
    """Skip-gram with negative samples: the first context word is the pair's, the others are drawn."""

    def __init__(self, weights: Arrays) -> None:
        super().__init__()
        self.words, self.contexts = (nn.Embedding(*weights[f"{n}/w"].shape) for n in ("words", "contexts"))
        set_to(self.words.weight, weights["words/w"])
        set_to(self.contexts.weight, weights["contexts/w"])

    def forward(self, word: Any, context: Any) -> Any:
        scores = (self.contexts(context) * self.words(word)[:, None]).sum(2)
        return -(functional.logsigmoid(scores[:, 0]) + functional.logsigmoid(-scores[:, 1:]).sum(1)).mean()


class Attention(nn.Module):
    """An encoder and a decoder with attention and input feeding, under teacher forcing."""

    def __init__(self, weights: Arrays) -> None:
        super().__init__()
        weights = {name.removeprefix("translate/"): array for name, array in weights.items()}
        (source, size), (target, _) = weights["source/w"].shape, weights["target/w"].shape
        hidden = weights["decoder/w_h"].shape[0]
        self.source, self.target = nn.Embedding(source, size), nn.Embedding(target, size)
        self.encoder = nn.LSTM(size, hidden, batch_first=True, bidirectional=True)
        self.bridges = nn.ModuleList(nn.Linear(2 * hidden, hidden) for _ in "hc")
        self.decoder = nn.LSTMCell(size + hidden, hidden)  # of the word and what is fed back, side by side
        self.score = nn.Linear(hidden, 2 * hidden, bias=False)
        self.combine, self.output = nn.Linear(3 * hidden, hidden), nn.Linear(hidden, target)
        set_to(self.source.weight, weights["source/w"])
        set_to(self.target.weight, weights["target/w"])
        set_lstm(self.encoder, weights, "encoder/forward", "_l0")
        set_lstm(self.encoder, weights, "encoder/backward", "_l0_reverse")
        for bridge, name in zip(self.bridges, "hc", strict=True):
            set_dense(bridge, weights, f"bridge_{name}")
        both = np.concatenate([weights["decoder/w_x"], weights["w_a"]])
        set_lstm(self.decoder, {**weights, "decoder/w_x": both}, "decoder")
        set_to(self.score.weight, weights["attention/w"].T)
        set_dense(self.combine, weights, "combine")
        set_dense(self.output, weights, "output")

    def forward(self, source: Any, source_lengths: Any, target: Any, following: Any, lengths: Any) -> Any:
        packed = nn.utils.rnn.pack_padded_sequence(
            self.source(source), source_lengths, batch_first=True, enforce_sorted=False
        )
        states, ends = self.encoder(packed)
        states, _ = nn.utils.rnn.pad_packed_sequence(states, batch_first=True, total_length=source.shape[1])
        h, c = (torch.tanh(b(torch.cat([*end], dim=1))) for b, end in zip(self.bridges, ends, strict=True))
        absent = torch.arange(source.shape[1]) >= source_lengths[:, None]
        attended, made = torch.zeros_like(h), []
        for word in self.target(target).unbind(1):
            h, c = self.decoder(torch.cat([word, attended], dim=1), (h, c))
            scores = torch.einsum("bk,btk->bt", self.score(h), states).masked_fill(absent, -torch.inf)
            context = torch.einsum("bt,btk->bk", scores.softmax(1), states)
            attended = torch.tanh(self.combine(torch.cat([h, context], dim=1)))
            made.append(self.output(attended))
        each = functional.cross_entropy(torch.stack(made, dim=2), following, reduction="none")
        there = torch.arange(target.shape[1]) < lengths[:, None]
        return each[there].mean()


MODELS: dict[str, tuple[Any, Any]] = {
    "lstm": (Lstm, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
    "cnn": (Cnn, lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True)),
    "skip-gram": (SkipGram, lambda p: torch.optim.Adagrad(p, lr=0.1)),
    "attention": (Attention, lambda p: torch.optim.Adam(p, lr=0.003)),
}


def losses(name: str, data: Arrays, weights: Arrays, steps: int, batch: int) -> list[float]:
    """The loss of every step, before its update; examples in their order, the last batch of an epoch smaller."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64 if next(iter(weights.values())).dtype == np.float64 else torch.float32)
    build, optimiser = MODELS[name]
    model = build(weights)
    optimizer = optimiser([p for p in model.parameters() if p.requires_grad])
    fed = {k: torch.from_numpy(a.astype(np.int64) if a.dtype.kind == "i" else a) for k, a in data.items()}
    starts = range(0, len(next(iter(data.values()))), batch)
    found = []
    for step in range(steps):
        begin = starts[step % len(starts)]
        loss = model(**{k: a[begin : begin + batch] for k, a in fed.items()})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    return found


if __name__ == "__main__":
    with np.load(sys.argv[2]) as file:
        given = {name: file[name] for name in file.files}
    parts = [
        {name.removeprefix(part): array for name, array in given.items() if name.startswith(part)}
        for part in ("data/", "weights/")
    ]
    print(json.dumps(losses(sys.argv[1], parts[0], parts[1], int(sys.argv[3]), int(given["batch"]))))
