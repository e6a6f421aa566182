"""Kernels -> P: order, lifetimes, arena, in place. A table that a native driver, or a CUDA graph, just walks."""
