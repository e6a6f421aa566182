"""PyTorch as it is usually written: eager, autograd, torch.optim.SGD (fused, the fastest on a CPU)."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch.nn import functional

from benchmarks.workload import CLASSES, RATE, STEPS, Data

ORDER = "given"


def build(batch: int, hidden: int, data: Data) -> Callable[[int], float]:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    first, second = torch.nn.Linear(data.x.shape[1], hidden), torch.nn.Linear(hidden, CLASSES)
    with torch.no_grad():
        for layer, weights in ((first, data.w1), (second, data.w2)):
            layer.weight.copy_(torch.from_numpy(weights.T))  # Linear keeps its weights as (outputs, inputs)
            layer.bias.zero_()
    optimizer = torch.optim.SGD([*first.parameters(), *second.parameters()], lr=RATE, fused=True)
    batches = list(
        zip(torch.from_numpy(data.x).split(batch), torch.from_numpy(data.y).long().split(batch), strict=True)
    )

    def run(steps: int) -> float:
        for step in range(steps):
            x, y = batches[step % STEPS]
            loss = functional.cross_entropy(torch.tanh(second(torch.tanh(first(x)))), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return float(loss.detach())

    return run
