"""Layers, normalisation, metrics and initialisers, composed only of ops."""

from flowgraph.nn import init
from flowgraph.nn.attention import Attention
from flowgraph.nn.autoencoder import Autoencoder
from flowgraph.nn.encoder_decoder import EncoderDecoder
from flowgraph.nn.layers import Dense, Embedding
from flowgraph.nn.metrics import accuracy
from flowgraph.nn.normalise import batch_norm, layer_norm, rms_norm
from flowgraph.nn.recurrent import GRU, LSTM, RNN, Bidirectional, BiLSTM, Recurrent
from flowgraph.nn.sequences import max_over_time, mean_over_time, sequence_cross_ent, sequence_mask, sum_over_time

__all__ = [
    "GRU", "LSTM", "RNN", "Attention", "Autoencoder", "BiLSTM", "Bidirectional", "Dense", "Embedding", "EncoderDecoder",
    "Recurrent",
    "accuracy", "batch_norm", "init", "layer_norm", "max_over_time", "mean_over_time", "rms_norm", "sequence_cross_ent",
    "sequence_mask", "sum_over_time",
]  # fmt: skip
