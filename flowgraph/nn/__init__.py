"""Layers, normalisation, metrics and initialisers, composed only of ops."""

from flowgraph.nn import init
from flowgraph.nn.autoencoder import Autoencoder
from flowgraph.nn.layers import Dense, Embedding
from flowgraph.nn.metrics import accuracy
from flowgraph.nn.normalise import batch_norm, layer_norm, rms_norm
from flowgraph.nn.recurrent import GRU, LSTM, RNN, Bidirectional, BiLSTM, Recurrent

__all__ = [
    "GRU", "LSTM", "RNN", "Autoencoder", "BiLSTM", "Bidirectional", "Dense", "Embedding", "Recurrent",
    "accuracy", "batch_norm", "init", "layer_norm", "rms_norm",
]  # fmt: skip
