"""Layers, normalisation, metrics and initialisers, composed only of ops."""

from typing import TYPE_CHECKING

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

ELSEWHERE = {  # names that other libraries have for the same
    "Linear": "Dense", "BatchNorm1d": "BatchNorm", "BatchNorm2d": "BatchNorm", "BatchNormalization": "BatchNorm",
    "LayerNormalization": "LayerNorm", "Conv1d": "Conv1D", "Conv2d": "Conv2D", "MaxPool1d": "MaxPool1D",
    "MaxPool2d": "MaxPool2D", "AvgPool1d": "AvgPool1D", "AvgPool2d": "AvgPool2D", "MaxPooling1D": "MaxPool1D",
    "MaxPooling2D": "MaxPool2D", "AveragePooling2D": "AvgPool2D", "Flatten": "flatten", "SimpleRNN": "RNN",
    "Bilstm": "BiLSTM", "MultiheadAttention": "Attention",
}  # fmt: skip
UNLIKE = {  # what others have as layers and losses, and is written otherwise here
    **{n: f"fg.{n.lower()}, a function" for n in ("ReLU", "Tanh", "GELU", "SiLU", "ELU", "Softplus", "Softmax")},
    "LeakyReLU": "fg.leaky_relu, a function", "Sigmoid": "fg.logistic, a function", "Dropout": "fg.dropout(x, rate)",
    "LogSoftmax": "fg.log_softmax, a function", "Activation": "a function, as in Dense(..., fg.relu)",
    "Sequential": "second(first(x)): layers are called one on another's result",
    "Module": "a class of your own, or a function, that calls layers", "Parameter": "fg.parameter(name, shape)",
    "CrossEntropyLoss": "fg.cross_ent_of_softmax(logits, y)", "MSELoss": "fg.squared_error(x, y)",
    "BCEWithLogitsLoss": "fg.cross_ent_of_logistic(logits, y)", "BCELoss": "fg.binary_cross_ent(p, y)",
    "NLLLoss": "fg.cross_ent(p, y)", "L1Loss": "fg.absolute_error(x, y)", "HuberLoss": "fg.huber(x, y)",
}  # fmt: skip


if not TYPE_CHECKING:  # a checker shall find what is not there by itself

    def __getattr__(name: str) -> object:
        """Python asks here for what the module has not: which name was meant, if it is one of another library."""
        hint = f": it is called fg.nn.{ELSEWHERE[name]} here" if name in ELSEWHERE else ""
        hint = f": it is {UNLIKE[name]}" if name in UNLIKE else hint
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}", name=name)
