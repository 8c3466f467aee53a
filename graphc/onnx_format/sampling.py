"""What ONNX's GridSample and AffineGrid compute, in ops (Jaderberg and others 2015: "Spatial transformer networks"). As the
front end computes it, operation by operation: so its graphs are recognised by their likeness to these."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import graphc.ops as ops
from graphc.ir import Value
from graphc.types import Size, int64

PADDINGS = ("zeros", "border", "reflection")


def sampled(x: Value, sizes: Sequence[Size], grid: Sequence[Value], mode: str, padding: str, aligned: bool) -> Value:
    """The elements [N, C, *T] of an image [N, C, S], where S is the product of the sizes, at the coordinates [N, *T] of each
    dimension. `mode` is nearest, linear or cubic."""
    places = [(c + 1) / 2 * (n - 1) if aligned else ((c + 1) * n - 1) / 2 for c, n in zip(grid, sizes)]
    if mode != "cubic" and padding != "zeros":
        places = [_inside(place, n, padding, aligned) for place, n in zip(places, sizes)]
    if mode == "nearest":
        return _read(x, sizes, [ops.round(place) for place in places], padding)
    lows = [ops.floor(place) for place in places]
    rest = [place - low for place, low in zip(places, lows)]
    return _linear(x, sizes, lows, rest, padding) if mode == "linear" else _cubic(x, sizes, lows, rest, padding, aligned)


def _inside(place: Value, size: Size, padding: str, aligned: bool) -> Value:
    """A coordinate, moved into the image."""
    if padding == "reflection":
        place = _reflected(place, 0, size - 1) if aligned else _reflected(place, -0.5, size)
    return ops.where(place > 0, ops.where(place < size - 1, place, size - 1), 0)


def _reflected(place: Value, low: float, span: Size) -> Value:
    """Turned round at the centers of the outermost pixels, or at their edges."""
    if isinstance(span, int) and span == 0:
        return place * 0
    distance = ops.remainder(ops.abs(place - low), span * 2)
    return ops.where(distance <= span, distance, span * 2 - distance) + low


def _read(x: Value, sizes: Sequence[Size], pixels: Sequence[Value], padding: str) -> Value:
    """The elements at whole numbers; zeros where there are none, if the padding says so."""
    index = within = None
    for pixel, size in zip(pixels, sizes):
        if padding == "zeros":
            here = (pixel >= 0) & (pixel <= size - 1)
            within = here if within is None else within & here
            pixel = ops.where(here, pixel, 0)
        place = ops.cast(pixel, dtype=int64)
        index = place if index is None else index * size + place
    assert index is not None  # an image has dimensions
    n, *out = index.shape
    index = ops.broadcast_to(ops.reshape(index, (n, 1, math.prod(out))), (n, x.shape[1], math.prod(out)))
    read = ops.reshape(ops.gather(x, index, 2), (n, x.shape[1], *out))
    return read if within is None else ops.where(_for_channels(within), read, 0)


def _for_channels(value: Value) -> Value:
    return ops.reshape(value, (value.shape[0], 1, *value.shape[1:]))


def _linear(x: Value, sizes: Sequence[Size], lows: Sequence[Value], rest: Sequence[Value], padding: str) -> Value:
    total = None
    for corner in itertools.product((0, 1), repeat=len(sizes)):
        weight, pixels = None, []
        for step, low, share, size in zip(corner, lows, rest, sizes):
            factor = share if step else 1 - share
            weight = factor if weight is None else weight * factor
            pixel, last = low + step, size - 1
            pixels.append(pixel if padding == "zeros" else ops.where(pixel > last, last, pixel))
        assert weight is not None
        term = _read(x, sizes, pixels, padding) * _for_channels(weight)
        total = term if total is None else total + term
    assert total is not None
    return total


def _cubic(
    x: Value, sizes: Sequence[Size], lows: Sequence[Value], rest: Sequence[Value], padding: str, aligned: bool
) -> Value:
    weights = [_weights(share) for share in rest]

    def along(i: int, pixels: list[Value]) -> Value:
        """The sum over the dimensions from i on, of those before at these pixels."""
        if i == len(sizes):
            return _read(x, sizes, pixels, padding)
        total = None
        for step, weight in enumerate(weights[i]):
            pixel = lows[i] + (step - 1)
            if padding != "zeros":
                pixel = _inside(pixel, sizes[i], padding, aligned)
            term = along(i + 1, [*pixels, pixel]) * _for_channels(weight)
            total = term if total is None else total + term
        assert total is not None
        return total

    return along(0, [])


def _weights(d: Value, a: float = -0.75) -> tuple[Value, ...]:
    """Keys 1981: "Cubic convolution interpolation for digital image processing", equation 15."""

    def near(d: Value) -> Value:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: Value) -> Value:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    return far(d + 1), near(d), near(1 - d), far(2 - d)


def affine_grid(theta: Value, sizes: Sequence[Size], aligned: bool) -> Value:
    """The coordinates [N, *sizes, D] of an affine map [N, D, D + 1] of all pixels of an image of D dimensions."""
    n, count = theta.shape[0], len(sizes)
    points = ops.broadcast_to(affine_points(theta, sizes, aligned), (n, math.prod(sizes), count + 1))
    return ops.reshape(ops.matmul(points, ops.permute(theta, (0, 2, 1))), (n, *sizes, count))


def affine_points(like: Value, sizes: Sequence[Size], aligned: bool) -> Value:
    """The coordinates of each pixel, those in the last dimension first, and 1: [1, pixels, dimensions + 1]."""
    columns = []
    for i, size in reversed(list(enumerate(sizes))):
        line = _even(ops.iota(shape=(size,), axis=0, dtype=like.dtype, like=like), size, aligned)
        along = ops.reshape(line, tuple(size if i == j else 1 for j in range(len(sizes))))
        columns.append(ops.reshape(ops.broadcast_to(along, tuple(sizes)), (1, math.prod(sizes), 1)))
    return ops.concat(*columns, ops.full(columns[0].type, 1, columns[0]), axis=2)


def _even(counter: Value, size: Size, aligned: bool) -> Value:
    """Evenly spaced numbers between -1 and 1: the ends themselves, or the middles of intervals."""
    if not aligned:
        return (counter * 2 + 1) / size - 1
    return counter if isinstance(size, int) and size == 1 else counter * 2 / (size - 1) - 1
