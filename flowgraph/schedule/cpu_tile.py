"""Products on the CPU: a register tile of the result, whose values go through the epilogue before they are stored."""

from __future__ import annotations

from dataclasses import dataclass

from flowgraph.graph.size import Size, floor_divide, product
from flowgraph.index_notation import Axis, Load
from flowgraph.schedule.cpu import LANES, Product, Tile
from flowgraph.schedule.cpu_point import FULL, LARGE_BESIDE_TILES, Scope, by_lanes, point_of
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
    binary,
    ceil_div,
    minus,
    number,
    plus,
    times,
    variable,
)


def lower_tile(scope: Scope, schedule: Tile, found: Product) -> tuple[list[Statement], Size, Size]:
    """The statements of a range of tasks, how many tasks there are, and the bytes of packed panels they share."""
    return _Tiles(scope, schedule, found).lower()


@dataclass
class _Tiles:
    """Matrix products, one at each point of `found.others`: which tile a task computes, from what, and what follows."""

    scope: Scope
    schedule: Tile
    found: Product

    def __post_init__(self) -> None:
        found = self.found
        self.dtype = self.scope.kernel.buffer(str(found.a.source)).type.dtype
        self.width = self.schedule.vectors * LANES
        self.i, self.j = found.i.name, found.j.name
        self.m, self.n, self.depth = (self.scope.sizes(axis.extent) for axis in (found.i, found.j, found.k))
        self.row_blocks = ceil_div(self.m, self.schedule.rows)
        self.column_blocks = floor_divide(found.j.extent + (self.width - 1), self.width)

    def lower(self) -> tuple[list[Statement], Size, Size]:
        dtype, width = self.dtype, self.width
        setup = Set(("tile",), Call(f"stack_{dtype.code}", (number(self.schedule.rows * width),)))
        batch, local, tasks = self._tasks()
        columns = Set(("columns",), Call("min", (number(width), minus(self.n, variable(self.j)))))
        scratch: Size = 0
        if self.schedule.pack:
            body = [*batch, Set((self.j,), times(local, number(width))), columns, *self._packed_column()]
            scratch = self.found.k.extent * tasks * (width * dtype.itemsize)
        else:
            body = [
                *batch,
                Set(("block",), self.row_blocks),
                Set((self.i,), times(binary("mod", local, variable("block")), number(self.schedule.rows))),
                Set((self.j,), times(binary("floordiv", local, variable("block")), number(width))),
                columns,
                *self._one_tile(),
            ]
        return [setup, For("task", variable("lo"), variable("hi"), number(1), tuple(body))], tasks, scratch

    def _tasks(self) -> tuple[list[Statement], Value, Size]:
        """Statements that find the batch of a task, its number within the batch, and how many tasks there are.

        A task is one tile; of packed panels, a whole column of tiles.
        """
        rows, found = self.schedule.rows, self.found
        if self.schedule.pack:
            each = self.column_blocks
            count = ceil_div(self.n, self.width)
        else:
            each = floor_divide(found.i.extent + (rows - 1), rows) * self.column_blocks
            count = times(self.row_blocks, ceil_div(self.n, self.width))
        tasks = product([*(x.extent for x in found.others), each])
        if not found.others:
            return [], variable("task"), tasks
        batch: list[Statement] = [
            Set(("each",), count),
            Set(("local",), binary("mod", variable("task"), variable("each"))),
            Set(("batch",), binary("floordiv", variable("task"), variable("each"))),
            *point_of(found.others, self.scope.sizes, variable("batch")),
        ]
        return batch, variable("local"), tasks

    def _packed_column(self) -> list[Statement]:
        """Copy a block of columns of the second operand, then all tiles below it."""
        found, dtype, width = self.found, self.dtype, self.width
        place = times(variable("task"), number(width), self.depth)
        b_k, b_j = self._stride(found.b, found.k), self._stride(found.b, found.j)
        transposed = b_k == number(1)
        name = f"pack_transposed_{dtype.code}" if transposed else f"pack_{dtype.code}"
        strides = (b_j,) if transposed else (b_k, b_j)
        source = self._address(found.b, times(variable(self.j), b_j))
        columns = (variable("columns"), number(width))
        copy = Call(name, (variable("packed"), number(width), source, *strides, self.depth, *columns))
        return [
            Comment("this block of columns of the second operand, row by row"),
            Set(("packed",), Call(f"at_{dtype.code}", (variable("panel"), place))),
            Do(copy),
            Set(("j_kept",), variable(self.j)),
            For("block", number(0), self.row_blocks, number(1), (
                Set((self.i,), times(variable("block"), number(self.schedule.rows))),
                Set((self.j,), variable("j_kept")),
                *self._one_tile(),
            )),
        ]  # fmt: skip

    def _one_tile(self) -> list[Statement]:
        """The tile whose first element is (i, j): its products, then the epilogue of each of its vectors."""
        i, j = self.i, self.j
        left = minus(variable("columns"), variable("column"))
        return [
            Set((f"{i}_first",), variable(i)),
            Set((f"{j}_first",), variable(j)),
            Set(("rows",), Call("min", (number(self.schedule.rows), minus(self.m, variable(i))))),
            *self._products(),
            For("row", number(0), variable("rows"), number(1), (
                Set((i,), plus(variable(f"{i}_first"), variable("row"))),
                For("column", number(0), variable("columns"), number(LANES), (
                    Set((j,), plus(variable(f"{j}_first"), variable("column"))),
                    *by_lanes(self.found.j.extent, "lanes", left, self._epilogue, LARGE_BESIDE_TILES),
                )),
            )),
        ]  # fmt: skip

    def _is_multiple(self, columns: int) -> bool:
        """Whether the number of columns is known to be a multiple."""
        extent = self.found.j.extent
        return isinstance(extent, int) and extent % columns == 0

    def _products(self) -> list[Statement]:
        """All vectors of the tile where there are as many columns; else as many as the columns left need."""
        vectors, columns = self.schedule.vectors, variable("columns")
        whole = self._product_of(vectors, FULL)
        if self.schedule.pack or self._is_multiple(self.width):  # (panels are padded with zeros)
            return whole
        rest = self._product_of(1, columns)
        for count in range(2, vectors + 1):
            taken = number(LANES * (count - 1))
            wider = self._product_of(count, minus(columns, taken))
            rest = [If(binary("gt", columns, taken), tuple(wider), tuple(rest))]
        return [If(binary("ge", columns, number(self.width)), tuple(whole), tuple(rest))]

    def _product_of(self, vectors: int, lanes: Value | None) -> list[Statement]:
        """So many vectors of columns, the last with so many lanes, spilled from the registers to the stack."""
        found, code = self.found, self.dtype.code
        a_row, a_k = self._stride(found.a, found.i), self._stride(found.a, found.k)
        first = self._address(found.a, times(variable(self.i), a_row))
        second: tuple[Value, Value] = (self._address(found.b, variable(self.j)), self._stride(found.b, found.k))
        if self.schedule.pack:
            second = variable("packed"), number(self.width)
        operands = (first, variable("rows"), a_row, a_k, *second, self.depth, *(() if lanes is FULL else (lanes,)))
        name = f"tile_{'' if lanes is FULL else 'head_'}{code}_{self.schedule.rows}x{vectors}"
        spilled = Call(f"spill_{code}", (variable("tile"), Call(name, operands, self.dtype)))
        return [Set(("pitch",), number(vectors * LANES)), Do(spilled)]

    def _epilogue(self, lanes: Value | None) -> list[Statement]:
        """What the kernel makes of one vector of results."""
        scope, result = self.scope, self.found.result
        scope.lane_axis, scope.lanes = self.found.j, lanes
        scope.vectors = {result}
        place = plus(times(variable("row"), variable("pitch")), variable("column"))
        made: list[Statement] = [Set((result,), Read("tile", place, self.dtype, "v"))]
        for nest in scope.kernel.nests[1:]:
            made += [*scope.lets(nest), *scope.stores(nest)]
        scope.lane_axis, scope.lanes = None, FULL
        return made

    def _stride(self, load: Load, axis: Axis) -> Value:
        return self.scope.step(load, axis)

    def _address(self, load: Load, further: Value) -> Value:
        """So many elements further than where the operand of this batch begins."""
        start = self.scope.first(load, (self.found.i, self.found.j, self.found.k))
        return Call(f"at_{self.dtype.code}", (variable(str(load.source)), plus(start, further)))
