"""Reductions: many numbers become one. The reduced dimensions are gone from the result."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.dims import surely_less
from graphc.errors import DimError, DTypeError, ShapeError, UnsupportedDTypeError
from graphc.op import Sample, not_differentiable, op
from graphc.ops.complex_numbers import conjugate
from graphc.ops.creation import full, iota
from graphc.ops.cumulative import products_before, wider
from graphc.ops.elementwise import bitwise_or, cast, eq, ne, where
from graphc.ops.movement import broadcast_to, check_axis, concat, flip, reshape, slice
from graphc.ops.sort import comparable
from graphc.types import Shape, TensorType, bool_, complex64, float32, int64

_t = TensorType(float32, (2, 3, 4))
_i = TensorType(int64, (3, 5))


def _check_axes(name: str, x: TensorType, axes: tuple[int, ...]) -> None:
    if len(set(axes)) != len(axes) or any(not 0 <= a < x.ndim for a in axes):
        raise DimError(f"{name}: cannot reduce the dimensions {axes} of {x}",
                       expected=f"different numbers from 0 to {x.ndim - 1}")


def _without(x: TensorType, axes: tuple[int, ...]) -> TensorType:
    return x.with_shape(size for i, size in enumerate(x.shape) if i not in axes)


def keepdims(reduced: Any, shape: Shape, axes: tuple[int, ...]) -> Any:
    """Put the reduced dimensions of `shape` back as sizes of 1."""
    return reshape(reduced, tuple(1 if i in axes else size for i, size in enumerate(shape)))


def expand(reduced: Any, shape: Shape, axes: tuple[int, ...]) -> Any:
    """Stretch a result reduced over `axes` back to `shape`."""
    return broadcast_to(keepdims(reduced, shape, axes), tuple(shape))


def _sum_infer(x: TensorType, axes: tuple[int, ...]) -> TensorType:
    _check_axes("sum", x, axes)
    if x.dtype is bool_:
        raise DTypeError("sum: bool has no sum of its own", expected="a numeric dtype", hint="cast it first")
    return _without(x, axes)


def _sum_ref(x: np.ndarray, axes: tuple[int, ...]) -> Any:
    if x.dtype.itemsize == 2 and x.dtype.kind in "fV":
        return np.add.reduce(x, axis=axes, dtype=wider(x.dtype)).astype(x.dtype)
    return np.add.reduce(x, axis=axes, dtype=x.dtype)


sum = op("sum", "x", "axes", infer=_sum_infer, ref=_sum_ref, reduction="sum",
         vjp=lambda ct, x_type, axes: expand(ct, x_type.shape, axes),
         samples=(Sample((_t,), {"axes": (0, 1, 2)}), Sample((_t,), {"axes": (1,)}), Sample((_i,), {"axes": (0,)}),
                  Sample((_t,), {"axes": (2,)}), Sample((TensorType(complex64, (2, 3)),), {"axes": (1,)})))


def _prod_infer(x: TensorType, axis: int) -> TensorType:
    check_axis("prod", axis, x)
    return _without(x, (axis,))


def _prod_ref(x: np.ndarray, axis: int) -> Any:
    return np.asarray(np.multiply.reduce(x, axis=axis, dtype=wider(x.dtype))).astype(x.dtype, copy=False)


def _prod_decompose(x: Any, axis: int) -> Any:
    """Halves are multiplied with each other until one element is left."""
    shape = tuple(x.shape)
    left = (*shape[:axis], *shape[axis + 1 :])
    if not isinstance(shape[axis], int):
        raise ShapeError("prod: the size of the dimension is not known", got=str(shape))
    if shape[axis] == 0:
        return full(TensorType(x.dtype, left), 1, like=x)

    def part(start: int, stop: int) -> Any:
        starts = tuple(start if i == axis else 0 for i in range(len(shape)))
        stops = tuple(stop if i == axis else n for i, n in enumerate(shape))
        return slice(x, starts, stops, (1,) * len(shape))

    while (size := x.shape[axis]) > 1:
        half = size // 2
        product = part(0, half) * part(half, 2 * half)
        x = concat(product, part(2 * half, size), axis=axis) if size % 2 else product
    return reshape(x, left)


def _prod_vjp(ct: Any, x: Any, axis: int) -> Any:
    """The product of all others: of those before times those after, as nothing may be divided by zero."""
    x = conjugate(x)
    after = flip(products_before(flip(x, (axis,)), axis), (axis,))
    return expand(ct, x.shape, (axis,)) * (products_before(x, axis) * after)


prod = op("prod", "x", "axis", infer=_prod_infer, ref=_prod_ref, decompose=_prod_decompose, vjp=_prod_vjp,
          samples=(Sample((_t,), {"axis": 1}), Sample((_i,), {"axis": 0}),
                   Sample((TensorType(complex64, (3, 2)),), {"axis": 0}),
                   Sample((np.array([[1.5, 0.0, -2.0], [0.0, 2.0, 0.0]], np.float32),), {"axis": 1})))


def _extreme_infer(x: TensorType, axes: tuple[int, ...]) -> TensorType:
    _check_axes("amax/amin", x, axes)
    if x.dtype.is_complex:
        raise UnsupportedDTypeError(f"amax/amin is not implemented for '{x.dtype.name}': complex numbers have no order",
                                    expected="a dtype that is not complex", got=str(x))
    if any(surely_less(x.shape[a], 1) for a in axes):
        raise ShapeError(f"amax/amin of {x} over dimensions {axes}: no elements to choose from",
                         expected="reduced dimensions of size 1 or more")
    if x.dtype.is_complex:
        raise DTypeError("amax/amin: complex numbers have no order", got=str(x))
    return _without(x, axes)


def _extreme_vjp(ct: Any, x: Any, out: Any, axes: tuple[int, ...]) -> Any:
    """Shared evenly among the places where the extreme stands; nan, where there is one, is it."""
    chosen = cast(bitwise_or(eq(x, expand(out, x.shape, axes)), ne(x, x)), ct.dtype)
    return chosen * expand(ct / sum(chosen, axes), x.shape, axes)


amax = op("amax", "x", "axes", infer=_extreme_infer, ref=lambda x, axes: np.maximum.reduce(x, axis=axes),
          reduction="max", vjp=_extreme_vjp,
          samples=(Sample((_t,), {"axes": (0, 1, 2)}), Sample((_t,), {"axes": (1,)}), Sample((_i,), {"axes": (1,)})))
amin = op("amin", "x", "axes", infer=_extreme_infer, ref=lambda x, axes: np.minimum.reduce(x, axis=axes),
          reduction="min", vjp=_extreme_vjp,
          samples=(Sample((_t,), {"axes": (0, 1, 2)}), Sample((_t,), {"axes": (1,)}), Sample((_i,), {"axes": (1,)})))


def _arg_infer(x: TensorType, axis: int) -> TensorType:
    return _extreme_infer(x, (axis,)).with_dtype(int64)


def _arg_decompose(extreme: Any) -> Any:
    """The least index among those of the extreme; NaN counts as the extreme wherever there is one."""

    def decompose(x: Any, axis: int) -> Any:
        shape, length = tuple(x.shape), x.shape[axis]
        chosen = bitwise_or(eq(x, expand(extreme(x, (axis,)), shape, (axis,))), ne(x, x))
        places = iota(shape=shape, axis=axis, dtype=int64, like=x)
        return amin(where(chosen, places, full(TensorType(int64, shape), length, like=x)), (axis,))

    return decompose


argmax = op("argmax", "x", "axis", infer=_arg_infer, ref=lambda x, axis: np.argmax(comparable(x), axis).astype(np.int64),
            decompose=_arg_decompose(amax), vjp=not_differentiable,
            samples=(Sample((_t,), {"axis": 1}), Sample((_i,), {"axis": 1}, 0, 3)))
argmin = op("argmin", "x", "axis", infer=_arg_infer, ref=lambda x, axis: np.argmin(comparable(x), axis).astype(np.int64),
            decompose=_arg_decompose(amin), vjp=not_differentiable,
            samples=(Sample((_t,), {"axis": 1}), Sample((_i,), {"axis": 1}, 0, 3)))
