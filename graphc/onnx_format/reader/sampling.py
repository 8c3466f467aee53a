"""GridSample: images read at places between their pixels (Jaderberg and others 2015: "Spatial transformer networks")."""

from __future__ import annotations

import itertools
import math

import graphc.ops as ops
from graphc.ir import Value
from graphc.onnx_format.reader.call import Call
from graphc.onnx_format.reader.limits import BadModel
from graphc.onnx_format.reader.table import reads
from graphc.types import Size, int64

_MODES = {"bilinear": "linear", "linear": "linear", "nearest": "nearest", "bicubic": "cubic", "cubic": "cubic"}


@reads("GridSample")
def _grid_sample(c: Call) -> Value:
    x, grid = c[0], c[1]
    n = x.ndim - 2
    mode = _MODES.get(c.text("mode", "bilinear" if c.opset < 20 else "linear"))
    padding = c.text("padding_mode", "zeros")
    if mode is None or padding not in ("zeros", "border", "reflection") or grid.shape[-1] != n:
        raise BadModel(f"sampling in the mode {c.text('mode')!r} with {padding!r} around it", got=f"{x.type} at {grid.type}")
    align = bool(c.int("align_corners", 0))
    spatial, out = tuple(x.shape[2:]), tuple(grid.shape[1:-1])
    count = math.prod(out)
    flat = ops.reshape(x, (*x.shape[:2], math.prod(spatial)))
    taps = []
    for k, size in enumerate(spatial):
        place = ops.slice(grid, (*(0 for _ in grid.shape[:-1]), n - 1 - k), (*grid.shape[:-1], n - k), (1,) * grid.ndim)
        place = ops.reshape(place, (grid.shape[0], 1, count))
        place = (place + 1.0) * ((size - 1) / 2) if align else ((place + 1.0) * size - 1.0) * 0.5
        if mode != "cubic":
            place = _brought_inside(place, size, padding, align)
        taps.append(_taps(place, size, mode, padding, align))
    total = None
    for chosen in itertools.product(*taps):
        index, weight, inside = None, None, None
        for (place, factor, within), size in zip(chosen, spatial):
            index = place if index is None else index * size + place
            weight = factor if weight is None else weight * factor
            inside = within if inside is None else inside & within
        shape = (*x.shape[:2], count)
        value = ops.gather(flat, ops.broadcast_to(index, shape), 2)
        value = ops.where(inside, value, 0) * weight
        total = value if total is None else total + value
    return ops.reshape(total, (*x.shape[:2], *out))


def _brought_inside(place: Value, size: Size, padding: str, align: bool) -> Value:
    if padding == "reflection":
        place = _reflected(place, size, align)
    return place if padding == "zeros" else ops.minimum(ops.maximum(place, 0), size - 1)


def _reflected(place: Value, size: Size, align: bool) -> Value:
    """Turned round at the centers of the outermost pixels, or at their edges."""
    low, span = (0.0, size - 1) if align else (-0.5, size)
    if span == 0:
        return ops.zeros_like(place)
    beyond = ops.abs(place - low)
    rest = ops.fmod(beyond, ops.full(place.type, span, place))
    turns = ops.floor(beyond / span)
    even = ops.eq(ops.fmod(turns, ops.full(place.type, 2, place)), 0)
    return ops.where(even, rest, span - rest) + low


def _taps(place: Value, size: Size, mode: str, padding: str, align: bool) -> list[tuple[Value, Value, Value]]:
    """The pixels along one dimension that a place is made of: their numbers, weights, and whether there are such."""
    if mode == "nearest":
        return [_tap(ops.round(place), ops.full(place.type, 1, place), size)]
    first = ops.floor(place)
    rest = place - first
    if mode == "linear":
        return [_tap(first, 1 - rest, size), _tap(first + 1, rest, size)]
    taps = []
    for k in range(-1, 3):
        pixel = _brought_inside(first + k, size, padding, align)
        taps.append(_tap(ops.round(pixel), _cubic(rest - k, abs_below_one=k in (0, 1)), size))
    return taps


def _cubic(distance: Value, abs_below_one: bool, a: float = -0.75) -> Value:
    """Keys 1981: "Cubic convolution interpolation for digital image processing", equation 15."""
    d = ops.abs(distance)
    if abs_below_one:
        return ((a + 2) * d - (a + 3)) * d * d + 1
    return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a


def _tap(pixel: Value, weight: Value, size: Size) -> tuple[Value, Value, Value]:
    inside = (pixel >= 0) & (pixel <= size - 1)
    index = ops.cast(ops.minimum(ops.maximum(pixel, 0), size - 1), dtype=int64)
    return index, weight, inside
