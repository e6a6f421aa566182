"""Layers, normalisation, metrics and initialisers, composed only of ops."""

from flowgraph.nn import init
from flowgraph.nn.convolution import AvgPool1D, AvgPool2D, Conv1D, Conv2D, MaxPool1D, MaxPool2D, flatten
from flowgraph.nn.factorization import FactorizationMachine
from flowgraph.nn.layers import Dense, Embedding
from flowgraph.nn.metrics import accuracy
from flowgraph.nn.normalise import BatchNorm, LayerNorm, batch_norm, layer_norm, rms_norm
from flowgraph.nn.recurrent import GRU, LSTM, RNN, Bidirectional, BiLSTM, Recurrent
from flowgraph.ops.averages import running_updates

__all__ = [
    "GRU", "LSTM", "RNN", "AvgPool1D", "AvgPool2D", "BatchNorm", "BiLSTM", "Bidirectional", "Conv1D", "Conv2D", "Dense",
    "Embedding", "FactorizationMachine", "LayerNorm", "MaxPool1D", "MaxPool2D", "Recurrent", "accuracy", "batch_norm",
    "flatten", "init", "layer_norm", "rms_norm", "running_updates",
]  # fmt: skip
