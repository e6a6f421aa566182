"""The optimisers: what one parameter becomes, given its gradient. Defaults are PyTorch's."""

from __future__ import annotations

from typing import Any

from flowgraph.errors import GraphError, shown
from flowgraph.graph import origin as origins
from flowgraph.graph.tensor import Tensor
from flowgraph.graph.types import DType
from flowgraph.ops.elementwise import add, cast, divide, greater, multiply, subtract, where
from flowgraph.ops.functions import power, sqrt
from flowgraph.ops.indexing import scatter_add
from flowgraph.ops.leaf import constant
from flowgraph.ops.piecewise import maximum
from flowgraph.ops.shape import broadcast_to, expand_dims
from flowgraph.passes.rows import lookups_in
from flowgraph.train.optim.base import GradientDescent, require, state
from flowgraph.train.optim.schedules import Schedule

Rate = float | Tensor | Schedule


class SGD(GradientDescent):
    """Stochastic gradient descent: w <- w - rate·g; with momentum v <- momentum·v + g and w <- w - rate·v.

    As in PyTorch, without dampening; `nesterov` steps by g + momentum·v instead of v (Sutskever et al. 2013).
    `weight_decay` adds weight_decay·w to the gradient. Rows of a table that were not looked up are not touched, unless
    momentum, decay or a joint norm asks for them.

    >>> import flowgraph as fg
    >>> w = fg.parameter("w", (3,))
    >>> fg.optim.SGD(0.1).updates([w], [2.0 * w])[w]
    <Tensor subtract: float32(3,)>
    """

    def __init__(
        self, learning_rate: Rate, momentum: float = 0.0, nesterov: bool = False, **shared: Any
    ) -> None:
        super().__init__(learning_rate, **shared)
        require("momentum", momentum, low=0.0, below=1.0)
        if nesterov and not momentum:
            raise GraphError("nesterov needs momentum", where=origins.here(), hint="for example momentum=0.9")
        self.momentum, self.nesterov = momentum, nesterov

    def step(self, w: Tensor, g: Tensor) -> dict[Tensor, Tensor]:
        g = self.decayed(w, g)
        new: dict[Tensor, Tensor] = {}
        if self.momentum:
            velocity = state("velocity", w)
            new[velocity] = moved = add(multiply(self.momentum, velocity), g)
            g = add(g, multiply(self.momentum, moved)) if self.nesterov else moved
        return new | {w: subtract(w, multiply(self.rate(w.dtype), g))}


class AdaGrad(GradientDescent):
    """s <- s + g²;  w <- w - rate·g / (sqrt(s) + epsilon)  (Duchi et al. 2011)."""

    def __init__(
        self, learning_rate: Rate = 0.01, epsilon: float = 1e-10, initial: float = 0.0, **shared: Any
    ) -> None:
        super().__init__(learning_rate, **shared)
        require("epsilon", epsilon, above=0.0)
        require("initial", initial, low=0.0)
        self.epsilon, self.initial = epsilon, initial

    def step(self, w: Tensor, g: Tensor) -> dict[Tensor, Tensor]:
        g = self.decayed(w, g)
        squares = state("squares", w)
        if self.initial:
            squares.op.storage.assign(squares.value + self.initial)
        new = add(squares, multiply(g, g))
        moved = divide(multiply(self.rate(w.dtype), g), add(sqrt(new), self.epsilon))
        return {squares: new, w: subtract(w, moved)}


class RMSProp(GradientDescent):
    """s <- alpha·s + (1 - alpha)·g²;  w <- w - rate·g / (sqrt(s) + epsilon)  (Tieleman and Hinton 2012).

    `centered` divides by the spread about the mean gradient instead (Graves 2013); `momentum` as in SGD, on the
    divided gradient.
    """

    def __init__(
        self,
        learning_rate: Rate = 0.01,
        alpha: float = 0.99,
        epsilon: float = 1e-8,
        momentum: float = 0.0,
        centered: bool = False,
        **shared: Any,
    ) -> None:
        super().__init__(learning_rate, **shared)
        require("alpha", alpha, low=0.0, below=1.0)
        require("epsilon", epsilon, above=0.0)
        require("momentum", momentum, low=0.0, below=1.0)
        self.alpha, self.epsilon, self.momentum, self.centered = alpha, epsilon, momentum, centered

    def step(self, w: Tensor, g: Tensor) -> dict[Tensor, Tensor]:
        g = self.decayed(w, g)
        squares = state("squares", w)
        spread = mixed(self.alpha, squares, multiply(g, g))
        new = {squares: spread}
        if self.centered:
            mean = state("mean", w)
            new[mean] = centre = mixed(self.alpha, mean, g)
            spread = maximum(subtract(spread, multiply(centre, centre)), 0.0)  # rounding may take it below
        g = divide(g, add(sqrt(spread), self.epsilon))
        if self.momentum:
            velocity = state("velocity", w)
            new[velocity] = g = add(multiply(self.momentum, velocity), g)
        return new | {w: subtract(w, multiply(self.rate(w.dtype), g))}


class Adam(GradientDescent):
    """m <- b1·m + (1 - b1)·g;  v <- b2·v + (1 - b2)·g²;  w <- w - rate·m' / (sqrt(v') + epsilon), where m' and v' are m
    and v divided by 1 - b1^t and 1 - b2^t (Kingma and Ba 2015).

    `weight_decay` is coupled: added to the gradient. `amsgrad` divides by the largest v so far (Reddi et al. 2018).
    The mathematics is dense: rows of a table move on even where they were not looked up.
    """

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        amsgrad: bool = False,
        **shared: Any,
    ) -> None:
        super().__init__(learning_rate, **shared)
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise GraphError(f"betas are two numbers, got {shown(betas)}", where=origins.here())
        for name, beta in zip(("betas[0]", "betas[1]"), betas, strict=True):
            require(name, beta, low=0.0, below=1.0)
        require("epsilon", epsilon, above=0.0)
        self.betas, self.epsilon, self.amsgrad = betas, epsilon, amsgrad

    def step(self, w: Tensor, g: Tensor) -> dict[Tensor, Tensor]:
        return self._moved(w, w, self.decayed(w, g))

    def _moved(self, w: Tensor, start: Tensor, g: Tensor) -> dict[Tensor, Tensor]:
        first, second = state("mean", w), state("squares", w)
        mean, squares = mixed(self.betas[0], first, g), mixed(self.betas[1], second, multiply(g, g))
        new = {first: mean, second: squares}
        if self.amsgrad:
            largest = state("largest", w)
            new[largest] = squares = maximum(largest, squares)
        rate, root = self._corrections(w.dtype)
        moved = divide(multiply(rate, mean), add(divide(sqrt(squares), root), self.epsilon))
        return new | {w: subtract(start, moved)}

    def _corrections(self, dtype: DType) -> tuple[Tensor, Tensor]:
        """rate / (1 - b1^t) and sqrt(1 - b2^t), t from 1; in float64, as 1 - 0.999 leaves a float32 four digits."""
        t = cast(add(self.count(), 1), "float64")
        first, second = (subtract(1.0, power(constant(b, "float64"), t)) for b in self.betas)
        rate = divide(cast(self.rate(dtype), "float64"), first)
        return cast(rate, dtype), cast(sqrt(second), dtype)


class AdamW(Adam):
    """Adam with decoupled weight decay: w is first multiplied by 1 - rate·weight_decay (Loshchilov and Hutter 2019)."""

    def __init__(self, learning_rate: Rate = 0.001, weight_decay: float = 0.01, **rest: Any) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **rest)

    def step(self, w: Tensor, g: Tensor) -> dict[Tensor, Tensor]:
        kept = subtract(1.0, multiply(self.rate(w.dtype), self.weight_decay))
        return self._moved(w, multiply(kept, w), g)


class LazyAdam(Adam):
    """Adam that moves only the rows of a table that a step looked up, and only their means.

    That is another mathematics than Adam's, where a row goes on moving by its running mean, and the means go on fading,
    at every step. The corrections for the start go by the optimiser's steps, not by a row's. `weight_decay` is coupled,
    and as lazy: a row decays when it is looked up. What a step costs goes by the rows it looks up.

    A parameter whose gradient is not that of lookups alone (the weights of a layer, a table that is also multiplied by)
    is updated as by Adam, to the bit.
    """

    def step(self, w: Tensor, g: Tensor) -> dict[Tensor, Tensor]:
        looked_up = rows_looked_up(w, g)
        if looked_up is None:
            return super().step(w, g)
        g = self.decayed(w, g)

        def lazily(change: Tensor) -> Tensor:
            return where(looked_up, change, 0.0)

        first, second = state("mean", w), state("squares", w)
        turn = multiply(1.0 - self.betas[0], subtract(g, first))
        rise = multiply(1.0 - self.betas[1], subtract(multiply(g, g), second))
        new = {first: add(first, lazily(turn)), second: add(second, lazily(rise))}
        mean, squares = add(first, turn), add(second, rise)
        if self.amsgrad:
            largest = state("largest", w)
            growth = maximum(subtract(squares, largest), 0.0)
            new[largest] = add(largest, lazily(growth))
            squares = add(largest, growth)
        rate, root = self._corrections(w.dtype)
        moved = divide(multiply(rate, mean), add(divide(sqrt(squares), root), self.epsilon))
        return new | {w: subtract(w, lazily(moved))}


def rows_looked_up(w: Tensor, g: Tensor) -> Tensor | None:
    """A bool like w: the rows that the gradient's lookups name; None if the gradient is not of lookups alone."""
    lookups = lookups_in(g) if w.rank else ()
    if not lookups:
        return None
    nobody = broadcast_to(constant(0, "int32"), w.shape[:1])
    count = None
    for ids in lookups:
        once = scatter_add(nobody, ids, broadcast_to(constant(1, "int32"), ids.shape))
        count = once if count is None else add(count, once)
    assert count is not None
    return broadcast_to(expand_dims(greater(count, 0), tuple(range(1, w.rank))), w.shape)


def mixed(keep: float, old: Tensor, new: Tensor) -> Tensor:
    """keep·old + (1 - keep)·new."""
    return add(multiply(keep, old), multiply(1.0 - keep, new))


