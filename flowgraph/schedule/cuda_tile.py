"""Matrix products on CUDA: tiles through shared memory, results in registers, the epilogue before the store.

Comes in: a kernel that is a product, and a `Tile`. Goes out: L for one thread. The next tiles are fetched
into registers while the present ones are multiplied. Operands may have any strides; wide loads are used where
sizes allow, which is found out once a launch.

In shared memory the summed axis is the slow one: element (e, k) is at k * extent + (e ^ step * (k // 4)).
The exclusive or spreads over the banks what is stored by threads that loaded four elements along that axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from flowgraph.graph.size import Size, floor_divide
from flowgraph.graph.types import DType, boolean, int32
from flowgraph.index_notation import Axis, Const, Expr, Load, Var, reindex
from flowgraph.schedule.access import stride_along
from flowgraph.schedule.cpu import Product
from flowgraph.schedule.cuda import VECTOR, Tile, is_vector, pitches
from flowgraph.schedule.cuda_point import LANES, Lanes, Point, apply, as_index, divide, remainder, whole_fours
from flowgraph.schedule.loops import (
    Call,
    Comment,
    Do,
    For,
    If,
    Read,
    Set,
    Statement,
    Value,
    number,
    plus,
    times,
)

BARRIER = Do(Call("barrier", ()))
BANKS = 32
I, J = "i_start", "j_start"


def variable(name: str) -> Var:
    """A variable of the kernel that counts elements: 32 bits."""
    return Var(name, int32)


def _less(a: Value, b: Value) -> Value:
    return apply("lt", boolean, a, b)


def _both(a: Value, b: Value) -> Value:
    return apply("and", boolean, a, b)


@dataclass(frozen=True)
class _Operand:
    """One factor: a block takes `extent` of its own axis, from `start` on. Its names begin with `letter`."""

    letter: str
    load: Load
    own: Axis
    summed: Axis
    extent: int
    start: str
    along: Axis  # the axis along which it is contiguous, or the summed one
    fits: Value | None  # the condition for wide loads, None if there can be none

    @property
    def dtype(self) -> DType:
        return self.load.dtype

    def name(self, what: object) -> str:
        return f"{self.letter}_{what}"


def lower_tile(point: Point, tile: Tile, found: Product) -> tuple[list[Statement], Size]:
    """The body of a product kernel and its number of blocks."""
    return _Maker(point, tile, found).lower()


@dataclass(frozen=True)
class _Maker:
    point: Point
    tile: Tile
    found: Product

    def lower(self) -> tuple[list[Statement], Size]:
        tile, sizes = self.tile, self.point.sizes
        i, j, k = self.found.i, self.found.j, self.found.k
        a = self._operand("a", self.found.a, i, tile.rows, I)
        b = self._operand("b", self.found.b, j, tile.columns, J)
        thread, right = Call("thread", ()), tile.columns // tile.each
        head: list[Statement] = [
            Set(("down",), divide(thread, number(right))),
            Set(("right",), remainder(thread, number(right))),
            *self._places(a),
            *self._places(b),
            Set(("strips",), as_index(_ceil(sizes(j.extent), tile.columns))),
        ]
        following = plus(variable("start"), number(tile.depth))
        body: list[Statement] = [
            Set((I,), times(divide(variable("task"), variable("strips")), number(tile.rows))),
            Set((J,), times(remainder(variable("task"), variable("strips")), number(tile.columns))),
            *(Set((name,), Const(0.0, a.dtype)) for name in self._sums()),
            *self._fetch(a, number(0)),
            *self._fetch(b, number(0)),
            For("start", number(0), sizes(k.extent), number(tile.depth), (
                *self._stash(a),
                *self._stash(b),
                BARRIER,
                Comment("the next tiles are on their way while these are multiplied"),
                *self._fetch(a, following),
                *self._fetch(b, following),
                *self._multiply(a, b),
                BARRIER,
            )),
            *self._epilogue(),
        ]  # fmt: skip
        count = times(_ceil(sizes(i.extent), tile.rows), variable("strips"))
        loop = For("task", Call("block", ()), count, Call("blocks", ()), tuple(body))
        blocks = _blocks(i.extent, tile.rows) * _blocks(j.extent, tile.columns)
        return [*head, loop], blocks

    def _operand(self, letter: str, load: Load, own: Axis, extent: int, start: str) -> _Operand:
        buffer, summed = self.point.kernel.buffer(str(load.source)), self.found.k
        along = next((a for a in (summed, own) if stride_along(buffer.type.shape, load.index, a) == 1), None)
        fits = None
        carried = extent * self.tile.depth // self.tile.threads
        if carried == VECTOR and along is not None and is_vector(buffer, load.index, along):
            fits = whole_fours(self.point.sizes, [along.extent, buffer.type.shape[-1]])
        return _Operand(letter, load, own, summed, extent, start, along or summed, fits)

    def _sums(self) -> list[str]:
        return [f"sum_{r}_{c}" for r in range(self.tile.each) for c in range(self.tile.each)]

    # where an operand's elements pass through shared memory

    @property
    def _step(self) -> int:
        """What four summed steps further change an element's place by; small tiles are padded instead."""
        return BANKS * VECTOR // self.tile.depth if self.tile.each > 1 else 0

    def _pitch(self, operand: _Operand) -> int:
        return operand.extent + (0 if self._step else 1)

    def _spot(self, operand: _Operand, own: Value, summed: Value) -> Value:
        if self._step:
            own = Call("xor", (own, times(divide(summed, number(VECTOR)), number(self._step))))
        return plus(times(summed, number(self._pitch(operand))), own)

    def _places(self, operand: _Operand) -> list[Statement]:
        """Which element of a tile this thread carries first, and the place of that in shared memory."""
        thread, depth = Call("thread", ()), self.tile.depth

        def split(wide: bool) -> tuple[Statement, ...]:
            step = VECTOR if wide else 1
            length = (depth if operand.along == operand.summed else operand.extent) // step
            slow, fast = (
                divide(thread, number(length)),
                times(remainder(thread, number(length)), number(step)),
            )
            own, summed = (slow, fast) if operand.along == operand.summed else (fast, slow)
            return (Set((operand.name("own"),), own), Set((operand.name("summed"),), summed))

        made: list[Statement] = [
            Set(
                (operand.name("tile"),),
                Call(f"shared_{operand.dtype.code}", (number(depth * self._pitch(operand)),)),
            ),
        ]
        if operand.fits is None:
            made += split(wide=False)
        else:
            made += [
                Set((operand.name("wide"),), operand.fits),
                If(Var(operand.name("wide"), boolean), split(True), split(False)),
            ]
        spot = self._spot(operand, variable(operand.name("own")), variable(operand.name("summed")))
        return [*made, Set((operand.name("spot"),), spot)]

    def _carried(self, operand: _Operand) -> list[tuple[Value, Value]]:
        """(own, summed) of the elements that this thread carries one by one."""
        count = operand.extent * self.tile.depth // self.tile.threads
        own, summed = variable(operand.name("own")), variable(operand.name("summed"))
        if operand.along == operand.summed:
            apart = self.tile.threads // self.tile.depth
            return [(plus(own, number(q * apart)), summed) for q in range(count)]
        apart = self.tile.threads // operand.extent
        return [(own, plus(summed, number(q * apart))) for q in range(count)]

    def _element(self, operand: _Operand, own: Value, summed: Value, how: str) -> tuple[Value, Value]:
        """(whether the element exists, its load)."""
        shape = self.point.kernel.buffer(str(operand.load.source)).type.shape
        places = {operand.own: cast(Expr, own), operand.summed: cast(Expr, summed)}
        index = [reindex(e, places) for e in operand.load.index]
        sizes = self.point.sizes
        exists = _both(_less(own, sizes(operand.own.extent)), _less(summed, sizes(operand.summed.extent)))
        return exists, Read(str(operand.load.source), self.point.offset(shape, index), operand.dtype, how)

    def _fetch(self, operand: _Operand, start: Value) -> list[Statement]:
        """This thread's part of the tile that begins at `start`, into registers; zeros beyond the ends."""
        zero = Const(0.0, operand.dtype)
        names = [operand.name(q) for q in range(operand.extent * self.tile.depth // self.tile.threads)]
        single: list[Statement] = []
        for name, (own, summed) in zip(names, self._carried(operand), strict=True):
            exists, load = self._element(operand, plus(variable(operand.start), own), plus(start, summed), "")
            single.append(If(exists, (Set((name,), load),), (Set((name,), zero),)))
        if operand.fits is None:
            return single
        own, summed = variable(operand.name("own")), variable(operand.name("summed"))
        exists, load = self._element(
            operand, plus(variable(operand.start), own), plus(start, summed), str(VECTOR)
        )
        wide = If(exists, (Set(tuple(names), load),), tuple(Set((name,), zero) for name in names))
        return [If(Var(operand.name("wide"), boolean), (wide,), tuple(single))]

    def _stash(self, operand: _Operand) -> list[Statement]:
        """The registers into shared memory."""
        code, tile = operand.dtype.code, variable(operand.name("tile"))
        values = [
            Var(operand.name(q), operand.dtype)
            for q in range(operand.extent * self.tile.depth // self.tile.threads)
        ]
        store = f"shared_store_{code}"
        single = [
            Do(Call(store, (tile, self._spot(operand, own, summed), value)))
            for value, (own, summed) in zip(values, self._carried(operand), strict=True)
        ]
        if operand.fits is None:
            return list(single)
        spot = variable(operand.name("spot"))
        if operand.along == operand.own and self._step:
            wide = [Do(Call(f"shared_store4_{code}", (tile, spot, *values)))]
        else:
            apart = self._pitch(operand) if operand.along == operand.summed else 1
            places = [plus(spot, number(q * apart)) for q in range(VECTOR)]
            wide = [Do(Call(store, (tile, at, value))) for at, value in zip(places, values, strict=True)]
        return [If(Var(operand.name("wide"), boolean), tuple(wide), tuple(single))]

    # the sum

    def _multiply(self, a: _Operand, b: _Operand) -> list[Statement]:
        """Both tiles in shared memory, multiplied and added to the sums in registers."""
        each, dtype = self.tile.each, a.dtype
        lanes = [(a, "down"), (b, "right")]

        def add() -> list[Statement]:
            def fused(r: int, c: int) -> Value:
                total = Var(f"sum_{r}_{c}", dtype)
                return Call(
                    "fma", (Var(a.name(f"at_{r}"), dtype), Var(b.name(f"at_{c}"), dtype), total), dtype
                )

            return [Set((f"sum_{r}_{c}",), fused(r, c)) for r in range(each) for c in range(each)]

        if each == 1:
            loads = []
            for o, place in lanes:
                at = plus(times(variable("step"), number(self._pitch(o))), variable(place))
                load = Call(f"shared_load_{dtype.code}", (variable(o.name("tile")), at), dtype)
                loads.append(Set((o.name("at_0"),), load))
            return [For("step", number(0), number(self.tile.depth), number(1), (*loads, *add()))]
        turn: list[Statement] = []
        wide: list[Statement] = []
        for o, place in lanes:
            for g in range(each // VECTOR):
                own = plus(times(variable(place), number(VECTOR)), number(g * o.extent * VECTOR // each))
                turn.append(
                    Set(
                        (o.name(f"turned_{g}"),),
                        Call("xor", (own, times(variable("quad"), number(self._step)))),
                    )
                )
                row = plus(times(variable("quad"), number(VECTOR)), variable("step"))
                at = plus(times(row, number(self._pitch(o))), variable(o.name(f"turned_{g}")))
                names = tuple(o.name(f"at_{g * VECTOR + q}") for q in range(VECTOR))
                wide.append(
                    Set(names, Call(f"shared_load4_{dtype.code}", (variable(o.name("tile")), at), dtype))
                )
        inner = For("step", number(0), number(VECTOR), number(1), (*wide, *add()))
        return [For("quad", number(0), number(self.tile.depth // VECTOR), number(1), (*turn, inner))]

    # after the sum

    def _epilogue(self) -> list[Statement]:
        """Every result through the rest of the kernel, row by row; four columns at once where sizes allow."""
        i, j, each, tile = self.found.i, self.found.j, self.tile.each, self.tile
        dtype = self.found.a.dtype
        down, right, result = variable("down"), variable("right"), self.found.result
        if each == 1:
            return [
                Set((i.name,), plus(variable(I), down)),
                Set((j.name,), plus(variable(J), right)),
                Set((result,), Var("sum_0_0", dtype)),
                self._if_inside(self._rest()),
            ]
        line = variable("line")  # of the results of this thread
        fits = whole_fours(
            self.point.sizes, [j.extent, *pitches(self.point.kernel, self.point.kernel.nests[1:], j)]
        )
        groups = each // VECTOR
        body: list[Statement] = [Set((i.name,), plus(variable(I), times(down, number(VECTOR)), line))]
        if groups > 1:
            half = times(divide(line, number(VECTOR)), number(tile.rows // groups))
            body = [
                Set(
                    (i.name,),
                    plus(variable(I), half, times(down, number(VECTOR)), remainder(line, number(VECTOR))),
                )
            ]
        for g in range(groups):
            first = plus(variable(J), number(g * tile.columns // groups), times(right, number(VECTOR)))
            for q, letter in enumerate(LANES):
                column = [Var(f"sum_{r}_{g * VECTOR + q}", dtype) for r in range(each)]
                body.append(Set((f"{result}_{letter}",), _pick(line, column, dtype)))
            lanes = [Var(f"{result}_{letter}", dtype) for letter in LANES]
            single = For("next", number(0), number(VECTOR), number(1), (
                Set((j.name,), plus(first, variable("next"))),
                Set((result,), _pick(variable("next"), lanes, dtype)),
                self._if_inside(self._rest()),
            ))  # fmt: skip
            if fits is None:
                body.append(single)
                continue
            self.point.lanes = Lanes(j, {result})
            wide = self._if_inside(self._rest())
            self.point.lanes = None
            body.append(If(fits, (Set((j.name,), first), wide), (single,)))
        return [For("line", number(0), number(each), number(1), tuple(body))]

    def _rest(self) -> list[Statement]:
        made: list[Statement] = []
        for nest in self.point.kernel.nests[1:]:
            made += [*self.point.lets(nest), *self.point.stores(nest)]
        return made

    def _if_inside(self, statements: list[Statement]) -> If:
        i, j, sizes = self.found.i, self.found.j, self.point.sizes
        inside = _both(_less(variable(i.name), sizes(i.extent)), _less(variable(j.name), sizes(j.extent)))
        return If(inside, tuple(statements))


def _pick(which: Value, values: list[Var], dtype: DType) -> Value:
    """values[which], of values in registers."""
    chosen: Value = values[-1]
    for k in range(len(values) - 2, -1, -1):
        chosen = apply("select", dtype, apply("eq", boolean, which, number(k)), values[k], chosen)
    return chosen


def _ceil(a: Value, b: int) -> Value:
    return divide(plus(a, number(b - 1)), number(b))


def _blocks(extent: Size, each: int) -> Size:
    return floor_divide(extent + (each - 1), each)
