"""Packing: a block of a large operand copied into the order in which the register tile reads it.

Comes in: a dtype. Goes out: a kernel function that copies K rows of n elements, padded with zeros to `width`, a
multiple of 16.
May not know which operand it is, or how large a block fits the caches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from numba.core import types

from flowgraph.codegen.cpu.memory import fixed, lane_numbers, load, load_head, load_where, store, store_head, strided
from flowgraph.codegen.cpu.value import LANES, Value
from flowgraph.codegen.cpu.vector import ALL, FLOATS, KernelOnly, define_function


def pack(dtype: str) -> KernelOnly:
    """`pack_{dtype}(dst, dst_k, src, k_stride, j_stride, K, n, width)`, strides in elements:
    dst[k dst_k + j] = src[k k_stride + j j_stride] for j < n, 0 for n <= j < width, for each k < K; width is a
    multiple of 16, as it is below."""

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

        each(depth.constant(0), whole, LANES, lambda k: _squares(dtype, dst, dst_k, src, k, k, j_stride, n, width))
        _gathered(dtype, dst, dst_k, src, depth.constant(1), j_stride, whole, depth, n, width)

    return define_function(f"pack_transposed_{dtype}", fixed(types.void, *[types.int64] * 7), emit)


def pack_pieces(dtype: str) -> KernelOnly:
    """`pack_pieces_{dtype}(dst, dst_k, src, at, K, stride, pieces, columns, offsets, lengths)`, a panel of rows that
    lie in pieces, the same for each k < K: dst[k dst_k + columns[p] + j] = src[at[k] + offsets[p] + j stride] for
    j < lengths[p], at most 16, and each p < pieces. `at` and those three are addresses of tables (int64)."""

    def emit(sig: object, dst: Value, dst_k: Value, src: Value, at: Value, depth: Value, stride: Value,
             pieces: Value, columns: Value, offsets: Value, lengths: Value) -> None:  # fmt: skip
        def piece(p: Value, fetch: Callable[[Value, Value], Value]) -> None:
            column, offset, length = (load(table, p, "i64", False) for table in (columns, offsets, lengths))

            def row(k: Value) -> None:
                source = load(at, k, "i64", False) + offset
                store_head(dst, k * dst_k + column, fetch(source, length), length)

            each(depth.constant(0), depth, 1, row)

        def all_pieces(fetch: Callable[[Value, Value], Value]) -> Value:
            each(pieces.constant(0), pieces, 1, lambda p: piece(p, fetch))
            return pieces

        def beside() -> Value:
            return all_pieces(lambda source, length: load_head(src, source, length, dtype))

        def apart() -> Value:
            return all_pieces(lambda source, length: strided(src, source, stride, length, dtype))

        if stride.known is None:
            (stride == 1).branch(beside, apart)
        else:
            (beside if stride.known == 1 else apart)()

    return define_function(f"pack_pieces_{dtype}", fixed(types.void, *[types.int64] * 10), emit)


def pack_at(dtype: str) -> KernelOnly:
    """`pack_at_{dtype}(dst, dst_k, src, at, K, j_stride, n, width)`: dst[k dst_k + j] = src[at[k] + j j_stride] for
    j < n, 0 for n <= j < width, for each k < K; `at` is the address of a table (int64).

    16 rows that lie side by side in memory are transposed in registers.
    """

    def emit(sig: object, dst: Value, dst_k: Value, src: Value, at: Value, depth: Value, j_stride: Value,
             n: Value, width: Value) -> None:  # fmt: skip
        def rows(k: Value) -> Value:
            first = load(at, k, "i64", False)
            number = (k + LANES).minimum(depth) - LANES  # the table ends where the rows do
            nearby = load(at, number.maximum(0), "i64", True)
            apart = nearby != lane_numbers(k.builder) + first
            together = (k + LANES <= depth) & ~apart.any_lane()
            return together.branch(lambda: squares(k, first), lambda: single(k, first))

        def squares(k: Value, first: Value) -> Value:
            _squares(dtype, dst, dst_k, src, k, first, j_stride, n, width)
            return k.constant(LANES)

        def single(k: Value, first: Value) -> Value:
            def block(j: Value) -> None:
                count = (n - j).maximum(0)
                store(dst, k * dst_k + j, strided(src, j * j_stride + first, j_stride, count, dtype))

            each(k.constant(0), width, LANES, block)
            return k.constant(1)

        stepping(depth.constant(0), depth, rows)

    return define_function(f"pack_at_{dtype}", fixed(types.void, *[types.int64] * 8), emit)


def _squares(dtype: str, dst: Value, dst_k: Value, src: Value, k: Value, first: Value, j_stride: Value,
             n: Value, width: Value) -> None:  # fmt: skip
    """Rows k to k + 16, each element of which lies behind that of the row before, from `first` on: by columns, 16 of
    which are transposed in registers."""

    def square(j: Value) -> None:
        columns = [load_where(src, (j + c) * j_stride + first, j + c < n, dtype) for c in range(LANES)]
        for step, row in enumerate(transpose(columns)):
            store(dst, (k + step) * dst_k + j, row)

    each(k.constant(0), width, LANES, square)


def _gathered(dtype: str, dst: Value, dst_k: Value, src: Value, k_stride: Value, j_stride: Value,
              first: Value, depth: Value, n: Value, width: Value) -> None:  # fmt: skip
    """Rows `first` to `depth`, each element fetched by itself."""

    def vector(k: Value, j: Value) -> None:
        count = (n - j).maximum(0)  # no lane at all where the padding fills the whole vector
        store(dst, k * dst_k + j, strided(src, k * k_stride + j * j_stride, j_stride, count, dtype))

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

    def one(counter: Value) -> Value:
        body(counter)
        return counter.constant(step)

    stepping(start, stop, one)


def stepping(start: Value, stop: Value, body: Callable[[Value], Value]) -> None:
    """body(start) and so on below `stop`; each says how far it is to the next."""
    builder = stop.builder
    before, test = builder.block, builder.append_basic_block("each")
    inside, after = builder.append_basic_block("each.body"), builder.append_basic_block("each.done")
    builder.branch(test)
    builder.position_at_end(test)
    counter = Value(builder, "i64", builder.phi(stop.ir.type))
    counter.ir.add_incoming(start.ir, before)
    builder.cbranch((counter < stop).ir, inside, after)
    builder.position_at_end(inside)
    following = counter + body(counter)
    counter.ir.add_incoming(following.ir, builder.block)
    builder.branch(test)
    builder.position_at_end(after)


FUNCTIONS = {
    **{f"pack_{dtype}": pack(dtype) for dtype in ALL},
    **{f"pack_transposed_{dtype}": pack_transposed(dtype) for dtype in ALL},
    **{f"pack_pieces_{dtype}": pack_pieces(dtype) for dtype in FLOATS},
    **{f"pack_at_{dtype}": pack_at(dtype) for dtype in FLOATS},
}
