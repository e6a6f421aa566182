"""Arithmetic on places is named once, where it is known, and never where a name still changes."""

from __future__ import annotations

from flowgraph.codegen.cpu_source import CPU
from flowgraph.codegen.printer import print_statements
from flowgraph.graph.types import float32
from flowgraph.schedule.loops import (
    Call,
    Do,
    For,
    If,
    Read,
    Set,
    Statement,
    Write,
    binary,
    number,
    plus,
    times,
    variable,
)
from flowgraph.schedule.share import share_places

i, j, n, m, x = map(variable, "ijnmx")


def text(*statements: Statement) -> list[str]:
    return print_statements(share_places(statements), CPU, 0)


def copy(place, to=None) -> Write:
    return Write("y", place if to is None else to, Read("x", place, float32), float32)


def loop(name: str, *body: Statement) -> For:
    return For(name, number(0), n, number(1), body)


def test_what_is_written_twice_is_named_as_early_as_it_is_known() -> None:
    place = plus(times(i, times(n, m)), j)
    assert text(loop("i", loop("j", copy(place)), loop("j", copy(place, n)))) == [
        "at0 = n * m",
        "for i in range(n):",
        "    at1 = i * at0",
        "    for j in range(n):",
        "        at2 = at1 + j",
        "        store_f32(y, at2, load_f32(x, at2))",
        "    for j in range(n):",
        "        store_f32(y, n, load_f32(x, at1 + j))",
    ]


def expected_unchanged(*statements: Statement) -> None:
    assert text(*statements) == print_statements(statements, CPU, 0)


def test_what_is_written_once_keeps_its_place() -> None:
    expected_unchanged(loop("i", copy(plus(i, n), to=i)))


def test_a_name_that_changes_is_not_steady() -> None:
    step = Set(("x",), plus(x, number(1)))
    expected_unchanged(Set(("x",), number(0)), copy(plus(x, n), to=number(0)), step, copy(plus(x, n), to=number(1)))
    # read before it is bound: it still has the value of the turn before
    expected_unchanged(loop("i", copy(plus(x, n), to=i), Set(("x",), i), copy(plus(x, n), to=n)))


def test_a_name_bound_in_one_branch_is_used_in_that_branch_only() -> None:
    inner = (Set(("x",), i), copy(plus(x, n)))
    assert text(If(binary("lt", i, n), inner, (Set(("x",), n), copy(plus(x, n))))) == [
        "if i < n:",
        "    x = i",
        "    at0 = x + n",
        "    store_f32(y, at0, load_f32(x, at0))",
        "else:",
        "    x = n",
        "    at1 = x + n",
        "    store_f32(y, at1, load_f32(x, at1))",
    ]


def test_only_sums_and_products_of_integers_are_shared() -> None:
    quotient = binary("floordiv", i, n)
    expected_unchanged(loop("i", copy(quotient), copy(quotient)))
    lanes = Call("lanes_i64", (i,))
    expected_unchanged(loop("i", Do(Call("f", (plus(lanes, n),))), Do(Call("f", (plus(lanes, n),)))))


def test_new_names_are_no_names_that_are_there() -> None:
    taken = Set(("at0",), n)
    assert text(taken, copy(plus(i, n)))[:2] == ["at1 = i + n", "at0 = n"]
