"""Resizing along a dimension whose size is a symbol: the tables of `graphc.frontend.resampling`, computed within the graph."""

from __future__ import annotations

import math
from typing import Any

import graphc.ops as ops
from graphc.dims import Dim
from graphc.frontend.creation import full
from graphc.frontend.indexing import index_select
from graphc.frontend.movement import expand, part, reshape, unsqueeze
from graphc.frontend.pointwise import cast, clamp, floor, maximum
from graphc.frontend.tensor import Tensor
from graphc.types import DType, float32, float64, int64


def is_symbolic(*sizes: Any) -> bool:
    """Whether one of the sizes is a symbol."""
    return any(isinstance(size, Dim) for size in sizes)


def nearest(x: Tensor, at: int, want: Any, factor: float | None, exact: bool) -> Tensor:
    """The nearest element of x at each of `want` places along a dimension."""
    size = x._data.shape[at]
    shape = tuple(x._data.shape)
    if factor is not None and not exact and abs(math.frexp(factor)[0]) == 0.5:  # a power of two, which rounds nothing
        if factor >= 1:
            times = int(factor)
            spread = expand(unsqueeze(x, at + 1), (*shape[: at + 1], times, *shape[at + 1 :]))
            return reshape(spread, (*shape[:at], want, *shape[at + 1 :]))
        return part(x, at, 0, (want - 1) * int(1 / factor) + 1, int(1 / factor))
    kind = float64 if x.dtype is float64 else float32
    place = _counted(want, kind) + (0.5 if exact else 0.0)
    table = cast(floor(place * _step(size, want, factor, False, kind)), int64)
    return index_select(x, at, clamp(table, max=_number(size - 1, int64)))


def linear(x: Tensor, at: int, want: Any, factor: float | None, aligned: bool) -> Tensor:
    """x between its elements, at `want` places along a dimension."""
    size = x._data.shape[at]
    kind = float64 if x.dtype is float64 else float32
    step, place = _step(size, want, factor, aligned, kind), _counted(want, kind)
    centre = place * step if aligned else maximum((place + 0.5) * step - 0.5, _number(0, kind))
    low = clamp(cast(centre, int64), max=_number(size - 1, int64))
    share = clamp(centre - low, 0, 1)
    shares = reshape(share, (want, *(1,) * (x.ndim - at - 1)))
    high = clamp(low + 1, max=_number(size - 1, int64))
    return index_select(x, at, low) * (1 - shares) + index_select(x, at, high) * shares


def _counted(count: Any, dtype: DType) -> Tensor:
    return ops.iota(shape=(count,), axis=0, dtype=dtype, like=Tensor)


def _number(value: Any, dtype: DType) -> Tensor:
    return full((), value, dtype=dtype)


def _step(size: Any, want: Any, factor: float | None, aligned: bool, kind: DType) -> Tensor:
    """How far apart the centres of neighbours in the result are in the input, in the precision of the computation."""
    if aligned:
        return _number(size - 1, kind) / _number(want - 1, kind) if want > 1 else _number(0, kind)
    if factor is not None and factor > 0:
        return _number(1.0 / factor, kind)
    return _number(size, kind) / _number(want, kind)
