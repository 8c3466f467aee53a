"""Drop the nodes that lead to no output."""

from __future__ import annotations

from graphc.ir import Builder, Graph, Value, copy_node


def prune(graph: Graph) -> Graph:
    """Drop dead sub-graphs. Inputs stay, used or not: they are the graph's signature."""
    live = {value.node for value in graph.outputs if value.node is not None}
    for node in reversed(graph.nodes):
        if node in live:
            live.update(v.node for v in node.operands if v.node is not None)
    if len(live) == len(graph.nodes):
        return graph
    builder = Builder(graph.name, locations=False)
    new: dict[Value, Value] = {v: builder.input(v.name, v.type, **v.info) for v in graph.inputs}
    for node in graph.nodes:
        if node in live:
            new.update(zip(node.results, copy_node(builder, node, [new[v] for v in node.operands]).results))
    return builder.finish([new[v] for v in graph.outputs], graph.output_names)
