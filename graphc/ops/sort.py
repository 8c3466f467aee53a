"""Order: the places of elements in a sorted sequence. What is sorted follows by `gather`, which has the derivative."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from graphc.dims import surely_less
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


def _order(x: np.ndarray, axis: int, descending: bool) -> np.ndarray:
    """The places of the elements in sorted order, by definition."""
    if not descending:
        return np.argsort(x, axis, kind="stable")
    # an ascending sort of the reversed sequence, read backwards, keeps the order of equals and puts nan first
    return x.shape[axis] - 1 - np.flip(np.argsort(np.flip(x, axis), axis, kind="stable"), axis)


_FEW = 512
"""So many elements are sorted sooner than turned into other numbers."""
_FEW_OF = 8
"""Where one of so many elements is wanted, they are picked out before they get places."""


def _keys(x: np.ndarray, descending: bool, bits: int) -> np.ndarray | None:
    """Integers that are in order as the elements are, of no more than 63 bits together with so many others; None if there are
    none."""
    keys: np.ndarray
    if x.dtype.kind == "f":
        wide = x.astype(np.float32) if x.dtype.itemsize < 4 else x
        if wide.dtype.itemsize > 4 or bits > 31:
            return None
        keys = (wide + np.float32(0)).view(np.int32)  # -0.0 is as large as 0.0
        signs = keys >> 31
        signs &= np.int32(0x7FFFFFFF)
        keys ^= signs  # the larger a negative number's bits, the less it is
        np.putmask(keys, wide != wide, 0x7FFFFFFF)
    else:
        low, high = int(x.min()), int(x.max())
        if (high - low).bit_length() + bits > 63:
            return None
        keys = (x - x.dtype.type(low)).astype(np.int64) if x.dtype.kind == "u" else x.astype(np.int64) - low
    return np.invert(keys, out=keys) if descending else keys


def _first_of(keys: np.ndarray, count: int, bits: int) -> np.ndarray | None:
    """The first of many places in the order of keys, by one of which not more are ahead; None where equal keys stand on both
    sides of the last one."""
    last = np.partition(keys, count - 1, -1)[..., count - 1 : count]
    found = np.flatnonzero(keys <= last)
    shape = (*keys.shape[:-1], count)
    if found.size != math.prod(shape):
        return None
    numbers = keys.reshape(-1)[found].astype(np.int64) << bits
    numbers |= found % keys.shape[-1]
    numbers = numbers.reshape(shape)
    numbers.sort(-1)
    return numbers & ((1 << bits) - 1)


def _order_by_high_bits(x: np.ndarray) -> np.ndarray | None:
    """`_order`, ascending, of 64-bit integers: as many of their bits as fit above the places, if no two are equal in these."""
    bits = (x.shape[-1] - 1).bit_length()
    numbers = x.view(np.uint64) ^ np.uint64(0 if x.dtype.kind == "u" else 1 << 63)
    numbers >>= np.uint64(bits)
    numbers <<= np.uint64(bits)
    numbers |= np.arange(x.shape[-1], dtype=np.uint64)
    numbers.sort(-1)
    order = (numbers & np.uint64((1 << bits) - 1)).view(np.int64)
    numbers >>= np.uint64(bits)
    return None if (numbers[..., 1:] == numbers[..., :-1]).any() else order


def _unpacked_order(x: np.ndarray) -> np.ndarray:
    """`_order`, ascending: an order that is not stable, in which equals, known to stand side by side, are put in order."""
    found = _order_by_high_bits(x) if x.dtype.kind in "iu" else None
    if found is not None:
        return found
    order = np.argsort(x, -1)
    ranked = np.take_along_axis(x, order, -1)
    starts = ranked[..., 1:] != ranked[..., :-1]
    if x.dtype.kind == "f":
        starts &= ranked[..., :-1] == ranked[..., :-1]  # nan stands at the end
    if starts.all():
        return order
    runs = np.cumsum(starts, -1)
    bits = (x.shape[-1] - 1).bit_length()
    order[..., 1:] |= runs << bits
    order.sort(-1)
    return order & ((1 << bits) - 1)


def _places(x: np.ndarray, descending: bool, count: int) -> np.ndarray:
    """The places of the first `count` of many elements in sorted order along the last dimension."""
    bits = max(x.shape[-1] - 1, 0).bit_length()
    keys = _keys(x, descending, bits)
    if keys is None:
        if descending:
            return (x.shape[-1] - 1 - np.flip(_unpacked_order(np.flip(x, -1)), -1))[..., :count]
        return _unpacked_order(x)[..., :count]
    if 0 < count <= x.shape[-1] // _FEW_OF:
        found = _first_of(keys, count, bits)
        if found is not None:
            return found
    # each above its place: no two are equal, so that they can be sorted in any way, and NumPy sorts int64 by vector
    # instructions, but nothing in a stable way
    numbers = (keys.astype(np.int64, copy=False) << bits) | np.arange(x.shape[-1])
    if 0 < count < numbers.shape[-1]:
        numbers = np.partition(numbers, count - 1, -1)[..., :count]
    numbers.sort(-1)
    return numbers[..., :count] & ((1 << bits) - 1)


def _along(x: np.ndarray, axis: int, descending: bool, count: int) -> np.ndarray:
    x = comparable(x)
    if x.size > _FEW:
        rows = np.ascontiguousarray(np.moveaxis(x, axis, -1))
        found = np.moveaxis(_places(rows, descending, count), -1, axis)
    else:
        found = _order(x, axis, descending)
        if count < x.shape[axis]:
            found = found[(slice(None),) * axis + (slice(count),)]
    return found.astype(np.int64, copy=False)


def _argsort_ref(x: np.ndarray, axis: int, descending: bool) -> np.ndarray:
    return _along(x, axis, descending, x.shape[axis])


argsort = op("argsort", "x", "axis descending", infer=_argsort_infer, ref=_argsort_ref, kernel="host", nanoseconds=50,
             vjp=not_differentiable,
             samples=(Sample((_f,), {"axis": 1, "descending": False}), Sample((_i,), {"axis": 1, "descending": True}),
                      Sample((TensorType(bool_, (7,)),), {"axis": 0, "descending": True})))
"""The places of the elements in sorted order. Equals keep their order; nan counts as the largest number."""


def _argtopk_ref(x: np.ndarray, axis: int, count: int, descending: bool) -> np.ndarray:
    return _along(x, axis, descending, count)


def _argtopk_infer(x: TensorType, axis: int, count: int, descending: bool) -> TensorType:
    order = _argsort_infer(x, axis, descending)
    if count < 0 or surely_less(x.shape[axis], count):
        raise ShapeError(f"argtopk: {count} places of {x.shape[axis]}", expected=f"from 0 to {x.shape[axis]}", got=str(count))
    return order.with_shape((*x.shape[:axis], count, *x.shape[axis + 1 :]))


argtopk = op("argtopk", "x", "axis count descending", infer=_argtopk_infer, ref=_argtopk_ref, kernel="host", nanoseconds=10,
             vjp=not_differentiable,
             samples=(Sample((_f,), {"axis": 1, "count": 2, "descending": True}),
                      Sample((_i,), {"axis": 1, "count": 3, "descending": False}),
                      Sample((_f,), {"axis": 0, "count": 0, "descending": True})))
"""The first of the places that `argsort` gives: those of the least elements in order, or of the largest."""


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
