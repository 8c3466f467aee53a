"""Movement ops: the same numbers in other places."""

from __future__ import annotations

import builtins
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

import graphc.expression as ex
import graphc.index as ix
from graphc.dims import surely_less
from graphc.errors import ArgumentError, DimError, DTypeError, ShapeError
from graphc.expression import Expr
from graphc.op import Sample, op
from graphc.ops.creation import full
from graphc.ops.elementwise import where
from graphc.types import Scalar, Shape, Size, TensorType, dtype_of, float32, float64, is_one, scalar_array

_f = TensorType(float32, (3, 5))
_t = TensorType(float32, (2, 3, 4))
Ints = tuple[int, ...]
Index = tuple[Expr, ...]
Types = tuple[TensorType, ...]


def normalize_axis(axis: int, ndim: int) -> int:
    """A dimension counted from the left; a negative one counts from the right. DimError where there is none."""
    count = max(ndim, 1)  # a 0-d tensor lets itself be addressed as if it had one dimension
    if not -count <= axis < count:
        raise DimError(f"Dimension out of range (expected to be in range of [{-count}, {count - 1}], but got {axis})")
    return axis % count


def check_axis(name: str, axis: int, x: TensorType) -> None:
    """DimError where x has no dimension `axis`, counted from the left."""
    if not 0 <= axis < x.ndim:
        raise DimError(f"{name}: {x} has no dimension {axis}", expected=f"0 <= axis < {x.ndim}")


def inverse_permutation(order: Ints) -> Ints:
    """The order that undoes `order`."""
    return tuple(sorted(range(len(order)), key=order.__getitem__))


def stack_operand(x: Any, size: Size, batched: bool) -> Any:
    """An operand with a batch of `size` as its dimension 0: as it is if it has one, else the same for each element."""
    return x if batched else broadcast_to(x, (size, *tuple(x.shape)))


# Reshape, permute, broadcast


def _reshape_infer(x: TensorType, shape: Shape) -> TensorType:
    if math.prod(shape) != x.size:
        raise ShapeError(f"shape '{list(shape)}' is invalid for input of size {x.size}",
                         expected=f"{x.size} elements", got=f"{math.prod(shape)} elements (from {x})")
    return x.with_shape(shape)


def _reshape_lower(read: Any, index: Index, types: Types, shape: Shape) -> Expr:
    return read(0, ix.reindex(index, shape, types[0].shape))


reshape = op("reshape", "x", "shape", infer=_reshape_infer, ref=lambda x, shape: x.reshape(shape),
             lower=_reshape_lower, nanoseconds=0,
             vjp=lambda ct, x_type: reshape(ct, x_type.shape),
             view=lambda base, new, shape: reshape(new, tuple(base.shape)),
             batch=lambda size, batched, x, shape: reshape(x, (size, *shape)),
             samples=(Sample((_f,), {"shape": (5, 3)}), Sample((_t,), {"shape": (24,)}), Sample((_t,), {"shape": (2, 1, 12)})))


copy = op("copy", "x", infer=lambda x: x, ref=lambda x: x.copy(), lower=lambda read, index, types: read(0, index),
          nanoseconds=0, vjp=lambda ct: ct, batch=lambda size, batched, x: copy(x),
          samples=(Sample((_f,)), Sample((_t,))))
"""The same numbers in memory of their own, row-major. Other ops that only move numbers are computed where those are read."""


def _permute_infer(x: TensorType, order: Ints) -> TensorType:
    if sorted(order) != list(range(x.ndim)):
        raise DimError(f"permute: {order} does not name each of the {x.ndim} dimensions once", got=str(x))
    return x.with_shape(x.shape[i] for i in order)


def _permute_lower(read: Any, index: Index, types: Types, order: Ints) -> Expr:
    return read(0, tuple(index[i] for i in inverse_permutation(order)))


permute = op("permute", "x", "order", infer=_permute_infer, ref=lambda x, order: x.transpose(order),
             lower=_permute_lower, nanoseconds=0,
             vjp=lambda ct, order: permute(ct, inverse_permutation(order)),
             view=lambda base, new, order: permute(new, inverse_permutation(order)),
             batch=lambda size, batched, x, order: permute(x, (0, *(i + 1 for i in order))),
             samples=(Sample((_f,), {"order": (1, 0)}), Sample((_t,), {"order": (2, 0, 1)})))


def _broadcast_infer(x: TensorType, shape: Shape) -> TensorType:
    offset = len(shape) - x.ndim
    if offset < 0 or any(not is_one(size) and size != shape[i] for i, size in enumerate(x.shape, offset)):
        raise ShapeError(f"broadcast_to: {x} does not stretch to {list(shape)}",
                         expected="equal sizes, or 1, counted from the right")
    return x.with_shape(shape)


def unbroadcast(ct: Any, shape: Shape) -> Any:
    """Sum a cotangent over the dimensions along which a value of `shape` was stretched."""
    from graphc.ops.reduce import sum  # the derivative of a sum is a broadcast: the two need each other

    offset = len(ct.shape) - len(shape)
    axes = tuple(i for i, size in enumerate(ct.shape) if i < offset or (is_one(shape[i - offset]) and not is_one(size)))
    summed = sum(ct, axes) if axes else ct
    return summed if tuple(summed.shape) == tuple(shape) else reshape(summed, tuple(shape))


def _broadcast_lower(read: Any, index: Index, types: Types, shape: Shape) -> Expr:
    own = index[len(index) - types[0].ndim :]
    return read(0, tuple(ix.ZERO if size == 1 else i for i, size in zip(own, types[0].shape)))


def _broadcast_batch(size: Size, batched: Any, x: Any, shape: Shape) -> Any:
    own = tuple(x.shape)[1:]
    return broadcast_to(reshape(x, (size, *(1,) * (len(shape) - len(own)), *own)), (size, *shape))


def _broadcast_ref(x: np.ndarray, shape: Shape) -> np.ndarray:
    """np.broadcast_to, which takes five times as long where an array can lend out its memory as a buffer."""
    if not x.flags.c_contiguous or not x.size or x.dtype.kind not in "biuf":
        return np.broadcast_to(x, shape)
    strides = [0 if size == 1 else step for size, step in zip(x.shape, x.strides)]
    out = np.ndarray(shape, x.dtype, x, 0, (0,) * (len(shape) - x.ndim) + tuple(strides))
    out.flags.writeable = False  # several elements lie in one place
    return out


broadcast_to = op("broadcast_to", "x", "shape", infer=_broadcast_infer, ref=_broadcast_ref,
                  lower=_broadcast_lower, nanoseconds=0, batch=_broadcast_batch,
                  vjp=lambda ct, x_type: unbroadcast(ct, x_type.shape),
                  samples=(Sample((_f,), {"shape": (2, 3, 5)}),
                           Sample((TensorType(float32, (3, 1)),), {"shape": (3, 4)})))

# Slices and padding


def slice_length(start: Size, stop: Size, step: int) -> Size:
    """How many places `range(start, stop, step)` has."""
    length = stop - start
    if step != 1:
        length = (length + (step - 1)) // step
    return 0 if surely_less(length, 0) else length


def _check_region(name: str, x: TensorType, starts: Ints, stops: Ints, steps: Ints) -> None:
    if not len(starts) == len(stops) == len(steps) == x.ndim:
        raise DimError(f"{name}: {len(starts)} starts, {len(stops)} stops, {len(steps)} steps", expected=f"{x.ndim} of each")
    for i, (start, stop, step) in enumerate(zip(starts, stops, steps)):
        size = x.shape[i]
        if step < 1 or surely_less(start, 0) or surely_less(stop, 0) or surely_less(size, stop):
            raise ArgumentError(f"{name}: {start}:{stop}:{step} is outside dimension {i} of {x}",
                                expected="0 <= start, stop <= size, step >= 1")


def _slice_infer(x: TensorType, starts: Ints, stops: Ints, steps: Ints) -> TensorType:
    _check_region("slice", x, starts, stops, steps)
    return x.with_shape(map(slice_length, starts, stops, steps))


def _region(starts: Ints, stops: Ints, steps: Ints) -> tuple[builtins.slice, ...]:
    return tuple(map(builtins.slice, starts, stops, steps))


def _slice_lower(read: Any, index: Index, types: Types, starts: Ints, stops: Ints, steps: Ints) -> Expr:
    return read(0, tuple(ix.plus(ix.times(i, step), start) for i, start, step in zip(index, starts, steps)))


def _slice_batch(size: Size, batched: Any, x: Any, starts: Ints, stops: Ints, steps: Ints) -> Any:
    return slice(x, (0, *starts), (size, *stops), (1, *steps))


slice = op("slice", "x", "starts stops steps", infer=_slice_infer, lower=_slice_lower, nanoseconds=0, batch=_slice_batch,
           ref=lambda x, starts, stops, steps: x[_region(starts, stops, steps)],
           vjp=lambda ct, x_type, starts, stops, steps: slice_update(full(x_type, 0, ct), ct, starts, stops, steps),
           view=lambda base, new, starts, stops, steps: slice_update(base, new, starts, stops, steps),
           samples=(Sample((_f,), {"starts": (1, 0), "stops": (3, 5), "steps": (1, 2)}),
                    Sample((_t,), {"starts": (0, 1, 0), "stops": (2, 1, 4), "steps": (1, 1, 3)})))


def _update_infer(base: TensorType, new: TensorType, starts: Ints, stops: Ints, steps: Ints) -> TensorType:
    _check_region("slice_update", base, starts, stops, steps)
    region = base.with_shape(map(slice_length, starts, stops, steps))
    if region != new:
        raise ShapeError("slice_update: the new part does not fit the region", expected=str(region), got=str(new))
    return base


def _update_ref(base: np.ndarray, new: np.ndarray, starts: Ints, stops: Ints, steps: Ints) -> np.ndarray:
    out = base.copy()
    out[_region(starts, stops, steps)] = new
    return out


def _update_base_vjp(ct: Any, new_type: TensorType, starts: Ints, stops: Ints, steps: Ints) -> Any:
    return slice_update(ct, full(new_type, 0, ct), starts, stops, steps)


def _update_lower(read: Any, index: Index, types: Types, starts: Ints, stops: Ints, steps: Ints) -> Expr:
    conditions, places = [], []
    for i, start, step, size in zip(index, starts, steps, types[1].shape):
        offset = ix.plus(i, -start)
        if step > 1:
            # i >= start is tested beside, so a negative offset does not matter
            conditions.append(ix.equals(ix.modulo(ix.plus(i, -start % step), step), 0))
            place = ix.plus(ix.quotient(ix.plus(i, -start % step), step), -(start + -start % step) // step)
        else:
            place = offset
        conditions += [ix.at_least(offset, 0), ix.less(place, size)]
        places.append(place)
    inside = ix.both(*conditions)
    if inside is None:
        return read(1, tuple(places))
    return where(inside, read(1, tuple(places), inside), read(0, index, ~inside))


def _update_batch(
    size: Size, batched: tuple[bool, bool], base: Any, new: Any, starts: Ints, stops: Ints, steps: Ints
) -> Any:
    base, new = (stack_operand(x, size, own) for x, own in zip((base, new), batched))
    return slice_update(base, new, (0, *starts), (size, *stops), (1, *steps))


slice_update = op("slice_update", "base new", "starts stops steps", infer=_update_infer, ref=_update_ref, lower=_update_lower,
                  batch=_update_batch,
                  vjp=(_update_base_vjp, lambda ct, starts, stops, steps: slice(ct, starts, stops, steps)),
                  samples=(Sample((_f, TensorType(float32, (2, 3))), {"starts": (1, 0), "stops": (3, 5), "steps": (1, 2)}),))


def _pad_infer(x: TensorType, low: Ints, high: Ints, value: Scalar) -> TensorType:
    if not len(low) == len(high) == x.ndim or any(surely_less(size, 0) for size in (*low, *high)):
        raise ArgumentError(f"pad: {low} before and {high} after", expected=f"{x.ndim} sizes >= 0 for each", got=str(x))
    return x.with_shape(a + size + b for a, size, b in zip(low, x.shape, high))


def _pad_ref(x: np.ndarray, low: Ints, high: Ints, value: Scalar) -> np.ndarray:
    return np.pad(x, tuple(zip(low, high)), constant_values=scalar_array(value, dtype_of(x.dtype))) if x.ndim else x


def _pad_vjp(ct: Any, x_type: TensorType, low: Ints) -> Any:
    return slice(ct, low, tuple(a + size for a, size in zip(low, x_type.shape)), (1,) * x_type.ndim)


def _pad_lower(read: Any, index: Index, types: Types, low: Ints, high: Ints, value: Scalar) -> Expr:
    places = tuple(ix.plus(i, -before) for i, before in zip(index, low))
    conditions = []
    for place, before, size, after in zip(places, low, types[0].shape, high):
        conditions += [ix.at_least(place, 0)] if before else []
        conditions += [ix.less(place, size)] if after else []
    inside = ix.both(*conditions)
    x = read(0, places, inside)
    return x if inside is None else where(inside, x, ex.constant(value, x.dtype))


pad = op("pad", "x", "low high value", infer=_pad_infer, ref=_pad_ref, vjp=_pad_vjp, lower=_pad_lower,
         batch=lambda size, batched, x, low, high, value: pad(x, (0, *low), (0, *high), value),
         samples=(Sample((_f,), {"low": (1, 0), "high": (0, 2), "value": 0.0}),
                  Sample((_t,), {"low": (0, 1, 1), "high": (0, 1, 0), "value": -math.inf})))


def _concat_infer(*xs: TensorType, axis: int) -> TensorType:
    first = xs[0]
    check_axis("concat", axis, first)
    for x in xs[1:]:
        if x.dtype is not first.dtype:
            raise DTypeError("concat: operands differ in dtype", got=" and ".join(map(str, xs)))
        if x.ndim != first.ndim or any(x.shape[i] != first.shape[i] for i in range(first.ndim) if i != axis):
            raise ShapeError("Sizes of tensors must match except in dimension "
                             f"{axis}", expected=f"shapes like {first}", got=str(x))
    total: Size = 0
    for x in xs:
        total = total + x.shape[axis]
    return first.with_shape(total if i == axis else size for i, size in enumerate(first.shape))


def _concat_vjp(ct: Any, types: tuple[TensorType, ...], index: int, axis: int) -> Any:
    start = builtins.sum(t.shape[axis] for t in types[:index])
    starts = tuple(start if i == axis else 0 for i in range(len(ct.shape)))
    return slice(ct, starts, tuple(a + size for a, size in zip(starts, types[index].shape)), (1,) * len(starts))


def _concat_lower(read: Any, index: Index, types: Types, axis: int) -> Expr:
    starts = [builtins.sum(t.shape[axis] for t in types[:k]) for k in range(len(types))]
    out: Expr | None = None
    for k in reversed(range(len(types))):
        if types[k].shape[axis] == 0:
            continue
        place = ix.plus(index[axis], -starts[k])
        inside = ix.both(ix.at_least(place, 0), ix.less(place, types[k].shape[axis]))
        x = read(k, (*index[:axis], place, *index[axis + 1 :]), inside)
        out = x if out is None else where(ix.less(place, types[k].shape[axis]), x, out)
    return read(0, index) if out is None else out


concat = op("concat", "*xs", "axis", infer=_concat_infer, ref=lambda *xs, axis: np.concatenate(xs, axis),
            vjp=_concat_vjp, lower=_concat_lower,
            samples=(Sample((_f, _f), {"axis": 0}), Sample((_f, TensorType(float32, (3, 2)), _f), {"axis": 1})))


def _flip_infer(x: TensorType, axes: Ints) -> TensorType:
    for axis in axes:
        check_axis("flip", axis, x)
    if len(set(axes)) != len(axes):
        raise DimError(f"flip: {axes} names a dimension twice", got=str(x))
    return x


def _flip_lower(read: Any, index: Index, types: Types, axes: Ints) -> Expr:
    shape = types[0].shape
    return read(0, tuple(ix.plus(ix.times(i, -1), shape[k] - 1) if k in axes else i for k, i in enumerate(index)))


flip = op("flip", "x", "axes", infer=_flip_infer, ref=lambda x, axes: np.flip(x, axes),
          vjp=lambda ct, axes: flip(ct, axes),
          lower=_flip_lower, nanoseconds=0, view=lambda base, new, axes: flip(new, axes),
          samples=(Sample((_f,), {"axes": (1,)}), Sample((_t,), {"axes": (0, 2)})))

# Sliding windows: convolution and pooling are made of them


def _window_infer(x: TensorType, axis: int, size: int, step: int, dilation: int) -> TensorType:
    check_axis("window", axis, x)
    extent = dilation * (size - 1) + 1
    if size < 1 or step < 1 or dilation < 1 or surely_less(x.shape[axis], extent):
        raise ShapeError(f"window: a window of {extent} does not fit dimension {axis} of {x}",
                         expected=f"at least {extent}, and size, step and dilation >= 1", got=str(x.shape[axis]))
    count = (x.shape[axis] - extent) // step + 1
    return x.with_shape([*x.shape[:axis], count, *x.shape[axis + 1 :], size])


def _window_ref(x: np.ndarray, axis: int, size: int, step: int, dilation: int) -> np.ndarray:
    count = (x.shape[axis] - dilation * (size - 1) - 1) // step + 1
    shape, strides = (*x.shape[:axis], count, *x.shape[axis + 1 :], size), list(x.strides)
    strides.append(dilation * strides[axis])
    strides[axis] *= step
    return np.lib.stride_tricks.as_strided(x, shape, strides, writeable=False)


def _window_lower(read: Any, index: Index, types: Types, axis: int, size: int, step: int, dilation: int) -> Expr:
    place = ix.plus(ix.times(index[axis], step), ix.times(index[-1], dilation))
    return read(0, (*index[:axis], place, *index[axis + 1 : -1]))


window = op("window", "x", "axis size step dilation", infer=_window_infer, ref=_window_ref,
            lower=_window_lower, nanoseconds=0,
            vjp=lambda ct, x_type, axis, step, dilation: fold(ct, axis, x_type.shape[axis], step, dilation),
            samples=(Sample((_f,), {"axis": 1, "size": 2, "step": 2, "dilation": 1}),
                     Sample((_t,), {"axis": 2, "size": 2, "step": 1, "dilation": 2})))


def _fold_infer(x: TensorType, axis: int, length: int, step: int, dilation: int) -> TensorType:
    if not 0 <= axis < x.ndim - 1 or step < 1 or dilation < 1 or x.shape[-1] == 0:
        raise ArgumentError(f"fold: windows with step {step} and dilation {dilation} along dimension {axis} of {x}",
                            expected="a dimension before the last, which is the window's, and step and dilation >= 1")
    count, size = x.shape[axis], x.shape[-1]
    if not surely_less(count, 1) and surely_less(length, (count - 1) * step + dilation * (size - 1) + 1):
        raise ShapeError(f"fold: {count} windows of {size} do not fit into {length}", got=str(x))
    return x.with_shape([*x.shape[:axis], length, *x.shape[axis + 1 : -1]])


def _fold_ref(x: np.ndarray, axis: int, length: int, step: int, dilation: int) -> np.ndarray:
    out = np.zeros([*x.shape[:axis], length, *x.shape[axis + 1 : -1]], x.dtype)
    before = (builtins.slice(None),) * axis
    for k in range(x.shape[-1] if x.shape[axis] else 0):
        span = builtins.slice(k * dilation, k * dilation + (x.shape[axis] - 1) * step + 1, step)
        out[(*before, span)] += x[..., k]
    return out


def _fold_lower(read: Any, index: Index, types: Types, axis: int, length: int, step: int, dilation: int) -> Expr:
    """The sum over the places of the window that can be here; there are few, so it is written out."""
    count, size = types[0].shape[axis], types[0].shape[-1]
    out: Expr | None = None
    for t, k, meets in _meetings(index[axis], size, step, dilation):
        meets = ix.both(meets, ix.at_least(t, 0), ix.less(t, count))
        x = read(0, (*index[:axis], t, *index[axis + 1 :], k), meets)
        x = x if meets is None else where(meets, x, ex.constant(0, x.dtype))
        out = x if out is None else out + x
    assert out is not None  # size >= 1
    return out


def _meetings(place: Expr, size: int, step: int, dilation: int) -> Iterator[tuple[Expr, Expr, Expr | None]]:
    """The windows and their elements with t * step + k * dilation == place, each with its condition, in the order of k."""
    if dilation == 1 < size:  # every step-th element
        first, last = ix.modulo(place, step), ix.quotient(place, step)
        for j in range(_fold_taps(size, step, dilation)):
            k = ix.plus(first, j * step)
            yield ix.plus(last, -j), k, ix.less(k, size) if (j + 1) * step > size else None
        return
    for each in range(size):
        shift = -(each * dilation) % step
        moved = ix.plus(place, shift)
        t = ix.plus(ix.quotient(moved, step), -(each * dilation + shift) // step)
        yield t, ix.number(each), ix.equals(ix.modulo(moved, step), 0)


def _fold_taps(size: int, step: int, dilation: int) -> int:
    return -(-size // step) if dilation == 1 else size


def _fold_vjp(ct: Any, x_type: TensorType, axis: int, step: int, dilation: int) -> Any:
    count, size = x_type.shape[axis], x_type.shape[-1]
    used = (count - 1) * step + dilation * (size - 1) + 1 if count else 0
    stops = tuple(used if i == axis else n for i, n in enumerate(ct.shape))  # rows after the last window are zero
    if not used:
        return full(x_type, 0, ct)
    return window(slice(ct, (0,) * len(stops), stops, (1,) * len(stops)), axis, size, step, dilation)


fold = op("fold", "x", "axis length step dilation", infer=_fold_infer, ref=_fold_ref,
          lower=_fold_lower, taps=lambda x, step, dilation, **_: _fold_taps(x.shape[-1], step, dilation),
          vjp=_fold_vjp,
          samples=(Sample((TensorType(float32, (3, 2, 2)),), {"axis": 1, "length": 5, "step": 2, "dilation": 1}),
                   Sample((TensorType(float64, (4, 3)),), {"axis": 0, "length": 8, "step": 1, "dilation": 1}),
                   Sample((TensorType(float32, (2, 7, 5)),), {"axis": 1, "length": 24, "step": 3, "dilation": 1}),
                   Sample((TensorType(float64, (4, 17, 2)),), {"axis": 0, "length": 12, "step": 3, "dilation": 1}),
                   Sample((TensorType(float32, (5, 3)),), {"axis": 0, "length": 13, "step": 2, "dilation": 2})))
