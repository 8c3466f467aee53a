"""How many floating-point operations a graph takes: a measure of its work, whatever the machine does with it.

A multiplication and an addition are two, an elementary function one; what only moves or converts numbers is none. Ops that
are made of others count as those. The graphs that a loop runs count once for each step where their number is known, and
once where it depends on numbers; of a branch's two ways, both count.

>>> from graphc.parse import parse_graph
>>> graph = parse_graph('''graph @f(%x: float32[N, 8], %w: float32[8, 4]) -> float32[N, 4] {
...   %0 = matmul(%x, %w) : float32[N, 4]
...   %1 = tanh(%0) : float32[N, 4]
...   return %1
... }''')
>>> [node_flops(node) for node in graph.nodes]
[64*N, 4*N]
>>> graph_flops(graph)
68*N
"""

from __future__ import annotations

import math

from graphc.ir import Builder, Graph, Node
from graphc.ops.linalg import parse_spec
from graphc.passes.decompose import decompose
from graphc.types import Size


def graph_flops(graph: Graph) -> Size:
    """The operations of all nodes; a polynomial where sizes are symbols."""
    return sum((node_flops(node) for node in graph.nodes), start=0)


def node_flops(node: Node) -> Size:
    """The operations of one node, and of the graphs that it runs."""
    record, types = node.op, [value.type for value in node.operands]
    if record.kernel == "control":
        steps = node.attrs.get("length", 1)
        return sum((graph_flops(graph) for graph in node.attrs.values() if isinstance(graph, Graph)), start=0) * steps
    if record.name == "contract":
        left, right, _ = parse_spec(node.attrs["spec"])
        sizes = {**dict(zip(left, types[0].shape)), **dict(zip(right, types[1].shape))}
        return 2 * math.prod(sizes.values())
    if record.kernel == "attention":  # two products with all keys for each query
        return 2 * (types[0].size + types[0].with_shape(node.results[0].shape).size) * types[1].shape[-2]
    if record.decompose is not None:
        simpler = decompose(_alone(node))
        if [inner.op for inner in simpler.nodes] != [record]:
            return graph_flops(simpler)
    computes = types and not record.only_moves and record.lower is None and record.name not in ("cast", "stop_gradient")
    if not computes or not any(type_.dtype.is_differentiable for type_ in types):
        return 0
    if record.reduction is not None:
        return types[0].size
    return sum((value.type.size for value in node.results), start=0)


def _alone(node: Node) -> Graph:
    """A graph of the node alone."""
    builder = Builder(node.op.name, locations=False)
    inputs = [builder.input(None, value.type) for value in node.operands]
    made = builder.append(node.op, inputs, node.attrs, [value.type for value in node.results])
    return builder.finish(made.results)
