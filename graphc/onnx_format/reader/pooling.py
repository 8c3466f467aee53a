"""Pooling: what is made of windows that move over an image."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import graphc.ops as ops
from graphc.ir import Value
from graphc.onnx_format.reader.call import Call
from graphc.onnx_format.reader.elementwise import converted
from graphc.onnx_format.reader.limits import BadModel
from graphc.onnx_format.reader.movement import padded
from graphc.onnx_format.reader.products import spatial
from graphc.onnx_format.reader.reductions import keep
from graphc.onnx_format.reader.table import reads
from graphc.types import Size, int64


class Windows:
    """Where the windows of a pooling lie."""

    def __init__(self, c: Call) -> None:
        shape = c.shape(0)
        kernel = c.ints("kernel_shape")
        if kernel is None or len(kernel) != len(shape) - 2 or min(kernel, default=0) < 1:
            raise BadModel("kernel_shape", expected=f"{len(shape) - 2} sizes", got=str(kernel))
        found = spatial(c, kernel, shape[2:])
        self.kernel, self.strides, self.dilations = kernel, found["stride"], found["dilation"]
        self.padding: tuple[tuple[int, int], ...] = found["padding"]
        self.more: tuple[Size, ...] = (0,) * len(kernel)
        """What is added at the end for the windows that reach beyond it."""
        if c.int("ceil_mode", 0):
            self.more = tuple(self._beyond(i, size) for i, size in enumerate(shape[2:]))

    def _beyond(self, i: int, size: Size) -> Size:
        low, high = self.padding[i]
        stride = self.strides[i]
        room = size + low + high - self.dilations[i] * (self.kernel[i] - 1) - 1
        count = -(-room // stride) + 1
        if (count - 1) * stride >= size + low:  # a window has to begin inside
            count = count - 1
        return max(0, (count - 1) * stride - room)

    def of(self, x: Value, around: Any, beyond: Any = None) -> Value:
        """The windows, [N, C, *places, *kernel], with numbers around the image, and others beyond what is padded."""
        x = padded(x, [0, 0, *(low for low, _ in self.padding)], [0, 0, *(high for _, high in self.padding)], around)
        x = padded(x, [0] * x.ndim, [0, 0, *self.more], around if beyond is None else beyond)
        for i, size in enumerate(self.kernel):
            x = ops.window(x, 2 + i, size, self.strides[i], self.dilations[i])
        return x

    @property
    def axes(self) -> tuple[int, ...]:
        n = len(self.kernel)
        return tuple(range(2 + n, 2 + 2 * n))


@reads("MaxPool")
def _max_pool(c: Call) -> Any:
    x, windows = c[0], Windows(c)
    least = -math.inf if x.dtype.is_floating_point else int(np.iinfo(x.dtype.numpy).min)
    seen = windows.of(x, least)
    if c.outputs < 2:
        return ops.amax(seen, windows.axes)
    flat = ops.reshape(seen, (*seen.shape[: 2 + len(windows.kernel)], math.prod(windows.kernel)))
    place = keep(ops.argmax(flat, flat.ndim - 1), flat, (flat.ndim - 1,))
    n, channels, *image = map(int, x.shape)
    within = np.arange(math.prod(image)).reshape(image, order="F" if c.int("storage_order", 0) else "C")
    numbers = np.arange(n * channels).reshape(n, channels, *(1 for _ in image)) * math.prod(image) + within
    numbered = windows.of(x.builder.lift(numbers), 0)  # type: ignore[union-attr]
    index = ops.gather(ops.reshape(numbered, tuple(flat.shape)), place, flat.ndim - 1)
    shape = tuple(flat.shape[:-1])
    return ops.reshape(ops.gather(flat, place, flat.ndim - 1), shape), ops.reshape(index, shape)


@reads("AveragePool")
def _average_pool(c: Call) -> Value:
    x, windows = c[0], Windows(c)
    total = ops.sum(windows.of(x, 0), windows.axes)
    inside = bool(c.int("count_include_pad", 0))
    if not any(windows.more) and (inside or not any(map(any, windows.padding))):
        return total / math.prod(windows.kernel)
    ones = ops.full(x.type.with_shape((1, 1, *x.shape[2:])), 1, x)
    return total / ops.sum(windows.of(ones, int(inside), 0), windows.axes)


@reads("LpPool")
def _lp_pool(c: Call) -> Value:
    x, windows, p = c[0], Windows(c), c.int("p", 2)
    return _root(ops.sum(_power(windows.of(x, 0), p), windows.axes), p)


def _power(x: Value, p: int) -> Value:
    return x * x if p == 2 else ops.abs(x) if p == 1 else ops.pow(ops.abs(x), float(p))


def _root(x: Value, p: int) -> Value:
    return ops.sqrt(x) if p == 2 else x if p == 1 else ops.pow(x, 1 / p)


@reads("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def _global_pool(c: Call) -> Value:
    x = c[0]
    axes = tuple(range(2, x.ndim))
    if c.op_type == "GlobalMaxPool":
        return keep(ops.amax(x, axes), x, axes)
    if c.op_type == "GlobalLpPool":
        return keep(_root(ops.sum(_power(x, c.int("p", 2)), axes), c.int("p", 2)), x, axes)
    return keep(ops.sum(x, axes), x, axes) / math.prod(x.shape[2:])


@reads("MaxUnpool")
def _max_unpool(c: Call) -> Value:
    """Numbers put back to where MaxPool found them, zeros elsewhere."""
    x, index = c[0], converted(c[1], int64)
    kernel = c.ints("kernel_shape")
    n = len(kernel)
    strides, pads = c.ints("strides", (1,) * n), c.ints("pads", (0,) * (2 * n))
    own = (*x.shape[:2], *((size - 1) * strides[i] + kernel[i] - pads[i] - pads[i + n] for i, size in enumerate(x.shape[2:])))
    shape = c.sizes(2) if c.has(2) else own
    if shape != own:  # places are those of the image without what is added at its end
        places = [index]
        for size in reversed(own[1:]):
            first = places.pop(0)
            places = [ops.floor_divide(first, size), ops.remainder(first, size), *places]
        index = places[0]
        for place, size in zip(places[1:], shape[1:]):
            index = index * size + place
    flat = ops.full(x.type.with_shape((math.prod(shape),)), 0, x)
    count = math.prod(x.shape)
    return ops.reshape(ops.scatter_update(flat, ops.reshape(index, (count,)), ops.reshape(x, (count,)), 0), tuple(shape))


@reads("LRN")
def _local_response(c: Call) -> Value:
    """Krizhevsky, Sutskever, Hinton 2012: "ImageNet classification with deep convolutional neural networks", section 3.3."""
    x, size = c[0], c.int("size")
    low = (size - 1) // 2
    squares = padded(x * x, [0, low, *(0 for _ in x.shape[2:])], [0, size - 1 - low, *(0 for _ in x.shape[2:])], 0)
    total = ops.sum(ops.window(squares, 1, size, 1, 1), (x.ndim,))
    return x / ops.pow(total * (c.float("alpha", 0.0001) / size) + c.float("bias", 1.0), c.float("beta", 0.75))
