"""What a program checks as it runs, as further results of its graph."""

from __future__ import annotations

import graphc.ops as ops
from graphc.ir import Builder, Graph, Node, Value, copy_node
from graphc.types import int64


def with_checks(graph: Graph, bounded: bool = False) -> tuple[Graph, list[Node]]:
    """The graph without its `in_range` nodes, and which of these have become further outputs: whether any index is out
    of range. That is computed as soon as the indices are. If they are to be `bounded`, what is out of range is replaced by the
    nearest place, so that a program may go on until somebody looks at that.
    """
    if all(node.op is not ops.in_range for node in graph.nodes):
        return graph, []
    builder = Builder(graph.name, locations=False)
    new: dict[Value, Value] = {v: builder.input(v.name, v.type, **v.info) for v in graph.inputs}
    outside: dict[tuple[Value, int], Value] = {}
    checked: list[Node] = []
    for node in graph.nodes:
        operands = [new[v] for v in node.operands]
        if node.op is not ops.in_range:
            new.update(zip(node.results, copy_node(builder, node, operands).results))
            continue
        (index,) = operands
        new[node.result] = index
        size = node.attrs["size"]
        key = index, size
        builder.location = node.location
        if bounded:
            near = ops.maximum(ops.minimum(ops.cast(index, int64), size - 1), 0)
            new[node.result] = ops.cast(near, index.dtype)
        if key not in outside and index.type.size:
            place = ops.cast(index, int64)
            wrong = ops.bitwise_or(ops.lt(place, 0), ops.ge(place, size))
            outside[key] = ops.amax(wrong, tuple(range(index.ndim))) if index.ndim else wrong
            checked.append(node)
    return builder.finish([*(new[v] for v in graph.outputs), *outside.values()]), checked
