"""Recognise attention that is written as products and a softmax."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

import graphc.ops as ops
from graphc.fuel import allowed
from graphc.ir import Builder, Graph, Node, Value, rebuild
from graphc.op import OpDef
from graphc.ops.attention import has_kernel
from graphc.passes.prune import prune
from graphc.rewrite import scalar_constant


def attention(graph: Graph) -> Graph:
    """Replace softmax(scale * q k^T) v by one op, where nothing else uses the weights and there is a kernel for it: then
    they are never in memory as a whole. Keys that are left out have scores of -inf. The sums of the softmax, and the
    products with `scale`, are taken in another order; so the last bits may differ."""
    uses = graph.uses()
    new: dict[Value, Value] = {}

    def visit(builder: Builder, node: Node, operands: tuple[Value, ...]) -> Sequence[Value] | None:
        new.update(zip(node.operands, operands))
        found = _match(node, uses) if node.op is ops.matmul else None
        if found is None or not allowed("attention", node, node.location):
            return None
        q, k = new[found.q], ops.transpose_last(new[found.keys])
        mask = ops.constant(value=np.array(True), like=q) if found.mask is None else new[found.mask]
        mask = ops.reshape(mask, (*[1] * (q.ndim - mask.ndim), *mask.shape))
        if found.inverted:
            mask = ops.bitwise_not(mask)
        return [ops.attention(q, k, operands[1], mask, scale=found.scale, causal=found.causal, zeros=found.zeros)]

    return prune(rebuild(graph, visit))


@dataclass
class _Attention:
    """What has been found; `keys` are the columns of a matrix. Where a mask is `inverted`, it is true for what is left out."""

    q: Value
    keys: Value
    scale: float = 1.0
    mask: Value | None = None
    inverted: bool = False
    causal: bool = False
    zeros: bool = False


def _match(node: Node, uses: Mapping[Value, int]) -> _Attention | None:
    """Attention whose last product is this node."""

    def made(value: Value, op: OpDef, times: int) -> tuple[Value, ...] | None:
        """The operands of the op that makes a value, if that is used so often."""
        return value.node.operands if value.node is not None and value.node.op is op and uses[value] == times else None

    weights, v = node.operands
    last = (weights.ndim - 1,)
    some: Value | None = None
    if (chosen := made(weights, ops.where, 1)) and scalar_constant(chosen[2]) == 0:
        some, weights = chosen[0], chosen[1]
    quotient = made(weights, ops.div, 1)
    difference = made(quotient[0], ops.exp, 2) if quotient else None
    parts = made(difference[0], ops.sub, 1) if difference else None
    if quotient is None or parts is None:
        return None
    scores = parts[0]
    if _reduced(quotient[1], ops.sum, last) is not quotient[0] or _reduced(parts[1], ops.amax, last) is not scores:
        return None
    if some is not None:
        chosen = made(scores, ops.where, 2)
        if not chosen or chosen[0] is not some or scalar_constant(chosen[2]) != 0:
            return None
        scores = chosen[1]
    times = 2 if some is None else 1
    masks: list[tuple[Value, bool]] = []
    while chosen := made(scores, ops.where, times):
        inverted = scalar_constant(chosen[1]) == -math.inf
        if not inverted and scalar_constant(chosen[2]) != -math.inf:
            return None
        masks.append((_narrow(chosen[0]), inverted))
        scores, times = chosen[2 if inverted else 1], 1
    scale = 1.0
    if product := made(scores, ops.mul, times):
        number = scalar_constant(product[1])
        if number is None:
            return None
        scale, scores, times = scale * number, product[0], 1
    factors = made(scores, ops.matmul, times)
    if factors is None:
        return None
    q, keys = factors
    if (product := made(q, ops.mul, 1)) and (number := scalar_constant(product[1])) is not None:
        scale, q = scale * number, product[0]
    causal = [mask for mask, inverted in masks if not inverted and _is_causal(mask)]
    others = [(mask, inverted) for mask, inverted in masks if mask not in causal]
    if len(others) > 1 or (some is not None and not (others and _reduced(some, ops.amax, last) is others[0][0])):
        return None
    transposed = keys.type.with_shape((*keys.shape[:-2], keys.shape[-1], keys.shape[-2]))
    if not has_kernel(q.type, transposed, v.type):
        return None
    mask, inverted = others[0] if others else (None, False)
    return _Attention(q, keys, scale, mask, inverted, bool(causal), some is not None)


def _narrow(value: Value) -> Value:
    """What a value is a broadcast of."""
    while value.node is not None and value.node.op is ops.broadcast_to:
        value = value.node.operands[0]
    return value


def _reduced(value: Value, op: OpDef, axes: tuple[int, ...]) -> Value | None:
    """What `value` is a reduction of over the last dimension, stretched again."""
    kept = _narrow(value).node
    node = kept.operands[0].node if kept is not None and kept.op is ops.reshape else None
    if kept is None or node is None or node.op is not op or len(node.attrs["axes"]) != 1:
        return None
    source = node.operands[0]
    is_last = node.attrs["axes"] == (source.ndim - 1,) and kept.result.shape == (*source.shape[:-1], 1)
    return source if is_last and value.ndim - 1 == axes[0] else None


def _is_causal(mask: Value) -> bool:
    """Whether a mask is true where the row's number is at least the column's."""
    node = mask.node
    if node is None or node.op is not ops.ge:
        return False
    axes = [_narrow(operand).node for operand in node.operands]
    return all(a is not None and a.op is ops.iota for a in axes) and [
        a.attrs["axis"] - len(a.attrs["shape"]) for a in axes if a is not None
    ] == [-2, -1]
