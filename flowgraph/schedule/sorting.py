"""A stable merge sort of positions, as L: the same statements for a thread of any device.

Comes in: a sort of K, and how the device computes values and offsets. Goes out: loops. Runs of 1, 2, 4, ... sorted
positions are merged into the working memory and copied back, until one run is left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flowgraph.graph.size import Size
from flowgraph.graph.types import boolean, int64
from flowgraph.index_notation import Axis, Expr, Load, Var, reindex
from flowgraph.kernels.kernel import Kernel, Sort
from flowgraph.schedule.loops import Call, For, If, Set, Statement, Value, Write, number, operation, variable

PASSES = 32  # runs double: enough for 2**32 elements

ValueOf = Callable[[Expr], Value]
OffsetOf = Callable[[Sequence[Size], Sequence[Expr]], Value]


def merge_sort(
    kernel: Kernel, axis: Axis, sort: Sort, value: ValueOf, offset: OffsetOf, extent: Value
) -> list[Statement]:
    """The loops that sort along the axis at one point of the kernel's outer axes. All counters are int64."""
    shape = kernel.buffer(sort.buffer).type.shape
    n = Call("to_i64", (extent,))

    def place(name: str) -> Value:
        return offset(shape, [reindex(e, {axis: Var(name, int64)}) for e in sort.index])

    def position(name: str) -> Value:
        index = tuple(reindex(e, {axis: Var(name, int64)}) for e in sort.index)
        return value(Load(sort.buffer, index, int64))

    def key(name: str) -> Value:
        return value(reindex(sort.key, {axis: Var(name, int64)}))

    def loop(name: str, start: Value, stop: Value, step: Value, *body: Statement) -> For:
        return For(name, Call("to_i64", (start,)), stop, step, body)

    count, one = variable("count"), Call("to_i64", (number(1),))
    dtype = sort.key.dtype
    first, second = Var("first_key", dtype), Var("second_key", dtype)
    whole = [_integer("lt", variable("second"), variable("end"))]
    taken = Var("from_second", boolean)
    merge = loop(
        "to",
        variable("start"),
        variable("end"),
        one,
        Set(("first_at",), _clipped(variable("first"), count)),
        Set(("second_at",), _clipped(variable("second"), count)),
        Set(("first_position",), position("first_at")),
        Set(("second_position",), position("second_at")),
        Set((first.name,), key("first_position")),
        Set((second.name,), key("second_position")),
        Set((taken.name,), operation("and", (*whole, operation("or", (
            _integer("ge", variable("first"), variable("middle")),
            _before(second, first, sort.descending),
        ), boolean)), boolean)),
        Write(sort.work, place("to"), operation(
            "select", (taken, variable("second_position"), variable("first_position")), int64), int64),
        If(
            taken,
            (Set(("second",), _plus(variable("second"), one)),),
            (Set(("first",), _plus(variable("first"), one)),),
        ),
    )  # fmt: skip
    both = variable("both")  # runs together; a loop in steps of a variable would not end, were that 0
    pairs = loop(
        "pair",
        number(0),
        variable("pairs"),
        one,
        Set(("start",), operation("mul", (variable("pair"), both), int64)),
        Set(("middle",), _least(_plus(variable("start"), variable("width")), count)),
        Set(("end",), _least(_plus(variable("middle"), variable("width")), count)),
        Set(("first",), _plus(variable("start"), Call("to_i64", (number(0),)))),
        Set(("second",), _plus(variable("middle"), Call("to_i64", (number(0),)))),
        merge,
    )
    copied = value(Load(sort.work, tuple(reindex(e, {axis: Var("back", int64)}) for e in sort.index), int64))
    back = loop("back", number(0), count, one, Write(sort.buffer, place("back"), copied, int64))
    one_pass = If(
        _integer("lt", variable("width"), count),
        (
            Set(("both",), _plus(variable("width"), variable("width"))),
            Set(("pairs",), operation("floordiv", (_plus(count, _minus_one(both)), both), int64)),
            pairs,
            back,
            Set(("width",), both),
        ),
    )
    return [
        Set(("count",), n),
        loop("own", number(0), count, one, Write(sort.buffer, place("own"), variable("own"), int64)),
        Set(("width",), one),
        loop("pass_number", number(0), Call("to_i64", (number(PASSES),)), one, one_pass),
    ]


def _before(later: Var, earlier: Var, descending: bool) -> Value:
    """Whether the later of two elements comes first: never if they are equal, and NaN counts as the largest."""
    if not later.dtype.is_float:
        return operation("gt" if descending else "lt", (later, earlier), boolean)
    nan, number_ = (later, earlier) if descending else (earlier, later)
    is_nan = operation("and", (_compare("ne", nan, nan), _compare("eq", number_, number_)), boolean)
    return operation("or", (operation("gt" if descending else "lt", (later, earlier), boolean), is_nan), boolean)


def _compare(function: str, a: Value, b: Value) -> Value:
    return operation(function, (a, b), boolean)


def _integer(function: str, a: Value, b: Value) -> Value:
    return operation(function, (a, b), boolean)


def _plus(a: Value, b: Value) -> Value:
    return operation("add", (a, b), int64)


def _least(a: Value, b: Value) -> Value:
    return operation("select", (_integer("lt", a, b), a, b), int64)


def _clipped(position: Value, count: Value) -> Value:
    """A position that may have run past its end, moved to where there is something to read."""
    return _least(position, _minus_one(count))


def _minus_one(a: Value) -> Value:
    return operation("sub", (a, Call("to_i64", (number(1),))), int64)

