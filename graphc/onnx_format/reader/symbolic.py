"""Operators on sizes that are not known yet, while the model is read: shapes are computed in models by nodes like all else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.dims import Dim, decided
from graphc.onnx_format.reader.call import Call
from graphc.onnx_format.reader.scope import known
from graphc.types import bool_

SYMBOLIC: dict[str, Callable[[Call], Any]] = {}
"""What an operator does with arrays of symbolic sizes: the result, or None where it has to be computed when the model runs."""


def _on(*operators: str) -> Callable[[Callable[[Call], Any]], Callable[[Call], Any]]:
    def enter(function: Callable[[Call], Any]) -> Callable[[Call], Any]:
        SYMBOLIC.update(dict.fromkeys(operators, function))
        return function

    return enter


def _arrays(c: Call) -> list[Any]:
    """The operands as arrays of objects."""
    return [c.content(i).astype(object) for i in range(len(c.operands)) if c.has(i)]


def _array(values: Any) -> np.ndarray:
    return np.asarray(values, dtype=object)


@_on("Identity")
def _identity(c: Call) -> Any:
    return c.operands[0]


@_on("Cast")
def _cast(c: Call) -> Any:
    return c.operands[0] if c.int("to") in (6, 7) else None


@_on("Add")
def _add(c: Call) -> Any:
    x, y = _arrays(c)
    return _array(x + y)


@_on("Sub")
def _sub(c: Call) -> Any:
    x, y = _arrays(c)
    return _array(x - y)


@_on("Mul")
def _mul(c: Call) -> Any:
    x, y = _arrays(c)
    return _array(x * y)


@_on("Neg")
def _neg(c: Call) -> Any:
    return _array(-_arrays(c)[0])


@_on("Div", "Mod")
def _div(c: Call) -> Any:
    """Of integers, rounded towards zero: what is known not to be negative."""
    x, y = _arrays(c)
    if c.type(0).dtype.is_floating_point or not all(decided(a, ">=") for a in x.flat) or not all(
            decided(b - 1, ">=") for b in y.flat):
        return None
    return _array(x // y if c.op_type == "Div" else x % y)


@_on("Max", "Min")
def _extreme(c: Call) -> Any:
    """Where it is known which is larger."""
    first, *rest = np.broadcast_arrays(*_arrays(c))
    out = np.array(first, dtype=object)
    for other in rest:
        for place in np.ndindex(out.shape):
            left, right = out[place], other[place]
            larger = decided(left - right, ">=")
            if larger is None:
                return None
            out[place] = left if larger == (c.op_type == "Max") else right
    return out


@_on("Equal")
def _equal(c: Call) -> Any:
    """A size that is not known is none of the numbers that stand for something else, such as -1, nor any that it cannot be."""
    x, y = np.broadcast_arrays(*_arrays(c))
    out = np.zeros(x.shape, bool)
    for place in np.ndindex(x.shape):
        difference = x[place] - y[place]
        same = decided(difference, "==")
        if same is None:
            return None
        out[place] = same
    return known(out, bool_)


@_on("Where")
def _where(c: Call) -> Any:
    condition = c.content(0)
    return None if condition.dtype == object else _array(np.where(condition, *(c.content(i).astype(object) for i in (1, 2))))


@_on("Gather")
def _gather(c: Call) -> Any:
    places = c.content(1)
    return None if places.dtype == object else _array(np.take(c.content(0), places, c.axis(0)))


@_on("Concat")
def _concat(c: Call) -> Any:
    return _array(np.concatenate(_arrays(c), c.axis(0)))


@_on("Unsqueeze")
def _unsqueeze(c: Call) -> Any:
    x = c.content(0)
    axes = c.sizes(1) if c.has(1) else c.ints("axes")
    return _array(np.expand_dims(x, tuple(axes)))


@_on("Squeeze")
def _squeeze(c: Call) -> Any:
    axes = c.axes(1)
    return _array(np.squeeze(c.content(0), axes))


@_on("Reshape")
def _reshape(c: Call) -> Any:
    shape = c.sizes(1)
    return None if any(isinstance(size, Dim) for size in shape) else _array(c.content(0).reshape(shape))


@_on("Slice")
def _slice(c: Call) -> Any:
    x = c.content(0)
    if not c.has(1):
        starts, stops, steps = c.ints("starts"), c.ints("ends"), (1,) * len(c.ints("starts"))
        axes = c.ints("axes", tuple(range(len(starts))))
    else:
        starts, stops = c.sizes(1), c.sizes(2)
        axes = c.sizes(3) if c.has(3) else tuple(range(len(starts)))
        steps = c.sizes(4) if c.has(4) else (1,) * len(starts)
    where = [slice(None)] * x.ndim
    for axis, start, stop, step in zip(axes, starts, stops, steps, strict=True):
        if isinstance(start, Dim) or isinstance(stop, Dim):
            return None
        where[axis] = slice(start, None if stop < -x.shape[axis] and step < 0 else stop, step)
    return _array(x[tuple(where)])


@_on("ReduceProd")
def _prod(c: Call) -> Any:
    return _array(np.prod(c.content(0), axis=c.axes(1), keepdims=bool(c.int("keepdims", 1))))


@_on("ReduceSum")
def _sum(c: Call) -> Any:
    return _array(np.sum(c.content(0), axis=c.axes(1), keepdims=bool(c.int("keepdims", 1))))


@_on("Split")
def _split(c: Call) -> Any:
    x, axis = c.content(0), c.axis(0)
    sizes = c.sizes(1) if c.has(1) else c.ints("split")
    if sizes is None:
        return tuple(map(_array, np.array_split(x, c.outputs, axis)))
    return tuple(map(_array, np.split(x, np.cumsum(sizes)[:-1], axis)))


@_on("Shape")
def _shape(c: Call) -> Any:
    return np.array(c.shape(0), np.int64)


@_on("Size")
def _size(c: Call) -> Any:
    return np.asarray(c.content(0).size)


@_on("Transpose")
def _transpose(c: Call) -> Any:
    return _array(c.content(0).transpose(c.ints("perm")))
