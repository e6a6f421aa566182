"""Layers, metrics and initialisers, composed only of ops."""

from flowgraph.nn import init
from flowgraph.nn.layers import Dense
from flowgraph.nn.metrics import accuracy

__all__ = ["Dense", "accuracy", "init"]
