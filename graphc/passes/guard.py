"""Have indices that are data checked when the program runs."""

from __future__ import annotations

import numpy as np

import graphc.ops as ops
from graphc.ir import Builder, Graph, Node, Value, copy_node, rebuild
from graphc.rewrite import scalar_constant

_REARRANGING = frozenset((ops.broadcast_to, ops.reshape, ops.permute))
"""Ops whose result holds all elements of the operand, and no others."""


def guard(graph: Graph) -> Graph:
    """Put `in_range` before the indices of ops that read or write at places that are data.

    It stands where the numbers come from rather than where they are used: an embedding's indices are checked once, not
    for each column that they are stretched to. Constants that are in range need no check.
    """

    def visit(builder: Builder, node: Node, operands: tuple[Value, ...]) -> tuple[Value, ...] | None:
        at = node.op.index_operand
        if at is None or _is_known(operands[at], node):
            return None
        chain: list[Node] = []
        source = operands[at]
        while source.node is not None and source.node.op in _REARRANGING:
            chain.append(source.node)
            source = source.node.operands[0]
        if source.node is not None and source.node.op is ops.in_range:
            return None
        axis = node.attrs["axis"]
        index = ops.in_range(source, size=node.operands[0].shape[axis], axis=axis, name=node.op.name)
        for rearranging in reversed(chain):
            index = copy_node(builder, rearranging, (index,)).result
        return copy_node(builder, node, (*operands[:at], index, *operands[at + 1 :])).results

    return rebuild(graph, visit) if any(node.op.index_operand is not None for node in graph.nodes) else graph


def _is_known(index: Value, node: Node) -> bool:
    """Whether it can be seen that all indices are in range."""
    size = node.operands[0].shape[node.attrs["axis"]]
    number = scalar_constant(index)
    source = index.node
    while number is None and source is not None and source.op in _REARRANGING:
        source = source.operands[0].node
    if not isinstance(size, int):
        return False
    if number is not None:
        return 0 <= number < size
    if source is None:
        return False
    if source.op is ops.constant:
        array: np.ndarray = source.attrs["value"]
        return array.size == 0 or (int(array.min()) >= 0 and int(array.max()) < size)
    return source.op is ops.iota and source.attrs["shape"][source.attrs["axis"]] <= size
