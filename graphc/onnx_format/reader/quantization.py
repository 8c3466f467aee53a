"""Integers that stand for numbers: (q - zero point) * scale."""

from __future__ import annotations

from typing import Any

import numpy as np

import graphc.ops as ops
from graphc.ir import Value
from graphc.onnx_format.protobuf import dtype_of_element
from graphc.onnx_format.reader.call import Call
from graphc.onnx_format.reader.elementwise import converted
from graphc.onnx_format.reader.limits import BadModel
from graphc.onnx_format.reader.products import biased, matmul, spatial
from graphc.onnx_format.reader.table import reads
from graphc.types import DType, float32, int32, uint8


def _placed(c: Call, i: int, like: Value) -> Value | None:
    """A scale or zero point, to be stretched over the numbers that it is for: all, those of an index, or those of a block."""
    if not c.has(i):
        return None
    given = c[i]
    if given.ndim == 0 or (given.ndim == 1 and given.shape[0] == 1 and like.ndim != 1):
        return ops.reshape(given, ())
    axis = c.axis(1, like.ndim)
    if given.ndim == 1 and like.ndim > 0 and not c.int("block_size", 0):
        return ops.reshape(given, tuple(given.shape[0] if k == axis else 1 for k in range(like.ndim)))
    block = c.int("block_size", 0)
    if given.ndim != like.ndim or block < 1:
        raise BadModel("a scale that is neither one number, nor one for each index or block", got=str(given.type))
    lead, rest = tuple(given.shape[: axis + 1]), tuple(given.shape[axis + 1 :])
    wide = ops.broadcast_to(ops.reshape(given, (*lead, 1, *rest)), (*lead, block, *rest))
    wide = ops.reshape(wide, (*lead[:-1], lead[-1] * block, *rest))
    return ops.slice(wide, (0,) * like.ndim, tuple(like.shape), (1,) * like.ndim)


def _saturated(x: Value, dtype: DType) -> Value:
    """Rounded already, cut off at what the dtype holds, and converted."""
    if dtype.kind not in ("int", "uint"):
        raise BadModel(f"numbers quantised to {dtype.name}", expected="an integer dtype")
    info = np.iinfo(dtype.numpy)
    return ops.cast(ops.minimum(ops.maximum(x, float(info.min)), float(info.max)), dtype=dtype)


def quantized(x: Value, scale: Value, zero: Value | None, dtype: DType) -> Value:
    whole = ops.round(x / scale)
    return _saturated(whole if zero is None else whole + converted(zero, whole.dtype), dtype)


@reads("QuantizeLinear")
def _quantize(c: Call) -> Value:
    x, scale, zero = c[0], _placed(c, 1, c[0]), _placed(c, 2, c[0])
    assert scale is not None
    chosen = c.int("output_dtype", 0)
    dtype = zero.dtype if zero is not None else dtype_of_element(chosen) if chosen else uint8
    x = x if x.dtype is float32 or x.dtype.bits > 32 else ops.cast(x, dtype=float32)
    return quantized(x, converted(scale, x.dtype), zero, dtype)


@reads("DequantizeLinear")
def _dequantize(c: Call) -> Value:
    x, scale, zero = c[0], _placed(c, 1, c[0]), _placed(c, 2, c[0])
    assert scale is not None
    chosen = c.int("output_dtype", 0)
    dtype = dtype_of_element(chosen) if chosen else scale.dtype
    wide = ops.cast(x, dtype=float32)
    wide = wide if zero is None else wide - converted(zero, float32)
    return converted(wide * converted(scale, float32), dtype)


# Products of quantised numbers


def _exact(c: Call, i: int, zero: Any, along: int | None = None) -> Value:
    """A quantised operand less its zero point, in int32; one zero point for each row or column where there are several."""
    x = ops.cast(c[i], dtype=int32)
    if zero is None:
        return x
    zero = ops.cast(zero, dtype=int32)
    return x - _along(zero, x, along)


def _along(vector: Value, x: Value, axis: int | None) -> Value:
    """One number, or as many as the dimension has."""
    if vector.ndim == 0 or (vector.ndim == 1 and vector.shape[0] == 1):
        return ops.reshape(vector, ())
    if vector.ndim != 1 or axis is None:
        return vector
    return ops.reshape(vector, tuple(vector.shape[0] if i == axis % x.ndim else 1 for i in range(x.ndim)))


@reads("MatMulInteger")
def _matmul_integer(c: Call) -> Value:
    return matmul(_exact(c, 0, c.optional(2), -2), _exact(c, 1, c.optional(3), -1))


@reads("ConvInteger")
def _conv_integer(c: Call) -> Value:
    x, w = _exact(c, 0, c.optional(2)), _exact(c, 1, c.optional(3), 0)
    return ops.conv(x, w, groups=c.int("group", 1), **spatial(c, tuple(w.shape[2:]), x.shape[2:]))


def _requantized(c: Call, total: Value, scales: tuple[Value, Value], i: int) -> Value:
    """An exact product in the scale and zero point of the result, which are operands i and i + 1."""
    left, right = (converted(s, float32) for s in scales)
    zero = c[i + 1]
    whole = ops.round(ops.cast(total, dtype=float32) * (left * right / converted(_along(c[i], total, None), float32)))
    return _saturated(whole + ops.cast(ops.reshape(zero, ()) if zero.ndim < 2 else zero, dtype=float32), zero.dtype)


@reads("QLinearMatMul")
def _quantized_matmul(c: Call) -> Value:
    total = matmul(_exact(c, 0, c[2], -2), _exact(c, 3, c[5], -1))
    return _requantized(c, total, (_along(c[1], total, -2), _along(c[4], total, -1)), 6)


@reads("QLinearConv")
def _quantized_conv(c: Call) -> Value:
    x, w = _exact(c, 0, c[2]), _exact(c, 3, c[5], 0)
    total = ops.conv(x, w, groups=c.int("group", 1), **spatial(c, tuple(w.shape[2:]), x.shape[2:]))
    total = biased(total, ops.cast(c[8], dtype=int32) if c.has(8) else None)
    return _requantized(c, total, (_along(c[1], total, None), _along(c[4], total, 1)), 6)
