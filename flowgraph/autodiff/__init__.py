"""The backward graph: a graph's derivative, as a graph. Comes in: a cost and tensors. Goes out: gradients, tensors like
any other. Knows no op; of the templates only the loop, whose body has a derivative of its own.
"""

from flowgraph.autodiff.reverse import backward

__all__ = ["backward"]
