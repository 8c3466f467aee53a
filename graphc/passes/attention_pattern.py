"""What attention and its derivative look like where they are written as products and a softmax."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import graphc.ops as ops
from graphc.ir import Graph, Node, Value
from graphc.op import OpDef
from graphc.ops.attention_scores import has_kernel
from graphc.rewrite import scalar_constant
from graphc.types import bfloat16, float16, float32

_HALVES = {float16, bfloat16}
_FLOATS = {*_HALVES, float32}


class Users:
    """The nodes that use each value of a graph, and whether it is an output."""

    def __init__(self, graph: Graph) -> None:
        self.outputs = set(graph.outputs)
        self._nodes: dict[Value, dict[Node, None]] = {value: {} for value in graph.values()}
        for node in graph.nodes:
            for value in node.operands:
                self._nodes[value][node] = None

    def __getitem__(self, value: Value) -> list[Node]:
        return list(self._nodes[value])

    def are_among(self, nodes: Collection[Node], others: Collection[Node]) -> bool:
        """Whether what `nodes` compute is used by some nodes or others alone."""
        results = [result for node in nodes for result in node.results]
        allowed = {*nodes, *others}
        return self.outputs.isdisjoint(results) and all(allowed.issuperset(self._nodes[result]) for result in results)


@dataclass(eq=False)
class Forward:
    """Attention. `keys` are the columns of a matrix, and `inside` the nodes between the factors and the last product."""

    product: Node
    q: Value
    keys: Value
    v: Value
    weights: Value
    quotient: Value
    powers: Value
    total: Value
    """The sums of the powers, in the shape of the scores."""
    some: Value | None
    """Where there is a key at all, in the shape of the scores, if weights are 0 elsewhere."""
    masks: list[tuple[Value, bool]]
    """The conditions for scores, the last one first; a second True says that a condition holds for what is left out."""
    scale: Value | None
    inside: set[Node]
    halves: bool
    """Whether what lies between may be rounded to half precision on the way."""

    @property
    def mask(self) -> tuple[Value, bool] | None:
        """The condition besides causality; it may be a broadcast of the value."""
        mask, inverted = next((mask for mask in self.masks if not self._is_causal(mask)), (None, False))
        return None if mask is None else (_narrow(mask), inverted)

    @property
    def causal(self) -> bool:
        return any(map(self._is_causal, self.masks))

    def _is_causal(self, mask: tuple[Value, bool]) -> bool:
        return not mask[1] and _is_causal(mask[0])


@dataclass(eq=False)
class Backward:
    """The derivative: the products with which it ends, None where that gradient is not wanted, and the nodes before them."""

    ct: Value
    dq: Node | None
    dkeys: Node | None
    dv: Node | None
    inside: set[Node]

    @property
    def products(self) -> tuple[Node, ...]:
        return tuple(node for node in (self.dq, self.dkeys, self.dv) if node is not None)


def find_forward(product: Node, halves: bool = False) -> Forward | None:
    """Attention whose last product is this node, if there is a kernel for it: one that multiplies `halves`, too, and rounds
    nothing else to half precision."""
    inside: set[Node] = set()

    def precise(value: Value) -> Value:
        """What has been rounded to half precision, or widened from it."""
        if halves:
            value, rounding = unrounded(value)
            inside.update(rounding)
        return value

    def made(value: Value, op: OpDef) -> tuple[Value, ...] | None:
        """The operands of the op that makes a value, if it is that."""
        if value.node is None or value.node.op is not op:
            return None
        inside.add(value.node)
        return value.node.operands

    def reduced(value: Value, op: OpDef) -> Value | None:
        found = _reduced(value, op)
        inside.update(found[1] if found else ())
        return found[0] if found else None

    weights, v = product.operands
    quotient, some = precise(weights), None
    if quotient.node is not None and quotient.node.op is ops.where and scalar_constant(quotient.node.operands[2]) == 0:
        inside.add(quotient.node)
        some, quotient = quotient.node.operands[0], precise(quotient.node.operands[1])
    parts = made(quotient, ops.div)
    difference = made(parts[0], ops.exp) if parts else None
    sides = made(difference[0], ops.sub) if difference else None
    if not parts or not sides or reduced(parts[1], ops.sum) is not parts[0] or reduced(sides[1], ops.amax) is not sides[0]:
        return None
    powers, total = parts
    scores = precise(sides[0])
    if some is not None:
        chosen = made(scores, ops.where)
        if not chosen or chosen[0] is not some or scalar_constant(chosen[2]) != 0:
            return None
        scores = precise(chosen[1])
    masks: list[tuple[Value, bool]] = []
    while chosen := made(scores, ops.where):
        inverted = scalar_constant(chosen[1]) == -math.inf
        if not inverted and scalar_constant(chosen[2]) != -math.inf:
            return None
        masks.append((chosen[0], inverted))
        scores = precise(chosen[2 if inverted else 1])
    scale = None
    if scaled := made(scores, ops.mul):
        scores, scale = precise(scaled[0]), scaled[1]
        if scalar_constant(scale) is None:
            return None
    factors = made(scores, ops.matmul)
    if not factors:
        return None
    q, keys = factors
    found = Forward(product, q, keys, v, weights, quotient, powers, total, some, masks, scale, inside, halves)
    others = len(masks) - found.causal
    if others > 1 or len(masks) > others + 1:
        return None
    if some is not None:
        own = _reduced(some, ops.amax)
        if own is None or found.mask is None or own[0] is not found.mask[0] or found.mask[1]:
            return None
    transposed = keys.type.with_shape((*keys.shape[:-2], keys.shape[-1], keys.shape[-2]))
    if halves and q.dtype in _HALVES and q.dtype is keys.dtype is v.dtype:
        types = [t.with_dtype(float32) for t in (q.type, transposed, v.type)]
        return found if has_kernel(*types) else None
    return found if has_kernel(q.type, transposed, v.type) else None


def unrounded(value: Value) -> tuple[Value, list[Node]]:
    """What a value is but for being rounded to half precision, or widened; and the nodes that do that."""
    nodes: list[Node] = []
    while value.node is not None and value.node.op is ops.cast and {value.dtype, value.node.operands[0].dtype} <= _FLOATS:
        nodes.append(value.node)
        value = value.node.operands[0]
    return value, nodes


def find_backward(forward: Forward, users: Users) -> Backward | None:
    """The derivative of attention, as the rules of its ops make it: with G = ct v^T and the weights P = E / t, that of the
    scores is (G / t + sum(-G P / t)) E, which is masked and scaled as these were."""
    inside: set[Node] = set()

    def precise(value: Value) -> Value:
        """What has been rounded to half precision, or widened from it."""
        if forward.halves:
            value, rounding = unrounded(value)
            inside.update(rounding)
        return value

    def made(value: Value, op: OpDef) -> tuple[Value, ...]:
        if value.node is None or value.node.op is not op:
            raise _Different
        inside.add(value.node)
        return value.node.operands

    def rounded(value: Value) -> Value:
        """The same value as its one user has it, which is rounded or widened in between."""
        while forward.halves:
            nodes = [node for node in users[value] if node not in forward.inside]
            if len(nodes) != 1 or unrounded(nodes[0].result)[0] is nodes[0].result:
                break
            inside.add(nodes[0])
            value = nodes[0].result
        return value

    def used(value: Value, op: OpDef) -> Node:
        """The one node that uses a value, whose op is given."""
        nodes = [node for node in users[value] if node not in forward.inside]
        if len(nodes) != 1 or nodes[0].op is not op:
            raise _Different
        inside.add(nodes[0])
        return nodes[0]

    def need(condition: bool) -> None:
        if not condition:
            raise _Different

    try:
        step = used(forward.powers, ops.mul)
        direct, stretched = made(precise(_other(step, forward.powers)), ops.add)
        found = _reduced(stretched, ops.sum)
        need(found is not None)
        assert found is not None
        inside.update(found[1])
        slope, divisor = made(direct, ops.div)
        negative, share = made(found[0], ops.mul)
        need(divisor is forward.total and made(negative, ops.neg)[0] is slope)
        need(made(share, ops.div) == (forward.quotient, forward.total))
        if forward.some is not None:
            chosen = made(precise(slope), ops.where)
            need(chosen[0] is forward.some and scalar_constant(chosen[2]) == 0)
            slope = chosen[1]
        ct, turned = made(precise(slope), ops.matmul)
        need(_is_transposed(turned, forward.v))
        scores = rounded(step.result)
        masks = [(forward.some, False), *forward.masks] if forward.some is not None else forward.masks
        for mask, inverted in masks:
            where = used(scores, ops.where)
            condition, zeros, kept = where.operands if inverted else (where.operands[0], *where.operands[:0:-1])
            need(condition is mask and kept is scores and scalar_constant(zeros) == 0)
            scores = rounded(where.result)
        if forward.scale is not None:
            scaled = used(scores, ops.mul)
            need(_other(scaled, scores) is forward.scale)
            scores = rounded(scaled.result)
    except _Different:
        return None
    backward = Backward(ct, None, None, None, inside)
    for node in users[scores]:
        if node.op is not ops.matmul:
            return None
        if node.operands[0] is scores and _is_transposed(node.operands[1], forward.keys):
            backward.dq = node
        elif node.operands[1] is scores and _is_transposed(node.operands[0], forward.q):
            backward.dkeys = node
    for turn in users[forward.weights]:
        if turn.op is ops.permute and _is_transposed(turn.result, forward.weights):
            inside.add(turn)
            for node in users[turn.result]:
                if node.op is ops.matmul and node.operands == (turn.result, ct):
                    backward.dv = node
    return backward


class _Different(Exception):
    """A graph is not what it is compared with."""


def _other(node: Node, value: Value) -> Value:
    """The other operand of an op of two."""
    return node.operands[node.operands[0] is value]


def _narrow(value: Value) -> Value:
    """What a value is a broadcast of."""
    while value.node is not None and value.node.op is ops.broadcast_to:
        value = value.node.operands[0]
    return value


def _reduced(value: Value, op: OpDef) -> tuple[Value, list[Node]] | None:
    """What `value` is a reduction of over the last dimension, stretched again; and the nodes between."""
    chain = list(_stretching(value))
    kept = chain[-1] if chain else None
    node = kept.operands[0].node if kept is not None and kept.op is ops.reshape else None
    if kept is None or node is None or node.op is not op:
        return None
    source = node.operands[0]
    if node.attrs["axes"] != (source.ndim - 1,) or kept.result.shape != (*source.shape[:-1], 1):
        return None
    return source, [*chain, node]


def _stretching(value: Value) -> Iterator[Node]:
    """The nodes from a value to the first that is no broadcast."""
    while value.node is not None:
        yield value.node
        if value.node.op is not ops.broadcast_to:
            return
        value = value.node.operands[0]


def _is_transposed(a: Value, b: Value) -> bool:
    """Whether one matrix is the transpose of the other, both perhaps of something whose dimensions are in another order."""
    (source, order), (other, others) = _unpermuted(a), _unpermuted(b)
    return source is other and order == (*others[:-2], others[-1], others[-2])


def _unpermuted(value: Value) -> tuple[Value, tuple[int, ...]]:
    """What a value is made of by putting dimensions in this order."""
    order = tuple(range(value.ndim))
    while value.node is not None and value.node.op is ops.permute:
        inner = value.node.attrs["order"]
        order = tuple(inner[axis] for axis in order)
        value = value.node.operands[0]
    return value, order


def _is_causal(mask: Value) -> bool:
    """Whether a mask is true where the row's number is at least the column's."""
    node = _narrow(mask).node
    if node is None or node.op is not ops.ge:
        return False
    axes = [_narrow(operand).node for operand in node.operands]
    return all(a is not None and a.op is ops.iota for a in axes) and [
        a.attrs["axis"] - len(a.attrs["shape"]) for a in axes if a is not None
    ] == [-2, -1]
