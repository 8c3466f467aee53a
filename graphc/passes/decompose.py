"""Replace ops that have no lowering of their own by the simpler ones that they are made of."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir import Builder, Graph, Node, Value, rebuild


def decompose(graph: Graph) -> Graph:
    """Expand ops that have a decomposition, and what comes out of that, until none is left that wants to."""
    expanded = any(node.op.decompose is not None for node in graph.nodes)

    def expand(builder: Builder, node: Node, operands: tuple[Value, ...]) -> Sequence[Value] | None:
        nonlocal expanded
        results = node.op.decompose(*operands, **node.attrs) if node.op.decompose is not None else None
        if results is None:
            return None
        expanded = True
        return results if isinstance(results, tuple) else (results,)

    while expanded:
        expanded = False
        graph = rebuild(graph, expand)
    return graph
