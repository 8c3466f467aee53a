"""Operators that make one number of many, and those that go along a dimension."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import graphc.ops as ops
from graphc.ir import Value
from graphc.onnx_format.reader.call import Call, part
from graphc.onnx_format.reader.elementwise import converted
from graphc.onnx_format.reader.limits import BadModel
from graphc.onnx_format.reader.table import reads
from graphc.types import bool_, int64

_EMPTY = {"ReduceMax": -math.inf, "ReduceMin": math.inf}


def mean(x: Value, axes: tuple[int, ...]) -> Value:
    """The mean over some dimensions, which stay as sizes of 1."""
    count = math.prod(x.shape[i] for i in axes)
    return keep(ops.sum(x, axes), x, axes) / count


def keep(reduced: Value, x: Value, axes: tuple[int, ...]) -> Value:
    return ops.keepdims(reduced, tuple(x.shape), axes)


def product(x: Value, axes: tuple[int, ...]) -> Value:
    for axis in sorted(axes, reverse=True):
        x = ops.prod(x, axis)
    return x


def _log_sum_exp(x: Value, axes: tuple[int, ...]) -> Value:
    if any(x.shape[i] == 0 for i in axes):
        return ops.log(ops.sum(x, axes))
    top = ops.amax(x, axes)
    top = ops.where(ops.eq(ops.abs(top), math.inf), 0, top)
    return ops.log(ops.sum(ops.exp(x - keep(top, x, axes)), axes)) + top


def _extreme(c: Call, x: Value, axes: tuple[int, ...]) -> Value:
    if any(x.shape[i] == 0 for i in axes):
        shape = tuple(n for i, n in enumerate(x.shape) if i not in axes)
        bounds: Any = _EMPTY[c.op_type]
        if x.dtype is bool_:
            bounds = c.op_type == "ReduceMin"
        elif not x.dtype.is_floating_point:
            info = np.iinfo(x.dtype.numpy)
            bounds = info.min if c.op_type == "ReduceMax" else info.max
        return ops.full(x.type.with_shape(shape), bounds, x)
    return (ops.amax if c.op_type == "ReduceMax" else ops.amin)(x, axes)


@reads("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum",
       "ReduceLogSumExp", "ReduceSumSquare")
def _reduce(c: Call) -> Value:
    x, axes = c[0], c.axes(1)
    if not axes:
        axes = () if c.int("noop_with_empty_axes", 0) else tuple(range(x.ndim))
    match c.op_type:
        case "ReduceSum":
            out = ops.sum(x, axes)
        case "ReduceMean":
            total = ops.sum(x, axes)
            out = total / math.prod(x.shape[i] for i in axes)
            if not x.dtype.is_floating_point:
                out = ops.cast(ops.trunc(out), dtype=x.dtype)
        case "ReduceMax" | "ReduceMin":
            out = _extreme(c, x, axes)
        case "ReduceProd":
            out = product(x, axes)
        case "ReduceL1":
            out = ops.sum(ops.abs(x), axes)
        case "ReduceL2":
            out = converted(ops.sqrt(ops.sum(x * x, axes)), x.dtype)
        case "ReduceLogSum":
            out = converted(ops.log(ops.sum(x, axes)), x.dtype)
        case "ReduceLogSumExp":
            out = _log_sum_exp(x, axes)
        case _:
            out = ops.sum(x * x, axes)
    return keep(out, x, axes) if c.int("keepdims", 1) and axes else out


@reads("ArgMax", "ArgMin")
def _place(c: Call) -> Value:
    x, axis = c[0], c.axis(0)
    find = ops.argmax if c.op_type == "ArgMax" else ops.argmin
    if c.int("select_last_index", 0):
        place = x.shape[axis] - 1 - find(ops.flip(x, (axis,)), axis)
    else:
        place = find(x, axis)
    return keep(place, x, (axis,)) if c.int("keepdims", 1) else place


# Softmax


def log_softmax(x: Value, axis: int) -> Value:
    shifted = x - keep(ops.amax(x, (axis,)), x, (axis,))
    return shifted - keep(ops.log(ops.sum(ops.exp(shifted), (axis,))), x, (axis,))


def softmax(x: Value, axis: int) -> Value:
    powers = ops.exp(x - keep(ops.amax(x, (axis,)), x, (axis,)))
    return powers / keep(ops.sum(powers, (axis,)), x, (axis,))


def _hardmax(x: Value, axis: int) -> Value:
    place = keep(ops.argmax(x, axis), x, (axis,))
    return ops.cast(ops.eq(ops.iota(shape=tuple(x.shape), axis=axis, dtype=int64, like=x), place), dtype=x.dtype)


@reads("Softmax", "LogSoftmax", "Hardmax")
def _softmax(c: Call) -> Value:
    """Before version 13 over all dimensions from one on, as if they were one."""
    x = c[0]
    function = {"Softmax": softmax, "LogSoftmax": log_softmax, "Hardmax": _hardmax}[c.op_type]
    if x.ndim == 0:
        raise BadModel("softmax of a number without dimensions")
    if c.opset >= 13:
        return function(x, c.axis(-1))
    axis = c.axis(1)
    flat = ops.reshape(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))
    return ops.reshape(function(flat, 1), tuple(x.shape))


# Running totals, order


@reads("CumSum", "CumProd")
def _cumulative(c: Call) -> Value:
    x, axis = c[0], c.checked_axis(c.number(1), len(c.shape(0)))
    run, first = (ops.cumsum, 0) if c.op_type == "CumSum" else (ops.cumprod, 1)
    if c.int("reverse", 0):
        x = ops.flip(x, (axis,))
    out = run(x, axis)
    if c.int("exclusive", 0):
        low = tuple(int(i == axis) for i in range(x.ndim))
        out = part(ops.pad(out, low, (0,) * x.ndim, first), axis, 0, x.shape[axis])
    return ops.flip(out, (axis,)) if c.int("reverse", 0) else out


@reads("TopK")
def _top_k(c: Call) -> tuple[Value, Value]:
    x, axis = c[0], c.axis(-1)
    k = c.number(1) if c.has(1) else c.int("k")
    order = ops.argtopk(x, axis, k, bool(c.int("largest", 1)))
    return ops.gather(x, order, axis), order


@reads("LpNormalization")
def _lp_normalization(c: Call) -> Value:
    x, axis = c[0], c.axis(-1)
    length = ops.sum(ops.abs(x), (axis,)) if c.int("p", 2) == 1 else ops.sqrt(ops.sum(x * x, (axis,)))
    length = keep(length, x, (axis,))
    return x / ops.where(ops.eq(length, 0), 1, length)


@reads("MeanVarianceNormalization")
def _mean_variance(c: Call) -> Value:
    x = c[0]
    axes = c.axes(9, x.ndim) or (0, 2, 3)
    centered = x - mean(x, axes)
    return centered / (ops.sqrt(mean(centered * centered, axes)) + 1e-9)

