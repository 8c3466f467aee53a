"""A graph before and after each pass, and what of it is the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from graphc.ir import Graph, Node, attribute_key
from graphc.passes import pipeline


@dataclass(frozen=True)
class Stage:
    """A graph, and what made it of the one before."""

    name: str
    """The pass; "traced" for the first."""
    graph: Graph
    same: dict[Node, Node] = field(default_factory=dict)
    """Nodes that the stage before had too: each with its own of that time."""


def stages(graph: Graph) -> list[Stage]:
    """The graph, and what each of the passes of a compilation makes of it that changes anything."""
    found = [Stage("traced", graph)]

    def after(name: str, made: Graph) -> None:
        before = found[-1].graph
        if made is not before and made != before:
            found.append(Stage(name, made, matched(before.nodes, made.nodes)))

    pipeline.run(graph, after=after)
    return found


def matched(before: Sequence[Node], now: Sequence[Node]) -> dict[Node, Node]:
    """For nodes, those of a graph before that compute the same op with the same attributes and types at the same place of the
    program; of several that are alike, in their order."""
    known: dict[Any, list[Node]] = defaultdict(list)
    for node in reversed(before):
        known[_key(node)].append(node)
    return {node: known[key].pop() for node in now if known.get(key := _key(node))}


def _key(node: Node) -> Any:
    attributes = tuple((name, attribute_key(value)) for name, value in sorted(node.attrs.items()))
    types = tuple(value.type for value in (*node.operands, *node.results))
    return node.op.name, attributes, types, node.location
