"""Autoencoders: a hidden layer from which the input can be made again, and so one that keeps what matters of it."""

from __future__ import annotations

from collections.abc import Callable

from flowgraph.graph.origin import scope
from flowgraph.graph.tensor import Tensor
from flowgraph.nn.init import glorot_uniform
from flowgraph.nn.layers import Dense, Layer
from flowgraph.ops.contraction import add_bias, mul
from flowgraph.ops.functions import logistic
from flowgraph.ops.leaf import Initializer, parameter
from flowgraph.ops.shape import transpose


class Autoencoder(Layer):
    """decode(encode(x)), of the shape of x (batch, inputs), through codes (batch, hidden).

    `encoder` is a `Dense` layer, to be used in other networks as it is: so layers are trained one by one, each on the
    codes of the one before (Bengio and others 2007). If `tied`, the decoder's weights are the encoder's, transposed,
    and only its bias is its own. `activation` is that of the codes, `output` that of what is decoded: logistic for
    values between 0 and 1, None for any.

    What a good copy is, the cost says; one from a corrupted input makes it a denoising autoencoder (Vincent and others
    2008):

    >>> import flowgraph as fg
    >>> x = fg.input("x", ("batch", 64))
    >>> copier = fg.nn.Autoencoder("copier", 64, 16)
    >>> cost = fg.sum(fg.binary_cross_ent(copier(fg.dropout(x, 0.25)), x), axis=1)
    >>> copier.encode(x)
    <Tensor logistic: float32(batch, 16)>
    """

    def __init__(
        self,
        name: str,
        inputs: int,
        hidden: int,
        activation: Callable[[Tensor], Tensor] | None = logistic,
        output: Callable[[Tensor], Tensor] | None = logistic,
        *,
        tied: bool = False,
        init: Initializer | None = None,
        dtype: str = "float32",
    ) -> None:
        self.name, self.inputs, self.hidden, self.output, self.tied = name, inputs, hidden, output, tied
        weights = init or glorot_uniform()
        with scope(name):
            self.encoder = Dense("encoder", inputs, hidden, activation, init=weights, dtype=dtype)
            with scope("decoder"):
                self.w = transpose(self.encoder.w) if tied else parameter("w", (hidden, inputs), weights, dtype)
                self.b = parameter("b", (inputs,), dtype=dtype)

    @property
    def parameters(self) -> list[Tensor]:
        return [*self.encoder.parameters, *([] if self.tied else [self.w]), self.b]

    def encode(self, x: Tensor) -> Tensor:
        """(batch, inputs) to codes (batch, hidden)."""
        with scope(self.name):
            return self.encoder(x)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (batch, hidden) to (batch, inputs)."""
        with scope(f"{self.name}/decoder"):
            z = add_bias(mul(codes, self.w), self.b)
            return z if self.output is None else self.output(z)

    def __call__(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))
