"""A table of integers seen so far, with open addressing, in working memory that the caller has set to 0.

Comes in: the table's address, its number of slots, an integer and the number of its place. Goes out: the number of
the place where that integer came first. May not know what the integers are.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types

from flowgraph.codegen.cpu.memory import fixed, load, store
from flowgraph.codegen.cpu.value import Value
from flowgraph.codegen.cpu.vector import define_function

GOLDEN = -7046029254386353131  # 2**64 / golden ratio: neighbours, and regular steps, are spread (Knuth 6.4)


def seen_first(sig: object, table: Value, slots: Value, key: Value, place: Value) -> Value:
    """A slot is two words: the place plus 1 (0: free), and the integer. Twice as many slots as integers keep the walks
    to a free one short."""
    b = table.builder
    high = ((key * GOLDEN) >> 32) & 0xFFFFFFFF
    start = (high * slots) >> 32
    before, probe = b.block, b.append_basic_block("probe")
    blocks = {name: b.append_basic_block(name) for name in ("taken", "free", "other", "found")}
    b.branch(probe)
    b.position_at_end(probe)
    slot = Value(b, "i64", b.phi(ir.IntType(64)))
    slot.ir.add_incoming(start.ir, before)
    holder = load(table, slot * 2, "i64", False)
    b.cbranch((holder == 0).ir, blocks["free"], blocks["taken"])

    b.position_at_end(blocks["taken"])
    same = load(table, slot * 2 + 1, "i64", False) == key
    b.cbranch(same.ir, blocks["found"], blocks["other"])

    b.position_at_end(blocks["other"])
    following = slot + 1
    slot.ir.add_incoming((following == slots).select(0, following).ir, b.block)
    b.branch(probe)

    b.position_at_end(blocks["free"])
    mine = place + 1
    store(table, slot * 2, mine)
    store(table, slot * 2 + 1, key)
    b.branch(blocks["found"])

    b.position_at_end(blocks["found"])
    first = b.phi(ir.IntType(64))
    first.add_incoming(mine.ir, blocks["free"])
    first.add_incoming(holder.ir, blocks["taken"])
    return Value(b, "i64", first) - 1


FUNCTIONS = {"seen_first": define_function("seen_first", fixed(types.int64, *[types.int64] * 4), seen_first)}
