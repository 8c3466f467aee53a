"""Algebraic rules. Each keeps the result's bits: what would change the sign of a zero or hide a NaN is not done."""

from __future__ import annotations

import math

import graphc.ops as ops
from graphc.ir import Graph, Node, Value
from graphc.rewrite import Rule, Var, rewrite, scalar_constant

x, y, c = Var("x"), Var("y"), Var("c")


def _integers(x: Value) -> Value | None:
    """Only for integers: in floating point -0.0 + 0.0 is 0.0."""
    return None if x.dtype.is_differentiable else x


def _not_complex(x: Value) -> Value | None:
    """Not for complex numbers: infinite ones have NaNs in products, even with 1."""
    return None if x.dtype.is_complex else x


def _exact(x: Value, node: Node) -> Value | None:
    """Nothing is added up. In floating point that is still a sum with 0, which is 0.0 for -0.0."""
    return None if node.attrs["axes"] or x.dtype.is_differentiable else x


def _same_type(x: Value, node: Node) -> Value | None:
    return x if x.type == node.result.type else None


def _compose_permutes(x: Value, node: Node) -> Value:
    permuted = node.operands[0].node
    assert permuted is not None  # the pattern's inner permute
    inner, outer = permuted.attrs["order"], node.attrs["order"]
    return ops.permute(x, tuple(inner[i] for i in outer))


def _identity_permute(x: Value, node: Node) -> Value | None:
    return x if node.attrs["order"] == tuple(range(x.ndim)) else None


def _whole_slice(x: Value, node: Node) -> Value | None:
    whole = x.type == node.result.type and all(step == 1 for step in node.attrs["steps"])
    return x if whole else None


def _no_padding(x: Value, node: Node) -> Value | None:
    return None if any(node.attrs["low"]) or any(node.attrs["high"]) else x


def _no_axes(x: Value, node: Node) -> Value | None:
    return None if node.attrs["axes"] else x


def _cast_of_cast(x: Value, node: Node) -> Value | None:
    """Through a wider dtype and on: the step between loses nothing."""
    middle = node.operands[0].dtype
    wider = middle.bits > x.dtype.bits or middle is x.dtype or (middle.kind in ("int", "uint") and middle.bits == x.dtype.bits)
    exact = x.dtype.kind == middle.kind == node.result.dtype.kind and wider
    return ops.cast(x, node.result.dtype) if exact else None


def _reshape_of_scalar_broadcast(x: Value, node: Node) -> Value | None:
    return ops.broadcast_to(x, node.result.shape) if not x.shape else None


RULES = [
    Rule("add_zero", ops.add(x, 0), _integers),
    Rule("add_zero_left", ops.add(0, x), _integers),
    Rule("sub_zero", ops.sub(x, 0), lambda x, node: x if not _negative_zero(node) else None),
    Rule("mul_one", ops.mul(x, 1), _not_complex),
    Rule("mul_one_left", ops.mul(1, x), _not_complex),
    Rule("div_one", ops.div(x, 1), _not_complex),
    Rule("mul_minus_one", ops.mul(x, -1), lambda x: ops.neg(x) if _not_complex(x) else None),
    Rule("mul_minus_one_left", ops.mul(-1, x), lambda x: ops.neg(x) if _not_complex(x) else None),
    Rule("pow_one", ops.pow(x, 1), _not_complex),
    Rule("pow_two", ops.pow(x, 2), lambda x: ops.mul(x, x) if _not_complex(x) else None),
    Rule("double_negation", ops.neg(ops.neg(x)), lambda x: x),
    Rule("double_not", ops.bitwise_not(ops.bitwise_not(x)), lambda x: x),
    Rule("where_same", ops.where(c, x, x), lambda x: x),
    Rule("nan_for_nan", ops.where(ops.eq(x, x), x, math.nan), _not_complex),  # it was put there for the derivative's sake
    Rule("maximum_same", ops.maximum(x, x), lambda x: x),
    Rule("minimum_same", ops.minimum(x, x), lambda x: x),
    Rule("relu_of_relu", ops.relu(ops.relu(x)), lambda x: ops.relu(x)),
    Rule("stop_gradient", ops.stop_gradient(x), lambda x: x),  # differentiation is over by now
    Rule("cast_same", ops.cast(x), _same_type),
    Rule("cast_of_cast", ops.cast(ops.cast(x)), _cast_of_cast),
    Rule("reshape_same", ops.reshape(x), _same_type),
    Rule("reshape_of_reshape", ops.reshape(ops.reshape(x)), lambda x, node: ops.reshape(x, node.result.shape)),
    Rule("reshape_of_scalar", ops.reshape(ops.broadcast_to(x)), _reshape_of_scalar_broadcast),
    Rule("broadcast_same", ops.broadcast_to(x), _same_type),
    Rule("broadcast_of_broadcast", ops.broadcast_to(ops.broadcast_to(x)),
         lambda x, node: ops.broadcast_to(x, node.result.shape)),
    Rule("permute_same", ops.permute(x), _identity_permute),
    Rule("permute_of_permute", ops.permute(ops.permute(x)), _compose_permutes),
    Rule("slice_whole", ops.slice(x), _whole_slice),
    Rule("pad_nothing", ops.pad(x), _no_padding),
    Rule("flip_nothing", ops.flip(x), _no_axes),
    Rule("sum_nothing", ops.sum(x), _exact),
    Rule("amax_nothing", ops.amax(x), _no_axes),
    Rule("amin_nothing", ops.amin(x), _no_axes),
    Rule("concat_one", ops.concat(x), lambda x: x),
]


def _negative_zero(node: Node) -> bool:
    """x - (-0.0) turns -0.0 into 0.0."""
    value = scalar_constant(node.operands[1])
    return isinstance(value, float) and str(value) == "-0.0"


def simplify(graph: Graph) -> Graph:
    """Apply the algebraic rules until none fires."""
    return rewrite(graph, RULES)
