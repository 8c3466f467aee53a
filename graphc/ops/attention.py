"""Attention as one op: what a pass makes of its products and softmax where nothing else uses the weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc.errors import DTypeError, ShapeError
from graphc.op import Sample, op
from graphc.ops.creation import constant, iota
from graphc.ops.elementary import exp
from graphc.ops.elementwise import div, ge, gt, mul, sub, where
from graphc.ops.linalg import matmul, transpose_last
from graphc.ops.movement import broadcast_to
from graphc.ops.reduce import amax, expand
from graphc.ops.reduce import sum as sum_of
from graphc.types import DType, TensorType, bool_, float32, float64, int64

_FEWEST = 16
"""Queries, and keys, below which code of its own is not worth it: a vector has as many lanes."""
_WIDEST = 256
"""Numbers of a query, and of a value, above which what a block of queries takes is too much for a thread's stack."""


def _infer(
    q: TensorType, k: TensorType, v: TensorType, mask: TensorType, scale: float, causal: bool, zeros: bool
) -> TensorType:
    if not q.dtype is k.dtype is v.dtype or not q.dtype.is_floating_point:
        raise DTypeError("attention: operands differ in dtype, or are not floating-point", got=f"{q}, {k} and {v}")
    batch = q.shape[:-2]
    fits = min(q.ndim, k.ndim, v.ndim) >= 2 and k.shape[:-2] == v.shape[:-2] == batch
    if not fits or k.shape[-1] != q.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ShapeError("attention: operands do not fit", expected="q [..., L, E], k [..., S, E] and v [..., S, V]",
                         got=f"{q}, {k} and {v}")
    wanted = (*batch, q.shape[-2], k.shape[-2])
    if mask.dtype is not bool_ or mask.ndim != len(wanted) or any(a not in (1, b) for a, b in zip(mask.shape, wanted)):
        raise ShapeError("attention: the mask does not fit", expected=f"bool{list(wanted)}, or 1 for a size", got=str(mask))
    return q.with_shape((*batch, q.shape[-2], v.shape[-1]))


def _ref(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray, scale: float, causal: bool, zeros: bool
) -> np.ndarray:
    scores = np.matmul(q, np.swapaxes(k, -1, -2)) * q.dtype.type(scale)
    for m in (mask, *([np.tri(*scores.shape[-2:]) > 0] if causal else [])):
        scores = np.where(m, scores, q.dtype.type(-math.inf))
    if not scores.shape[-1]:
        return np.zeros((*q.shape[:-1], v.shape[-1]), q.dtype)
    with np.errstate(invalid="ignore"):
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        if zeros:
            weights = np.where(np.isneginf(scores).all(-1, keepdims=True), q.dtype.type(0), weights)
        return np.matmul(weights, v)


def _like(x: float, value: Any) -> Any:
    return broadcast_to(constant(value=np.array(x, value.dtype.numpy), like=value), value.shape)


def _weights(q: Any, k: Any, mask: Any, scale: float, causal: bool, zeros: bool) -> Any:
    """The softmax of the scores, by simpler ops."""
    shape = (*q.shape[:-1], k.shape[-2])
    scores = matmul(q, transpose_last(k))
    scores = mul(scores, _like(scale, scores))
    conditions = [broadcast_to(mask, shape)]
    if causal:
        row, column = (iota(shape=shape, axis=len(shape) - n, dtype=int64, like=q) for n in (2, 1))
        conditions.append(ge(row, column))
    for condition in conditions:
        scores = where(condition, scores, _like(-math.inf, scores))
    axes = (len(shape) - 1,)
    some = None
    if zeros:
        some = expand(gt(amax(scores, axes), _like(-math.inf, amax(scores, axes))), shape, axes)
        scores = where(some, scores, _like(0.0, scores))
    powers = exp(sub(scores, expand(amax(scores, axes), shape, axes)))
    weights = div(powers, expand(sum_of(powers, axes), shape, axes))
    return weights if some is None else where(some, weights, _like(0.0, weights))


def has_kernel(q: TensorType, k: TensorType, v: TensorType) -> bool:
    """Whether back ends compute attention on such operands by a kernel of its own."""
    if q.dtype is not float32 or not all(t.is_static for t in (q, k, v)):
        return False
    lengths, widths = (q.shape[-2], k.shape[-2]), (q.shape[-1], v.shape[-1])
    return min(lengths) >= _FEWEST and 1 <= min(widths) <= max(widths) <= _WIDEST and 0 not in q.shape


def _decompose(q: Any, k: Any, v: Any, mask: Any, scale: float, causal: bool, zeros: bool) -> Any:
    if has_kernel(q.type, k.type, v.type):
        return None
    if k.shape[-2] == 0:
        return broadcast_to(constant(value=np.array(0, q.dtype.numpy), like=q), (*q.shape[:-1], v.shape[-1]))
    return matmul(_weights(q, k, mask, scale, causal, zeros), v)


# With the weights P: dV = P^T dO, dS = P (dO V^T - sum of dO O over columns), dQ = scale dS K, dK = scale dS^T Q
# (Dao and others 2022: "FlashAttention", appendix B).


def _slopes(ct: Any, weights: Any, v: Any, out: Any, scale: float) -> Any:
    axes = (len(out.shape) - 1,)
    inner = expand(sum_of(mul(ct, out), axes), weights.shape, axes)
    slopes = mul(weights, sub(matmul(ct, transpose_last(v)), inner))
    return mul(slopes, _like(scale, slopes))


def _q_rule(ct: Any, q: Any, k: Any, v: Any, mask: Any, out: Any, scale: float, causal: bool, zeros: bool) -> Any:
    return matmul(_slopes(ct, _weights(q, k, mask, scale, causal, zeros), v, out, scale), k)


def _k_rule(ct: Any, q: Any, k: Any, v: Any, mask: Any, out: Any, scale: float, causal: bool, zeros: bool) -> Any:
    return matmul(transpose_last(_slopes(ct, _weights(q, k, mask, scale, causal, zeros), v, out, scale)), q)


def _v_rule(ct: Any, q: Any, k: Any, mask: Any, scale: float, causal: bool, zeros: bool) -> Any:
    return matmul(transpose_last(_weights(q, k, mask, scale, causal, zeros)), ct)


def _types(*shapes: tuple[int, ...], dtype: DType = float32) -> tuple[TensorType, ...]:
    return tuple(TensorType(dtype, shape) for shape in shapes)


attention = op(
    "attention", "q k v mask", "scale causal zeros", infer=_infer, ref=_ref, kernel="attention", decompose=_decompose,
    vjp=(_q_rule, _k_rule, _v_rule, None), nanoseconds=6.3, costly=True,
    samples=(
        Sample((*_types((2, 3, 4), (2, 5, 4), (2, 5, 3)), np.array([[[1, 1, 0, 1, 1]]], bool)),
               {"scale": 0.5, "causal": False, "zeros": False}),
        Sample((*_types((5, 4), (5, 4), (5, 3), dtype=float64), np.ones((1, 1), bool)),
               {"scale": 0.5, "causal": True, "zeros": True}),
    ),
)
