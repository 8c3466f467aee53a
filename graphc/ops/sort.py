"""Order: the places of elements in a sorted sequence. What is sorted follows by `gather`, which has the derivative."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from graphc.errors import DTypeError, ShapeError
from graphc.op import Sample, not_differentiable, op
from graphc.ops.movement import check_axis, reshape, stack_operand
from graphc.types import Size, TensorType, bool_, float32, float64, int64

_f = TensorType(float32, (3, 5))
_i = TensorType(int64, (2, 3, 4))


def comparable(x: np.ndarray) -> np.ndarray:
    """The numbers in a dtype that NumPy orders: bfloat16 has no order with nan at the end."""
    return x.astype(np.float32) if x.dtype.kind == "V" else x


def _argsort_infer(x: TensorType, axis: int, descending: bool) -> TensorType:
    check_axis("argsort", axis, x)
    if x.dtype.is_complex:
        raise DTypeError("argsort: complex numbers have no order", got=str(x))
    return x.with_dtype(int64)


def _argsort_ref(x: np.ndarray, axis: int, descending: bool) -> np.ndarray:
    x = comparable(x)
    if not descending:
        return np.argsort(x, axis, kind="stable").astype(np.int64, copy=False)
    # an ascending sort of the reversed sequence, read backwards, keeps the order of equals and puts nan first
    order = np.flip(np.argsort(np.flip(x, axis), axis, kind="stable"), axis)
    return (x.shape[axis] - 1 - order).astype(np.int64, copy=False)


argsort = op("argsort", "x", "axis descending", infer=_argsort_infer, ref=_argsort_ref, kernel="host", nanoseconds=50,
             vjp=not_differentiable,
             samples=(Sample((_f,), {"axis": 1, "descending": False}), Sample((_i,), {"axis": 1, "descending": True}),
                      Sample((TensorType(bool_, (7,)),), {"axis": 0, "descending": True})))
"""The places of the elements in sorted order. Equals keep their order; nan counts as the largest number."""


def _search_infer(sequence: TensorType, values: TensorType, right: bool) -> TensorType:
    if sequence.ndim == 0 or (sequence.ndim > 1 and sequence.shape[:-1] != values.shape[:-1]):
        raise ShapeError("searchsorted: boundaries tensor should be 1 dimension or the first N-1 dimensions of boundaries "
                         "tensor and input value tensor must match", got=f"{sequence} and {values}")
    if sequence.dtype.is_complex:
        raise DTypeError("searchsorted: complex numbers have no order", got=str(sequence))
    if sequence.dtype is not values.dtype:
        raise DTypeError("searchsorted: boundary tensor and input value tensor should have same dtype",
                         got=f"{sequence} and {values}", hint="convert one with .to(dtype)")
    return values.with_dtype(int64)


def _search_ref(sequence: np.ndarray, values: np.ndarray, right: bool) -> np.ndarray:
    sequence, values = comparable(sequence), comparable(values)
    side: Literal["left", "right"] = "right" if right else "left"
    if sequence.ndim == 1:
        return np.searchsorted(sequence, values, side).astype(np.int64, copy=False)
    found = np.zeros(values.shape, np.int64)
    for row in np.ndindex(values.shape[:-1]):
        found[row] = np.searchsorted(sequence[row], values[row], side)
    return found


def _search_batch(size: Size, batched: tuple[bool, bool], sequence: Any, values: Any, right: bool) -> Any:
    if not batched[0] and len(sequence.shape) == 1:
        return searchsorted(sequence, values, right)
    sequence, values = (stack_operand(x, size, own) for x, own in zip((sequence, values), batched))
    if len(sequence.shape) > 2:
        return searchsorted(sequence, values, right)
    rows = reshape(values, (size, math.prod(tuple(values.shape)[1:])))
    return reshape(searchsorted(sequence, rows, right), tuple(values.shape))


searchsorted = op("searchsorted", "sequence values", "right", infer=_search_infer, ref=_search_ref, kernel="host",
                  nanoseconds=50, batch=_search_batch, vjp=not_differentiable,
                  samples=(Sample((np.array([-1.0, 0.0, 0.0, 1.5]), TensorType(float64, (3, 5))), {"right": False}),
                           Sample((np.array([[1, 3, 3], [0, 2, 4]]), TensorType(int64, (2, 4))), {"right": True}, 0, 4)))
"""Where values would be put into a sorted sequence, before their equals or after them. A sequence of several dimensions
holds one for each row of the values."""
