"""Movement ops, and ops without operands, as ONNX nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import graphc.ops as ops
from graphc.onnx_format.export.table import expands, writes
from graphc.onnx_format.export.writer import END, Step, Writer
from graphc.types import Size, TensorType, bool_, int64

_LARGEST_CONSTANT = 1 << 16
"""Elements of counters and indices that are written down instead of being computed."""


@writes("constant")
def _constant(w: Writer, step: Step) -> str:
    return w.array(step.attrs["value"])


@writes("size")
def _size(w: Writer, step: Step) -> str:
    size = w.emit("Squeeze", w.size(step.attrs["value"]))
    return str(size) if step.type.dtype is int64 else w.cast(size, step.type.dtype)


@writes("iota")
def _iota(w: Writer, step: Step) -> str:
    shape, axis, dtype = step.type.shape, step.attrs["axis"], step.type.dtype
    along = tuple(size if i == axis else 1 for i, size in enumerate(shape))
    if isinstance(shape[axis], int) and shape[axis] <= _LARGEST_CONSTANT:
        line = w.array(np.arange(shape[axis]).astype(dtype.numpy).reshape(along))
    else:
        line = count(w, shape[axis])
        line = line if dtype is int64 else w.cast(line, dtype)
        line = w.reshape(line, TensorType(dtype, (shape[axis],)), along)
    return w.expand(line, TensorType(dtype, along), shape)


def count(w: Writer, size: Size) -> str:
    """0, 1, ... below `size`, int64."""
    if isinstance(size, int) and size <= _LARGEST_CONSTANT:
        return w.array(np.arange(size, dtype=np.int64))
    return str(w.emit("Range", w.number(0, int64), w.emit("Squeeze", w.size(size)), w.number(1, int64)))


def progression(w: Writer, size: Size, step: int, start: int = 0) -> str:
    """start, start + step, ...: `size` of them, int64."""
    if isinstance(size, int) and size <= _LARGEST_CONSTANT:
        return w.array(start + step * np.arange(size, dtype=np.int64))
    line = count(w, size)
    if step != 1:
        line = w.emit("Mul", line, w.number(step, int64))
    return str(w.emit("Add", line, w.number(start, int64))) if start else line


@writes("reshape")
def _reshape(w: Writer, step: Step) -> str:
    return w.reshape(step.names[0], step.operands[0].type, step.type.shape)


@writes("permute")
def _permute(w: Writer, step: Step) -> str:
    order = step.attrs["order"]
    return str(w.emit("Transpose", step.names[0], perm=list(order))) if order else step.names[0]


@writes("broadcast_to")
def _broadcast(w: Writer, step: Step) -> str:
    return w.expand(step.names[0], step.operands[0].type, step.type.shape)


@writes("concat")
def _concat(w: Writer, step: Step) -> str:
    return str(w.emit("Concat", *step.names, axis=step.attrs["axis"]))


@writes("slice")
def _slice(w: Writer, step: Step) -> str:
    starts, stops, steps = (step.attrs[name] for name in ("starts", "stops", "steps"))
    shape = step.operands[0].shape
    axes = [i for i, size in enumerate(shape) if (starts[i], stops[i], steps[i]) != (0, size, 1)]
    if not axes:
        return step.names[0]
    ends = [END if stops[i] == shape[i] else stops[i] for i in axes]
    taken = [w.sizes([starts[i] for i in axes]), w.sizes(ends), w.array(np.array(axes, np.int64))]
    if any(steps[i] != 1 for i in axes):
        taken.append(w.sizes([steps[i] for i in axes]))
    return str(w.emit("Slice", step.names[0], *taken))


@writes("flip")
def _flip(w: Writer, step: Step) -> str:
    axes = step.attrs["axes"]
    if not axes:
        return step.names[0]
    backwards = w.array(np.full(len(axes), -1, np.int64))
    return str(w.emit("Slice", step.names[0], backwards, w.array(np.full(len(axes), -END, np.int64)),
                      w.array(np.array(axes, np.int64)), backwards))


@writes("pad")
def _pad(w: Writer, step: Step) -> str:
    low, high = step.attrs["low"], step.attrs["high"]
    if not low:
        return step.names[0]
    return str(w.emit("Pad", step.names[0], w.sizes([*low, *high]), w.number(step.attrs["value"], step.dtype)))


@writes("window")
def _window(w: Writer, step: Step) -> str:
    """Taken by an index of the places of all windows."""
    axis, size, stride, dilation = (step.attrs[name] for name in ("axis", "size", "step", "dilation"))
    shape = step.type.shape
    starts, taps = progression(w, shape[axis], stride), w.array(dilation * np.arange(size, dtype=np.int64))
    column = w.reshape(starts, TensorType(int64, (shape[axis],)), (shape[axis], 1))
    taken = w.emit("Gather", step.names[0], w.emit("Add", column, taps), axis=axis)
    last = len(shape) - 1
    if axis + 1 == last:
        return str(taken)
    order = [i for i in range(last + 1) if i != axis + 1]
    return str(w.emit("Transpose", taken, perm=[*order, axis + 1]))


@writes("diagonal")
def _diagonal(w: Writer, step: Step) -> str:
    """The two dimensions become one, in which the diagonal's places lie apart by one more than a row."""
    offset, row, column = (step.attrs[name] for name in ("offset", "row", "column"))
    x = step.operands[0].type
    rest = [i for i in range(x.ndim) if i not in (row, column)]
    order = (*rest, row, column)
    lines = x.with_shape(x.shape[i] for i in order)
    moved = step.names[0] if order == tuple(range(x.ndim)) else w.emit("Transpose", step.names[0], perm=list(order))
    flat = lines.with_shape((*lines.shape[:-2], lines.shape[-2] * lines.shape[-1]))
    start = offset if offset >= 0 else -offset * x.shape[column]
    length = step.type.shape[-1]
    places = progression(w, length, x.shape[column] + 1, start if length != 0 else 0)
    return str(w.emit("Gather", w.reshape(moved, lines, flat.shape), places, axis=len(rest)))


@writes("as_strided")
def _as_strided(w: Writer, step: Step) -> str | None:
    shape, strides, offset = (step.attrs[name] for name in ("shape", "strides", "offset"))
    places = np.full(shape, offset, np.int64)
    for axis, stride in enumerate(strides):
        along = [-1 if i == axis else 1 for i in range(len(shape))]
        places += stride * np.arange(shape[axis], dtype=np.int64).reshape(along)
    return str(w.emit("Gather", step.names[0], w.array(places), axis=0))


# In other words


def _dilated(x: Any, steps: Sequence[int]) -> Any:
    """x with `step - 1` zeros after each element but the last, along each dimension."""
    for axis, step in enumerate(steps):
        shape = tuple(x.shape)
        if step == 1 or shape[axis] == 0:
            continue
        apart = ops.reshape(x, (*shape[: axis + 1], 1, *shape[axis + 1 :]))
        apart = ops.pad(apart, (0,) * apart.ndim, tuple(step - 1 if i == axis + 1 else 0 for i in range(apart.ndim)), 0)
        long = ops.reshape(apart, (*shape[:axis], shape[axis] * step, *shape[axis + 1 :]))
        stops = tuple((n - 1) * step + 1 if i == axis else n for i, n in enumerate(shape))
        x = ops.slice(long, (0,) * len(shape), stops, (1,) * len(shape))
    return x


@expands("slice_update")
def _slice_update(base: Any, new: Any, starts: Any, stops: Any, steps: Any) -> Any:
    """What is new, put into its place among zeros, where a mask of the same form says so."""
    if any(isinstance(size, int) and size == 0 for size in new.shape):
        return base
    mask = _dilated(ops.full(TensorType(bool_, tuple(new.shape)), True, base), steps)
    spread = _dilated(new, steps)
    high = tuple(n - start - size for n, start, size in zip(base.shape, starts, spread.shape))
    return ops.where(ops.pad(mask, starts, high, False), ops.pad(spread, starts, high, 0), base)


@expands("fold")
def _fold(x: Any, axis: int, length: Size, step: int, dilation: int) -> Any:
    """The elements of one place of the windows after the other, each put where it belongs, and added up."""
    *shape, size = x.shape
    total = None
    for k in range(size):
        part = ops.slice(x, (*(0 for _ in shape), k), (*shape, k + 1), (1,) * x.ndim)
        part = _dilated(ops.reshape(part, tuple(shape)), [step if i == axis else 1 for i in range(len(shape))])
        low = tuple(k * dilation if i == axis else 0 for i in range(len(shape)))
        high = tuple(length - k * dilation - part.shape[axis] if i == axis else 0 for i in range(len(shape)))
        if isinstance(high[axis], int) and high[axis] < 0:
            keep = tuple(n + high[axis] if i == axis else n for i, n in enumerate(part.shape))
            part = ops.slice(part, (0,) * part.ndim, keep, (1,) * part.ndim)
            high = (0,) * part.ndim
        placed = ops.pad(part, low, high, 0)
        total = placed if total is None else total + placed
    return total


@expands("diagonal_update")
def _diagonal_update(base: Any, new: Any, offset: int, row: int, column: int) -> Any:
    """What is new, spread over whole rows, where row and column are those of the diagonal."""
    shape = tuple(base.shape)
    rows, columns = (ops.iota(shape=shape, axis=axis, dtype=int64, like=base) for axis in (row, column))
    before = max(-offset, 0)
    rest = tuple(size for i, size in enumerate(shape) if i not in (row, column))
    after = shape[row] - before - new.shape[-1]
    line = ops.pad(new, (*(0 for _ in rest), before), (*(0 for _ in rest), after), 0)
    order = [i for i in range(base.ndim) if i not in (row, column)]
    order.append(row)
    places = tuple(order.index(i) for i in sorted(order))
    spread = ops.permute(line, places)
    spread = ops.reshape(spread, tuple(1 if i == column else size for i, size in enumerate(shape)))
    return ops.where(ops.eq(columns - rows, offset), ops.broadcast_to(spread, shape), base)
