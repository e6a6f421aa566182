"""A whole graph: what goes in, what comes out, which parameters get new values.

All updates read the values from before the step. Orders nodes, rewrites them, verifies itself, prints itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from flowgraph.errors import VerificationError
from flowgraph.graph import origin as origins
from flowgraph.graph.origin import Origin
from flowgraph.graph.tensor import Node, Tensor, apply


@dataclass(frozen=True)
class Graph:
    """`outputs` in the order asked for; `updates` pairs (parameter, its value after the step)."""

    outputs: tuple[Tensor, ...]
    updates: tuple[tuple[Tensor, Tensor], ...] = ()
    inputs: tuple[Tensor, ...] = ()  # declared inputs, used or not

    @property
    def roots(self) -> tuple[Tensor, ...]:
        """Everything that must be computed."""
        return (*self.outputs, *(new for _, new in self.updates))

    def nodes(self) -> list[Node]:
        """All nodes, producers first, in an order that is the same in every run."""
        return list(self._nodes)

    @cached_property
    def _nodes(self) -> list[Node]:
        return topological(self.roots)

    def all_nodes(self) -> Iterator[Node]:
        """All nodes, and behind each those of the graphs among its op's attributes: of a loop's body."""
        for node in self._nodes:
            yield node
            for inner in node.op.subgraphs():
                yield from inner.all_nodes()

    def with_roots(self, roots: Sequence[Tensor]) -> Graph:
        """The same graph computing these roots instead."""
        outputs = tuple(roots[: len(self.outputs)])
        news = roots[len(self.outputs) :]
        return Graph(
            outputs, tuple((p, new) for (p, _), new in zip(self.updates, news, strict=True)), self.inputs
        )

    def to_networkx(self) -> Any:
        """The graph as a `networkx.MultiDiGraph` for analysis and export: a vertex a node, an edge a use.

        Vertices are numbered in topological order and carry `op`, `types`, `lines` and `node`; edges carry the
        operand's place among the reader's inputs. networkx is imported here and nowhere else.
        """
        import networkx

        graph = networkx.MultiDiGraph()
        number = {node: k for k, node in enumerate(self.nodes())}
        for node, k in number.items():
            types = [str(t.type) for t in node.outputs]
            graph.add_node(k, op=node.op.name, types=types, lines=[str(x) for x in node.origin.lines], node=node)
        for node, k in number.items():
            for place, tensor in enumerate(node.inputs):
                graph.add_edge(number[tensor.node], k, operand=place)
        return graph

    def consumers(self) -> dict[Tensor, list[Node]]:
        """For every tensor the nodes that read it, once per use."""
        found: dict[Tensor, list[Node]] = {t: [] for n in self.nodes() for t in n.outputs}
        for node in self.nodes():
            for tensor in node.inputs:
                found[tensor].append(node)
        return found


def topological(roots: Iterable[Tensor], given: Collection[Tensor] = ()) -> list[Node]:
    """Nodes that the roots depend on, producers first, not looking behind tensors that are given (iterative:
    deep graphs are ordinary).
    """
    order: list[Node] = []
    state: dict[Node, bool] = {}  # False: open, True: done
    for root in roots:
        stack = [(root.node, False)]
        while stack:
            node, expanded = stack.pop()
            if expanded:
                if not state[node]:
                    state[node] = True
                    order.append(node)
                continue
            if node in state:
                continue
            state[node] = False
            stack.append((node, True))
            stack.extend(
                (t.node, False) for t in reversed(node.inputs) if t not in given and t.node not in state
            )
    return order


Rule = Callable[[Node, tuple[Tensor, ...]], "tuple[Tensor, ...] | None"]


def rewrite(graph: Graph, rule: Rule, name: str) -> Graph:
    """Rebuild a graph bottom-up. `rule(node, new_inputs)` returns replacement outputs, or None to keep the
    node.

    Nodes whose inputs did not change are kept themselves, so an unchanged graph is the same object. New nodes
    inherit the origin of the node they replace, marked with the pass's name; labels carry over.
    """
    new: dict[Tensor, Tensor] = {}
    with origins.rewriting(name) as at:
        for node in graph.nodes():
            inputs = tuple([new[t] for t in node.inputs])
            at(node.origin)
            outputs = rule(node, inputs)
            if outputs is None:
                outputs = node.outputs if inputs == node.inputs else clone(node, inputs)
            for old, fresh in zip(node.outputs, outputs, strict=True):
                new[old] = fresh
                if fresh is not old and fresh.label is None:
                    fresh.label = old.label
    roots = [new[t] for t in graph.roots]
    return graph if tuple(roots) == graph.roots else graph.with_roots(roots)


def clone(node: Node, inputs: Sequence[Tensor], origin: Origin | None = None) -> tuple[Tensor, ...]:
    """The same op on other inputs, at the same origin unless another is given."""
    with origins.at(origin or node.origin):
        outputs = apply(node.op, *inputs)
    for old, fresh in zip(node.outputs, outputs, strict=True):
        fresh.label = old.label
    return outputs


def substitute(graph: Graph, replacements: Mapping[Tensor, Tensor]) -> Graph:
    """The graph with some tensors replaced by others."""

    def rule(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if any(t in replacements for t in node.outputs):
            kept = node.outputs if inputs == node.inputs else clone(node, inputs)
            return tuple(replacements.get(t, k) for t, k in zip(node.outputs, kept, strict=True))
        return None

    return rewrite(graph, rule, "substitute")


def verify(graph: Graph, after: str = "") -> Graph:
    """Check every invariant of G; raises VerificationError (a bug in flowgraph) naming the pass before."""

    def fail(node: Node, message: str) -> Any:
        raise VerificationError(
            f"after {after or 'declaration'}: {node.op.name}: {message}", where=node.origin
        )

    position: dict[Node, int] = {}
    for index, node in enumerate(graph.nodes()):
        position[node] = index
        if any(position.get(t.node, index) >= index for t in node.inputs):
            fail(node, "reads a value before it exists")
        if not node.origin.lines and not node.origin.passes:
            fail(node, "has no origin")
        types = node.op.infer(*(t.type for t in node.inputs))
        if types != tuple(t.type for t in node.outputs):
            fail(node, f"inferred {types}, recorded {[t.type for t in node.outputs]}")
        for inner in node.op.subgraphs():
            verify(inner, after)
    for parameter, new in graph.updates:
        if parameter.type != new.type:
            fail(new.node, f"update of {parameter.label} has type {new.type}, not {parameter.type}")
    return graph
