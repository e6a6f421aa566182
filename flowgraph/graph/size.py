"""Sizes of dimensions: integers, or integer polynomials over named sizes with floor division.

`Size` is `int | Dim`; every operation returns an int again when nothing symbolic is left, so `Dim("batch") -
Dim("batch")` is the int 0 and equal shapes compare equal. Values of the names come later, from the data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flowgraph.errors import ShapeError


@dataclass(frozen=True)
class FloorDiv:
    """The atom `numerator // denominator` where it does not divide exactly."""

    numerator: Size
    denominator: Size

    def __str__(self) -> str:
        return f"({self.numerator})//({self.denominator})"


Atom = str | FloorDiv
Monomial = tuple[tuple[Atom, int], ...]  # ((atom, power), ...), sorted; () is the constant term


@dataclass(frozen=True)
class Dim:
    """A symbolic size: sum of coefficient × monomial. Use `named`, not the constructor."""

    terms: tuple[tuple[Monomial, int], ...]

    def __add__(self, other: Size) -> Size:
        return _from_terms([*self.terms, *_terms(other)])

    def __mul__(self, other: Size) -> Size:
        return _from_terms((_times(a, b), p * q) for a, p in self.terms for b, q in _terms(other))

    def __neg__(self) -> Size:
        return self * -1

    def __sub__(self, other: Size) -> Size:
        return self + -1 * other

    def __rsub__(self, other: int) -> Size:
        return -self + other

    def __floordiv__(self, other: Size) -> Size:
        return floor_divide(self, other)

    def __rfloordiv__(self, other: int) -> Size:
        return floor_divide(other, self)

    __radd__, __rmul__ = __add__, __mul__

    def __str__(self) -> str:
        parts = []
        for monomial, coefficient in self.terms:
            factors = [str(a) if p == 1 else f"{a}^{p}" for a, p in monomial]
            if coefficient != 1 or not factors:
                factors.insert(0, str(coefficient))
            parts.append("·".join(factors))
        return " + ".join(parts)

    __repr__ = __str__


Size = int | Dim
Shape = tuple[Size, ...]


def named(name: str) -> Dim:
    """The size called `name`, such as "batch".

    Raises ShapeError if `name` is not an identifier.
    """
    if not name.isidentifier():
        raise ShapeError(f"{name!r} cannot name a size", hint='use an identifier such as "batch"')
    return Dim(((((name, 1),), 1),))


def as_size(value: object) -> Size:
    """A size from what users write: a non-negative int, a string (a named size), or a Dim."""
    if isinstance(value, Dim):
        return value
    if isinstance(value, str):
        return named(value)
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ShapeError(f"{value!r} is not a size", hint='a size is an int or a name such as "batch"')
    number = int(value.__index__())
    if number < 0:
        raise ShapeError(f"a size cannot be negative, got {number}")
    return number


def floor_divide(a: Size, b: Size) -> Size:
    """a // b; exact where every coefficient divides, else kept as one atom."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    if isinstance(b, int) and isinstance(a, Dim) and all(c % b == 0 for _, c in a.terms):
        return _from_terms((m, c // b) for m, c in a.terms)
    if a == b:
        return 1
    return Dim(((((FloorDiv(a, b), 1),), 1),))


def is_multiple(size: Size, of: int) -> bool:
    """Whether a size is a multiple of a number whatever its names stand for, as far as its coefficients tell."""
    return all(coefficient % of == 0 for _, coefficient in _terms(size))


def exact_quotient(a: Size, b: Size) -> Size | None:
    """a / b where it is a polynomial again, else None: (batch·time·64) / (64·time) is batch."""
    if b == 0:
        return None
    divisor = _terms(b)
    if len(divisor) > 1:
        return 1 if a == b else None
    (below, number), found = divisor[0], []
    for monomial, coefficient in _terms(a):
        powers: dict[Atom, int] = dict(monomial)
        for atom, power in below:
            powers[atom] = powers.get(atom, 0) - power
        if coefficient % number or any(p < 0 for p in powers.values()):
            return None
        found.append((_times(tuple((k, p) for k, p in powers.items() if p), ()), coefficient // number))
    return _from_terms(found)


def can_be_negative(size: Size) -> bool:
    """Whether some values of the names make it negative, as far as the signs of its terms tell."""
    return any(coefficient < 0 for _, coefficient in _terms(size))


def product(sizes: Iterable[Size]) -> Size:
    """The product of sizes; 1 for none."""
    total: Size = 1
    for size in sizes:
        total = total * size
    return total


def names_in(size: Size) -> frozenset[str]:
    """The names a size depends on."""
    if isinstance(size, int):
        return frozenset()
    found: set[str] = set()
    for monomial, _ in size.terms:
        for atom, _power in monomial:
            found |= (
                {atom} if isinstance(atom, str) else names_in(atom.numerator) | names_in(atom.denominator)
            )
    return frozenset(found)


def evaluate(size: Size, values: Mapping[str, int]) -> int:
    """The integer a size stands for, given the values of its names."""
    if isinstance(size, int):
        return size
    total = 0
    for monomial, coefficient in size.terms:
        for atom, power in monomial:
            base = (
                values[atom]
                if isinstance(atom, str)
                else evaluate(atom.numerator, values) // evaluate(atom.denominator, values)
            )
            coefficient *= base**power
        total += coefficient
    return total


GUESS = 128  # for a named size, where a choice must be made before the data tell it


def estimate(size: Size) -> int:
    """A size as a number to choose by, before its names are known."""
    return evaluate(size, dict.fromkeys(names_in(size), GUESS))


def is_name(size: Size) -> str | None:
    """The name, if the size is exactly one named size."""
    if isinstance(size, Dim) and len(size.terms) == 1:
        (monomial, coefficient) = size.terms[0]
        if (
            coefficient == 1
            and len(monomial) == 1
            and monomial[0][1] == 1
            and isinstance(monomial[0][0], str)
        ):
            return monomial[0][0]
    return None


def show_shape(shape: Shape) -> str:
    """A shape as users read it: "(batch, 64)"."""
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"


def _terms(size: Size) -> tuple[tuple[Monomial, int], ...]:
    return size.terms if isinstance(size, Dim) else (((), size),)


def _times(a: Monomial, b: Monomial) -> Monomial:
    powers: dict[Atom, int] = dict(a)
    for atom, power in b:
        powers[atom] = powers.get(atom, 0) + power
    return tuple(sorted(powers.items(), key=lambda item: str(item[0])))


def _from_terms(terms: Iterable[tuple[Monomial, int]]) -> Size:
    total: dict[Monomial, int] = {}
    for monomial, coefficient in terms:
        total[monomial] = total.get(monomial, 0) + coefficient
    kept = tuple(sorted(((m, c) for m, c in total.items() if c), key=str))
    if not kept:
        return 0
    if len(kept) == 1 and kept[0][0] == ():
        return kept[0][1]
    return Dim(kept)
