"""The lecture's notation, as text and as .fg files: text in, named tensors out. Knows the ops only through their registry.

    Inputs: X,W1,B1
    Shapes: X(batch,64), W1(64,32), B1(32)     // the one addition: or give shapes= in Python
    Z1 = add*(mul(X,W1),B1)                    // matrix mult, then add bias vec
    P = softMax(tanh(Z1))
    C = crossEntY(P)                           // the suffix names the target: an input Y

One statement a line. An op is called by the name in its pictures or in Python (`softMax`, `softmax`, `soft_max`), takes
numbers, sizes and keywords (`sum(C, axis=0)`), and may be nested; `+ - * /` work between elements. An input whose shape
has a named size is data, any other a parameter. Text is parsed into a tree, then evaluated: nothing in it is ever run.
"""

from __future__ import annotations

import difflib
import inspect
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from flowgraph.errors import FlowgraphError, ParseError
from flowgraph.graph import origin as origins
from flowgraph.graph.origin import Origin, SourceLine
from flowgraph.graph.size import Dim, as_size, names_in
from flowgraph.graph.tensor import Tensor
from flowgraph.graph.types import DTYPES
from flowgraph.nn.init import glorot_uniform
from flowgraph.ops import Op, elementwise, leaf

_ALIASES = {"matmul": "mul", "sigmoid": "logistic", "broadcast_to": "broadcast", "size_of": "size"}
_INFIX: dict[str, tuple[int, Callable[..., Tensor]]] = {
    "+": (1, elementwise.add), "-": (1, elementwise.subtract), "*": (2, elementwise.multiply), "/": (2, elementwise.divide)
}  # fmt: skip
_TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<comment>//.*)|(?P<number>(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?)|(?P<name>[^\W\d]\w*)"
    r"|(?P<mark>[-+*/(),=:])"
)
_DEEPEST = 100  # levels of an expression
_SHOWN = 120  # characters of a line kept for messages


@dataclass(frozen=True)
class Token:
    kind: str  # "name", "number", "mark" or "end"
    text: str
    at: SourceLine


@dataclass(frozen=True)
class Number:
    value: int | float
    at: SourceLine


@dataclass(frozen=True)
class Name:
    text: str
    at: SourceLine


@dataclass(frozen=True)
class Group:
    """A parenthesised list, such as the axes (1,0)."""

    items: tuple[Expression, ...]
    at: SourceLine


@dataclass(frozen=True)
class Call:
    """An op by name, or an infix sign, applied; `target` is the name that a suffix stands for."""

    op: str
    function: Callable[..., Tensor]
    arguments: tuple[Expression, ...]
    keywords: tuple[tuple[str, Expression], ...]
    target: Name | None
    at: SourceLine
    is_cost: bool = False  # its last argument is the target it compares with


Expression = Number | Name | Group | Call


@dataclass(frozen=True)
class Shape:
    sizes: tuple[int | str, ...]
    dtype: str | None
    at: SourceLine


@dataclass(frozen=True)
class Listing:
    """A parsed text: what is given, and what is computed from it, in order."""

    inputs: dict[str, SourceLine]
    shapes: dict[str, Shape]
    statements: dict[str, tuple[Expression, SourceLine]]


def parse(
    text: str,
    shapes: Mapping[str, Any] | None = None,
    dtypes: Mapping[str, Any] | None = None,
    filename: str = "<text>",
) -> dict[str, Tensor]:
    """The named tensors of a model in the lecture's notation: inputs, parameters and every value given a name.

    `shapes` gives each input's shape where the text has no `Shapes:` line. A shape without a named size makes a
    parameter: matrices drawn from `glorot_uniform`, vectors zero. Inputs are float32 unless `dtypes` says otherwise; a
    target such as the `Y` of `crossEntY(P)` is int32 class numbers if it has one axis, else a distribution. Raises
    ParseError with file, line and column, and the ops' own errors at the line that caused them.

    >>> import flowgraph as fg
    >>> fg.parse("Inputs: X,W,B\\nA = tanh(add*(mul(X,W),B))", shapes={"X": ("batch", 4), "W": (4, 2), "B": (2,)})["A"]
    <Tensor A: float32(batch, 2)>
    """
    listing = _read(text, filename, shapes or {})
    return _Model(listing, dict(shapes or {}), dict(dtypes or {}), filename).build()


def parse_file(
    path: str | Path, shapes: Mapping[str, Any] | None = None, dtypes: Mapping[str, Any] | None = None
) -> dict[str, Tensor]:
    """`parse` on the text of a .fg file (UTF-8)."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ParseError("this is not UTF-8 text", where=path, hint="save the file as UTF-8") from error
    return parse(text, shapes, dtypes, filename=str(path))


def _fail(problem: str, at: SourceLine, hint: str = "") -> NoReturn:
    raise ParseError(problem, where=at, hint=hint)


# Ops by their spellings


def _key(name: str) -> str:
    """softMax, softmax and soft_max are one name."""
    return name.replace("_", "").casefold()


Spelled = tuple[str, type[Op], Callable[..., Tensor]]  # name to show, class, function that applies it


def vocabulary() -> dict[str, Spelled]:
    """Every op that can be called, by the key of each of its spellings."""
    found = {}
    for name, op in Op.registry.items():
        if op.meaning() == "leaf":
            continue
        spellings = [name, op.display, *(alias for alias, stands_for in _ALIASES.items() if stands_for == name)]
        module = sys.modules[op.__module__]
        functions = [getattr(module, s) for s in spellings if inspect.isfunction(getattr(module, s, None))]
        function = functions[0] if functions else _apply(op)
        for spelling in spellings:
            if spelling.rstrip("*").isidentifier():
                found[_key(spelling)] = (op.display if op.display[0].isalpha() else name, op, function)
    return found


def _apply(op: type[Op]) -> Callable[..., Tensor]:
    """An op without a function of its own: tensors by position, attributes by keyword."""

    def function(*inputs: Tensor, **attributes: Any) -> Tensor:
        return op(**attributes)(*inputs)

    return function


def _compares(op: type[Op], function: Callable[..., Tensor]) -> bool:
    """Does the op compare with a target y, which a suffix may name?"""
    return op.family == "classification" and list(inspect.signature(function).parameters)[1:] == ["y"]


# Text -> Listing


def _tokens(line: str, number: int, filename: str) -> list[Token]:
    found, position, text = [], 0, line.strip()[:_SHOWN]
    while position < len(line):
        match = _TOKEN.match(line, position)
        at = SourceLine(filename, number, position + 1, text)
        if match is None:
            _fail(f"unexpected character {line[position]!r}", at, "a line reads `A = op(B,C)`, with comments after //")
        if match.lastgroup not in ("space", "comment"):
            kind = "number" if match["number"] else "name" if match["name"] else "mark"
            found.append(Token(kind, match.group(), at))
        position = match.end()
    return [*found, Token("end", "end of line", SourceLine(filename, number, len(line.rstrip()) + 1, text))]


def _read(text: str, filename: str, shaped: Iterable[str]) -> Listing:
    """Headers first, wherever they stand: a suffix such as the Y of crossEntY is known by its shape."""
    listing = Listing({}, {}, {})
    lines = [_tokens(line, number, filename) for number, line in enumerate(text.splitlines(), start=1)]
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

    def __init__(self, tokens: Sequence[Token], ops: dict[str, Spelled], listing: Listing, given: set[str]) -> None:
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
            _fail(f"expected `{text}`, found `{self.next.text}`", self.next.at, hint)

    def name(self, what: str) -> Token:
        if self.next.kind != "name":
            _fail(f"expected {what}, found `{self.next.text}`", self.next.at)
        return self.take()

    def end(self) -> None:
        if self.next.kind != "end":
            _fail(f"unexpected `{self.next.text}`", self.next.at, "one statement a line: `A = op(B,C)`")

    def read(self) -> None:
        first = self.name("a name, `Inputs:` or `Shapes:`")
        if self.accept(":"):
            header = {"inputs": self.input, "shapes": self.shape}.get(first.text.casefold())
            if header is None:
                _fail(f"unknown header `{first.text}:`", first.at, "the headers are `Inputs:` and `Shapes:`")
            header()
            while self.accept(","):
                header()
        else:
            self.expect("=", "a line reads `A = op(B,C)`")
            self.once(first, {**self.listing.inputs, **{n: at for n, (_, at) in self.listing.statements.items()}})
            self.listing.statements[first.text] = (self.expression(), first.at)
        self.end()

    def once(self, name: Token, known: Mapping[str, SourceLine]) -> None:
        if name.text in known:
            before = known[name.text]
            _fail(f"`{name.text}` is defined twice: first in line {before.line}", name.at, "every value needs its own name")

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
            if size.kind not in ("name", "number") or size.kind == "number" and not size.text.isdigit():
                _fail(f"expected a size, found `{size.text}`", size.at, "a size is a whole number or a name such as `batch`")
            sizes.append(int(size.text) if size.kind == "number" else size.text)
            if not self.accept(","):
                self.expect(")")
                break
        dtype = self.take() if self.next.kind == "name" else None
        if dtype is not None and dtype.text not in DTYPES:
            _fail(f"`{dtype.text}` is not a dtype", dtype.at, "use one of " + ", ".join(DTYPES))
        self.listing.shapes[name.text] = Shape(tuple(sizes), dtype.text if dtype else None, name.at)

    def expression(self, binding: int = 1) -> Expression:
        """Precedence climbing: operands joined by signs that bind at least as tightly as `binding`."""
        outside = self.depth
        self.deeper()
        left = self.operand()
        while self.next.kind == "mark" and self.next.text in _INFIX and _INFIX[self.next.text][0] >= binding:
            self.deeper()
            sign = self.take()
            precedence, function = _INFIX[sign.text]
            left = Call(sign.text, function, (left, self.expression(precedence + 1)), (), None, sign.at)
        self.depth = outside
        return left

    def deeper(self) -> None:
        """Trees are walked recursively, so their depth is bounded here, in a sum of many terms too."""
        self.depth += 1
        if self.depth > _DEEPEST:
            _fail("nested too deeply", self.next.at, "give the inner values names of their own")

    def operand(self) -> Expression:
        token = self.take()
        if token.kind == "number":
            return _number(token)
        if token.kind == "name":
            starred = self.next.text == "*" and self.tokens[self.position + 1].text == "(" and f"{token.text}*"
            if starred and _key(starred) in self.ops:  # add*(Z,B) is one name, Z*(A+B) is a product
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
        _fail(f"expected a value, found `{token.text}`", token.at, "a value is a name, a number or a call such as tanh(Z)")

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
                    _fail(f"`{keyword.text}` is given twice", keyword.at)
                keywords[keyword.text] = self.expression()
            else:
                arguments.append(self.expression())
            if not self.accept(","):
                self.expect(")")
                break
        is_cost = _compares(op, function)
        return Call(display, function, tuple(arguments), tuple(keywords.items()), target, at, is_cost)

    def resolve(self, name: str, at: SourceLine) -> tuple[Spelled, Name | None]:
        """The op called `name`; failing that, an op whose target is named by the rest of the name: crossEnt·Y."""
        exact = self.ops.get(_key(name))
        if exact is not None:
            return exact, None
        for length in range(len(name) - 1, 0, -1):
            found, suffix = self.ops.get(_key(name[:length])), name[length:]
            if found is not None and _compares(found[1], found[2]) and (suffix in self.given or len(suffix) == 1):
                return found, Name(suffix, at)
        shown = {key: display for key, (display, _, _) in self.ops.items()}
        close = [shown[key] for key in difflib.get_close_matches(_key(name), shown, n=3, cutoff=0.6)]
        hint = f"did you mean {' or '.join(dict.fromkeys(close))}?" if close else "ops: " + ", ".join(sorted(set(shown.values())))
        _fail(f"there is no op called `{name}`", at, hint)


def _number(token: Token) -> Number:
    value = int(token.text) if token.text.isdigit() else float(token.text)
    if abs(value) >= 2**63 or not math.isfinite(value):
        _fail(f"the number {token.text[:30]} is too large", token.at)
    return Number(value, token.at)


def _negated(inner: Expression, at: SourceLine) -> Call:
    return Call("negative", elementwise.negative, (inner,), (), None, at)


def _uses(expression: Expression) -> Iterator[Name]:
    """Every name in an expression, targets included."""
    if isinstance(expression, Name):
        yield expression
    elif isinstance(expression, Group):
        for item in expression.items:
            yield from _uses(item)
    elif isinstance(expression, Call):
        for item in (*expression.arguments, *(value for _, value in expression.keywords)):
            yield from _uses(item)
        if expression.target is not None:
            yield expression.target


# Listing -> tensors


class _Model:
    """Declares the inputs, then evaluates the statements in order."""

    def __init__(self, listing: Listing, shapes: dict[str, Any], dtypes: dict[str, Any], filename: str) -> None:
        self.listing, self.dtypes, self.file = listing, dtypes, SourceLine(filename, 1)
        self.shapes = {**{name: shape.sizes for name, shape in listing.shapes.items()}, **shapes}
        for name, shape in listing.shapes.items():
            if shape.dtype is not None:
                self.dtypes.setdefault(name, shape.dtype)
        calls = [c for expression, _ in listing.statements.values() for c in _calls(expression)]
        self.targets = {c.target.text for c in calls if c.target is not None}
        # the target may also be written out, crossEnt(P,Y), with Y among the inputs
        self.targets |= {c.arguments[-1].text for c in calls if c.is_cost and isinstance(c.arguments[-1], Name) and len(c.arguments) == 2}
        self.sizes: set[str] = set()
        self.tensors: dict[str, Tensor] = {}

    def build(self) -> dict[str, Tensor]:
        missing = [name for name in self.listing.inputs if name not in self.shapes]
        if missing:
            at = self.listing.inputs[missing[0]]
            _fail(f"no shape is given for {', '.join(missing)}", at, _shape_hint(missing[0]))
        implicit = [n for n in self.targets if n not in self.listing.inputs and n not in self.listing.statements]
        for name in {**self.shapes, **self.dtypes}:
            if name not in self.listing.inputs and name not in implicit:
                at = self.listing.shapes[name].at if name in self.listing.shapes else self.file
                _fail(f"a shape or dtype is given for `{name}`, which is no input", at, "name it in the `Inputs:` line")
        for name, at in self.listing.inputs.items():
            self.declare(name, at)
        for name, (expression, at) in self.listing.statements.items():
            self.define(name, expression, at)
        return self.tensors

    def declare(self, name: str, at: SourceLine) -> None:
        """A shape with a named size, or a target, is data; any other a parameter."""
        with _at(at):
            given = self.shapes[name]
            shape = tuple(as_size(s) for s in ((given,) if isinstance(given, (int, str, Dim)) else given))
            is_class_numbers = name in self.targets and len(shape) == 1
            dtype = self.dtypes.get(name, "int32" if is_class_numbers else "float32")
            self.sizes |= {n for size in shape for n in names_in(size)}
            if name in self.targets or any(not isinstance(s, int) for s in shape):
                self.tensors[name] = leaf.input(name, shape, dtype)
            else:
                init = glorot_uniform() if len(shape) > 1 else None
                self.tensors[name] = leaf.parameter(name, shape, init, dtype)

    def define(self, name: str, expression: Expression, at: SourceLine) -> None:
        value = self.value(expression, name)
        if not isinstance(value, Tensor):
            _fail(f"`{name}` is not a tensor", expression.at, "a value is computed from inputs, such as tanh(X)")
        self.tensors[name] = value if value.label else value.named(name)  # a second name for it changes no picture

    def value(self, expression: Expression, defining: str) -> Any:
        if isinstance(expression, Number):
            return expression.value
        if isinstance(expression, Name):
            return self.lookup(expression, defining)
        if isinstance(expression, Group):
            return tuple(self.value(item, defining) for item in expression.items)
        arguments = [self.value(a, defining) for a in expression.arguments]
        if expression.target is not None:
            arguments.append(self.target(expression.target, expression, defining))
        keywords = {key: self.value(v, defining) for key, v in expression.keywords}
        _check(expression, arguments, keywords)
        with _at(expression.at):
            try:
                return expression.function(*arguments, **keywords)
            except FlowgraphError:
                raise
            except (TypeError, ValueError, OverflowError) as error:
                _fail(f"{expression.op} cannot take these arguments: {error}", expression.at, _usage(expression))

    def lookup(self, name: Name, defining: str) -> Any:
        """A tensor; else the name of a size or dtype, or true or false."""
        if name.text in self.tensors:
            return self.tensors[name.text]
        if name.text in self.listing.statements:
            self.too_early(name, defining)
        constants: dict[str, Any] = {"true": True, "false": False, **DTYPES}
        if name.text in self.sizes:
            return as_size(name.text)
        if name.text.casefold() in constants:
            return constants[name.text.casefold()]
        close = difflib.get_close_matches(name.text, [*self.tensors, *self.listing.statements], n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "define it first, or add it to the `Inputs:` line"
        _fail(f"`{name.text}` is not defined", name.at, hint)

    def target(self, name: Name, call: Call, defining: str) -> Any:
        """The value a suffix names: an input that exists from here on."""
        if name.text not in self.tensors and name.text not in self.listing.statements:
            if name.text not in self.shapes:
                problem = f"{call.op}{name.text} compares with the target `{name.text}`, which has no shape"
                hint = f"give {name.text}(batch) for class numbers, or the shape of a distribution: {_shape_hint(name.text)}"
                _fail(problem, name.at, hint)
            self.declare(name.text, name.at)
        return self.lookup(name, defining)

    def too_early(self, name: Name, defining: str) -> NoReturn:
        """A name defined further down: part of a cycle, or merely in the wrong order."""
        path = self.path(name.text, defining)
        if path:
            _fail(f"cycle {' -> '.join([defining, *path])}", name.at, "a value cannot depend on itself; break the cycle")
        line = self.listing.statements[name.text][1].line
        _fail(f"`{name.text}` is used before it is defined in line {line}", name.at, "move its definition up")

    def path(self, start: str, goal: str) -> list[str]:
        """How `start` depends on `goal`: the names on the way, or nothing. Shortest way, each name visited once."""
        ways, seen = [[start]], {start}
        while ways:
            way = ways.pop(0)
            if way[-1] == goal:
                return way
            for used in _uses(self.listing.statements[way[-1]][0]):
                if used.text in self.listing.statements and used.text not in seen:
                    seen.add(used.text)
                    ways.append([*way, used.text])
        return []


def _at(at: SourceLine) -> AbstractContextManager[None]:
    return origins.at(Origin((at,), origins.current_scope()))


def _shape_hint(name: str) -> str:
    return f"write `Shapes: {name}(batch,64)`, or pass shapes={{{name!r}: ('batch', 64)}}"


def _calls(expression: Expression) -> Iterator[Call]:
    if isinstance(expression, Group):
        for item in expression.items:
            yield from _calls(item)
    elif isinstance(expression, Call):
        yield expression
        for item in (*expression.arguments, *(value for _, value in expression.keywords)):
            yield from _calls(item)


def _usage(call: Call) -> str:
    return f"{call.op} takes ({', '.join(inspect.signature(call.function).parameters)})"


def _check(call: Call, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> None:
    """The right number of arguments, and tensors exactly where the op wants tensors."""
    signature = inspect.signature(call.function)
    try:
        bound = signature.bind(*arguments, **keywords)
    except TypeError as error:
        _fail(f"{call.op}: {error}, got {len(arguments)}", call.at, _usage(call))
    for name, value in bound.arguments.items():
        wanted = signature.parameters[name]
        if wanted.kind is inspect.Parameter.VAR_KEYWORD:
            continue
        for item in value if wanted.kind is inspect.Parameter.VAR_POSITIONAL else (value,):
            if wanted.annotation == "Tensor" and not isinstance(item, Tensor):
                shown = item if isinstance(item, (int, float)) else "something else"
                _fail(f"{call.op} needs a tensor for `{name}`, got {shown}", call.at, _usage(call))
            members = item if isinstance(item, tuple) else (item,)
            if wanted.annotation not in ("Tensor", "Any") and any(isinstance(m, (Tensor, float)) for m in members):
                _fail(f"{call.op} needs whole numbers for `{name}`", call.at, _usage(call))
