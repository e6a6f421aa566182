"""Where the points of a few axes lie in memory, one after the other, counted without a division a point.

Comes in: how many axes, and tables. Goes out: kernel functions that fill tables with places: of every point, or of runs
of points that lie side by side. Points are numbered in the order of the axes, the last one fastest; `flat` is the first
point's number; an axis is its extent (but for the first one's, which nobody needs) and its step in elements, of each
operand. May not know what lies there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from numba.core import types

from flowgraph.codegen.cpu.memory import fixed, load, store
from flowgraph.codegen.cpu.value import LANES, Value
from flowgraph.codegen.cpu.vector import KernelOnly, define_function


def places(tables: int, axes: int) -> KernelOnly:
    """`places_{tables}x{axes}(tables..., count, flat, extents..., steps of the first..., of the next...)`:
    table[t] = place of point flat + t, for t < count; the points are counted through once for all tables."""

    def emit(sig: object, *operands: Value) -> None:
        filled, (count, flat, *described) = operands[:tables], operands[tables:]

        def one(number: Value, point: _Point) -> None:
            for table, place in zip(filled, point.places, strict=True):
                store(table, number, place)

        _walk(axes, count, flat, described, one)

    words = tables + 2 + (axes - 1) + tables * axes
    return define_function(f"places_{tables}x{axes}", fixed(types.void, *[types.int64] * words), emit)


def pieces(axes: int) -> KernelOnly:
    """`pieces_{axes}(numbers, offsets, lengths, count, flat, extents..., steps...)`: the points in pieces of up to 16
    that differ in the last axis alone. Of piece p, numbers[p] is the number t of its first point, offsets[p] that
    point's place, lengths[p] how many it has. Returns how many pieces there are."""

    def emit(sig: object, numbers: Value, offsets: Value, lengths: Value,
             count: Value, flat: Value, *described: Value) -> Value:  # fmt: skip
        b = count.builder

        def one(number: Value, point: _Point) -> None:
            # what there is so far is carried by the tables: the length of the piece before this point
            piece = point.carried
            length = load(lengths, piece.maximum(0), "i64", False)
            begins = (piece < 0) | (length == LANES) | (point.last == 0)
            piece = piece + begins.to("i64")
            with b.if_then(begins.ir):
                store(numbers, piece, number)
                store(offsets, piece, point.places[0])
            store(lengths, piece, begins.select(1, length + 1))
            point.carried = piece

        return _walk(axes, count, flat, described, one) + 1

    return define_function(f"pieces_{axes}", fixed(types.int64, *[types.int64] * (2 * axes + 4)), emit)


@dataclass
class _Point:
    """A point's digit along the last axis, its place in each operand, and a number that is carried along."""

    last: Value
    places: Sequence[Value]
    carried: Value


def _walk(
    axes: int, count: Value, flat: Value, described: Sequence[Value], one: Callable[[Value, _Point], None]
) -> Value:
    """`one` for every point, which may change what is carried, -1 at first; what it is at the end. Points are taken run
    by run along the last axis, so that what is done at the end of a run costs nothing within it."""
    extents, steps = described[: axes - 1], described[axes - 1 :]
    operands = [steps[k : k + axes] for k in range(0, len(steps), axes)]
    digits, rest = list[Value](), flat
    for extent in reversed(extents):
        rest, digit = rest.divide_floored(extent)
        digits.insert(0, digit)
    digits.insert(0, rest)
    zero, nothing = count.constant(0), count.constant(-1)

    def points(number: Value, run: Value, digits: Sequence[Value], carried: Value) -> Value:
        def one_point(t: Value, *now: Value) -> list[Value]:
            *places, carried = now
            point = _Point(digits[-1] + t, places, carried)
            one(number + t, point)
            following = [place + steps[-1] for place, steps in zip(places, operands, strict=True)]
            return [t + 1, *following, point.carried]

        places = [sum((d * s for d, s in zip(digits, steps, strict=True)), start=zero) for steps in operands]
        return _loop([zero, *places, carried], lambda t, *_: t < run, one_point)[-1]

    def one_run(number: Value, *now: Value) -> list[Value]:
        *digits, carried = now
        run = (count - number).minimum((extents[-1] - digits[-1]).maximum(1))
        carried = points(number, run, digits, carried)
        following = [digits[-1] + run]
        for digit, extent in zip(reversed(digits[:-1]), reversed(extents), strict=True):
            wraps = following[0] == extent
            following[0] = wraps.select(0, following[0])
            following.insert(0, digit + wraps.to("i64"))
        return [number + run, *following, carried]

    if not extents:
        return points(zero, count, digits, nothing)
    return _loop([zero, *digits, nothing], lambda number, *_: number < count, one_run)[-1]


def _loop(
    begin: Sequence[Value], goes_on: Callable[..., Value], body: Callable[..., Sequence[Value]]
) -> list[Value]:
    """Values that `body` makes new ones of, as long as `goes_on` says so; those at the end."""
    b = begin[0].builder
    before, test = b.block, b.append_basic_block("walk")
    inside, after = b.append_basic_block("walk.on"), b.append_basic_block("walk.done")
    b.branch(test)
    b.position_at_end(test)
    phis = [Value(b, value.dtype, b.phi(value.ir.type)) for value in begin]
    for phi, value in zip(phis, begin, strict=True):
        phi.ir.add_incoming(value.ir, before)
    b.cbranch(goes_on(*phis).ir, inside, after)
    b.position_at_end(inside)
    following = body(*phis)
    for phi, value in zip(phis, following, strict=True):
        phi.ir.add_incoming(value.ir, b.block)
    b.branch(test)
    b.position_at_end(after)
    return phis
