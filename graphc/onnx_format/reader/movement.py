"""Operators that put numbers into other places."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

import graphc.ops as ops
from graphc.dims import Dim, decided
from graphc.ir import Value
from graphc.onnx_format.reader.call import Call, part, take
from graphc.onnx_format.reader.limits import BadModel
from graphc.onnx_format.reader.table import reads
from graphc.types import Size, int64


@reads("Shape")
def _shape(c: Call) -> Any:
    sizes = c.shape(0)[slice(c.int("start", 0), c.int("end"))]
    return _sizes(sizes)


@reads("Size")
def _size(c: Call) -> Any:
    size = math.prod(c.shape(0))
    return np.array(size, np.int64 if isinstance(size, int) else object)


def _sizes(sizes: tuple[Size, ...]) -> np.ndarray:
    return np.array(sizes, np.int64 if all(isinstance(size, int) for size in sizes) else object)


@reads("Reshape")
def _reshape(c: Call) -> Value:
    x = c[0]
    wanted = list(c.sizes(1) if c.has(1) else c.ints("shape"))
    if not c.int("allowzero", 0):
        wanted = [x.shape[i] if isinstance(size, int) and size == 0 else size for i, size in enumerate(wanted)]
    unknown = [i for i, size in enumerate(wanted) if isinstance(size, int) and size == -1]
    if len(unknown) > 1 or any(isinstance(size, int) and size < -1 for size in wanted):
        raise BadModel("the shape of a Reshape", expected="sizes, one of them -1", got=str(wanted))
    if unknown:
        wanted[unknown[0]] = _rest(x, [size for i, size in enumerate(wanted) if i != unknown[0]])
    return ops.reshape(x, tuple(wanted))


def _rest(x: Value, others: list[Size]) -> Size:
    """The size that is left for one dimension."""
    left, divisor = list(x.shape), []
    for size in others:  # equal sizes are taken out first: what is left is seen to be a multiple
        same = next((i for i, own in enumerate(left) if str(own) == str(size)), None)
        if same is None:
            divisor.append(size)
        else:
            del left[same]
    total, by = math.prod(left), math.prod(divisor)
    if isinstance(by, int) and by == 0:
        return 0
    return total // by


@reads("Flatten")
def _flatten(c: Call) -> Value:
    x = c[0]
    axis = c.int("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return ops.reshape(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


@reads("Transpose")
def _transpose(c: Call) -> Value:
    x = c[0]
    return ops.permute(x, c.ints("perm", tuple(reversed(range(x.ndim)))))


@reads("Squeeze")
def _squeeze(c: Call) -> Value:
    x, axes = c[0], c.axes(1)
    if axes is None:
        axes = tuple(i for i, size in enumerate(x.shape) if isinstance(size, int) and size == 1)
    if any(isinstance(x.shape[i], int) and x.shape[i] != 1 for i in axes):
        raise BadModel(f"Squeeze of the dimensions {axes} of {x.type}", expected="sizes of 1")
    return ops.reshape(x, tuple(size for i, size in enumerate(x.shape) if i not in axes))


@reads("Unsqueeze")
def _unsqueeze(c: Call) -> Value:
    x = c[0]
    given = c.sizes(1) if c.has(1) else c.ints("axes")
    axes = c.axes(1, x.ndim + len(given))
    rest = iter(x.shape)
    return ops.reshape(x, tuple(1 if i in (axes or ()) else next(rest) for i in range(x.ndim + len(given))))


@reads("Concat")
def _concat(c: Call) -> Value:
    return ops.concat(*c.values(), axis=c.axis(1 if c.opset < 4 else None))


@reads("Split")
def _split(c: Call) -> tuple[Value, ...]:
    x, axis = c[0], c.axis(0)
    sizes = c.sizes(1) if c.has(1) else c.ints("split")
    if sizes is None:
        whole = x.shape[axis]
        each = -(-whole // c.int("num_outputs", c.outputs))
        sizes = [each] * (c.outputs - 1)
        sizes.append(whole - each * (c.outputs - 1))
    stops = list(itertools.accumulate(sizes))
    return tuple(part(x, axis, stop - size, stop) for size, stop in zip(sizes, stops))


@reads("Slice")
def _slice(c: Call) -> Value:
    x = c[0]
    starts, stops = (c.sizes(1), c.sizes(2)) if c.has(1) else (c.ints("starts"), c.ints("ends"))
    axes = c.axes(3) or tuple(range(len(starts)))
    steps = c.sizes(4) if c.has(4) else (1,) * len(starts)
    for axis, start, stop, step in zip(axes, starts, stops, steps, strict=True):
        x = _sliced(x, axis, start, stop, step)
    return x


def _sliced(x: Value, axis: int, start: Size, stop: Size, step: Any) -> Value:
    size = x.shape[axis]
    if step == 0:
        raise BadModel("a slice with the step 0")
    if isinstance(size, int) and isinstance(start, int) and isinstance(stop, int):
        start, stop, step = slice(start, None if step < 0 and stop < -size else stop, step).indices(size)
        if step < 0:
            length = len(range(start, stop, step))
            return take(x, np.arange(start, stop, step), axis) if length else part(x, axis, 0, 0)
        return _stepped(x, axis, start, max(start, stop), step)
    if step < 0:
        if (start, step) == (-1, -1) and isinstance(stop, int) and stop < -(1 << 31):
            return ops.flip(x, (axis,))
        return take(x, np.arange(int(size))[slice(start, stop, step)], axis)
    start, stop = (_bounded(place, size) for place in (start, stop))
    return _stepped(x, axis, start, stop, step)


def _bounded(place: Size, size: Size) -> Size:
    """A place within a size: counted from the end if it is negative, and at most the size."""
    if isinstance(place, int) and abs(place) >= 1 << 30:  # as far as it goes
        return size if place > 0 else 0
    if decided(place, ">=") is False:
        place = place + size
        return place if decided(place, ">=") is not False else 0
    if decided(place - size, ">="):
        return size
    return place


def _stepped(x: Value, axis: int, start: Size, stop: Size, step: int) -> Value:
    starts = tuple(start if i == axis else 0 for i in range(x.ndim))
    stops = tuple(stop if i == axis else n for i, n in enumerate(x.shape))
    return ops.slice(x, starts, stops, tuple(step if i == axis else 1 for i in range(x.ndim)))


@reads("Expand")
def _expand(c: Call) -> Value:
    x, wanted = c[0], c.sizes(1)
    ndim = max(x.ndim, len(wanted))
    own = (*(1 for _ in range(ndim - x.ndim)), *x.shape)
    wanted = (*(1 for _ in range(ndim - len(wanted))), *wanted)
    shape = tuple(a if isinstance(b, int) and b == 1 else b for a, b in zip(own, wanted))
    return ops.broadcast_to(x, shape)


@reads("Tile")
def _tile(c: Call) -> Value:
    x, repeats = c[0], c.sizes(1)
    if len(repeats) != x.ndim:
        raise BadModel("the repeats of a Tile", expected=f"{x.ndim} numbers", got=str(repeats))
    split = tuple(size for pair in zip((1,) * x.ndim, x.shape) for size in pair)
    wide = ops.broadcast_to(ops.reshape(x, split), tuple(size for pair in zip(repeats, x.shape) for size in pair))
    return ops.reshape(wide, tuple(a * b for a, b in zip(repeats, x.shape)))


@reads("Pad")
def _pad(c: Call) -> Value:
    x = c[0]
    pads = c.sizes(1) if c.has(1) else c.ints("pads", c.ints("paddings"))
    axes = c.axes(3) if c.has(3) else tuple(range(x.ndim))
    axes = axes or ()
    low, high = [0] * x.ndim, [0] * x.ndim
    if len(pads) != 2 * len(axes):
        raise BadModel("the sizes of a Pad", expected=f"{2 * len(axes)} numbers", got=str(list(pads)))
    for i, axis in enumerate(axes):
        low[axis], high[axis] = pads[i], pads[i + len(axes)]
    mode = c.text("mode", "constant")
    if mode == "constant":
        value = c.number(2, 0) if c.has(2) else c.float("value", 0.0)
        return padded(x, low, high, value)
    for axis in axes:
        x = _mirrored(x, axis, low[axis], high[axis], mode)
    return x


def padded(x: Value, low: Any, high: Any, value: Any) -> Value:
    """With a number around; a negative size takes away."""
    less = [(max(0, -a) if isinstance(a, int) else 0, max(0, -b) if isinstance(b, int) else 0) for a, b in zip(low, high)]
    for axis, (start, end) in enumerate(less):
        if start or end:
            x = part(x, axis, start, x.shape[axis] - end)
    low = tuple(a if isinstance(a, Dim) else max(a, 0) for a in low)
    high = tuple(b if isinstance(b, Dim) else max(b, 0) for b in high)
    if not x.dtype.is_floating_point:
        value = bool(value) if x.dtype.name == "bool" else int(value)
    return ops.pad(x, low, high, value) if any(size != 0 for size in (*low, *high)) else x


def _mirrored(x: Value, axis: int, low: int, high: int, mode: str) -> Value:
    size = int(x.shape[axis])
    if not low and not high:
        return x
    places = np.arange(-low, size + high)
    if mode == "edge":
        places = places.clip(0, size - 1)
    elif mode == "wrap":
        places = places % size
    elif mode == "reflect":
        places = np.abs((places + size - 1) % max(2 * (size - 1), 1) - (size - 1)) if size > 1 else places * 0
    else:
        raise BadModel(f"padding in the mode {mode!r}", expected="constant, reflect, edge or wrap")
    return take(x, places, axis)


@reads("CenterCropPad")
def _center_crop_pad(c: Call) -> Value:
    x = c[0]
    axes = c.axes(9) or tuple(range(x.ndim))
    low, high = [0] * x.ndim, [0] * x.ndim
    for axis, size in zip(axes, c.sizes(1), strict=True):
        more = size - x.shape[axis]
        half = abs(more) // 2
        low[axis], high[axis] = (half, more - half) if more >= 0 else (-half, more + half)
    return padded(x, low, high, 0)


@reads("DepthToSpace", "SpaceToDepth")
def _blocks(c: Call) -> Value:
    x, block = c[0], c.int("blocksize")
    n, channels, rows, columns = x.shape
    by_depth = c.text("mode", "DCR") == "DCR"
    if c.op_type == "SpaceToDepth":
        split = ops.reshape(x, (n, channels, rows // block, block, columns // block, block))
        moved = ops.permute(split, (0, 3, 5, 1, 2, 4) if by_depth else (0, 1, 3, 5, 2, 4))
        return ops.reshape(moved, (n, channels * block * block, rows // block, columns // block))
    out = channels // (block * block)
    if by_depth:
        moved = ops.permute(ops.reshape(x, (n, block, block, out, rows, columns)), (0, 3, 4, 1, 5, 2))
    else:
        moved = ops.permute(ops.reshape(x, (n, out, block, block, rows, columns)), (0, 1, 4, 2, 5, 3))
    return ops.reshape(moved, (n, out, rows * block, columns * block))


@reads("Trilu")
def _trilu(c: Call) -> Value:
    x = c[0]
    rows, columns = (ops.iota(shape=tuple(x.shape), axis=x.ndim - n, dtype=int64, like=x) for n in (2, 1))
    k = ops.reshape(c[1], ()) if c.has(1) else 0
    inside = ops.ge(columns - rows, k) if c.int("upper", 1) else ops.le(columns - rows, k)
    return ops.where(inside, x, ops.zeros_like(x))


@reads("ReverseSequence")
def _reverse_sequence(c: Call) -> Value:
    """The first elements of each sequence backwards, the others as they are."""
    x, lengths = c[0], c[1]
    batch, time = c.axis(1, name="batch_axis"), c.axis(0, name="time_axis")
    shape = tuple(x.shape)
    places = ops.iota(shape=shape, axis=time, dtype=int64, like=x)
    lengths = ops.reshape(lengths, tuple(n if i == batch else 1 for i, n in enumerate(shape)))
    return ops.gather(x, ops.where(places < lengths, lengths - 1 - places, places), time)


@reads("Col2Im")
def _col2im(c: Call) -> Value:
    """Windows put back where they come from, and added up."""
    x = c[0]
    image, block = c.sizes(1), c.sizes(2)
    n = len(image)
    dilations, strides = c.ints("dilations", (1,) * n), c.ints("strides", (1,) * n)
    pads = c.ints("pads", (0,) * (2 * n))
    whole = [size + pads[i] + pads[i + n] for i, size in enumerate(image)]
    counts = [(whole[i] - dilations[i] * (block[i] - 1) - 1) // strides[i] + 1 for i in range(n)]
    channels = x.shape[1] // math.prod(block)
    x = ops.reshape(x, (x.shape[0], channels, *block, *counts))
    x = ops.permute(x, (0, 1, *range(2 + n, 2 + 2 * n), *range(2, 2 + n)))
    for i in reversed(range(n)):
        x = ops.fold(x, 2 + i, whole[i], strides[i], dilations[i])
    return padded(x, [0, 0, *(-pads[i] for i in range(n))], [0, 0, *(-pads[i + n] for i in range(n))], 0)
