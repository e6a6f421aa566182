"""The register tile: MR rows by NV vectors of a product, accumulated in registers over a run-time K.

Comes in: a dtype and a shape. Goes out: a kernel function that runs the whole K loop and returns the MR * NV
accumulators, so that epilogue and stores are ordinary generated source. Every element is summed over k = 0,
1, ... by fused multiply-adds, whatever the shape of the tile. May not know what the product is for.
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir
from numba.core import types

from flowgraph.codegen.cpu.memory import fixed, load, load_head
from flowgraph.codegen.cpu.value import LANES, SCALAR, Value
from flowgraph.codegen.cpu.vector import VECTORS, KernelOnly, define_function


def tile(dtype: str, rows: int, vectors: int, head: bool) -> KernelOnly:
    """`tile_{dtype}_{rows}x{vectors}(A, rows, a_row, a_k, B, b_k, K)`, or `tile_head_...(..., n)`.

    A(i, k) is at A + i a_row + k a_k, in elements; B(k, 16 j ...) at B + k b_k + 16 j. Rows from `rows` on
    repeat the last one, so they read nothing new and their results mean nothing. With `head`, the last vector
    has n valid columns.
    """
    result = types.UniTuple(VECTORS[dtype], rows * vectors)
    name = f"tile_{'head_' if head else ''}{dtype}_{rows}x{vectors}"
    rule = fixed(result, *[types.int64] * (8 if head else 7))
    return define_function(name, rule, lambda sig, *operands: _emit(dtype, rows, vectors, operands))


def _emit(dtype: str, rows: int, vectors: int, operands: Sequence[Value]) -> tuple[Value, ...]:
    a, valid, a_row, a_k, b, b_k, depth, *columns = operands
    builder = a.builder
    # Row i starts at min(i, valid - 1) rows from the first: a read past the matrix is impossible, without a
    # branch.
    starts = [depth.constant(0)] + [(valid - 1).minimum(i) * a_row for i in range(1, rows)]
    zero = Value(builder, dtype, ir.Constant(ir.VectorType(SCALAR[dtype], LANES), None))

    before = builder.block
    body, after = builder.append_basic_block("tile.k"), builder.append_basic_block("tile.done")
    builder.cbranch((depth > 0).ir, body, after)
    builder.position_at_end(body)

    def carried(like: Value, initial: Value) -> Value:
        phi = builder.phi(like.ir.type)
        phi.add_incoming(initial.ir, before)
        return Value(builder, like.dtype, phi)

    k = carried(depth, depth.constant(0))
    sums = [carried(zero, zero) for _ in range(rows * vectors)]
    row_of_b = k * b_k
    right = [
        load_head(b, row_of_b + LANES * j, columns[0], dtype)
        if columns and j == vectors - 1
        else load(b, row_of_b + LANES * j, dtype, True)
        for j in range(vectors)
    ]
    column_of_a = k * a_k
    updated = []
    for i in range(rows):
        left = load(a, starts[i] + column_of_a, dtype, False).splat()
        updated += [left.fma(right[j], sums[i * vectors + j]) for j in range(vectors)]
    following = k + 1
    for phi, new in zip([k, *sums], [following, *updated], strict=True):
        phi.ir.add_incoming(new.ir, body)
    builder.cbranch((following < depth).ir, body, after)

    builder.position_at_end(after)
    results = []
    for new in updated:
        phi = builder.phi(new.ir.type)
        phi.add_incoming(zero.ir, before)
        phi.add_incoming(new.ir, body)
        results.append(Value(builder, dtype, phi))
    return tuple(results)
