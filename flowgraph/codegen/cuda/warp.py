"""The lanes of a warp: shuffles and reductions; all 32 lanes take part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from flowgraph.codegen.cuda.scalar import extremum, is_number, unary
from flowgraph.codegen.cuda.word import (
    I1,
    I32,
    I64,
    VALUE,
    Lower,
    call_function,
    convert,
    is_float,
    need,
    types,
    word,
)

_DOWN, _XOR = 2, 3  # modes of shfl.sync


def _shuffle_word(builder: ir.IRBuilder, mode: int, word: Any, lane: Any) -> Any:
    pair = ir.LiteralStructType([I32, I1])
    args = [ir.Constant(I32, -1), ir.Constant(I32, mode), word, lane, ir.Constant(I32, 31)]
    return builder.extract_value(call_function(builder, "llvm.nvvm.shfl.sync.i32", pair, args), 0)


def _shuffle(builder: ir.IRBuilder, mode: int, value: Any, lane: Any) -> Any:
    """The value of another lane; 64 bits travel as two words."""
    if value.type == I1:
        return builder.trunc(_shuffle_word(builder, mode, builder.zext(value, I32), lane), I1)
    if value.type in (I32, ir.FloatType()):
        return builder.bitcast(_shuffle_word(builder, mode, builder.bitcast(value, I32), lane), value.type)
    bits = builder.bitcast(value, I64)
    low, high = builder.trunc(bits, I32), builder.trunc(builder.lshr(bits, ir.Constant(I64, 32)), I32)
    low, high = (builder.zext(_shuffle_word(builder, mode, half, lane), I64) for half in (low, high))
    return builder.bitcast(builder.or_(low, builder.shl(high, ir.Constant(I64, 32))), value.type)


def _shuffle_by(name: str, mode: int, doc: str) -> Any:
    def typing(value: Any, distance: Any) -> tuple[Any, Lower]:
        need(name, value in VALUE and isinstance(distance, types.Integer), value, distance)
        return value, lambda builder, args: _shuffle(
            builder, mode, args[0], convert(builder, args[1], distance, types.int32)
        )

    return word(name, 2, typing, doc)


def _butterfly(
    combine: Callable[[ir.IRBuilder, Any, Any, Any], Any],
) -> Callable[[ir.IRBuilder, Any, Any], Any]:
    """Combine all lanes pairwise over distances 16 … 1: every lane gets the same bits."""

    def lower(builder: ir.IRBuilder, dtype: Any, value: Any) -> Any:
        for distance in (16, 8, 4, 2, 1):
            value = combine(builder, dtype, value, _shuffle(builder, _XOR, value, ir.Constant(I32, distance)))
        return value

    return lower


shuffle_down = _shuffle_by(
    "shuffle_down", _DOWN, "The value of the lane d above; its own where there is none."
)
shuffle_xor = _shuffle_by("shuffle_xor", _XOR, "The value of lane (own ^ d).")
warp_sum = unary(
    "warp_sum",
    _butterfly(lambda b, t, x, y: b.fadd(x, y) if is_float(t) else b.add(x, y)),
    "The sum over the warp, in every lane.",
    is_number,
)
warp_max = unary(
    "warp_max",
    _butterfly(lambda b, t, x, y: extremum(b, t, ">", x, y)),
    "The maximum over the warp (any, for bool), in every lane; NaN propagates.",
    lambda t: True,
)
warp_min = unary(
    "warp_min",
    _butterfly(lambda b, t, x, y: extremum(b, t, "<", x, y)),
    "The minimum over the warp (all, for bool), in every lane; NaN propagates.",
    lambda t: True,
)

FUNCTIONS: dict[str, Any] = {
    function.__name__: function for function in (shuffle_down, shuffle_xor, warp_sum, warp_max, warp_min)
}
