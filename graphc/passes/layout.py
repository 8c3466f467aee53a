"""Let the weights of convolutions stand in memory as the products that they become read them."""

from __future__ import annotations

from collections.abc import Sequence

import graphc.ops as ops
from graphc.fuel import allowed
from graphc.ir import Builder, Graph, Node, Value, rebuild
from graphc.ops.linalg import parse_spec
from graphc.ops.movement import inverse_permutation
from graphc.types import is_one

_BLOCK_BYTES = 64
"""How much of neighbouring channels stands together: a line of the cache, which is one vector or several."""


def layout(graph: Graph) -> Graph:
    """Copy the weights of convolutions to [O / block, *K, C, block]: so the numbers that one pixel's channel is multiplied with
    stand side by side, and those of the next step after them. Whoever uses the weights sees them in their old order. Where
    they are the same at most calls, the copy is made once."""

    def visit(builder: Builder, node: Node, operands: tuple[Value, ...]) -> Sequence[Value] | None:
        if node.op is not ops.contract or not is_windows(operands[1]):
            return None
        w, x = operands
        left, right, out = parse_spec(node.attrs["spec"])
        lanes = [letter for letter in left if letter in out]
        block = _BLOCK_BYTES // w.dtype.itemsize
        if len(lanes) != 1 or lanes[0] in right or not w.type.is_static:
            return None
        if w.dtype.itemsize < 4 or not w.dtype.is_floating_point or all(is_one(size) for size in w.shape[2:]):
            return None  # of a kernel of one place, the product is one of two matrices, or nearly so
        size = w.shape[left.index(lanes[0])]
        channels = right[1]
        if channels in out or size % block != 0 or size == 0 or not allowed("layout", node, node.location):
            return None
        steps = [letter for letter in right if letter in left and letter != channels]
        order = tuple(left.index(letter) for letter in (lanes[0], *steps, channels))
        moved = ops.permute(w, order)
        last = len(order)
        split = ops.reshape(moved, (size // block, block, *moved.shape[1:]))
        blocked = ops.copy(ops.permute(split, (0, *range(2, last + 1), 1)))
        back = ops.reshape(ops.permute(blocked, (0, last, *range(1, last))), moved.shape)
        return [ops.contract(ops.permute(back, inverse_permutation(order)), x, node.attrs["spec"])]

    if not any(node.op is ops.contract and is_windows(node.operands[1]) for node in graph.nodes):
        return graph
    return rebuild(graph, visit)


def is_windows(value: Value) -> bool:
    """Whether a value is windows of an image, [N, C, *T, *K]."""
    count, current = 0, value
    while current.node is not None and current.node.op in (ops.window, ops.slice):
        count += current.node.op is ops.window
        current = current.node.operands[0]
    return count > 0 and current.ndim == 2 + count
