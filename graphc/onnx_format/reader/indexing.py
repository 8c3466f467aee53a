"""Operators that go by indices, which are data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import graphc.ops as ops
from graphc.ir import Value
from graphc.onnx_format.reader.call import Call, from_front, take
from graphc.onnx_format.reader.elementwise import converted
from graphc.onnx_format.reader.limits import BadModel
from graphc.onnx_format.reader.scope import needs
from graphc.onnx_format.reader.table import reads
from graphc.types import TensorType, int64


@reads("Gather")
def _gather(c: Call) -> Value:
    x, axis = c[0], c.axis(0)
    index, shape = c[1], c.shape(1)
    flat = ops.reshape(converted(index, int64), (math.prod(shape),))
    found = take(x, from_front(flat, x.shape[axis]), axis)
    return ops.reshape(found, (*x.shape[:axis], *shape, *x.shape[axis + 1 :]))


@reads("GatherElements")
def _gather_elements(c: Call) -> Value:
    x, axis = c[0], c.axis(0)
    return ops.gather(x, from_front(converted(c[1], int64), x.shape[axis]), axis)


_REDUCTIONS = {
    "none": ops.scatter_update, "add": ops.scatter_add, "mul": ops.scatter_mul, "max": ops.scatter_max, "min": ops.scatter_min,
}  # fmt: skip


def _scatter_by(c: Call) -> Any:
    scatter = _REDUCTIONS.get(c.text("reduction", "none"))
    if scatter is None:
        raise BadModel("a reduction", expected=", ".join(_REDUCTIONS), got=c.text("reduction"))
    return scatter


@reads("ScatterElements", "Scatter")
def _scatter_elements(c: Call) -> Value:
    x, axis = c[0], c.axis(0)
    return _scatter_by(c)(x, from_front(converted(c[1], int64), x.shape[axis]), c[2], axis)


def _linear(index: Value, shape: Any) -> Value:
    """Tuples of places, in the last dimension, as places in the dimensions taken as one."""
    total = None
    for k, size in enumerate(shape):
        starts = (*(0 for _ in index.shape[:-1]), k)
        place = ops.slice(index, starts, (*index.shape[:-1], k + 1), (1,) * index.ndim)
        place = from_front(ops.reshape(place, tuple(index.shape[:-1])), size)
        total = place if total is None else total * size + place
    return ops.full(TensorType(int64, tuple(index.shape[:-1])), 0, index) if total is None else total


@reads("GatherND")
def _gather_nd(c: Call) -> Value:
    x, index = c[0], converted(c[1], int64)
    batch, depth = c.int("batch_dims", 0), int(index.shape[-1])
    lead, indexed, rest = x.shape[:batch], x.shape[batch : batch + depth], x.shape[batch + depth :]
    many, each = math.prod(lead), math.prod(rest)
    places = ops.reshape(_linear(index, indexed), (many, math.prod(index.shape[batch:-1]), 1))
    flat = ops.reshape(x, (many, math.prod(indexed), each))
    found = ops.gather(flat, ops.broadcast_to(places, (*places.shape[:2], each)), 1)
    return ops.reshape(found, (*index.shape[:-1], *rest))


@reads("ScatterND")
def _scatter_nd(c: Call) -> Value:
    x, index, updates = c[0], converted(c[1], int64), c[2]
    depth = int(index.shape[-1])
    indexed, rest = x.shape[:depth], x.shape[depth:]
    each = math.prod(rest)
    places = ops.reshape(_linear(index, indexed), (math.prod(index.shape[:-1]), 1))
    flat, new = ops.reshape(x, (math.prod(indexed), each)), ops.reshape(updates, (places.shape[0], each))
    out = _scatter_by(c)(flat, ops.broadcast_to(places, (places.shape[0], each)), new, 0)
    return ops.reshape(out, tuple(x.shape))


@reads("OneHot")
def _one_hot(c: Call) -> Value:
    index, depth = converted(c[0], int64), c.number(1)
    ndim = index.ndim + 1
    axis = c.axis(-1, ndim)
    depth = int(depth)
    shape = (*index.shape[:axis], depth, *index.shape[axis:])
    places = ops.reshape(from_front(index, depth), (*index.shape[:axis], 1, *index.shape[axis:]))
    hot = ops.eq(ops.iota(shape=shape, axis=axis, dtype=int64, like=index), places)
    values = c[2]
    off, on = (ops.reshape(ops.slice(values, (k,), (k + 1,), (1,)), ()) for k in (0, 1))
    return ops.where(hot, on, off)


@reads("TensorScatter")
def _tensor_scatter(c: Call) -> Value:
    """New rows written into a cache from a place on, for each sequence of the batch; around its end where it is circular."""
    cache, new = c[0], c[1]
    axis = c.axis(-2, cache.ndim)
    starts = converted(c[2], int64) if c.has(2) else ops.full(TensorType(int64, (cache.shape[0],)), 0, cache)
    shape = tuple(new.shape)
    places = ops.iota(shape=shape, axis=axis, dtype=int64, like=cache) + ops.reshape(
        starts, (shape[0], *(1 for _ in shape[1:])))
    if c.text("mode", "linear") == "circular":
        places = ops.remainder(places, cache.shape[axis])
    return ops.scatter_update(cache, places, new, axis)


# What has as many results as the data say: of numbers that are known


def _data(c: Call, i: int) -> np.ndarray:
    found = c.known(i)
    if found is None or found.dtype == object:
        raise needs(c.names[i], f"operand {i} of {c.op_type} decides on the size of the result")
    return found


@reads("NonZero")
def _non_zero(c: Call) -> np.ndarray:
    return np.array(np.nonzero(np.atleast_1d(_data(c, 0))), np.int64)


@reads("Compress")
def _compress(c: Call) -> Value:
    condition = _data(c, 1)
    x = c[0]
    if c.int("axis") is None:
        return take(ops.reshape(x, (math.prod(x.shape),)), np.flatnonzero(condition), 0)
    return take(x, np.flatnonzero(condition), c.axis(0))


@reads("Unique")
def _unique(c: Call) -> Any:
    x, axis = _data(c, 0), c.int("axis")
    values, first, inverse, counts = np.unique(x, True, True, True, axis=axis)
    if not c.int("sorted", 1):
        order = np.argsort(first)
        values = np.take(values, order, 0 if axis is None else axis)
        first, counts, inverse = first[order], counts[order], np.argsort(order)[inverse]
    return values, first.astype(np.int64), inverse.reshape(-1).astype(np.int64), counts.astype(np.int64)


