"""Optimisers and learning rate schedules: `fg.optim.Adam(fg.optim.Cosine(0.001, steps=10_000))`."""

from flowgraph.train.optim.base import GradientDescent, Optimizer
from flowgraph.train.optim.rules import SGD, AdaGrad, Adam, AdamW, LazyAdam, RMSProp
from flowgraph.train.optim.schedules import (
    Constant,
    Cosine,
    Exponential,
    OneCycle,
    Polynomial,
    Schedule,
    StepDecay,
    Warmup,
)

__all__ = [
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Constant",
    "Cosine",
    "Exponential",
    "GradientDescent",
    "LazyAdam",
    "OneCycle",
    "Optimizer",
    "Polynomial",
    "RMSProp",
    "Schedule",
    "StepDecay",
    "Warmup",
]
