"""Ops without operands: constants and counters."""

from __future__ import annotations

from typing import Any

import numpy as np

import graphc.expression as ex
from graphc.errors import DimError
from graphc.expression import Expr
from graphc.op import Sample, not_differentiable, op
from graphc.types import DType, Shape, Size, TensorType, dtype_of, float32, int64


def _iota_infer(shape: Shape, axis: int, dtype: DType) -> TensorType:
    if not 0 <= axis < len(shape):
        raise DimError(f"iota: the shape {list(shape)} has no dimension {axis}", expected=f"0 <= axis < {len(shape)}")
    return TensorType(dtype, shape)


def _iota_ref(shape: Shape, axis: int, dtype: DType) -> np.ndarray:
    along = [1] * len(shape)
    along[axis] = shape[axis]
    return np.broadcast_to(np.arange(shape[axis]).astype(dtype.numpy).reshape(along), shape)


def _iota_lower(read: Any, index: tuple[Expr, ...], types: Any, shape: Shape, axis: int, dtype: DType) -> Expr:
    return ex.cast(index[axis], dtype)


def _constant_lower(read: Any, index: tuple[Expr, ...], types: Any, value: np.ndarray) -> Expr:
    return ex.constant(value.item(), dtype_of(value.dtype))  # one of more elements stands in memory


def _size_ref(value: Size, dtype: DType) -> np.ndarray:
    return np.asarray(value).astype(dtype.numpy)


def _size_lower(read: Any, index: tuple[Expr, ...], types: Any, value: Size, dtype: DType) -> Expr:
    return ex.cast(ex.size(value), dtype)


constant = op("constant", attrs="value", infer=lambda value: TensorType(dtype_of(value.dtype), value.shape),
              ref=lambda value: value, lower=_constant_lower, vjp=not_differentiable,
              samples=(Sample((), {"value": np.array(1.5, np.float32)}), Sample((), {"value": np.arange(6).reshape(2, 3)})))
iota = op("iota", attrs="shape axis dtype", infer=_iota_infer, ref=_iota_ref,
          lower=_iota_lower,
          vjp=not_differentiable, samples=(Sample((), {"shape": (3, 4), "axis": 1, "dtype": int64}),
                                           Sample((), {"shape": (3, 4), "axis": 0, "dtype": float32})))

size = op("size", attrs="value dtype", infer=lambda value, dtype: TensorType(dtype, ()), ref=_size_ref, lower=_size_lower,
          vjp=not_differentiable,
          samples=(Sample((), {"value": 7, "dtype": int64}), Sample((), {"value": 7, "dtype": float32})))
"""A size as a number to compute with, such as the divisor of a mean. It may be symbolic."""


def full(type_: TensorType, value: float, like: Any) -> Any:
    """`value` everywhere in a tensor of `type_`; `like` is any value of the same kind (a tensor, a graph value)."""
    from graphc.ops.movement import broadcast_to  # movement's own derivatives need this function

    scalar = constant(like=like, value=np.asarray(value, type_.dtype.numpy))
    return broadcast_to(scalar, tuple(type_.shape)) if type_.shape else scalar


def zeros_like(x: Any) -> Any:
    """Zeros of x's shape and dtype."""
    return full(TensorType(x.dtype, tuple(x.shape)), 0, like=x)
