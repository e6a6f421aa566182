"""Attention: values weighed by how well their keys fit a query."""

from __future__ import annotations

from functools import reduce

from flowgraph.errors import GraphError, ShapeError, shown
from flowgraph.graph import origin as origins
from flowgraph.graph.origin import scope
from flowgraph.graph.size import show_shape
from flowgraph.graph.tensor import Tensor
from flowgraph.nn.init import glorot_uniform, one_over_sqrt_n
from flowgraph.nn.layers import Layer
from flowgraph.nn.sequences import sequence_mask
from flowgraph.ops.classification import masked_softmax, softmax
from flowgraph.ops.contraction import add_bias
from flowgraph.ops.einsum import einsum, matmul
from flowgraph.ops.elementwise import add, multiply
from flowgraph.ops.functions import tanh
from flowgraph.ops.leaf import parameter
from flowgraph.ops.logic import logical_and
from flowgraph.ops.shape import expand_dims

SCORES = ("additive", "dot", "scaled_dot", "general")


class Attention(Layer):
    """For a query q and a sequence of keys k, the weights softmax(score(q, k)), and the values' mean under them.

        additive     v · tanh(q·w_q + k·w_k + b)       Bahdanau, Cho and Bengio 2015; `hidden` is the width of v
        dot          q · k                             Luong, Pham and Manning 2015
        scaled_dot   q · k / √width                    Vaswani and others 2017
        general      q·w · k                           Luong, Pham and Manning 2015

    `queries` and `keys` are widths of a query and of a key; without parameters, "dot" and "scaled_dot" need them equal.

    >>> import flowgraph as fg
    >>> question, lengths = fg.input("question", ("batch", 32)), fg.input("lengths", ("batch",), "int32")
    >>> states = fg.input("states", ("batch", "time", 64))
    >>> context, weights = fg.nn.Attention("attention", 32, 64, 16)(question, states, lengths=lengths)
    >>> context.shape, weights.shape
    ((batch, 64), (batch, time))
    """

    def __init__(
        self,
        name: str,
        queries: int,
        keys: int,
        hidden: int | None = None,
        score: str = "additive",
        *,
        dtype: str = "float32",
    ) -> None:
        if score not in SCORES:
            raise GraphError(
                f"attention cannot score by {shown(score)}", where=origins.here(), hint=f"one of {', '.join(SCORES)}"
            )
        if score in ("dot", "scaled_dot") and queries != keys:
            raise ShapeError(
                f"attention {name!r} scores queries of width {queries} by keys of width {keys} with {score!r}",
                where=origins.here(),
                hint="'general' and 'additive' take two widths",
            )
        if (hidden is not None) != (score == "additive"):
            raise GraphError(
                f"attention {name!r} with score {score!r} and hidden={hidden}",
                where=origins.here(),
                hint="'additive', and no other score, needs the width of its hidden layer",
            )
        self.name, self.queries, self.keys, self.score = name, queries, keys, score
        self.parameters: list[Tensor] = []
        with scope(name):
            if score == "general":
                self.w = parameter("w", (queries, keys), glorot_uniform(), dtype)
                self.parameters = [self.w]
            if hidden is not None:
                self.w_q = parameter("w_q", (queries, hidden), glorot_uniform(), dtype)
                self.w_k = parameter("w_k", (keys, hidden), glorot_uniform(), dtype)
                self.b = parameter("b", (hidden,), dtype=dtype)
                self.v = parameter("v", (hidden,), one_over_sqrt_n(), dtype)
                self.parameters = [self.w_q, self.w_k, self.b, self.v]

    def __call__(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor | None = None,
        *,
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(context, weights) of one query for each sequence, (batch, queries), or of several, (batch, steps, queries).

        `keys` are (batch, time, keys); `values` (batch, time, features), the keys by default. The context is (batch,
        features) and the weights (batch, time), or (batch, steps, features) and (batch, steps, time). `lengths`
        (batch,) says how long each sequence of keys is, a bool `mask` of the weights' shape, or (batch, time), which
        keys may be attended to: none at all gives weights and a context of 0.

        Raises ShapeError where shapes do not fit; InputError, when data are fed, for a length out of range.
        """
        self._check(query, keys, values)
        with scope(self.name):
            scores = self.scores(query, keys)
            parts = [] if lengths is None else [sequence_mask(lengths, keys.shape[1])]
            parts += [] if mask is None else [mask]
            parts = [expand_dims(m, 1) if m.rank == 2 < scores.rank else m for m in parts]
            weights = masked_softmax(scores, reduce(logical_and, parts)) if parts else softmax(scores)
            labels = "bt,btf->bf" if query.rank == 2 else "bst,btf->bsf"
            return einsum(labels, weights, keys if values is None else values), weights

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """How well keys fit: (batch, time) or (batch, steps, time), before the softmax."""
        if self.score == "additive":
            asked, found = matmul(query, self.w_q), add_bias(matmul(keys, self.w_k), self.b)
            if query.rank == 3:
                asked, found = expand_dims(asked, 2), expand_dims(found, 1)
            else:
                asked = expand_dims(asked, 1)
            return matmul(tanh(add(asked, found)), self.v)
        if self.score == "general":
            query = matmul(query, self.w)
        scores = einsum("bk,btk->bt" if query.rank == 2 else "bsk,btk->bst", query, keys)
        return multiply(scores, self.keys**-0.5) if self.score == "scaled_dot" else scores

    def _check(self, query: Tensor, keys: Tensor, values: Tensor | None) -> None:
        shapes = f"a query {show_shape(query.shape)} and keys {show_shape(keys.shape)}"
        fits = query.rank in (2, 3) and keys.rank == 3 and query.shape[0] == keys.shape[0]
        if not fits or (query.shape[-1], keys.shape[-1]) != (self.queries, self.keys):
            raise ShapeError(
                f"attention {self.name!r} of {shapes}",
                where=origins.here(),
                hint=f"it takes (batch, {self.queries}) or (batch, steps, {self.queries}), "
                f"and keys (batch, time, {self.keys})",
            )
        if values is not None and (values.rank != 3 or values.shape[:2] != keys.shape[:2]):
            raise ShapeError(
                f"attention {self.name!r}: values {show_shape(values.shape)} for keys {show_shape(keys.shape)}",
                where=origins.here(),
                hint="a value for each key: (batch, time, features)",
            )
