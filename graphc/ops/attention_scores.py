"""What attention and its derivative have in common: queries, keys, values and a mask, and the scores of keys."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc.errors import DTypeError, ShapeError
from graphc.ops.creation import constant, iota
from graphc.ops.elementwise import ge, mul, where
from graphc.ops.linalg import matmul, transpose_last
from graphc.ops.movement import broadcast_to
from graphc.types import DType, TensorType, bool_, float32, int64

_FEWEST = 16
"""Queries, and keys, below which code of its own is not worth it: a vector has as many lanes."""
_WIDEST = 256
"""Numbers of a query, and of a value, above which what a block of queries takes is too much for a thread's stack."""


def check_operands(name: str, q: TensorType, k: TensorType, v: TensorType, mask: TensorType) -> None:
    """An error where queries, keys, values and the mask do not fit."""
    if not q.dtype is k.dtype is v.dtype or not q.dtype.is_floating_point:
        raise DTypeError(f"{name}: operands differ in dtype, or are not floating-point", got=f"{q}, {k} and {v}")
    batch = q.shape[:-2]
    fits = min(q.ndim, k.ndim, v.ndim) >= 2 and k.shape[:-2] == v.shape[:-2] == batch
    if not fits or k.shape[-1] != q.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ShapeError(f"{name}: operands do not fit", expected="q [..., L, E], k [..., S, E] and v [..., S, V]",
                         got=f"{q}, {k} and {v}")
    wanted = (*batch, q.shape[-2], k.shape[-2])
    if mask.dtype is not bool_ or mask.ndim != len(wanted) or any(a not in (1, b) for a, b in zip(mask.shape, wanted)):
        raise ShapeError(f"{name}: the mask does not fit", expected=f"bool{list(wanted)}, or 1 for a size", got=str(mask))


def masked_scores(q: np.ndarray, k: np.ndarray, mask: np.ndarray, scale: float, causal: bool) -> np.ndarray:
    """scale * q k^T, and -inf for the keys that are left out."""
    scores = np.matmul(q, np.swapaxes(k, -1, -2)) * q.dtype.type(scale)
    for m in (mask, *([np.tri(*scores.shape[-2:]) > 0] if causal else [])):
        scores = np.where(m, scores, q.dtype.type(-math.inf))
    return scores


def like(x: float, value: Any) -> Any:
    return broadcast_to(constant(value=np.array(x, value.dtype.numpy), like=value), value.shape)


def allowed_scores(q: Any, k: Any, mask: Any, scale: float, causal: bool) -> tuple[Any, list[Any]]:
    """The scores by simpler ops, and the conditions that a key has to meet to be looked at."""
    shape = (*q.shape[:-1], k.shape[-2])
    scores = matmul(q, transpose_last(k))
    scores = mul(scores, like(scale, scores))
    conditions = [broadcast_to(mask, shape)]
    if causal:
        row, column = (iota(shape=shape, axis=len(shape) - n, dtype=int64, like=q) for n in (2, 1))
        conditions.append(ge(row, column))
    for condition in conditions:
        scores = where(condition, scores, like(-math.inf, scores))
    return scores, conditions


def has_kernel(q: TensorType, k: TensorType, v: TensorType) -> bool:
    """Whether back ends compute attention on such operands by a kernel of its own."""
    if q.dtype is not float32 or not all(t.is_static for t in (q, k, v)):
        return False
    lengths, widths = (q.shape[-2], k.shape[-2]), (q.shape[-1], v.shape[-1])
    return min(lengths) >= _FEWEST and 1 <= min(widths) <= max(widths) <= _WIDEST and 0 not in q.shape


def types_of(*shapes: tuple[int, ...], dtype: DType = float32) -> tuple[TensorType, ...]:
    return tuple(TensorType(dtype, shape) for shape in shapes)
