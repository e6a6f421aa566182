"""Packing: a block of a large operand copied into the order in which the register tile reads it.

Comes in: a dtype. Goes out: a kernel function that copies K rows of n elements, padded with zeros to `width`.
May not know which operand it is, or how large a block fits the caches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from numba.core import types

from flowgraph.codegen.cpu.memory import fixed, load_head, store_head, strided
from flowgraph.codegen.cpu.value import LANES, Value
from flowgraph.codegen.cpu.vector import ALL, KernelOnly, define_function


def pack(dtype: str) -> KernelOnly:
    """`pack_{dtype}(dst, dst_k, src, k_stride, j_stride, K, n, width)`, strides in elements:
    dst[k dst_k + j] = src[k k_stride + j j_stride] for j < n, 0 for n <= j < width, for each k < K."""

    def emit(sig: object, dst: Value, dst_k: Value, src: Value, k_stride: Value, j_stride: Value,
             depth: Value, n: Value, width: Value) -> None:  # fmt: skip
        _gathered(dtype, dst, dst_k, src, k_stride, j_stride, depth.constant(0), depth, n, width)

    return define_function(f"pack_{dtype}", fixed(types.void, *[types.int64] * 8), emit)


def pack_transposed(dtype: str) -> KernelOnly:
    """`pack_transposed_{dtype}(dst, dst_k, src, j_stride, K, n, width)`: the same where k_stride is 1.

    Squares of 16 rows of src are transposed in registers: 16 loads and 64 shuffles instead of 256 single elements.
    """

    def emit(sig: object, dst: Value, dst_k: Value, src: Value, j_stride: Value,
             depth: Value, n: Value, width: Value) -> None:  # fmt: skip
        whole = depth.divide_floored(LANES)[0] * LANES

        def square(k: Value, j: Value) -> None:
            rows = []
            for row in range(LANES):
                there = (j + row < n).select(depth.constant(LANES), depth.constant(0))
                rows.append(load_head(src, (j + row) * j_stride + k, there, dtype))
            for step, column in enumerate(transpose(rows)):
                store_head(dst, (k + step) * dst_k + j, column, width - j)

        each(depth.constant(0), whole, LANES, lambda k: each(k.constant(0), width, LANES, lambda j: square(k, j)))
        _gathered(dtype, dst, dst_k, src, depth.constant(1), j_stride, whole, depth, n, width)

    return define_function(f"pack_transposed_{dtype}", fixed(types.void, *[types.int64] * 7), emit)


def _gathered(dtype: str, dst: Value, dst_k: Value, src: Value, k_stride: Value, j_stride: Value,
              first: Value, depth: Value, n: Value, width: Value) -> None:  # fmt: skip
    """Rows `first` to `depth`, each element fetched by itself."""

    def vector(k: Value, j: Value) -> None:
        count = (n - j).maximum(0)  # no lane at all where the padding fills the whole vector
        fetched = strided(src, k * k_stride + j * j_stride, j_stride, count, dtype)
        store_head(dst, k * dst_k + j, fetched, width - j)

    each(first, depth, 1, lambda k: each(k.constant(0), width, LANES, lambda j: vector(k, j)))


def transpose(rows: Sequence[Value]) -> list[Value]:
    """The columns of a square of vectors: interleaving the halves of the list log2(16) times is a transposition."""
    half = len(rows) // 2
    for _ in range(len(rows).bit_length() - 1):
        pairs = [(rows[k], rows[k + half]) for k in range(half)]
        rows = [mixed for a, b in pairs for mixed in (a.interleave(b, 0), a.interleave(b, LANES // 2))]
    return list(rows)


def each(start: Value, stop: Value, step: int, body: Callable[[Value], None]) -> None:
    """body(start), body(start + step), ... below `stop`."""
    builder = stop.builder
    before, test = builder.block, builder.append_basic_block("each")
    inside, after = builder.append_basic_block("each.body"), builder.append_basic_block("each.done")
    builder.branch(test)
    builder.position_at_end(test)
    counter = Value(builder, "i64", builder.phi(stop.ir.type))
    counter.ir.add_incoming(start.ir, before)
    builder.cbranch((counter < stop).ir, inside, after)
    builder.position_at_end(inside)
    body(counter)
    counter.ir.add_incoming((counter + step).ir, builder.block)
    builder.branch(test)
    builder.position_at_end(after)


FUNCTIONS = {
    **{f"pack_{dtype}": pack(dtype) for dtype in ALL},
    **{f"pack_transposed_{dtype}": pack_transposed(dtype) for dtype in ALL},
}
