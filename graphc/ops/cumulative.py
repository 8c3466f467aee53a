"""Cumulative ops: each element of the result is made of all elements up to its place along one dimension.

Sums and products are accumulated in a wider dtype than that of the elements, as PyTorch accumulates them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.errors import DTypeError, ShapeError
from graphc.op import Sample, not_differentiable, op
from graphc.ops.complex_numbers import conjugate
from graphc.ops.creation import full, iota
from graphc.ops.elementwise import abs, bitwise_or, cast, eq, exp, ge, le, log, ne, where
from graphc.ops.movement import check_axis, flip, pad, slice
from graphc.ops.sort import comparable
from graphc.types import DType, TensorType, bool_, complex128, float32, float64, int64

_f = TensorType(float32, (3, 5))
_t = TensorType(float32, (2, 4, 3))
_i = TensorType(int64, (3, 5))
_z = TensorType(complex128, (4, 2))

_WIDER = {"bfloat16": float32, "float16": float32, "float32": float64, "complex64": complex128}


def accumulated_in(dtype: DType) -> DType:
    """The dtype in which many numbers of `dtype` are added up or multiplied."""
    return _WIDER.get(dtype.name, dtype)


def wider(dtype: np.dtype) -> Any:
    """The same for NumPy's."""
    found = _WIDER.get(dtype.name)
    return dtype if found is None else found.numpy


def _infer(name: str) -> Any:
    def infer(x: TensorType, axis: int) -> TensorType:
        check_axis(name, axis, x)
        if x.dtype is bool_:
            raise DTypeError(f"{name}: bools have no sum or product of their own", expected="a numeric dtype",
                             hint="cast them first")
        return x

    return infer


def _accumulated(ufunc: np.ufunc) -> Any:
    def ref(x: np.ndarray, axis: int) -> np.ndarray:
        return ufunc.accumulate(x, axis, dtype=wider(x.dtype)).astype(x.dtype, copy=False)

    return ref


def _shifted(x: Any, axis: int, value: float) -> Any:
    """The elements moved on by one place; `value` comes in at the start, and the last element is gone."""
    low = tuple(int(i == axis) for i in range(len(x.shape)))
    zeros = (0,) * len(low)
    return slice(pad(x, low, zeros, value), zeros, tuple(x.shape), (1,) * len(low))


cumsum = op("cumsum", "x", "axis", infer=_infer("cumsum"), ref=_accumulated(np.add), reduction="sum", kernel="running",
            nanoseconds=2,
            vjp=lambda ct, axis: flip(cumsum(flip(ct, (axis,)), axis), (axis,)),
            samples=(Sample((_f,), {"axis": 1}), Sample((_t,), {"axis": 1}), Sample((_i,), {"axis": 0}),
                      Sample((_z,), {"axis": 0})))


def _recurrence_infer(a: TensorType, b: TensorType, axis: int) -> TensorType:
    check_axis("linear_recurrence", axis, a)
    if a != b:
        raise ShapeError("linear_recurrence: factors and summands differ in type", expected=str(a), got=str(b))
    return a


def _recurrence_ref(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
    out = np.empty(b.shape, wider(b.dtype))
    factors, summands, places = (np.moveaxis(x, axis, 0) for x in (a, b, out))
    state: Any = 0
    for k in range(len(places)):
        places[k] = state = factors[k] * state + summands[k]
    return out.astype(b.dtype, copy=False)


def _backwards(a: Any, ct: Any, axis: int) -> Any:
    """The cotangent of b: the recurrence read from the end, r[k] = ct[k] + conj(a[k + 1]) * r[k + 1]."""
    factors = _shifted(flip(conjugate(a), (axis,)), axis, 0)
    return flip(linear_recurrence(factors, flip(ct, (axis,)), axis), (axis,))


linear_recurrence = op(
    "linear_recurrence", "a b", "axis", infer=_recurrence_infer, ref=_recurrence_ref, kernel="running", nanoseconds=3,
    step=lambda so_far, a, b: so_far * a + b,
    vjp=(lambda ct, a, out, axis: _backwards(a, ct, axis) * _shifted(conjugate(out), axis, 0),
         lambda ct, a, axis: _backwards(a, ct, axis)),
    samples=(Sample((_f, _f), {"axis": 1}), Sample((_t, _t), {"axis": 1}), Sample((_z, _z), {"axis": 0})))
"""r[k] = a[k] * r[k - 1] + b[k] along a dimension, from r = 0. The derivatives of the other scans are made of it: they
stay exact where elements are zero, because nothing is divided by."""


def _cumprod_vjp(ct: Any, x: Any, axis: int) -> Any:
    """The product before the place, times what later places make of it: sum of ct[i] * x[k + 1] * ... * x[i]."""
    return _backwards(x, ct, axis) * products_before(conjugate(x), axis)


def products_before(x: Any, axis: int) -> Any:
    """The product of the elements in front of each place along a dimension."""
    return cumprod(_shifted(x, axis, 1), axis)


cumprod = op("cumprod", "x", "axis", infer=_infer("cumprod"), ref=_accumulated(np.multiply), kernel="running",
             step=lambda so_far, x: so_far * x, initial=1, nanoseconds=2, vjp=_cumprod_vjp,
             samples=(Sample((_f,), {"axis": 1}), Sample((_i,), {"axis": 0}), Sample((_z,), {"axis": 0}),
                      Sample((np.array([[1.5, 0.0, -2.0, 0.5], [0.0, 2.0, 0.0, 3.0]], np.float32),), {"axis": 1})))


def _logcumsumexp_ref(x: np.ndarray, axis: int) -> np.ndarray:
    wide = x.astype(wider(x.dtype))
    if wide.dtype.kind != "c":
        return np.logaddexp.accumulate(wide, axis).astype(x.dtype)
    # relative to the largest real part so far; a new largest one rescales the sum
    out = np.empty_like(wide)
    elements, places = np.moveaxis(wide, axis, 0), np.moveaxis(out, axis, 0)
    top: Any = -np.inf
    total: Any = 0
    for k in range(len(places)):
        higher = np.maximum(top, elements[k].real)
        base = np.where(np.isneginf(higher), 0, higher)
        total = total * np.exp(top - base) + np.exp(elements[k] - base)
        top = higher
        places[k] = np.log(total) + base
    return out.astype(x.dtype)


def _logcumsumexp_vjp(ct: Any, x: Any, out: Any, axis: int) -> Any:
    """exp(x[k] - out[k]) * sum over i >= k of ct[i] * exp(out[k] - out[i]): no factor is above one."""
    low = full(TensorType(out.dtype, tuple(out.shape)), -np.inf, out)
    before = _shifted(out, axis, -np.inf)
    decay = exp(where(eq(before, low), low, before - out))
    return exp(conjugate(where(eq(x, low), low, x - out))) * _backwards(decay, ct, axis)


def _logcumsumexp_decompose(x: Any, axis: int) -> Any:
    """By a sum of numbers relative to the largest so far: each new largest one rescales what there is."""
    if x.dtype.is_complex:
        return None
    wide = cast(x, accumulated_in(x.dtype))
    top = cummax(wide, axis)
    infinite = eq(abs(top), np.inf)
    base = where(infinite, 0.0, top)  # of an infinite one nothing is subtracted: exp says what it is
    low = _shifted(top, axis, -np.inf)
    before = where(eq(low, -np.inf), -np.inf, where(eq(low, np.inf), 0.0, low))
    total = linear_recurrence(exp(before - base), exp(wide - base), axis)
    return cast(log(total) + base, x.dtype)


logcumsumexp = op("logcumsumexp", "x", "axis", infer=_infer("logcumsumexp"), ref=_logcumsumexp_ref, kernel="host",
                  decompose=_logcumsumexp_decompose, nanoseconds=20, vjp=_logcumsumexp_vjp,
                  samples=(Sample((_f,), {"axis": 1}), Sample((_z,), {"axis": 0})))


def _argcum_infer(x: TensorType, axis: int) -> TensorType:
    check_axis("cummax/cummin", axis, x)
    if x.dtype.is_complex:
        raise DTypeError("cummax/cummin: complex numbers have no order", got=str(x))
    return x.with_dtype(int64)


def _argcum(ufunc: np.ufunc, reaches: np.ufunc) -> Any:
    def ref(x: np.ndarray, axis: int) -> np.ndarray:
        x = comparable(x)
        chosen = reaches(x, ufunc.accumulate(x, axis)) | (x != x)  # nan stays the extreme from where it comes on
        along = [1] * x.ndim
        along[axis] = x.shape[axis]
        places = np.arange(x.shape[axis], dtype=np.int64).reshape(along)
        return np.maximum.accumulate(np.where(chosen, places, 0), axis)

    return ref


def _extreme_infer(x: TensorType, axis: int) -> TensorType:
    _argcum_infer(x, axis)
    return x


def _extreme_ref(ufunc: np.ufunc) -> Any:
    def ref(x: np.ndarray, axis: int) -> np.ndarray:
        return ufunc.accumulate(comparable(x), axis).astype(x.dtype, copy=False)

    return ref


cummax = op("cummax", "x", "axis", infer=_extreme_infer, ref=_extreme_ref(np.maximum), reduction="max", kernel="running",
            nanoseconds=2, vjp=not_differentiable, samples=(Sample((_t,), {"axis": 1}), Sample((_i,), {"axis": 0}, 0, 3)))
cummin = op("cummin", "x", "axis", infer=_extreme_infer, ref=_extreme_ref(np.minimum), reduction="min", kernel="running",
            nanoseconds=2, vjp=not_differentiable, samples=(Sample((_t,), {"axis": 1}), Sample((_i,), {"axis": 0}, 0, 3)))
"""The extreme so far; nan from the first one on. Programs find its places by it."""


def _argcum_decompose(extreme: Any, reaches: Any) -> Any:
    def decompose(x: Any, axis: int) -> Any:
        shape = tuple(x.shape)
        place = iota(shape=shape, axis=axis, dtype=int64, like=x)
        chosen = bitwise_or(reaches(x, extreme(x, axis)), ne(x, x))
        return cummax(where(chosen, place, full(TensorType(int64, shape), 0, x)), axis)

    return decompose


argcummax = op("argcummax", "x", "axis", infer=_argcum_infer, ref=_argcum(np.maximum, np.greater_equal),
               decompose=_argcum_decompose(cummax, ge), vjp=not_differentiable,
               samples=(Sample((_t,), {"axis": 1}), Sample((_i,), {"axis": 0}, 0, 3)))
argcummin = op("argcummin", "x", "axis", infer=_argcum_infer, ref=_argcum(np.minimum, np.less_equal),
               decompose=_argcum_decompose(cummin, le), vjp=not_differentiable,
               samples=(Sample((_t,), {"axis": 1}), Sample((_i,), {"axis": 0}, 0, 3)))
"""The place of the extreme so far, the last one of equals."""
