"""Tokens -> Listing: the grammar, by recursive descent. Knows which names are ops, and nothing of their
arguments.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence

from flowgraph.graph.origin import SourceLine
from flowgraph.graph.types import DTYPES
from flowgraph.notation.tokens import Token, tokenise, wrong
from flowgraph.notation.tree import Call, Expression, Group, Listing, Name, Number, Shape
from flowgraph.notation.vocabulary import INFIX, Spelled, compares, key, vocabulary
from flowgraph.ops import elementwise

_DEEPEST = 100  # levels of an expression


def read(text: str, filename: str, shaped: Iterable[str]) -> Listing:
    """Headers first, wherever they stand: a suffix such as the Y of crossEntY is known by its shape."""
    listing = Listing({}, {}, {})
    lines = [tokenise(line, number, filename) for number, line in enumerate(text.splitlines(), start=1)]
    lines = [tokens for tokens in lines if len(tokens) > 1]
    headers = [tokens[1].text == ":" for tokens in lines]
    ops = vocabulary()
    for wanted in (True, False):
        given = {*shaped, *listing.shapes, *listing.inputs}
        for tokens, header in zip(lines, headers, strict=True):
            if header is wanted:
                _Line(tokens, ops, listing, given).read()
    return listing


class _Line:
    """Recursive descent over the tokens of one line."""

    def __init__(
        self, tokens: Sequence[Token], ops: dict[str, Spelled], listing: Listing, given: set[str]
    ) -> None:
        self.tokens, self.ops, self.listing, self.given = tokens, ops, listing, given
        self.position = self.depth = 0

    @property
    def next(self) -> Token:
        return self.tokens[self.position]

    def take(self) -> Token:
        token = self.next
        self.position += token.kind != "end"
        return token

    def accept(self, text: str) -> bool:
        found = self.next.kind == "mark" and self.next.text == text
        self.position += found
        return found

    def expect(self, text: str, hint: str = "") -> None:
        if not self.accept(text):
            raise wrong(f"expected `{text}`, found `{self.next.text}`", self.next.at, hint)

    def name(self, what: str) -> Token:
        if self.next.kind != "name":
            raise wrong(f"expected {what}, found `{self.next.text}`", self.next.at)
        return self.take()

    def end(self) -> None:
        if self.next.kind != "end":
            raise wrong(f"unexpected `{self.next.text}`", self.next.at, "one statement a line: `A = op(B,C)`")

    def read(self) -> None:
        first = self.name("a name, `Inputs:` or `Shapes:`")
        if self.accept(":"):
            header = {"inputs": self.input, "shapes": self.shape}.get(first.text.casefold())
            if header is None:
                raise wrong(
                    f"unknown header `{first.text}:`", first.at, "the headers are `Inputs:` and `Shapes:`"
                )
            header()
            while self.accept(","):
                header()
        else:
            self.expect("=", "a line reads `A = op(B,C)`")
            self.once(
                first, {**self.listing.inputs, **{n: at for n, (_, at) in self.listing.statements.items()}}
            )
            self.listing.statements[first.text] = (self.expression(), first.at)
        self.end()

    def once(self, name: Token, known: Mapping[str, SourceLine]) -> None:
        if name.text in known:
            before = known[name.text]
            raise wrong(
                f"`{name.text}` is defined twice: first in line {before.line}",
                name.at,
                "every value needs its own name",
            )

    def input(self) -> None:
        name = self.name("the name of an input")
        self.once(name, {**self.listing.inputs, **{n: at for n, (_, at) in self.listing.statements.items()}})
        self.listing.inputs[name.text] = name.at

    def shape(self) -> None:
        """X(batch,64), or with a dtype: Y(batch) int64."""
        name = self.name("the name of an input")
        self.once(name, {n: s.at for n, s in self.listing.shapes.items()})
        self.expect("(", "a shape reads `X(batch,64)`")
        sizes: list[int | str] = []
        while not self.accept(")"):
            size = self.take()
            if size.kind not in ("name", "number") or (size.kind == "number" and not size.text.isdigit()):
                raise wrong(
                    f"expected a size, found `{size.text}`",
                    size.at,
                    "a size is a whole number or a name such as `batch`",
                )
            sizes.append(int(_number(size).value) if size.kind == "number" else size.text)
            if not self.accept(","):
                self.expect(")")
                break
        dtype = self.take() if self.next.kind == "name" else None
        if dtype is not None and dtype.text not in DTYPES:
            raise wrong(f"`{dtype.text}` is not a dtype", dtype.at, "use one of " + ", ".join(DTYPES))
        self.listing.shapes[name.text] = Shape(tuple(sizes), dtype.text if dtype else None, name.at)

    def expression(self, binding: int = 1) -> Expression:
        """Precedence climbing: operands joined by signs that bind at least as tightly as `binding`."""
        outside = self.depth
        self.deeper()
        left = self.operand()
        while self.next.kind == "mark" and self.next.text in INFIX and INFIX[self.next.text][0] >= binding:
            self.deeper()
            sign = self.take()
            precedence, function = INFIX[sign.text]
            left = Call(sign.text, function, (left, self.expression(precedence + 1)), (), None, sign.at)
        self.depth = outside
        return left

    def deeper(self) -> None:
        """Trees are walked recursively, so their depth is bounded here, in a sum of many terms too."""
        self.depth += 1
        if self.depth > _DEEPEST:
            raise wrong("nested too deeply", self.next.at, "give the inner values names of their own")

    def operand(self) -> Expression:
        token = self.take()
        if token.kind == "number":
            return _number(token)
        if token.kind == "name":
            starred = (
                self.next.text == "*" and self.tokens[self.position + 1].text == "(" and f"{token.text}*"
            )
            if starred and key(starred) in self.ops:  # add*(Z,B) is one name, Z*(A+B) is a product
                self.take()
                return self.call(starred, token.at)
            return self.call(token.text, token.at) if self.next.text == "(" else Name(token.text, token.at)
        if token.text == "-":
            inner = self.expression(3)
            return Number(-inner.value, token.at) if isinstance(inner, Number) else _negated(inner, token.at)
        if token.text == "(":
            items = [self.expression()]
            is_list = False
            while self.accept(","):
                is_list = True
                if self.next.text != ")":
                    items.append(self.expression())
            self.expect(")")
            return Group(tuple(items), token.at) if is_list else items[0]
        raise wrong(
            f"expected a value, found `{token.text}`",
            token.at,
            "a value is a name, a number or a call such as tanh(Z)",
        )

    def call(self, name: str, at: SourceLine) -> Expression:
        (display, op, function), target = self.resolve(name, at)
        self.expect("(")
        arguments: list[Expression] = []
        keywords: dict[str, Expression] = {}
        while not self.accept(")"):
            following = self.tokens[min(self.position + 1, len(self.tokens) - 1)]
            if self.next.kind == "name" and following.text == "=":
                keyword = self.take()
                self.expect("=")
                if keyword.text in keywords:
                    raise wrong(f"`{keyword.text}` is given twice", keyword.at)
                keywords[keyword.text] = self.expression()
            else:
                arguments.append(self.expression())
            if not self.accept(","):
                self.expect(")")
                break
        is_cost = compares(op, function)
        return Call(display, function, tuple(arguments), tuple(keywords.items()), target, at, is_cost)

    def resolve(self, name: str, at: SourceLine) -> tuple[Spelled, Name | None]:
        """The op called `name`; failing that, an op whose target is named by the rest of the name:
        crossEnt·Y.
        """
        exact = self.ops.get(key(name))
        if exact is not None:
            return exact, None
        for length in range(len(name) - 1, 0, -1):
            found, suffix = self.ops.get(key(name[:length])), name[length:]
            if (
                found is not None
                and compares(found[1], found[2])
                and (suffix in self.given or len(suffix) == 1)
            ):
                return found, Name(suffix, at)
        shown = {key: display for key, (display, _, _) in self.ops.items()}
        close = [shown[key] for key in difflib.get_close_matches(key(name), shown, n=3, cutoff=0.6)]
        hint = (
            f"did you mean {' or '.join(dict.fromkeys(close))}?"
            if close
            else "ops: " + ", ".join(sorted(set(shown.values())))
        )
        raise wrong(f"there is no op called `{name}`", at, hint)


def _number(token: Token) -> Number:
    value = float(token.text) if len(token.text) > 20 or not token.text.isdigit() else int(token.text)
    if abs(value) >= 2**63 or not math.isfinite(value):
        raise wrong(f"the number {token.text[:30]} is too large", token.at)
    return Number(value, token.at)


def _negated(inner: Expression, at: SourceLine) -> Call:
    return Call("negative", elementwise.negative, (inner,), (), None, at)
