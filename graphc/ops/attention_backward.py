"""The derivative of attention as one op, which computes the weights again instead of keeping them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc.errors import ShapeError
from graphc.op import Sample, op
from graphc.ops.attention_scores import allowed_scores, check_operands, has_kernel, like, masked_scores, types_of
from graphc.ops.creation import zeros_like
from graphc.ops.elementwise import exp, mul, neg, sub, where
from graphc.ops.linalg import matmul, transpose_last
from graphc.ops.reduce import expand
from graphc.ops.reduce import sum as sum_of
from graphc.types import TensorType, float64

# With the weights P = exp(scores - lse), and the cotangent G of the result (Dao and others 2022: "FlashAttention", appendix B):
#     dV = P^T G,  dS = scale P o (G V^T - inner),  dQ = dS K,  dK = dS^T Q
# where `o` multiplies element by element. dS is 0 for keys that are left out.


def _infer(
    q: TensorType, k: TensorType, v: TensorType, mask: TensorType, ct: TensorType, lse: TensorType, inner: TensorType,
    scale: float, causal: bool,
) -> tuple[TensorType, ...]:
    check_operands("attention_backward", q, k, v, mask)
    rows = q.with_shape(q.shape[:-1])
    if ct != q.with_shape((*q.shape[:-1], v.shape[-1])) or lse != rows or inner != rows:
        raise ShapeError("attention_backward: operands do not fit", expected=f"ct [..., L, V], lse and inner {rows}",
                         got=f"{ct}, {lse} and {inner}")
    return q, k, v


def _ref(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray, ct: np.ndarray, lse: np.ndarray, inner: np.ndarray,
    scale: float, causal: bool,
) -> tuple[np.ndarray, ...]:
    scores = masked_scores(q, k, mask, scale, causal)
    with np.errstate(invalid="ignore", over="ignore"):
        weights = np.exp(scores - lse[..., None])
        slopes = weights * (np.matmul(ct, np.swapaxes(v, -1, -2)) - inner[..., None]) * q.dtype.type(scale)
        slopes = np.where(np.isneginf(scores), q.dtype.type(0), slopes)
        across = np.swapaxes(slopes, -1, -2)
        return np.matmul(slopes, k), np.matmul(across, q), np.matmul(np.swapaxes(weights, -1, -2), ct)


def _parts(q: Any, k: Any, v: Any, mask: Any, ct: Any, lse: Any, inner: Any, scale: float, causal: bool) -> tuple[Any, ...]:
    """By simpler ops: the weights P, what `inner` is subtracted from less that, and what is 0 for keys that are left out."""
    scores, conditions = allowed_scores(q, k, mask, scale, causal)
    axes = (len(scores.shape) - 1,)
    weights = exp(sub(scores, expand(lse, scores.shape, axes)))
    differences = sub(matmul(ct, transpose_last(v)), expand(inner, scores.shape, axes))

    def chosen(x: Any) -> Any:
        for condition in conditions:
            x = where(condition, x, like(0.0, x))
        return x

    return weights, differences, chosen


def _decompose(
    q: Any, k: Any, v: Any, mask: Any, ct: Any, lse: Any, inner: Any, scale: float, causal: bool
) -> tuple[Any, ...] | None:
    if has_kernel(q.type, k.type, v.type):
        return None
    weights, differences, chosen = _parts(q, k, v, mask, ct, lse, inner, scale, causal)
    slopes = mul(mul(weights, differences), like(scale, weights))
    slopes = chosen(slopes)
    return matmul(slopes, k), matmul(transpose_last(slopes), q), matmul(transpose_last(weights), ct)


def _rule(ct: Any, operands: Any, wanted: tuple[int, ...], attrs: Mapping[str, Any]) -> list[Any]:
    """With cotangents a, b and c of dQ, dK and dV: that of P o D, where D is what P is multiplied by, is
    A = scale (a K^T + Q b^T), and so those of scores are P o (A o D + G c^T), and those of D are A o P."""
    q, k, v, mask, g, lse, inner = operands
    scale = attrs["scale"]
    weights, differences, chosen = _parts(q, k, v, mask, g, lse, inner, scale, attrs["causal"])
    a, b, c = (zeros_like(x) if given is None else given for x, given in zip((q, k, v), ct))
    slopes = chosen(mul(mul(weights, differences), like(scale, weights)))
    onward = matmul(a, transpose_last(k)) + matmul(q, transpose_last(b))
    onward = chosen(mul(onward, like(scale, onward)))
    by_difference = mul(onward, weights)
    by_score = mul(weights, mul(onward, differences) + matmul(g, transpose_last(c)))
    scaled = mul(by_score, like(scale, by_score))
    axes = (len(weights.shape) - 1,)
    rules = {
        0: lambda: matmul(scaled, k) + matmul(slopes, b),
        1: lambda: matmul(transpose_last(scaled), q) + matmul(transpose_last(slopes), a),
        2: lambda: matmul(transpose_last(by_difference), g),
        4: lambda: matmul(by_difference, v) + matmul(weights, c),
        5: lambda: neg(sum_of(by_score, axes)),
        6: lambda: neg(sum_of(by_difference, axes)),
    }
    return [rules[i]() for i in wanted]


attention_backward = op(
    "attention_backward", "q k v mask ct lse inner", "scale causal", infer=_infer, ref=_ref, kernel="attention",
    decompose=_decompose, vjp=(*[_rule] * 3, None, *[_rule] * 3), nanoseconds=10.0, costly=True, batch="leading",
    samples=(
        Sample((*types_of((2, 3, 4), (2, 5, 4), (2, 5, 3)), np.array([[[1, 1, 0, 1, 1]]], bool),
                *types_of((2, 3, 3), (2, 3), (2, 3))), {"scale": 0.5, "causal": False}),
        Sample((*types_of((5, 4), (5, 4), (5, 3), dtype=float64), np.ones((1, 1), bool),
                *types_of((5, 3), (5,), (5,), dtype=float64)), {"scale": 0.5, "causal": True}),
    ),
)
