"""Norms."""

from __future__ import annotations

import math
from typing import Any

import graphc.ops as ops
from graphc.ir import Value
from graphc.onnx_format.protobuf import dtype_of_element
from graphc.onnx_format.reader.call import Call
from graphc.onnx_format.reader.elementwise import converted
from graphc.onnx_format.reader.limits import BadModel
from graphc.onnx_format.reader.reductions import mean
from graphc.onnx_format.reader.table import reads


def _of_channels(vector: Value, ndim: int) -> Value:
    return ops.reshape(vector, (1, vector.shape[0], *(1 for _ in range(ndim - 2))))


@reads("BatchNormalization")
def _batch_norm(c: Call) -> Any:
    x, scale, bias = c[0], c[1], c[2]
    running, spread = (c.value(i, "buffer") for i in (3, 4))
    epsilon, momentum = c.float("epsilon", 1e-5), c.float("momentum", 0.9)
    results: tuple[Any, ...] = ()
    average, variance = running, spread
    if c.int("training_mode", 0):
        axes = (0, *range(2, x.ndim))
        middle = mean(converted(x, running.dtype), axes)
        centered = converted(x, running.dtype) - middle
        average = ops.reshape(middle, tuple(running.shape))
        variance = ops.reshape(mean(centered * centered, axes), tuple(spread.shape))
        results = (running * momentum + average * (1 - momentum), spread * momentum + variance * (1 - momentum))
    wide = x if x.dtype.bits >= average.dtype.bits else converted(x, average.dtype)
    factor = ops.rsqrt(_of_channels(variance, x.ndim) + epsilon) * converted(_of_channels(scale, x.ndim), variance.dtype)
    out = (wide - _of_channels(average, x.ndim)) * factor + converted(_of_channels(bias, x.ndim), variance.dtype)
    return (converted(out, x.dtype), *results) if results else converted(out, x.dtype)


def _normalized(x: Value, axes: tuple[int, ...], epsilon: float) -> tuple[Value, Value, Value]:
    """Less the mean and over the deviation; these two."""
    middle = mean(x, axes)
    centered = x - middle
    inverse = ops.rsqrt(mean(centered * centered, axes) + epsilon)
    return centered * inverse, middle, inverse


@reads("InstanceNormalization")
def _instance_norm(c: Call) -> Value:
    x = c[0]
    out, _, _ = _normalized(x, tuple(range(2, x.ndim)), c.float("epsilon", 1e-5))
    return out * _of_channels(c[1], x.ndim) + _of_channels(c[2], x.ndim)


@reads("LayerNormalization")
def _layer_norm(c: Call) -> tuple[Value, Value, Value]:
    x, axis = c[0], c.axis(-1)
    wide = converted(x, dtype_of_element(c.int("stash_type", 1))) if x.dtype.bits < 32 else x
    out, middle, inverse = _normalized(wide, tuple(range(axis, x.ndim)), c.float("epsilon", 1e-5))
    out = converted(out, x.dtype) * c[1]
    return (out + c[2] if c.has(2) else out), middle, inverse


@reads("RMSNormalization")
def _rms_norm(c: Call) -> Value:
    x, axis = c[0], c.axis(-1)
    wide = converted(x, dtype_of_element(c.int("stash_type", 1))) if x.dtype.bits < 32 else x
    axes = tuple(range(axis, x.ndim))
    return converted(wide * ops.rsqrt(mean(wide * wide, axes) + c.float("epsilon", 1e-5)), x.dtype) * c[1]


@reads("GroupNormalization")
def _group_norm(c: Call) -> Value:
    x, groups = c[0], c.int("num_groups")
    n, channels, *image = x.shape
    if not groups or channels % groups:
        raise BadModel(f"{channels} channels in {groups} groups")
    split = ops.reshape(x, (n, groups, channels // groups * math.prod(image)))
    out, _, _ = _normalized(split, (2,), c.float("epsilon", 1e-5))
    if c.opset >= 21:
        out = ops.reshape(out, tuple(x.shape))
        return out * _of_channels(c[1], x.ndim) + _of_channels(c[2], x.ndim)
    # numbers for each group
    shaped = ops.reshape(out, (n, groups, channels // groups * math.prod(image)))
    shaped = shaped * _of_channels(c[1], 3) + _of_channels(c[2], 3)
    return ops.reshape(shaped, tuple(x.shape))
