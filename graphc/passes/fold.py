"""Compute what depends on constants alone, once and for all."""

from __future__ import annotations

import numpy as np

from graphc.errors import GraphcError
from graphc.fuel import allowed
from graphc.ir import Builder, Graph, Node, Value, rebuild
from graphc.passes.prune import prune

_LARGEST = 1 << 16
"""Elements of a folded result: more would rather be computed than carried along."""


_FREE = frozenset(("broadcast_to", "stop_gradient"))
"""What costs nothing in a kernel, even of constants."""


def fold(graph: Graph) -> Graph:
    """Replace nodes whose operands are all constants by their value.

    Broadcasts of a number are left alone: they cost nothing in a kernel. So is what has no operands (a counter), and what
    fails: an error belongs to the run in which it occurs.
    """
    def visit(builder: Builder, node: Node, operands: tuple[Value, ...]) -> list[Value] | None:
        if node.op.name == "constant" or node.op.kernel == "control":  # a loop may take its time
            return None
        if node.op.name == "size" and isinstance(node.attrs["value"], int):
            return [builder.constant(node.attrs["value"], node.attrs["dtype"])]
        arrays = [_constant(v) for v in operands]
        size = sum(r.type.size for r in node.results if r.type.is_static)
        foldable = operands and all(r.type.is_static for r in node.results) and size <= _LARGEST
        if not foldable or node.op.name in _FREE or any(a is None for a in arrays):
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


def _constant(value: Value) -> np.ndarray | None:
    """The numbers of a constant, or of one that is broadcast."""
    node = value.node
    if node is None:
        return None
    if node.op.name == "constant":
        return node.attrs["value"]
    if node.op.name == "broadcast_to" and value.type.is_static and value.type.size <= _LARGEST:
        inner = _constant(node.operands[0])
        return None if inner is None else np.broadcast_to(inner, value.shape)
    return None
