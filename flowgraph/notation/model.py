"""Listing -> tensors: declares the inputs, then evaluates the statements in order. Finds names, cycles,
targets.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from flowgraph.errors import FlowgraphError, ParseError
from flowgraph.graph import origin as origins
from flowgraph.graph.origin import Origin, SourceLine
from flowgraph.graph.size import Dim, as_size, names_in
from flowgraph.graph.tensor import Tensor
from flowgraph.graph.types import DTYPES
from flowgraph.nn.init import glorot_uniform
from flowgraph.notation.tokens import wrong
from flowgraph.notation.tree import Call, Expression, Group, Listing, Name, Number, calls_in, uses
from flowgraph.ops import leaf


class Model:
    """Declares the inputs, then evaluates the statements in order."""

    def __init__(
        self, listing: Listing, shapes: dict[str, Any], dtypes: dict[str, Any], filename: str
    ) -> None:
        self.listing, self.dtypes, self.file = listing, dtypes, SourceLine(filename, 1)
        self.shapes = {**{name: shape.sizes for name, shape in listing.shapes.items()}, **shapes}
        for name, shape in listing.shapes.items():
            if shape.dtype is not None:
                self.dtypes.setdefault(name, shape.dtype)
        calls = [c for expression, _ in listing.statements.values() for c in calls_in(expression)]
        self.targets = {c.target.text for c in calls if c.target is not None}
        # the target may also be written out, crossEnt(P,Y), with Y among the inputs
        self.targets |= {
            c.arguments[-1].text
            for c in calls
            if c.is_cost and isinstance(c.arguments[-1], Name) and len(c.arguments) == 2
        }
        self.sizes: set[str] = set()
        self.tensors: dict[str, Tensor] = {}

    def build(self) -> dict[str, Tensor]:
        missing = [name for name in self.listing.inputs if name not in self.shapes]
        if missing:
            at = self.listing.inputs[missing[0]]
            raise wrong(f"no shape is given for {', '.join(missing)}", at, _shape_hint(missing[0]))
        implicit = [
            n for n in self.targets if n not in self.listing.inputs and n not in self.listing.statements
        ]
        for name in {**self.shapes, **self.dtypes}:
            if name not in self.listing.inputs and name not in implicit:
                at = self.listing.shapes[name].at if name in self.listing.shapes else self.file
                raise wrong(
                    f"a shape or dtype is given for `{name}`, which is no input",
                    at,
                    "name it in the `Inputs:` line",
                )
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
            raise wrong(
                f"`{name}` is not a tensor", expression.at, "a value is computed from inputs, such as tanh(X)"
            )
        self.tensors[name] = (
            value if value.label else value.named(name)
        )  # a second name for it changes no picture

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
                raise wrong(
                    f"{expression.op} cannot take these arguments: {error}", expression.at, _usage(expression)
                ) from error

    def lookup(self, name: Name, defining: str) -> Any:
        """A tensor; else the name of a size or dtype, or true or false."""
        if name.text in self.tensors:
            return self.tensors[name.text]
        if name.text in self.listing.statements:
            raise self.too_early(name, defining)
        constants: dict[str, Any] = {"true": True, "false": False, **DTYPES}
        if name.text in self.sizes:
            return as_size(name.text)
        if name.text.casefold() in constants:
            return constants[name.text.casefold()]
        close = difflib.get_close_matches(name.text, {**self.tensors, **self.listing.statements}, n=3)
        hint = (
            f"did you mean {' or '.join(close)}?"
            if close
            else "define it first, or add it to the `Inputs:` line"
        )
        raise wrong(f"`{name.text}` is not defined", name.at, hint)

    def target(self, name: Name, call: Call, defining: str) -> Any:
        """The value a suffix names: an input that exists from here on."""
        if name.text not in self.tensors and name.text not in self.listing.statements:
            if name.text not in self.shapes:
                problem = f"{call.op}{name.text} compares with the target `{name.text}`, which has no shape"
                kinds = f"{name.text}(batch) for class numbers, or the shape of a distribution"
                raise wrong(problem, name.at, f"give {kinds}: {_shape_hint(name.text)}")
            self.declare(name.text, name.at)
        return self.lookup(name, defining)

    def too_early(self, name: Name, defining: str) -> ParseError:
        """A name defined further down: part of a cycle, or merely in the wrong order."""
        path = self.path(name.text, defining)
        if path:
            cycle = " -> ".join([defining, *path])
            return wrong(f"cycle {cycle}", name.at, "a value cannot depend on itself; break the cycle")
        line = self.listing.statements[name.text][1].line
        problem = f"`{name.text}` is used before it is defined in line {line}"
        return wrong(problem, name.at, "move its definition up")

    def path(self, start: str, goal: str) -> list[str]:
        """How `start` depends on `goal`: the names on the shortest way, or nothing."""
        ways, seen = [[start]], {start}
        while ways:
            way = ways.pop(0)
            if way[-1] == goal:
                return way
            for used in uses(self.listing.statements[way[-1]][0]):
                if used.text in self.listing.statements and used.text not in seen:
                    seen.add(used.text)
                    ways.append([*way, used.text])
        return []


def _at(at: SourceLine) -> AbstractContextManager[None]:
    return origins.at(Origin((at,), origins.current_scope()))


def _shape_hint(name: str) -> str:
    return f"write `Shapes: {name}(batch,64)`, or pass shapes={{{name!r}: ('batch', 64)}}"


def _usage(call: Call) -> str:
    return f"{call.op} takes ({', '.join(inspect.signature(call.function).parameters)})"


def _check(call: Call, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> None:
    """The right number of arguments, and tensors exactly where the op wants tensors."""
    signature = inspect.signature(call.function)
    try:
        bound = signature.bind(*arguments, **keywords)
    except TypeError as error:
        raise wrong(f"{call.op}: {error}, got {len(arguments)}", call.at, _usage(call)) from error
    for name, value in bound.arguments.items():
        wanted = signature.parameters[name]
        if wanted.kind is inspect.Parameter.VAR_KEYWORD:
            continue
        for item in value if wanted.kind is inspect.Parameter.VAR_POSITIONAL else (value,):
            if wanted.annotation == "Tensor" and not isinstance(item, Tensor):
                shown = item if isinstance(item, (int, float)) else "something else"
                raise wrong(f"{call.op} needs a tensor for `{name}`, got {shown}", call.at, _usage(call))
            members = item if isinstance(item, tuple) else (item,)
            if wanted.annotation == "float" and not isinstance(item, (int, float)):
                raise wrong(f"{call.op} needs a number for `{name}`", call.at, _usage(call))
            if wanted.annotation not in ("Tensor", "Any", "float") and any(
                isinstance(m, (Tensor, float)) for m in members
            ):
                raise wrong(f"{call.op} needs whole numbers for `{name}`", call.at, _usage(call))
