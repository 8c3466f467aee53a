"""Attention as one op: what a pass makes of its products and softmax where nothing else uses the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc.op import Sample, op
from graphc.ops.attention_backward import attention_backward
from graphc.ops.attention_scores import allowed_scores, check_operands, has_kernel, like, masked_scores, types_of
from graphc.ops.creation import constant, zeros_like
from graphc.ops.elementwise import add, div, eq, exp, log, mul, sub, where
from graphc.ops.linalg import matmul
from graphc.ops.movement import broadcast_to
from graphc.ops.reduce import amax, expand
from graphc.ops.reduce import sum as sum_of
from graphc.types import TensorType, float64


def _infer(
    q: TensorType, k: TensorType, v: TensorType, mask: TensorType, scale: float, causal: bool, zeros: bool
) -> tuple[TensorType, ...]:
    check_operands("attention", q, k, v, mask)
    return q.with_shape((*q.shape[:-1], v.shape[-1])), q.with_shape(q.shape[:-1])


def _ref(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray, scale: float, causal: bool, zeros: bool
) -> tuple[np.ndarray, np.ndarray]:
    scores = masked_scores(q, k, mask, scale, causal)
    if not scores.shape[-1]:
        return np.zeros((*q.shape[:-1], v.shape[-1]), q.dtype), np.full(q.shape[:-1], math.inf if zeros else -math.inf, q.dtype)
    with np.errstate(invalid="ignore", divide="ignore"):
        greatest = scores.max(-1, keepdims=True)
        nothing = np.isneginf(greatest)
        shift = np.where(nothing, q.dtype.type(0), greatest)
        powers = np.exp(scores - shift)
        total = powers.sum(-1, keepdims=True)
        weights = powers / total
        lse = shift + np.log(total)
        if zeros:
            weights, lse = np.where(nothing, q.dtype.type(0), weights), np.where(nothing, q.dtype.type(math.inf), lse)
        return np.matmul(weights, v), lse[..., 0]


def _decompose(q: Any, k: Any, v: Any, mask: Any, scale: float, causal: bool, zeros: bool) -> Any:
    if has_kernel(q.type, k.type, v.type):
        return None
    rows = q.shape[:-1]
    if k.shape[-2] == 0:
        return tuple(
            broadcast_to(constant(value=np.array(number, q.dtype.numpy), like=q), shape)
            for number, shape in ((0.0, (*rows, v.shape[-1])), (math.inf if zeros else -math.inf, rows))
        )
    scores, _ = allowed_scores(q, k, mask, scale, causal)
    axes = (len(rows),)
    greatest = amax(scores, axes)
    nothing = eq(greatest, like(-math.inf, greatest))
    shift = where(nothing, like(0.0, greatest), greatest)
    powers = exp(sub(scores, expand(shift, scores.shape, axes)))
    total = sum_of(powers, axes)
    weights = div(powers, expand(total, scores.shape, axes))
    lse = add(log(total), shift)
    if zeros:
        weights = where(expand(nothing, scores.shape, axes), like(0.0, weights), weights)
        lse = where(nothing, like(math.inf, lse), lse)
    return matmul(weights, v), lse


def _rule(ct: Any, operands: Any, out: Any, wanted: tuple[int, ...], attrs: Mapping[str, Any]) -> list[Any]:
    """By another op, which computes the weights again. With the cotangent of the logarithm L of the sums of exp(scores), the
    cotangent of a score S changes by that times dL/dS, which is the weight."""
    q, k, v, mask = operands
    result, lse = out
    slope = zeros_like(result) if ct[0] is None else ct[0]
    inner = sum_of(mul(slope, result), (len(result.shape) - 1,))
    if ct[1] is not None:
        inner = sub(inner, ct[1])
    found = attention_backward(q, k, v, mask, slope, lse, inner, scale=attrs["scale"], causal=attrs["causal"])
    return [found[i] for i in wanted]


attention = op(
    "attention", "q k v mask", "scale causal zeros", infer=_infer, ref=_ref, kernel="attention", decompose=_decompose,
    vjp=(*[_rule] * 3, None), nanoseconds=6.3, costly=True, batch="leading",
    samples=(
        Sample((*types_of((2, 3, 4), (2, 5, 4), (2, 5, 3)), np.array([[[1, 1, 0, 1, 1]]], bool)),
               {"scale": 0.5, "causal": False, "zeros": False}),
        Sample((*types_of((5, 4), (5, 4), (5, 3), dtype=float64), np.ones((1, 1), bool)),
               {"scale": 0.5, "causal": True, "zeros": True}),
    ),
)
