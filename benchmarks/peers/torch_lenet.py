"""PyTorch on LeNet: eager, autograd, torch.optim.SGD."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch.nn import functional

from benchmarks.lenet_workload import RATE, STEPS, Data

ORDER = "given"


def build(batch: int, data: Data) -> Callable[[int], float]:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 20, 5), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(20, 50, 5), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Flatten(), torch.nn.Linear(800, 500), torch.nn.ReLU(), torch.nn.Linear(500, 10),
    )  # fmt: skip
    layers = [layer for layer in network if hasattr(layer, "weight")]
    with torch.no_grad():
        for layer, weights in zip(layers, data.weights, strict=True):
            layer.weight.copy_(torch.from_numpy(weights if weights.ndim == 4 else weights.T))
            layer.bias.zero_()
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE, fused=True)
    batches = list(
        zip(torch.from_numpy(data.x).split(batch), torch.from_numpy(data.y).long().split(batch), strict=True)
    )

    def run(steps: int) -> float:
        for step in range(steps):
            x, y = batches[step % STEPS]
            loss = functional.cross_entropy(network(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return float(loss.detach())

    return run
