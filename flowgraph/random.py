"""`fg.random`: random numbers by seed, step and place; see `ops/random.py`."""

from flowgraph.ops.random import DEFAULT, Generator, bernoulli, categorical, normal, randint, seed, uniform

__all__ = ["DEFAULT", "Generator", "bernoulli", "categorical", "normal", "randint", "seed", "uniform"]
