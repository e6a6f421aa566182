"""Initialisers: how the first values of a parameter are drawn. Each returns draw(shape, generator).

Of a matrix (inputs, outputs), fan_in is the number of inputs and fan_out that of outputs; axes further left
(a kernel's window) count for both. A vector's length is both.
"""

from __future__ import annotations

import math

import numpy as np

from flowgraph.errors import ShapeError
from flowgraph.graph.size import show_shape
from flowgraph.ops.leaf import Initializer


def zeros() -> Initializer:
    """0 everywhere: biases."""
    return lambda shape, generator: np.zeros(shape)


def normal(std: float = 1.0, mean: float = 0.0) -> Initializer:
    """N(mean, std²).

    >>> import numpy as np
    >>> normal(0.01)((2, 3), np.random.default_rng(0)).shape
    (2, 3)
    """
    return lambda shape, generator: generator.normal(mean, std, shape)


def uniform(low: float = -1.0, high: float = 1.0) -> Initializer:
    """Uniform in [low, high)."""
    return lambda shape, generator: generator.uniform(low, high, shape)


def one_over_sqrt_n() -> Initializer:
    """N(0, 1/√n) of n = fan_in, the lecture's: a sum over n inputs of variance 1 keeps variance 1 (std is
    1/√n).

    LeCun, Bottou, Orr and Müller 1998, "Efficient BackProp", equation 16. Also called `lecun_normal`.
    """
    return lambda shape, generator: generator.normal(0.0, 1.0 / math.sqrt(_fans(shape)[0]), shape)


lecun_normal = one_over_sqrt_n


def glorot_uniform() -> Initializer:
    """Uniform in ±√(6 / (fan_in + fan_out)): keeps the variance of values and gradients from layer to layer.

    Glorot and Bengio 2010, equation 16. For tanh and logistic layers.
    """

    def draw(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
        limit = math.sqrt(6.0 / sum(_fans(shape)))
        return generator.uniform(-limit, limit, shape)

    return draw


def glorot_normal() -> Initializer:
    """N(0, 2 / (fan_in + fan_out)): the variance of `glorot_uniform`.

    Glorot and Bengio 2010, equation 12.
    """
    return lambda shape, generator: generator.normal(0.0, math.sqrt(2.0 / sum(_fans(shape))), shape)


def he_normal() -> Initializer:
    """N(0, 2 / fan_in): as `one_over_sqrt_n`, for relu, which lets half of the variance through.

    He, Zhang, Ren and Sun 2015, equation 10.
    """
    return lambda shape, generator: generator.normal(0.0, math.sqrt(2.0 / _fans(shape)[0]), shape)


def orthogonal(gain: float = 1.0) -> Initializer:
    """A matrix with orthonormal rows or columns, whichever are fewer, times `gain`: a product with it keeps lengths.

    Saxe, McClelland and Ganguli 2014. Axes further left count as rows.
    """

    def draw(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
        if len(shape) < 2:
            raise ShapeError(f"an orthogonal first value needs at least two axes, got shape {show_shape(shape)}")
        rows, columns = math.prod(shape[:-1]), shape[-1]
        q, r = np.linalg.qr(generator.normal(size=(max(rows, columns), min(rows, columns))))
        q *= np.sign(np.diag(r))  # without this the signs are not evenly distributed (Mezzadri 2007)
        return gain * (q if rows >= columns else q.T).reshape(shape)

    return draw


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan_in, fan_out), at least 1 each."""
    window = math.prod(shape[:-2])
    fan_in, fan_out = (window * shape[-2], window * shape[-1]) if len(shape) > 1 else (math.prod(shape),) * 2
    return max(fan_in, 1), max(fan_out, 1)
