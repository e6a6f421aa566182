"""Layers, normalisation, metrics and initialisers, composed only of ops."""

from flowgraph.nn import init
from flowgraph.nn.attention import Attention
from flowgraph.nn.autoencoder import Autoencoder
from flowgraph.nn.convolution import AvgPool1D, AvgPool2D, Conv1D, Conv2D, MaxPool1D, MaxPool2D, flatten
from flowgraph.nn.encoder_decoder import EncoderDecoder
from flowgraph.nn.factorization import FactorizationMachine
from flowgraph.nn.layers import Dense, Embedding
from flowgraph.nn.metrics import accuracy
from flowgraph.nn.normalise import BatchNorm, LayerNorm, batch_norm, layer_norm, rms_norm
from flowgraph.nn.recurrent import GRU, LSTM, RNN, Bidirectional, BiLSTM, Recurrent
from flowgraph.nn.sequences import max_over_time, mean_over_time, sequence_cross_ent, sequence_mask, sum_over_time
from flowgraph.ops.averages import running_updates

__all__ = [
    "GRU", "LSTM", "RNN", "Attention", "Autoencoder", "AvgPool1D", "AvgPool2D", "BatchNorm", "BiLSTM", "Bidirectional",
    "Conv1D", "Conv2D", "Dense", "Embedding", "EncoderDecoder", "FactorizationMachine", "LayerNorm", "MaxPool1D",
    "MaxPool2D", "Recurrent",
    "accuracy", "batch_norm", "flatten", "init", "layer_norm", "max_over_time", "mean_over_time", "rms_norm",
    "running_updates", "sequence_cross_ent", "sequence_mask", "sum_over_time",
]  # fmt: skip
