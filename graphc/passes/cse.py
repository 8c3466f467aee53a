"""Compute equal things once."""

from __future__ import annotations

from typing import Any

from graphc.fuel import allowed
from graphc.ir import Builder, Graph, Node, Value, attribute_key, copy_node
from graphc.passes.prune import prune


def cse(graph: Graph) -> Graph:
    """Merge nodes that apply the same op to the same operands with the same attributes.

    Inputs are never merged, however equal they look: two parameters may hold the same numbers today. Random draws are
    functions of a generator's state, so two draws from one state are equal and draws from different states are not.
    """
    first: dict[Any, Node] = {}
    same: dict[Value, Value] = {}
    for node in graph.nodes:
        operands = tuple([same.get(v, v) for v in node.operands])
        key = (node.op.name, operands, tuple([(k, attribute_key(a)) for k, a in sorted(node.attrs.items())]))
        known = first.setdefault(key, node)
        if known is not node:
            if allowed("cse", node, node.location):
                same.update(zip(node.results, known.results))
            else:
                first[key] = node
    if not same:
        return graph
    builder = Builder(graph.name, locations=False)
    new: dict[Value, Value] = {v: builder.input(v.name, v.type, **v.info) for v in graph.inputs}
    for node in graph.nodes:
        if not node.results or node.results[0] not in same:
            operands = tuple(new[same.get(v, v)] for v in node.operands)
            new.update(zip(node.results, copy_node(builder, node, operands).results))
    return prune(builder.finish([new[same.get(v, v)] for v in graph.outputs], graph.output_names))
