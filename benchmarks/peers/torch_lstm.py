"""PyTorch's own LSTM layer, batch first, eager, with torch.optim.SGD."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

from benchmarks.lstm_workload import CLASSES, INPUTS, RATE, STEPS, Data
from benchmarks.workload import Array

ORDER = "given"


def gates(weights: Array, hidden: int) -> torch.Tensor:
    """From f, i, o, g side by side to PyTorch's rows i, f, g, o."""
    f, i, o, g = np.split(weights, 4, axis=-1)
    return torch.from_numpy(np.ascontiguousarray(np.concatenate([i, f, g, o], axis=-1).T))


def build(batch: int, hidden: int, data: Data) -> Callable[[int], float]:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    lstm, out = torch.nn.LSTM(INPUTS, hidden, batch_first=True), torch.nn.Linear(hidden, CLASSES)
    with torch.no_grad():
        lstm.weight_ih_l0.copy_(gates(data.w_x, hidden))
        lstm.weight_hh_l0.copy_(gates(data.w_h, hidden))
        lstm.bias_ih_l0.copy_(gates(data.b, hidden))
        lstm.bias_hh_l0.zero_()
        out.weight.copy_(torch.from_numpy(data.v.T))
        out.bias.zero_()
    lstm.bias_hh_l0.requires_grad_(False)  # one bias a gate, as the others have
    trained = [p for p in (*lstm.parameters(), *out.parameters()) if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=RATE, fused=True)
    batches = list(
        zip(torch.from_numpy(data.x).split(batch), torch.from_numpy(data.y).long().split(batch), strict=True)
    )

    def run(steps: int) -> float:
        for step in range(steps):
            x, y = batches[step % STEPS]
            _, (last, _) = lstm(x)
            loss = functional.cross_entropy(out(last[0]), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return float(loss.detach())

    return run
