"""Put ops of their own in the place of attention, and of its derivative."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import graphc.ops as ops
from graphc.fuel import allowed
from graphc.ir import Builder, Graph, Node, Value, rebuild
from graphc.passes.attention_pattern import Backward, Forward, Users, find_backward, find_forward, unrounded
from graphc.passes.prune import prune
from graphc.rewrite import scalar_constant
from graphc.types import float32


def attention(graph: Graph) -> Graph:
    """Replace softmax(scale * q k^T) v by one op, and its derivative by another, where nothing else uses the weights and there
    is a kernel for it: then they are never in memory as a whole. Keys that are left out have scores of -inf. The sums of the
    softmax, and the products with `scale`, are taken in another order; so the last bits may differ."""
    return _replaced(graph, halves=False)


def attention_of_halves(graph: Graph) -> Graph:
    """The same for kernels that read half precision and compute in single precision: scores are not rounded on the way."""
    return _replaced(graph, halves=True)


def _replaced(graph: Graph, halves: bool) -> Graph:
    users = Users(graph)
    found: dict[Node, _Replacement] = {}
    for node in graph.nodes:
        forward = find_forward(node, halves) if node.op is ops.matmul else None
        if forward is None:
            continue
        backward = None
        if not users.are_among(forward.inside, (node,)):
            backward = find_backward(forward, users)
            if backward is None or not users.are_among(forward.inside | backward.inside, (node, *backward.products)):
                continue
        if allowed("attention", node, node.location):
            replacement = _Replacement(forward, backward, users)
            found |= dict.fromkeys((node, *(backward.products if backward is not None else ())), replacement)
    if not found:
        return graph
    new: dict[Value, Value] = {}

    def visit(builder: Builder, node: Node, operands: tuple[Value, ...]) -> Sequence[Value] | None:
        new.update(zip(node.operands, operands))
        return [found[node].result(node, new)] if node in found else None

    return prune(rebuild(graph, visit))


class _Replacement:
    """The ops for one attention, which are made when the first of their results is asked for."""

    def __init__(self, forward: Forward, backward: Backward | None, users: Users) -> None:
        self.forward = forward
        self.backward = backward
        self.q = forward.q
        self.scale = 1.0 if forward.scale is None else float(scalar_constant(forward.scale) or 0.0)
        self.dtype = forward.product.result.dtype
        made = (unrounded(self.q)[0] if self.dtype is not float32 else self.q).node
        if backward is None and made is not None and made.op is ops.mul and len(users[self.q]) == 1:
            factor = scalar_constant(made.operands[1])
            if factor is not None:
                self.scale, self.q = self.scale * factor, made.operands[0]
                if self.dtype is not float32:
                    self.q = unrounded(self.q)[0]
        self._operands: tuple[Value, ...] = ()
        self._results: tuple[Value, ...] = ()
        self._gradients: tuple[Value, ...] = ()

    def result(self, node: Node, new: dict[Value, Value]) -> Value:
        """What takes the place of a node's result; `new` has what takes the place of its operands, and of those before."""
        forward, backward = self.forward, self.backward
        if node is forward.product:
            found = new[self.q], ops.transpose_last(new[forward.keys]), new[forward.v]
            q, k, v = map(_widened, found)
            self._operands = (q, k, v, self._mask(q, new))
            zeros = forward.some is not None
            self._results = ops.attention(*self._operands, scale=self.scale, causal=forward.causal, zeros=zeros)
            out = self._results[0]
            return out if self.dtype is float32 else ops.cast(out, dtype=self.dtype)
        assert backward is not None
        if not self._gradients:
            (out, lse), ct = self._results, _widened(new[backward.ct])
            inner = ops.sum(ops.mul(ct, out), (ct.ndim - 1,))
            self._gradients = ops.attention_backward(
                *self._operands, ct, lse, inner, scale=self.scale, causal=forward.causal)
        dq, dk, dv = self._gradients
        gradient = ops.transpose_last(dk) if node is backward.dkeys else dq if node is backward.dq else dv
        return gradient if self.dtype is float32 else ops.cast(gradient, dtype=self.dtype)

    def _mask(self, q: Value, new: dict[Value, Value]) -> Value:
        found = self.forward.mask
        mask = ops.constant(value=np.array(True), like=q) if found is None else new[found[0]]
        mask = ops.reshape(mask, (*[1] * (q.ndim - mask.ndim), *mask.shape))
        return ops.bitwise_not(mask) if found is not None and found[1] else mask


def _widened(value: Value) -> Value:
    return value if value.dtype is float32 else ops.cast(value, dtype=float32)
