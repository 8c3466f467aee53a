"""Reductions, running sums and sorting as ONNX nodes."""

from __future__ import annotations

from typing import Any

import numpy as np

import graphc.ops as ops
from graphc.expression import identity
from graphc.ir import Builder, Graph
from graphc.onnx_format.export.table import expands, writes
from graphc.onnx_format.export.writer import Step, Writer
from graphc.types import DType, TensorType, bool_, int32, int64

REDUCE = {"sum": "ReduceSum", "amax": "ReduceMax", "amin": "ReduceMin", "prod": "ReduceProd"}
_NARROW = ("bool", "int8", "int16", "uint8", "uint16")
"""Dtypes that reductions are not defined for in all versions."""


def reduce(w: Writer, step: Step, keepdims: bool) -> str:
    """A reduction that leaves sizes of 1, or none, where dimensions have been."""
    name = step.op.name
    axes = (step.attrs["axis"],) if name == "prod" else step.attrs["axes"]
    x = step.names[0]
    if not axes:
        return x
    wide = int64 if step.dtype.name in _NARROW and step.dtype is not bool_ else int32 if step.dtype is bool_ else None
    if wide is not None:
        x = w.cast(x, wide)
    x = w.emit(REDUCE[name], x, w.array(np.array(axes, np.int64)), keepdims=int(keepdims))
    return x if wide is None else w.cast(x, step.type.dtype)


@writes(*REDUCE)
def _reduce(w: Writer, step: Step) -> str:
    return reduce(w, step, keepdims=False)


@writes("argmax", "argmin")
def _place_of_extreme(w: Writer, step: Step) -> str:
    x = step.names[0] if step.dtype.name not in _NARROW else w.cast(step.names[0], int32)
    return str(w.emit("ArgMax" if step.op.name == "argmax" else "ArgMin", x, axis=step.attrs["axis"], keepdims=0))


@writes("cumsum")
def _cumsum(w: Writer, step: Step) -> str:
    narrow = step.dtype.name in _NARROW
    x = w.cast(step.names[0], int64) if narrow else step.names[0]
    total = w.emit("CumSum", x, w.number(step.attrs["axis"], int64))
    return w.cast(total, step.dtype) if narrow else str(total)


@writes("argsort", "argtopk")
def _argsort(w: Writer, step: Step) -> str:
    axis = step.attrs["axis"]
    x = step.names[0] if step.dtype.name not in _NARROW else w.cast(step.names[0], int32)
    size = w.size(step.type.shape[axis])
    _, order = w.emit("TopK", x, size, outputs=2, axis=axis, largest=int(step.attrs["descending"]), sorted=1)
    return str(order)


def running(step: Any, start: float, *xs: Any, axis: int, dtype: DType | None = None) -> Any:
    """What `step(state, *elements)` carries along a dimension of some tensors, after each element."""
    first = xs[0]
    order = (axis, *(i for i in range(first.ndim) if i != axis))
    back = tuple(sorted(range(first.ndim), key=order.__getitem__))
    rows = [ops.permute(x, order) for x in xs]
    carry = TensorType(dtype or first.dtype, rows[0].shape[1:])
    body = _body(step, carry, [TensorType(r.dtype, r.shape[1:]) for r in rows])
    _, out = ops.scan(ops.full(carry, start, first), *rows, body=body, carries=1, scanned=len(rows), length=rows[0].shape[0],
                      reverse=False)
    return ops.permute(out, back)


def _body(step: Any, carry: TensorType, rows: list[TensorType]) -> Graph:
    builder = Builder("step", locations=False)
    state = builder.input(None, carry)
    new = step(state, *(builder.input(None, row) for row in rows))
    return builder.finish([new, new])


@expands("cumprod")
def _cumprod(x: Any, axis: int) -> Any:
    return running(lambda state, x: state * x, 1, x, axis=axis)


@expands("cummax")
def _cummax(x: Any, axis: int) -> Any:
    return running(ops.maximum, identity("max", x.dtype), x, axis=axis)


@expands("cummin")
def _cummin(x: Any, axis: int) -> Any:
    return running(ops.minimum, identity("min", x.dtype), x, axis=axis)


@expands("linear_recurrence")
def _linear_recurrence(a: Any, b: Any, axis: int) -> Any:
    return running(lambda state, a, b: a * state + b, 0, a, b, axis=axis)


@expands("logcumsumexp")
def _logcumsumexp(x: Any, axis: int) -> Any:
    return running(ops.logaddexp, -np.inf, x, axis=axis)


def _place_so_far(x: Any, axis: int, precedes: Any) -> Any:
    """The place of the extreme so far, the last one of equals; nan stays it from where it comes on."""
    order = (axis, *(i for i in range(x.ndim) if i != axis))
    back = tuple(sorted(range(x.ndim), key=order.__getitem__))
    rows = ops.permute(x, order)
    row = TensorType(x.dtype, rows.shape[1:])
    places = ops.iota(shape=tuple(rows.shape), axis=0, dtype=int64, like=x)
    builder = Builder("step", locations=False)
    best, place = builder.input(None, row), builder.input(None, row.with_dtype(int64))
    new, here = builder.input(None, row), builder.input(None, row.with_dtype(int64))
    chosen = precedes(new, best) | ops.ne(new, new) | ops.eq(here, 0)
    body = builder.finish([ops.where(chosen, new, best), (at := ops.where(chosen, here, place)), at])
    start = ops.full(row, 0, x), ops.full(row.with_dtype(int64), 0, x)
    *_, out = ops.scan(*start, rows, places, body=body, carries=2, scanned=2, length=rows.shape[0], reverse=False)
    return ops.permute(out, back)


@expands("argcummax")
def _argcummax(x: Any, axis: int) -> Any:
    return _place_so_far(x, axis, ops.ge)


@expands("argcummin")
def _argcummin(x: Any, axis: int) -> Any:
    return _place_so_far(x, axis, ops.le)


@expands("searchsorted")
def _searchsorted(sequence: Any, values: Any, right: bool) -> Any:
    """How many elements of the sequence are less than each value, or no greater."""
    if sequence.ndim == 1:
        shape = (*values.shape, sequence.shape[0])
        row = ops.broadcast_to(sequence, shape)
    else:
        shape = (*values.shape, sequence.shape[-1])
        row = ops.broadcast_to(ops.reshape(sequence, (*sequence.shape[:-1], 1, sequence.shape[-1])), shape)
    column = ops.broadcast_to(ops.reshape(values, (*values.shape, 1)), shape)
    before = ops.le(row, column) if right else ops.lt(row, column)
    return ops.sum(ops.cast(before, dtype=int64), (len(shape) - 1,))

