"""Views that step through several dimensions at once: diagonals, and any strides over a vector."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import graphc.index as ix
from graphc.dims import surely_less
from graphc.errors import ArgumentError, DimError, ShapeError
from graphc.expression import Expr
from graphc.op import Sample, op
from graphc.ops.creation import full, iota
from graphc.ops.elementwise import where
from graphc.ops.indexing import scatter_add, scatter_update
from graphc.ops.movement import Index, Ints, Types, check_axis, reshape, stack_operand
from graphc.types import Shape, Size, TensorType, float32, int64

_f = TensorType(float32, (3, 5))
_t = TensorType(float32, (2, 3, 4))


def _diagonal_length(rows: Size, columns: Size, offset: int) -> Size:
    return max(0, min(rows, columns - offset) if offset > 0 else min(rows + offset, columns))


def _diagonal_infer(x: TensorType, offset: int, row: int, column: int) -> TensorType:
    check_axis("diagonal", row, x)
    check_axis("diagonal", column, x)
    if row == column:
        raise DimError(f"diagonal dimensions cannot be identical {row}, {column}")
    rest = [size for i, size in enumerate(x.shape) if i not in (row, column)]
    return x.with_shape([*rest, _diagonal_length(x.shape[row], x.shape[column], offset)])


def _diagonal_ref(x: np.ndarray, offset: int, row: int, column: int) -> np.ndarray:
    offset = max(-x.shape[row], min(offset, x.shape[column]))  # beyond that nothing is left, whatever C's integers hold
    out = np.diagonal(x, offset, row, column)
    if x.flags.writeable:
        out.flags.writeable = True
    return out


def _diagonal_lower(read: Any, index: Index, types: Types, offset: int, row: int, column: int) -> Expr:
    places = list(index[:-1])
    for axis in sorted((row, column)):
        places.insert(axis, ix.plus(index[-1], max(-offset, 0) if axis == row else max(offset, 0)))
    return read(0, tuple(places))


diagonal = op("diagonal", "x", "offset row column", infer=_diagonal_infer, ref=_diagonal_ref, lower=_diagonal_lower,
              nanoseconds=0,
              vjp=lambda ct, x_type, offset, row, column: diagonal_update(full(x_type, 0, ct), ct, offset, row, column),
              view=lambda base, new, offset, row, column: diagonal_update(base, new, offset, row, column),
              batch=lambda size, batched, x, offset, row, column: diagonal(x, offset, row + 1, column + 1),
              samples=(Sample((_f,), {"offset": 1, "row": 0, "column": 1}),
                       Sample((_t,), {"offset": -1, "row": 2, "column": 0}),
                       Sample((_f,), {"offset": -9, "row": 0, "column": 1})))
"""The elements whose places along `row` and `column` are i and i + offset, along a new last dimension."""


def _update_infer(base: TensorType, new: TensorType, offset: int, row: int, column: int) -> TensorType:
    part = _diagonal_infer(base, offset, row, column)
    if part != new:
        raise ShapeError("diagonal_update: the new part does not fit the diagonal", expected=str(part), got=str(new))
    return base


def _update_ref(base: np.ndarray, new: np.ndarray, offset: int, row: int, column: int) -> np.ndarray:
    out = base.copy()
    _diagonal_ref(out, offset, row, column)[...] = new
    return out


def _update_lower(read: Any, index: Index, types: Types, offset: int, row: int, column: int) -> Expr:
    place = ix.plus(index[row], -max(-offset, 0))
    on_diagonal = ix.equals(ix.plus(index[column], ix.times(index[row], -1)), offset)
    rest = tuple(i for k, i in enumerate(index) if k not in (row, column))
    return where(on_diagonal, read(1, (*rest, place), on_diagonal), read(0, index, ~on_diagonal))


def _update_base_vjp(ct: Any, new_type: TensorType, offset: int, row: int, column: int) -> Any:
    return diagonal_update(ct, full(new_type, 0, ct), offset, row, column)


def _update_batch(
    size: Size, batched: tuple[bool, bool], base: Any, new: Any, offset: int, row: int, column: int
) -> Any:
    base, new = (stack_operand(x, size, own) for x, own in zip((base, new), batched))
    return diagonal_update(base, new, offset, row + 1, column + 1)


diagonal_update = op("diagonal_update", "base new", "offset row column", infer=_update_infer, ref=_update_ref,
                     lower=_update_lower, batch=_update_batch,
                     vjp=(_update_base_vjp, lambda ct, offset, row, column: diagonal(ct, offset, row, column)),
                     samples=(Sample((_f, TensorType(float32, (3,))), {"offset": 1, "row": 0, "column": 1}),
                              Sample((_t, TensorType(float32, (3, 2))), {"offset": -1, "row": 2, "column": 0})))


def _strided_infer(x: TensorType, shape: Shape, strides: Ints, offset: int) -> TensorType:
    if x.ndim != 1:
        raise ShapeError("as_strided: not a vector", expected="one dimension", got=str(x))
    if len(shape) != len(strides):
        raise ArgumentError("mismatch in length of strides and shape", got=f"{strides} and {shape}")
    if min((offset, *strides), default=0) < 0:
        raise ArgumentError(f"as_strided: Negative strides are not supported at the moment, got strides: {list(strides)}",
                            got=f"offset {offset}")
    needed = 0 if 0 in shape else offset + sum((n - 1) * s for n, s in zip(shape, strides)) + 1
    if surely_less(x.shape[0], needed):
        raise ShapeError(f"setStorage: sizes {list(shape)}, strides {list(strides)}, storage offset {offset} requiring a "
                         f"storage size of {needed} are out of bounds for storage of size {x.shape[0]}")
    return x.with_shape(shape)


def _strided_ref(x: np.ndarray, shape: Shape, strides: Ints, offset: int) -> np.ndarray:
    if 0 in shape:
        return np.empty(shape, x.dtype)
    x = np.ascontiguousarray(x)
    return np.ndarray(shape, x.dtype, x, offset * x.itemsize, [s * x.itemsize for s in strides])


def _strided_lower(read: Any, index: Index, types: Types, shape: Shape, strides: Ints, offset: int) -> Expr:
    return read(0, (ix.plus(ix.strided(index, strides), offset),))


def _strided_places(shape: Shape, strides: Ints, offset: int, like: Any) -> Any:
    """The places in the vector of all elements of the view, as a vector."""
    out = full(TensorType(int64, shape), offset, like)
    for axis, step in enumerate(strides):
        out = out + iota(shape=shape, axis=axis, dtype=int64, like=like) * step
    return reshape(out, (math.prod(shape),))


def _strided_vjp(ct: Any, x_type: TensorType, shape: Shape, strides: Ints, offset: int) -> Any:
    places = _strided_places(shape, strides, offset, ct)
    return scatter_add(full(x_type, 0, ct), places, reshape(ct, tuple(places.shape)), 0)


def _strided_write(base: Any, new: Any, shape: Shape, strides: Ints, offset: int) -> Any:
    places = _strided_places(shape, strides, offset, base)
    return scatter_update(base, places, reshape(new, tuple(places.shape)), 0)


def _strided_batch(size: Any, batched: Any, x: Any, shape: Shape, strides: Ints, offset: int) -> Any:
    """The vectors behind each other, and a stride from one to the next."""
    length = x.shape[1]
    return as_strided(reshape(x, (size * length,)), (size, *shape), (length, *strides), offset)


as_strided = op("as_strided", "x", "shape strides offset", infer=_strided_infer, ref=_strided_ref, lower=_strided_lower,
                nanoseconds=0, vjp=_strided_vjp, view=_strided_write, batch=_strided_batch,
                samples=(Sample((TensorType(float32, (12,)),), {"shape": (3, 2), "strides": (3, 2), "offset": 1}),
                         Sample((TensorType(float32, (7,)),), {"shape": (5, 3), "strides": (1, 1), "offset": 0})))
"""The element at an index is that of the vector at offset + index * strides. Elements may be met several times."""
