"""The register tile: MR rows by NV vectors of a product, accumulated in registers over a run-time K.

Comes in: a dtype and a shape. Goes out: a kernel function that runs the whole K loop and returns the MR * NV
accumulators, so that epilogue and stores are ordinary generated source. Every element is summed over k = 0,
1, ... by fused multiply-adds, whatever the shape of the tile; a sum starts anew every BLOCK terms, so that rounding
errors do not grow with K: the last block is whole, the first may be short, as in panels, which bring a block at a time.
May not know what the product is for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir
from numba.core import types

from flowgraph.codegen.cpu.memory import fixed, load, load_head
from flowgraph.codegen.cpu.value import LANES, SCALAR, Value
from flowgraph.codegen.cpu.vector import VECTORS, KernelOnly, define_function

BLOCK = 256  # terms


def tile(dtype: str, rows: int, vectors: int, how: str) -> KernelOnly:
    """`tile_{dtype}_{rows}x{vectors}(A, rows, a_row, a_k, B, b_k, K)`, `tile_head_...(..., n)`, `tile_block_...`,
    `tile_along_...` or `tile_at_...`.

    A(i, k) is at A + i a_row + k a_k, in elements; B(k, 16 j ...) at B + k b_k + 16 j. Rows from `rows` on
    repeat the last one, so they read nothing new and their results mean nothing. With `head`, the last vector
    has n valid columns. With `block`, `along` and `at`, 1 <= K <= BLOCK: half the code. With `along`, a_k is
    the address of a table (int64): A(i, k) is at A + i a_row + a_k[k], which makes a convolution of a product; with
    `at`, a_row is one, too.
    """
    result = types.UniTuple(VECTORS[dtype], rows * vectors)
    name = f"tile_{how}{'_' if how else ''}{dtype}_{rows}x{vectors}"
    rule = fixed(result, *[types.int64] * (8 if how == "head" else 7))
    return define_function(name, rule, lambda sig, *operands: _emit(dtype, rows, vectors, how, operands))


def _emit(dtype: str, rows: int, vectors: int, how: str, operands: Sequence[Value]) -> tuple[Value, ...]:
    a, valid, a_row, a_k, b, b_k, depth, *columns = operands
    by_table = how in ("along", "at")
    # Row i starts at min(i, valid - 1) rows from the first: a read past the matrix is impossible, without a
    # branch.
    if how == "at":
        starts = [load(a_row, (valid - 1).minimum(i), "i64", False) for i in range(rows)]
    else:
        starts = [depth.constant(0)] + [(valid - 1).minimum(i) * a_row for i in range(1, rows)]

    def with_term(k: Value, sums: Sequence[Value]) -> list[Value]:
        row_of_b = k * b_k
        right = [
            load_head(b, row_of_b + LANES * j, columns[0], dtype)
            if columns and j == vectors - 1
            else load(b, row_of_b + LANES * j, dtype, True)
            for j in range(vectors)
        ]
        column_of_a = load(a_k, k, "i64", False) if by_table else k * a_k
        updated = []
        for i in range(rows):
            left = load(a, starts[i] + column_of_a, dtype, False).splat()
            updated += [left.fma(right[j], sums[i * vectors + j]) for j in range(vectors)]
        return updated

    zero = Value(a.builder, dtype, ir.Constant(ir.VectorType(SCALAR[dtype], LANES), None))
    nothing = [zero] * (rows * vectors)
    begin = depth.constant(0)
    if by_table or how == "block":
        return tuple(_summed(begin, depth, nothing, with_term))
    return tuple(_in_blocks(depth, nothing, lambda start, stop: _summed(start, stop, nothing, with_term)))


def _summed(
    start: Value, stop: Value, nothing: Sequence[Value], with_term: Callable[[Value, Sequence[Value]], list[Value]]
) -> list[Value]:
    """The sums of the terms from start to stop, of which there is one at least."""
    builder, before = stop.builder, stop.builder.block
    body, done = builder.append_basic_block("tile.k"), builder.append_basic_block("tile.sum")
    builder.branch(body)
    builder.position_at_end(body)
    k, *sums = _carried([start, *nothing], before)
    updated, following = with_term(k, sums), k + 1
    _carry_on([k, *sums], [following, *updated], body)
    builder.cbranch((following < stop).ir, body, done)
    builder.position_at_end(done)
    return updated


def _in_blocks(
    depth: Value, nothing: Sequence[Value], block: Callable[[Value, Value], Sequence[Value]]
) -> list[Value]:
    """The sums of all terms, of which there may be none, those of a block after the other."""
    builder, before = depth.builder, depth.builder.block
    outer, after = builder.append_basic_block("tile.block"), builder.append_basic_block("tile.done")
    builder.cbranch((depth > 0).ir, outer, after)
    builder.position_at_end(outer)
    start, *totals = _carried([depth.constant(0), *nothing], before)
    stop = depth - (depth - 1 - start).divide_floored(BLOCK)[0] * BLOCK
    added = [total + new for total, new in zip(totals, block(start, stop), strict=True)]
    last = builder.block
    _carry_on([start, *totals], [stop, *added], last)
    builder.cbranch((stop < depth).ir, outer, after)
    builder.position_at_end(after)
    results = _carried(nothing, before)
    _carry_on(results, added, last)
    return results


def _carried(values: Sequence[Value], come_from: ir.Block) -> list[Value]:
    """Values that change from one round of a loop to the next, and what they begin with."""
    phis = [Value(value.builder, value.dtype, value.builder.phi(value.ir.type)) for value in values]
    _carry_on(phis, values, come_from)
    return phis


def _carry_on(phis: Sequence[Value], values: Sequence[Value], come_from: ir.Block) -> None:
    for phi, value in zip(phis, values, strict=True):
        phi.ir.add_incoming(value.ir, come_from)
