"""Let the weights of convolutions stand in memory as the products that they become read them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import graphc.ops as ops
from graphc.fuel import allowed
from graphc.ir import Builder, Graph, Node, Value, rebuild
from graphc.ops.linalg import parse_spec
from graphc.ops.movement import inverse_permutation
from graphc.types import is_one

FEW_TAPS = 128
"""Places of a window that are few enough for what it reads to stay in a cache."""
_BLOCK_BYTES = 64
"""How much of neighbouring channels stands together: a line of the cache, which is one vector or several."""


def layout(graph: Graph) -> Graph:
    """Copy the weights of convolutions to [O / block, *K, C, block]: so the numbers that one pixel's channel is multiplied with
    stand side by side, and those of the next step after them; and to [*K, C] where each channel is convolved by itself. Whoever
    uses the weights sees them in their old order. Where they are the same at most calls, the copy is made once."""

    def visit(builder: Builder, node: Node, operands: tuple[Value, ...]) -> Sequence[Value] | None:
        if node.op is not ops.contract or not is_windows(operands[1]):
            return None
        w, x = operands
        return _in_blocks(node, w, x) or _by_channel(node, w, x)

    if not any(node.op is ops.contract and is_windows(node.operands[1]) for node in graph.nodes):
        return graph
    return rebuild(graph, visit)


def _in_blocks(node: Node, w: Value, x: Value) -> Sequence[Value] | None:
    """A convolution whose weights are copied to blocks; None where they stay as they are."""
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


def _by_channel(node: Node, w: Value, x: Value) -> Sequence[Value] | None:
    """A convolution of each channel by itself whose weights are copied to [*K, C], so that those of a vector of channels stand
    side by side; None where they stay as they are."""
    left, right, out = parse_spec(node.attrs["spec"])
    channels = [k for k, letter in enumerate(left) if letter in right and letter in out]
    taps = [k for k in range(w.ndim) if k not in channels]
    if len(channels) != 1 or any(left[k] in out for k in taps) or not w.type.is_static:
        return None
    if not 1 < math.prod(w.shape[k] for k in taps) <= FEW_TAPS:
        return None
    lanes = _BLOCK_BYTES // w.dtype.itemsize
    if not w.dtype.is_floating_point or w.shape[channels[0]] < lanes or not allowed("layout", node, node.location):
        return None
    order = (*taps, *channels)
    moved = ops.copy(ops.permute(w, order))
    return [ops.contract(ops.permute(moved, inverse_permutation(order)), x, node.attrs["spec"])]


def is_windows(value: Value) -> bool:
    """Whether a value is windows of an image, [N, C, *T, *K]."""
    count, current = 0, value
    while current.node is not None and current.node.op in (ops.window, ops.slice):
        count += current.node.op is ops.window
        current = current.node.operands[0]
    return count > 0 and current.ndim == 2 + count
