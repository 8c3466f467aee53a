"""Compute what depends on constants alone, once and for all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import graphc.ops as ops
from graphc.errors import GraphcError
from graphc.fuel import allowed
from graphc.ir import Builder, Graph, Node, Value, rebuild
from graphc.passes.prune import prune

_LARGEST = 1 << 16
"""Elements of a folded result: more would rather be computed than carried along."""
_FREE = frozenset((ops.broadcast_to, ops.stop_gradient))
"""What costs nothing in a kernel, even of constants."""


def fold(graph: Graph) -> Graph:
    """Replace nodes whose operands are all constants by their value.

    Broadcasts of a number are left alone: they cost nothing in a kernel. So is what has no operands (a counter), and what
    fails: an error belongs to the run in which it occurs.
    """
    if not any(node.op is ops.size or _operands(node, node.operands) is not None for node in graph.nodes):
        return prune(graph)

    def visit(builder: Builder, node: Node, operands: tuple[Value, ...]) -> list[Value] | None:
        if node.op is ops.size and isinstance(node.attrs["value"], int):
            return [builder.constant(node.attrs["value"], node.attrs["dtype"])]
        arrays = _operands(node, operands)
        if arrays is None:
            return None
        try:
            with np.errstate(all="ignore"):
                results = node.op.ref(*arrays, **node.attrs)
        except (ArithmeticError, IndexError, ValueError, GraphcError):
            return None
        if not allowed("fold", node, node.location):
            return None
        results = results if isinstance(results, tuple) else (results,)
        return [builder.constant(np.asarray(r), t.dtype) for r, t in zip(results, node.results)]

    return prune(rebuild(graph, visit))


def _operands(node: Node, operands: Sequence[Value]) -> list[np.ndarray] | None:
    """The numbers of the operands, where all are known and the node may be folded."""
    arrays: list[np.ndarray] = []
    for value in operands:
        array = _constant(value)
        if array is None:
            return None
        arrays.append(array)
    if not arrays or node.op in _FREE or node.op.kernel == "control":  # a loop may take its time
        return None
    known = all(r.type.is_static for r in node.results)
    return arrays if known and sum(r.type.size for r in node.results) <= _LARGEST else None


def _constant(value: Value) -> np.ndarray | None:
    """The numbers of a constant, or of one that is broadcast."""
    node = value.node
    if node is None:
        return None
    if node.op is ops.constant:
        return node.attrs["value"]
    if node.op is ops.broadcast_to and value.type.is_static and value.type.size <= _LARGEST:
        inner = _constant(node.operands[0])
        return None if inner is None else np.broadcast_to(inner, value.shape)
    return None
