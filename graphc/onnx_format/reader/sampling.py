"""GridSample: images read at places between their pixels; AffineGrid: such places."""

from __future__ import annotations

import math

import graphc.ops as ops
from graphc.ir import Value
from graphc.onnx_format.reader.call import Call
from graphc.onnx_format.reader.limits import BadModel
from graphc.onnx_format.reader.table import reads
from graphc.onnx_format.sampling import PADDINGS, affine_grid, sampled

_MODES = {"bilinear": "linear", "linear": "linear", "nearest": "nearest", "bicubic": "cubic", "cubic": "cubic"}


@reads("GridSample")
def _grid_sample(c: Call) -> Value:
    x, grid = c[0], c[1]
    n = x.ndim - 2
    mode = _MODES.get(c.text("mode", "bilinear" if c.opset < 20 else "linear"))
    padding = c.text("padding_mode", "zeros")
    if mode is None or padding not in PADDINGS or n < 1 or grid.ndim != n + 2 or grid.shape[-1] != n:
        raise BadModel(f"sampling in the mode {c.text('mode')!r} with {padding!r} around it", got=f"{x.type} at {grid.type}")
    sizes = tuple(x.shape[2:])
    flat = ops.reshape(x, (*x.shape[:2], math.prod(sizes)))
    places = []
    for k in reversed(range(n)):  # the last dimension's coordinate stands first
        place = ops.slice(grid, (*(0 for _ in grid.shape[:-1]), k), (*grid.shape[:-1], k + 1), (1,) * grid.ndim)
        places.append(ops.reshape(place, tuple(grid.shape[:-1])))
    out = sampled(flat, sizes, places, mode, padding, bool(c.int("align_corners", 0)))
    return out if out.dtype is x.dtype else ops.cast(out, dtype=x.dtype)  # of a grid in another precision


@reads("AffineGrid")
def _affine_grid(c: Call) -> Value:
    theta, sizes = c[0], c.sizes(1)[2:]
    n = len(sizes)
    if n not in (2, 3) or tuple(theta.shape[1:]) != (n, n + 1):
        raise BadModel(f"a grid of {n} dimensions", expected="maps [N, 2, 3] and 4 sizes, or [N, 3, 4] and 5",
                       got=str(theta.type))
    return affine_grid(theta, sizes, bool(c.int("align_corners", 0)))
