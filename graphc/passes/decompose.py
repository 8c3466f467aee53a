"""Replace ops that have no lowering of their own by the simpler ones that they are made of."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir import Builder, Graph, Node, Value, rebuild


def decompose(graph: Graph) -> Graph:
    """Expand ops with a decomposition, and what comes out of that, until none is left."""
    while any(node.op.decompose is not None for node in graph.nodes):
        graph = rebuild(graph, _expand)
    return graph


def _expand(builder: Builder, node: Node, operands: tuple[Value, ...]) -> Sequence[Value] | None:
    if node.op.decompose is None:
        return None
    results = node.op.decompose(*operands, **node.attrs)
    return results if isinstance(results, tuple) else (results,)
