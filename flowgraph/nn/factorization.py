"""The factorization machine: a linear model with all products of two features, their weights of low rank."""

from __future__ import annotations

import numpy as np

from flowgraph.graph.origin import scope
from flowgraph.graph.tensor import Tensor
from flowgraph.nn.init import normal
from flowgraph.nn.layers import Layer
from flowgraph.ops.contraction import mul
from flowgraph.ops.elementwise import add, multiply, subtract
from flowgraph.ops.functions import square
from flowgraph.ops.leaf import Initializer, parameter
from flowgraph.ops.reduce import sum as sum_
from flowgraph.ops.shape import reshape


class FactorizationMachine(Layer):
    """b + x·w + the sum over pairs i < j of <v_i, v_j> x_i x_j, one number an example, in time linear in the features:

        the sum over pairs = 1/2 · the sum over factors f of ((x·v)_f² - (x²·v²)_f)

    w is (inputs, 1), v (inputs, factors), b (1,). Rendle 2010, "Factorization Machines", equations 1 and 3. `bias` is
    where b begins, the mean of what is to be predicted for instance.

    >>> import flowgraph as fg
    >>> fg.nn.FactorizationMachine("rating", 20, 8)(fg.input("x", ("batch", 20))).shape
    (batch,)
    """

    def __init__(
        self,
        name: str,
        inputs: int,
        factors: int,
        *,
        bias: float = 0.0,
        init: Initializer | None = None,
        dtype: str = "float32",
    ) -> None:
        self.name = name
        init = init or normal(0.01)
        with scope(name):
            self.w = parameter("w", (inputs, 1), init, dtype)
            self.v = parameter("v", (inputs, factors), init, dtype)
            self.b = parameter("b", (1,), np.full(1, bias), dtype)

    @property
    def parameters(self) -> list[Tensor]:
        return [self.w, self.v, self.b]

    def __call__(self, x: Tensor) -> Tensor:
        """A matrix x (batch, inputs) to (batch,)."""
        with scope(self.name):
            linear = add(reshape(mul(x, self.w), (-1,)), self.b)
            pairs = subtract(square(mul(x, self.v)), mul(square(x), square(self.v)))
            return add(linear, multiply(0.5, sum_(pairs, axis=1)))
