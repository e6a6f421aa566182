"""Loops of generated kernels: `for i in range(...)` counts up, in steps above 0.

Goes out: RANGES, numba's registry of what its own target does otherwise. numba counts the rounds that are left, by a
division, raises an exception for steps of 0, and hands every part on through memory: half the time that a short loop
took to compile. May not know what is done in a loop.
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir
from numba.core import cgutils, imputils, types
from numba.core.base import BaseContext
from numba.core.typing.templates import Signature

RANGES = imputils.Registry("ranges of kernels")


def _struct(context: BaseContext, builder: ir.IRBuilder, kind: types.Type, *values: ir.Value) -> ir.Value:
    made = ir.Constant(context.get_value_type(kind), ir.Undefined)
    for place, value in enumerate(values):
        made = builder.insert_value(made, value, place)
    return made


def _parts(builder: ir.IRBuilder, struct: ir.Value) -> list[ir.Value]:
    """The first three."""
    return [builder.extract_value(struct, place) for place in range(3)]


def _range(context: BaseContext, builder: ir.IRBuilder, sig: Signature, args: Sequence[ir.Value]) -> ir.Value:
    """(start, stop, step) of range(stop), range(start, stop) or range(start, stop, step)."""
    zero, one = (context.get_constant(types.int64, k) for k in (0, 1))
    start, stop, step = {1: (zero, *args, one), 2: (*args, one), 3: tuple(args)}[len(args)]
    return _struct(context, builder, types.range_state64_type, start, stop, step)


def _begin(context: BaseContext, builder: ir.IRBuilder, sig: Signature, args: Sequence[ir.Value]) -> ir.Value:
    """(place of the next number, stop, step, place); numba's type has room for two places."""
    start, stop, step = _parts(builder, args[0])
    place = cgutils.alloca_once(builder, start.type)
    builder.store(start, place)
    return _struct(context, builder, types.range_iter64_type, place, stop, step, place)


def _next(context: BaseContext, builder: ir.IRBuilder, sig: Signature, args: Sequence[ir.Value]) -> ir.Value:
    """(the number, whether it is below the end)."""
    place, stop, step = _parts(builder, args[0])
    number = builder.load(place)
    builder.store(builder.add(number, step, flags=["nsw"]), place)
    return _struct(context, builder, sig.return_type, number, builder.icmp_signed("<", number, stop))


for count in (1, 2, 3):
    RANGES.lower(range, *[types.int64] * count)(_range)
RANGES.lower("getiter", types.range_state64_type)(_begin)
RANGES.lower("iternext", types.range_iter64_type)(_next)
