"""Packing: a block of a large operand copied into the order in which the register tile reads it.

Comes in: a dtype. Goes out: a kernel function that copies K rows of n elements, padded with zeros to `width`.
May not know which operand it is, or how large a block fits the caches.
"""

from __future__ import annotations

from collections.abc import Callable

from numba.core import types

from flowgraph.codegen.cpu.memory import fixed, load_head, store_head, strided
from flowgraph.codegen.cpu.value import LANES, Value
from flowgraph.codegen.cpu.vector import ALL, KernelOnly, define_function


def pack(dtype: str) -> KernelOnly:
    """`pack_{dtype}(dst, dst_k, src, k_stride, j_stride, K, n, width)`, strides in elements:
    dst[k dst_k + j] = src[k k_stride + j j_stride] for j < n, 0 for n <= j < width, for each k < K."""

    def emit(sig: object, dst: Value, dst_k: Value, src: Value, k_stride: Value, j_stride: Value,
             depth: Value, n: Value, width: Value) -> None:  # fmt: skip
        def block(k: Value, j: Value) -> None:
            count = (n - j).maximum(0)  # no lane at all where the padding fills the whole vector
            start = k * k_stride + j * j_stride
            vector = (j_stride == 1).branch(
                lambda: load_head(src, start, count, dtype),
                lambda: strided(src, start, j_stride, count, dtype),
            )
            store_head(dst, k * dst_k + j, vector, width - j)

        each(depth, 1, lambda k: each(width, LANES, lambda j: block(k, j)))

    return define_function(f"pack_{dtype}", fixed(types.void, *[types.int64] * 8), emit)


def each(stop: Value, step: int, body: Callable[[Value], None]) -> None:
    """body(0), body(step), ... below `stop`."""
    builder = stop.builder
    before, test = builder.block, builder.append_basic_block("each")
    inside, after = builder.append_basic_block("each.body"), builder.append_basic_block("each.done")
    builder.branch(test)
    builder.position_at_end(test)
    counter = Value(builder, "i64", builder.phi(stop.ir.type))
    counter.ir.add_incoming(stop.constant(0).ir, before)
    builder.cbranch((counter < stop).ir, inside, after)
    builder.position_at_end(inside)
    body(counter)
    counter.ir.add_incoming((counter + step).ir, builder.block)
    builder.branch(test)
    builder.position_at_end(after)


FUNCTIONS = {f"pack_{dtype}": pack(dtype) for dtype in ALL}
