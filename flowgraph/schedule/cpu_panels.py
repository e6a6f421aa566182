"""Contractions over several axes on the CPU, convolutions above all, and long products: register tiles without an image
of columns.

Comes in: a kernel's sum of products at affine places, and `Panels`. Goes out: L for a range of tasks. A task computes
some rows of some columns of one point of the other axes, some terms at a time: panel by panel, its columns of the
second operand are packed, and stay in the cache while all rows use them. Where a row or a term lies in the first
operand is looked up in a table, unless they lie evenly. What the tables, the panel and the sums need is on the stack.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from flowgraph.graph.size import Size, estimate, floor_divide, product
from flowgraph.graph.types import boolean
from flowgraph.index_notation import Axis, Load
from flowgraph.schedule.begun import begun_sums
from flowgraph.schedule.cpu import LANES, Contraction, Panels
from flowgraph.schedule.cpu_point import LARGE_BESIDE_TILES, Scope, by_lanes, point_of
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
    Write,
    binary,
    ceil_div,
    minus,
    number,
    operation,
    plus,
    times,
    variable,
)

PIECES = ("piece_column", "piece_at", "piece_length")
TABLES = ("row_at", "a_at", "b_at", *PIECES)
FEW = 4  # panels
MEMORY = ("tile", "panel", *TABLES)


def lower_panels(scope: Scope, schedule: Panels, found: Contraction) -> tuple[list[Statement], Size]:
    """The statements of a range of tasks, and how many tasks there are."""
    return _Panels(scope, schedule, found).lower()


def _address(code: str, memory: str, element: Value) -> Value:
    return variable(memory) if element == number(0) else Call(f"at_{code}", (variable(memory), element))


@dataclass
class _Panels:
    scope: Scope
    schedule: Panels
    found: Contraction

    def __post_init__(self) -> None:
        found, sizes = self.found, self.scope.sizes
        self.after, self.begun = begun_sums(found.after, found.result)
        self.dtype = found.a.dtype
        self.code = self.dtype.code
        self.width = self.schedule.vectors * LANES
        self.chunk = self.schedule.blocks * self.schedule.rows
        self.even_rows = len(found.rows) == 1  # those of the first operand, which then lie evenly
        self.even = self.even_rows and len(found.summed) == 1  # and its terms
        self.in_line = found.transposed and len(found.summed) == 1  # terms of the second operand lie side by side
        self.reach = self.schedule.panels * self.width  # columns of a task
        self.m, self.n, self.depth = (
            sizes.product([x.extent for x in axes]) for axes in (found.rows, found.columns, found.summed)
        )
        self.moving = (*found.rows, *found.columns, *found.summed)
        terms = product(x.extent for x in found.summed)
        self.at_once = isinstance(terms, int) and 0 < terms <= self.schedule.depth  # all terms of all sums
        self.start = number(0) if self.at_once else variable("start")

    def lower(self) -> tuple[list[Statement], Size]:
        found = self.found
        rows, columns = (product(x.extent for x in axes) for axes in (found.rows, found.columns))
        chunks = floor_divide(rows + (self.chunk - 1), self.chunk)
        across = floor_divide(columns + (self.reach - 1), self.reach)
        tasks = product([*(x.extent for x in found.others), chunks, across])
        rows_at = [] if self.even_rows else self._places_of_rows()
        body = [*self._task(), *rows_at, *self._sums(), *self._epilogue()]
        return [*self._memory(), For("task", variable("lo"), variable("hi"), number(1), tuple(body))], tasks

    def _memory(self) -> list[Statement]:
        code, depth = self.code, self.schedule.depth
        tile = Set(("tile",), Call(f"stack_{code}", (number(self.chunk * self.reach),)))
        if not self.schedule.pack:
            return [tile]
        panel = Set(("panel",), Call(f"stack_{code}", (number(depth * self.width),)))
        lengths = {} if self.even_rows else {"row_at": self.chunk}
        lengths |= dict.fromkeys(self._by_table(), depth)
        zeros: list[Statement] = []
        if not self.found.transposed:
            lengths |= dict.fromkeys(PIECES, self.width)
            zeros = [Comment("columns that do not exist are zeros"), self._clear("panel", depth * self.width)]
        tables = [Set((name,), Call("stack_i64", (number(size),))) for name, size in lengths.items()]
        return [tile, panel, *tables, *zeros]

    def _clear(self, memory: str, elements: int) -> Statement:
        return Do(Call(f"clear_{self.code}", (variable(memory), number(elements))))

    def _task(self) -> list[Statement]:
        """Which rows, which columns, of which of the other points."""
        found = self.found
        across = ceil_div(self.n, self.reach)
        return [
            Set(("across",), across),
            Set(("each",), times(ceil_div(self.m, self.chunk), variable("across"))),
            Set(("local",), binary("mod", variable("task"), variable("each"))),
            *point_of(found.others, self.scope.sizes, binary("floordiv", variable("task"), variable("each"))),
            Set(("first_row",), times(binary("floordiv", variable("local"), variable("across")), number(self.chunk))),
            Set(("task_column",), times(binary("mod", variable("local"), variable("across")), number(self.reach))),
            Set(("rows",), Call("min", (number(self.chunk), minus(self.m, variable("first_row"))))),
            Set(("a_first",), self.scope.first(found.a, self.moving)),
            Set(("b_first",), self.scope.first(found.b, self.moving)),
            *([] if self.schedule.panels > 1 else self._panel(variable("task_column"))),
        ]

    def _panel(self, first: Value) -> list[Statement]:
        """Its first column, and how many there are."""
        columns = Call("min", (number(self.width), minus(self.n, variable("first_column"))))
        return [Set(("first_column",), first), Set(("columns",), columns)]

    def _panels(self, body: Sequence[Statement]) -> list[Statement]:
        """Statements for each panel of the task's columns."""
        if self.schedule.panels == 1:
            return list(body)
        made = (*self._panel(plus(variable("task_column"), variable("strip"))), *body)
        stop = Call("min", (number(self.reach), minus(self.n, variable("task_column"))))
        return [For("strip", number(0), stop, number(self.width), made)]

    def _strip(self) -> Value:
        """Where the tiles of a panel begin."""
        return number(0) if self.schedule.panels == 1 else times(variable("strip"), number(self.chunk))

    # counting through several axes

    def _places(self, operands: Mapping[str, Load], axes: Sequence[Axis], count: str, first: Value) -> Statement:
        """Fill tables with the places of so many points of some axes, from a flat number on, one for each operand."""
        walked = self._walked([*operands.values()], axes)
        filled = (*map(variable, operands), variable(count), first)
        return Do(Call(f"places_{len(operands)}x{len(axes)}", (*filled, *walked)))

    def _walked(self, loads: Sequence[Load], axes: Sequence[Axis]) -> list[Value]:
        """The axes as a walk needs them: all extents but the first, and steps in each operand."""
        extents = [self.scope.sizes(axis.extent) for axis in axes[1:]]
        return [*extents, *(self.scope.step(load, axis) for load in loads for axis in axes)]

    def _places_of_rows(self) -> list[Statement]:
        where = Comment("where each row begins in the first operand")
        return [where, self._places({"row_at": self.found.a}, self.found.rows, "rows", variable("first_row"))]

    def _pieces(self) -> list[Statement]:
        """The columns of the second operand in pieces that lie evenly in memory, 16 at most."""
        names = (*PIECES, "columns", "first_column")
        walked = self._walked([self.found.b], self.found.columns)
        return [
            Comment("columns that lie evenly in the second operand, a vector of them at most"),
            Set(("pieces",), Call(f"pieces_{len(self.found.columns)}", (*map(variable, names), *walked))),
        ]

    # the sums

    def _sums(self) -> list[Statement]:
        """A panel of terms after the other, each multiplied by all rows of the task."""
        found, schedule = self.found, self.schedule
        blocks: list[Statement] = self._block(number(0))
        if schedule.blocks > 1:
            inner = tuple(self._block(variable("block")))
            blocks = [For("block", number(0), variable("rows"), number(schedule.rows), inner)]
        if schedule.pack:
            blocks = [*([] if found.transposed else self._pieces()), Do(self._pack()), *blocks]
        panels = [*self._tables(), *self._panels(blocks)]
        if self.at_once:
            return [*self._beginning(), Set(("terms",), self.depth), *panels]
        whole = number(schedule.depth)
        later = times(minus(variable("parts"), plus(variable("part"), number(1))), whole)
        return [
            *self._beginning(),
            Set(("parts",), ceil_div(self.depth, schedule.depth)),
            For("part", number(0), variable("parts"), number(1), (
                Set(("stop",), minus(self.depth, later)),
                Set(("start",), Call("max", (minus(variable("stop"), whole), number(0)))),
                Set(("terms",), minus(variable("stop"), variable("start"))),
                *panels,
            )),
        ]  # fmt: skip

    def _by_table(self) -> dict[str, Load]:
        """The operands whose terms are looked up, by the table of their places."""
        if not self.schedule.pack:
            return {}
        first = {} if self.even else {"a_at": self.found.a}
        return first if self.in_line else {**first, "b_at": self.found.b}

    def _tables(self) -> list[Statement]:
        """Where the terms lie. If they are few enough to be taken at once, they lie there for all tasks."""
        operands = self._by_table()
        if not operands:
            return []
        first = binary("eq", variable("task"), variable("lo"))
        many = binary("gt", self.depth, number(self.schedule.depth))
        filled = self._places(operands, self.found.summed, "terms", self.start)
        return [If(first if self.at_once else operation("or", (first, many), boolean), (filled,))]

    def _beginning(self) -> list[Statement]:
        """What is in the tiles before there are sums: what these begin with, or, where there are no terms, zeros."""
        if (begin := self.begun.get(self.found.result)) is not None:

            def begun(scope: Scope, place: Value) -> list[Statement]:
                return [Write("tile", place, scope.vector(begin), self.dtype, "v")]

            return self._each_vector(begun)
        none = binary("le", self.depth, number(0))
        return [] if self.at_once else [If(none, (self._clear("tile", self.chunk * self.reach),))]

    def _pack(self) -> Call:
        found = self.found
        step = self.scope.step(found.b, found.columns[-1])
        panel, terms, begin = (variable("panel"), number(self.width)), variable("terms"), variable("b_first")
        column = plus(begin, times(variable("first_column"), step))
        columns = (variable("columns"), number(self.width))
        rest: tuple[Value, ...] = (variable("b_at"), terms, step)
        if self.in_line:
            name, first, rest = "transposed", plus(column, self.start), (step, terms, *columns)
        elif found.transposed:
            name, first, rest = "at", column, (*rest, *columns)
        else:
            name, first, rest = "pieces", begin, (*rest, *map(variable, ("pieces", *PIECES)))
        return Call(f"pack_{name}_{self.code}", (*panel, _address(self.code, str(found.b.source), first), *rest))

    def _block(self, block: Value) -> list[Statement]:
        """One register tile: the sums of its terms, stored or, if there were terms before, added."""
        schedule, found, code = self.schedule, self.found, self.code
        inside = plus(self._strip(), times(block, number(self.width)))

        def of(vectors: int) -> tuple[Statement, ...]:
            panel = (*self._right(), variable("terms"))
            how = "block" if self.even else "along" if self.even_rows else "at"
            name = f"tile_{how}_{code}_{schedule.rows}x{vectors}"
            sums = Call(name, (*self._left(block), *panel), self.dtype)
            earlier = number(1) if found.result in self.begun else self.start
            spilled = Do(Call(f"spill_sum_{code}", (variable("there"), earlier, sums)))
            return (Set(("pitch",), number(vectors * LANES)), spilled)

        valid = Call("min", (number(schedule.rows), minus(variable("rows"), block)))
        return [
            *([] if schedule.blocks == 1 else [Set(("valid",), valid)]),
            Set(("there",), _address(code, "tile", inside)),
            *self._by_width(of),
        ]

    def _by_width(self, of: Callable[[int], tuple[Statement, ...]]) -> tuple[Statement, ...]:
        """Statements for a panel of so many vectors. The last of a few may be of one only, unless it is known not to
        be; where there are many, half of one is not worth a second register tile to compile."""
        columns, vectors = product(x.extent for x in self.found.columns), self.schedule.vectors
        never = isinstance(columns, int) and not 0 < columns % self.width <= LANES
        if vectors == 1 or never or estimate(columns) > FEW * self.width:
            return of(vectors)
        return (If(binary("le", variable("columns"), number(LANES)), of(1), of(vectors)),)

    def _left(self, block: Value) -> tuple[Value, Value, Value, Value]:
        """The first operand of a tile: where it begins, its rows, and their places and those of its terms, as steps or
        as tables."""
        found, a, source = self.found, self.found.a, str(self.found.a.source)
        valid = variable("rows" if self.schedule.blocks == 1 else "valid")
        place: Value = variable("a_first")
        row = _address("i64", "row_at", block)
        term: Value = variable("a_at")
        if self.even_rows:
            row = self.scope.step(a, found.rows[0])
            place = plus(place, times(plus(variable("first_row"), block), row))
        if self.even:
            term = self.scope.step(a, found.summed[0])
            place = plus(place, times(self.start, term))
        return _address(self.code, source, place), valid, row, term

    def _right(self) -> tuple[Value, Value]:
        """The panel of a tile, and how far its rows are apart."""
        if self.schedule.pack:
            return variable("panel"), number(self.width)
        term, column = (self.scope.step(self.found.b, axis) for axis in (self.found.summed[0], self.found.column))
        place = plus(variable("b_first"), times(self.start, term), times(variable("first_column"), column))
        return _address(self.code, str(self.found.b.source), place), term

    # what follows the sums

    def _epilogue(self) -> list[Statement]:
        """What the kernel makes of each vector of results."""

        def made(scope: Scope, place: Value) -> list[Statement]:
            statements: list[Statement] = [Set((self.found.result,), Read("tile", place, self.dtype, "v"))]
            for nest in self.after.nests:
                statements += [*scope.lets(nest), *scope.stores(nest)]
            return statements

        return self._each_vector(made)

    def _each_vector(self, body: Callable[[Scope, Value], list[Statement]]) -> list[Statement]:
        """Statements for each vector of the task's results: what they may read, and the place of the vector."""
        found, schedule, sizes = self.found, self.schedule, self.scope.sizes
        column = found.column.name
        pitch = self._by_width(lambda vectors: (Set(("pitch",), number(vectors * LANES)),))
        tiles = self._strip()
        row: Value = variable("row")
        if schedule.blocks > 1:
            block = binary("floordiv", row, number(schedule.rows))
            tiles = plus(tiles, times(block, number(schedule.rows * self.width)))
            row = binary("mod", row, number(schedule.rows))
        line = plus(tiles, times(row, variable("pitch")))
        flat = plus(variable("first_row"), variable("row"))
        return self._panels((
            *pitch,
            For("row", number(0), variable("rows"), number(1), (
                *point_of(found.rows, sizes, flat),
                Set(("line",), line),
                For("lane", number(0), variable("columns"), number(LANES), (
                    Set((column,), plus(variable("first_column"), variable("lane"))),
                    *self._lanes(body),
                )),
            )),
        ))  # fmt: skip

    def _lanes(self, body: Callable[[Scope, Value], list[Statement]]) -> list[Statement]:
        """Statements for all lanes of a vector, or for those that there are: one of them, where it is known which."""
        columns = product(x.extent for x in self.found.columns)
        left = minus(variable("columns"), variable("lane"))
        return by_lanes(columns, "lanes", left, lambda lanes: self._vector(body, lanes), LARGE_BESIDE_TILES)

    def _vector(self, body: Callable[[Scope, Value], list[Statement]], lanes: Value | None) -> list[Statement]:
        found = self.found
        scope = Scope(self.after, self.scope.sizes, {found.result}, found.column, lanes)
        return body(scope, plus(variable("line"), variable("lane")))
