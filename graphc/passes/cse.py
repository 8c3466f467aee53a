"""Compute equal things once."""

from __future__ import annotations

from typing import Any

from graphc.fuel import allowed
from graphc.ir import Builder, Graph, Node, Value, attribute_key, copy_node, rebuild
from graphc.passes.prune import prune


def cse(graph: Graph) -> Graph:
    """Merge nodes that apply the same op to the same operands with the same attributes.

    Inputs are never merged, however equal they look: two parameters may hold the same numbers today. Random draws are
    functions of a generator's state, so two draws from one state are equal and draws from different states are not.
    """
    seen: dict[Any, tuple[Value, ...]] = {}

    def visit(builder: Builder, node: Node, operands: tuple[Value, ...]) -> tuple[Value, ...] | None:
        key = (node.op.name, operands, tuple((k, attribute_key(a)) for k, a in sorted(node.attrs.items())))
        if key in seen and allowed("cse", node, node.location):
            return seen[key]
        seen[key] = copy_node(builder, node, operands).results
        return seen[key]

    merged = rebuild(graph, visit)
    return graph if len(seen) == len(graph.nodes) else prune(merged)
